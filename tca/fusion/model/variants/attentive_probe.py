"""The attentive probe: one learned query a stream gathers its tokens, a linear classifier reads.

How V-JEPA judges frozen features (Bardes et al. 2024): cross-attention from a learned query to all
tokens of the last layer, a feed-forward, a linear classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cross import CrossAttention, FeedForward
from tca.fusion.model.head import Head
from tca.fusion.model.variant import Tokens, Variant


class AttentiveProbe(Variant):
    """A probe on each stream, side by side."""

    @override
    def make_head(self, config: ModelConfig, classes: int) -> nn.Module:
        widths = {name: self.width(name) for name in self.streams}
        return ProbeHead(widths, classes, config)


class ProbeHead(nn.Module):
    """Gathers each stream by a query of its own, concatenates, normalises, classifies."""

    def __init__(self, widths: dict[str, int], classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.probes = nn.ModuleDict({name: Probe(width, config) for name, width in widths.items()})
        self.norm = nn.LayerNorm(sum(widths.values()))
        self.dropout = nn.Dropout(config.head_dropout)
        self.classify = Head.classifier(sum(widths.values()), classes)

    def forward(self, tokens: Tokens) -> Tensor:
        """Return scores (B, classes)."""
        gathered = [probe(tokens[name].flatten(1, 2)) for name, probe in self.probes.items()]
        scores: Tensor = self.classify(self.dropout(self.norm(torch.cat(gathered, dim=-1))))
        return scores


class Probe(nn.Module):
    """One learned query and what it makes of tokens (B, N, D)."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.cross = CrossAttention(width, width, config.heads, config.dropout)
        self.feed_forward = FeedForward(width, config) if config.ratio else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, D)."""
        query = self.query.expand(tokens.shape[0], -1, -1)
        gathered = query + self.cross(query, tokens)
        if self.feed_forward is not None:
            gathered = gathered + self.feed_forward(gathered)
        one: Tensor = gathered[:, 0]
        return one
