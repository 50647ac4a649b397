"""B-CAST alone: what the graphs are worth."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from tca.cache.layout import FeatureShapes
from tca.fusion.model.bcast import BCast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cross import across, cross_layers
from tca.fusion.model.variant import Tokens, Variant


class BCastAlone(Variant):
    """GASM-CAST without graph attention."""

    def __init__(self, config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> None:
        super().__init__(config, shapes, classes, layers=config.layers)
        self.layers = cross_layers(self, BCast)

    @override
    def fuse(self, tokens: Tokens) -> list[Tokens]:
        return across(self, self.layers, tokens)
