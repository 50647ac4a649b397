"""Each stream alone, with its graph attention: what fusing them is worth."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graphs import along_graphs, graph_layers
from tca.fusion.model.variant import Tokens, Variant


class SemanticOnly(Variant):
    """GASM-CAST of the semantic stream, without B-CAST."""

    streams = ("semantic",)

    def __init__(self, config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> None:
        super().__init__(config, shapes, classes)
        self.graph_layers = graph_layers(self)

    @override
    def fuse(self, tokens: Tokens) -> list[Tokens]:
        return [along_graphs(self, self.graph_layers, tokens)]


class MotionOnly(SemanticOnly):
    """GASM-CAST of the motion stream, without B-CAST."""

    streams = ("motion",)
