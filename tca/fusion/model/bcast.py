"""Bottleneck cross-attention (B-CAST): the streams tell each other what they see, cheaply.

After Lee et al., "CAST: Cross-Attention in Space and Time for Video Action Recognition", NeurIPS
2023. There the module sits inside two 12-layer networks; here it follows two frozen ones.
"""

from __future__ import annotations

from torch import Tensor, nn

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cross import CrossAttention, FeedForward
from tca.fusion.model.gate import Gate


class Side(nn.Module):
    """One stream's part of a B-CAST layer: down, attend across, feed forward, up, gate."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        narrow = config.bottleneck
        self.down = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, narrow))
        self.cross = CrossAttention(narrow, narrow, config.heads, config.dropout)
        self.feed_forward = FeedForward(narrow, config) if config.ratio else None
        self.up = nn.Linear(narrow, width)
        self.gate = Gate(config.drop_path)

    def forward(self, tokens: Tensor, low: Tensor, other: Tensor) -> Tensor:
        """Return the stream after the layer.

        Args:
            tokens: the stream, (B, N, width).
            low: `down` of it, (B, N, bottleneck).
            other: `down` of the other stream, (B, M, bottleneck).
        """
        low = low + self.cross(low, other)
        if self.feed_forward is not None:
            low = low + self.feed_forward(low)
        after: Tensor = self.gate(tokens, low, self.up)
        return after


class BCast(nn.Module):
    """One layer: both streams attend to each other at once, in the bottleneck."""

    def __init__(self, semantic_width: int, motion_width: int, config: ModelConfig) -> None:
        super().__init__()
        self.semantic = Side(semantic_width, config)
        self.motion = Side(motion_width, config)

    def forward(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams, (B, N, semantic width) and (B, M, motion width), after the layer."""
        low_semantic, low_motion = self.semantic.down(semantic), self.motion.down(motion)
        return (
            self.semantic(semantic, low_semantic, low_motion),
            self.motion(motion, low_motion, low_semantic),
        )
