"""GASM-CAST: graph attention in each stream, B-CAST between them.

Every branch that mixes tokens is residual behind a gate that starts at zero, so an untrained model
is its head alone, a low-rank linear readout, and training adds what helps.
"""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from tca.cache.layout import FeatureShapes
from tca.fusion.model.bcast import BCast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cross import across, cross_layers
from tca.fusion.model.graphs import along_graphs, graph_layers
from tca.fusion.model.variant import Tokens, Variant


class GasmCast(Variant):
    """The fusion model."""

    def __init__(self, config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> None:
        super().__init__(config, shapes, classes, layers=config.layers)
        self.graph_layers = graph_layers(self)
        self.layers = cross_layers(self, BCast)

    @override
    def fuse(self, tokens: Tokens) -> list[Tokens]:
        return across(self, self.layers, along_graphs(self, self.graph_layers, tokens))
