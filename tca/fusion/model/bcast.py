"""Bottleneck cross-attention (B-CAST): the streams tell each other what they see, cheaply.

After Lee et al., "CAST: Cross-Attention in Space and Time for Video Action Recognition", NeurIPS
2023. There the module sits inside two 12-layer networks; here it follows two frozen ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tca.fusion.model.graph_attention import head_width


class CrossAttention(nn.Module):
    """Multi-head attention from tokens (B, N, D) to other tokens (B, M, D), pre-normed."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size, self.dropout = heads, head_width(width, heads), dropout
        self.norm = nn.LayerNorm(width)
        self.other_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * self.size)
        self.key_value = nn.Linear(width, 2 * heads * self.size)
        self.out = nn.Linear(heads * self.size, width)

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        """Return what `tokens` take from `other`, (B, N, D)."""
        batch, count, _ = tokens.shape
        query = self.query(self.norm(tokens)).view(batch, count, self.heads, self.size)
        packed = self.key_value(self.other_norm(other))
        packed = packed.view(batch, other.shape[1], 2, self.heads, self.size)
        key, value = packed.permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, dropout_p=rate)
        taken: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return taken


class Side(nn.Module):
    """One stream's part of a B-CAST layer: down, attend across, feed forward, up, gate.

    Args:
        width: features of the stream.
        bottleneck: features of the attention.
        heads: attention heads.
        ratio: feed-forward width over the bottleneck.
        dropout: on attention weights and in the feed-forward.
    """

    def __init__(
        self, width: int, bottleneck: int, heads: int, ratio: float, dropout: float
    ) -> None:
        super().__init__()
        hidden = round(ratio * bottleneck)
        self.down = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, bottleneck))
        self.cross = CrossAttention(bottleneck, heads, dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(bottleneck),
            nn.Linear(bottleneck, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, bottleneck),
        )
        self.up = nn.Linear(bottleneck, width)
        # Zero here and nothing but here: with the projection at zero too, neither would get a
        # gradient.
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, low: Tensor, other: Tensor) -> Tensor:
        """Return the stream after the layer.

        Args:
            tokens: the stream, (B, N, width).
            low: `down` of it, (B, N, bottleneck).
            other: `down` of the other stream, (B, M, bottleneck).
        """
        low = low + self.cross(low, other)
        low = low + self.feed_forward(low)
        branch: Tensor = self.up(low)
        return tokens + self.gate * branch


class BCast(nn.Module):
    """One layer: both streams attend to each other at once, in the bottleneck."""

    def __init__(
        self,
        semantic_width: int,
        motion_width: int,
        bottleneck: int,
        heads: int,
        ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.semantic = Side(semantic_width, bottleneck, heads, ratio, dropout)
        self.motion = Side(motion_width, bottleneck, heads, ratio, dropout)

    def forward(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams, (B, N, semantic width) and (B, M, motion width), after the layer."""
        low_semantic, low_motion = self.semantic.down(semantic), self.motion.down(motion)
        return (
            self.semantic(semantic, low_semantic, low_motion),
            self.motion(motion, low_motion, low_semantic),
        )
