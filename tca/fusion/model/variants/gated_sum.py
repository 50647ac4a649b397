"""A gated sum: how much each stream counts is decided feature by feature, video by video.

The gated multimodal unit of Arevalo et al., "Gated Multimodal Units for Information Fusion", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.head import Head, Readout
from tca.fusion.model.variant import STREAMS, Tokens, Variant


class GatedSum(Variant):
    """Late fusion by a gated sum of both streams' vectors, `model.bottleneck` wide."""

    @override
    def make_head(self, config: ModelConfig, classes: int) -> nn.Module:
        return GatedHead(self.readouts(config.cells, config.energy_cells), classes, config)


class GatedHead(nn.Module):
    """Reads each stream, weighs them against each other, classifies the sum."""

    def __init__(self, readouts: dict[str, Readout], classes: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.bottleneck
        features = {name: readout.features for name, readout in readouts.items()}
        self.readouts = nn.ModuleDict(readouts)
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(size, elementwise_affine=False) for name, size in features.items()}
        )
        self.project = nn.ModuleDict(
            {name: nn.Linear(size, width) for name, size in features.items()}
        )
        self.weigh = nn.Linear(sum(features.values()), width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classify = Head.classifier(width, classes)

    def forward(self, tokens: Tokens) -> Tensor:
        """Return scores (B, classes)."""
        vectors = [
            self.dropout(self.norms[name](self.readouts[name](tokens[name]))) for name in STREAMS
        ]
        semantic, motion = (
            torch.tanh(self.project[name](vector))
            for name, vector in zip(STREAMS, vectors, strict=True)
        )
        share = torch.sigmoid(self.weigh(torch.cat(vectors, dim=-1)))
        scores: Tensor = self.classify(share * semantic + (1 - share) * motion)
        return scores
