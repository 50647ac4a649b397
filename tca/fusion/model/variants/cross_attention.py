"""The vanilla peer: GASM-CAST whose streams attend to each other in their own widths.

After Vaswani et al. 2017, pre-norm, both ways at once as in ViLBERT (Lu et al. 2019); everything
but the B-CAST layers is GASM-CAST's, so that a difference is the bottleneck's. It may have over
20 M parameters (`model.allow_large`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cross import CrossAttention, FeedForward, across, cross_layers
from tca.fusion.model.gate import Gate
from tca.fusion.model.graphs import along_graphs, graph_layers
from tca.fusion.model.variant import Tokens, Variant


class CrossAttentionOnly(Variant):
    """GASM-CAST with full-width cross-attention in place of B-CAST."""

    def __init__(self, config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> None:
        super().__init__(config, shapes, classes, layers=config.layers)
        self.graph_layers = graph_layers(self)
        self.layers = cross_layers(self, TwoWay)

    @override
    def fuse(self, tokens: Tokens) -> list[Tokens]:
        return across(self, self.layers, along_graphs(self, self.graph_layers, tokens))


class Side(nn.Module):
    """One stream's part of a layer: attend across, feed forward, both residual and gated."""

    def __init__(self, width: int, other_width: int, config: ModelConfig) -> None:
        super().__init__()
        self.cross = CrossAttention(width, other_width, config.heads, config.dropout)
        self.cross_gate = Gate(config.drop_path)
        self.feed_forward = FeedForward(width, config) if config.ratio else None
        self.feed_forward_gate = Gate(config.drop_path) if config.ratio else None

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        """Return tokens (B, N, width) after they attended to `other` (B, M, other width)."""
        tokens = self.cross_gate(tokens, self.cross.mix(tokens, other), self.cross.out)
        feed = self.feed_forward
        if feed is not None and self.feed_forward_gate is not None:
            tokens = self.feed_forward_gate(tokens, feed.widen(tokens), feed.narrow)
        return tokens


class TwoWay(nn.Module):
    """One layer: both streams attend to each other at once, each in its own width."""

    def __init__(self, semantic_width: int, motion_width: int, config: ModelConfig) -> None:
        super().__init__()
        self.semantic = Side(semantic_width, motion_width, config)
        self.motion = Side(motion_width, semantic_width, config)

    def forward(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams, (B, N, semantic width) and (B, M, motion width), after the layer."""
        return self.semantic(semantic, motion), self.motion(motion, semantic)
