"""Attention along a graph: neighbours on the grid, look-alikes, and the tube through time.

The one class serves both streams: a segment line is a grid of one column, so that |dt| <= w is a
Chebyshev distance too.

With frames kept, the heads are divided as in ViViT's factorised dot-product attention (Arnab et
al. 2021, model 4): half of them look along the edges inside the frame, half along the tube. A joint
softmax would need every patch's own key list, which no fused kernel offers and which costs forty
times the memory of the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def head_width(width: int, heads: int) -> int:
    """Return features a head: enough to cover `width`, in the eights that fused kernels want."""
    return -(-width // (8 * heads)) * 8


def grid_offsets(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return for each pair of patches the steps down and across from the first, both (P, P)."""
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    down, across = y.flatten(), x.flatten()
    return down[None, :] - down[:, None], across[None, :] - across[:, None]


@torch.no_grad()
def similar_edges(tokens: Tensor, count: int) -> Tensor:
    """Return which `count` others each token is most similar to, bool (..., P, P).

    Similarity is the cosine in float32; of equals, the lower index is taken. A token is not counted
    among its own look-alikes.
    """
    size = tokens.shape[-2]
    count = min(count, size - 1)
    with torch.autocast(tokens.device.type, enabled=False):
        unit = F.normalize(tokens.float(), dim=-1)
        cosine = unit @ unit.transpose(-1, -2)
    itself = torch.eye(size, dtype=torch.bool, device=tokens.device)
    if count == 0:
        return torch.zeros_like(cosine, dtype=torch.bool)
    cosine = cosine.masked_fill(itself, -2.0)
    # topk promises nothing about equals, so only its smallest value is used.
    least = cosine.topk(count, dim=-1).values[..., -1:]
    above = cosine > least
    equal = cosine == least
    room = count - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= room))


class GraphAttention(nn.Module):
    """Pre-norm residual multi-head attention on tokens (B, T, P, D) whose edges form a graph.

    Args:
        width: features D.
        grid: patches (vertically, horizontally); P is their product.
        segments: T where tokens are joined through time, None where a frame stands alone.
        heads: attention heads; with `segments`, half of them look through time.
        radius: Chebyshev distance of grid neighbours, the patch itself included.
        similar: further edges to the most similar patches of the same frame.
        dropout: on attention weights.
    """

    down: Tensor
    across: Tensor
    near: Tensor
    lag: Tensor

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        segments: int | None,
        heads: int,
        radius: int,
        similar: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.size = head_width(width, heads)
        self.similar, self.dropout = similar, dropout
        self.tube_heads = heads // 2 if segments is not None else 0
        self.frame_heads = heads - self.tube_heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * heads * self.size)
        self.out = nn.Linear(heads * self.size, width)
        self.gate = nn.Parameter(torch.zeros(()))
        down, across = grid_offsets(grid)
        near = torch.maximum(down.abs(), across.abs()) <= radius
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("down", down + grid[0] - 1, persistent=False)
        self.register_buffer("across", across + grid[1] - 1, persistent=False)
        self.frame_bias = nn.Parameter(
            torch.zeros(self.frame_heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        )
        if segments is not None:
            time = torch.arange(segments)
            lag = time[None, :] - time[:, None] + segments - 1
            self.register_buffer("lag", lag, persistent=False)
            self.tube_bias = nn.Parameter(torch.zeros(self.tube_heads, 2 * segments - 1))

    def edges(self, normed: Tensor) -> Tensor:
        """Return the edges inside each frame, bool (P, P) or (B, T, P, P), True where attended."""
        if self.similar == 0:
            return self.near
        return self.near | similar_edges(normed, self.similar)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape, each with what its neighbours gave."""
        batch, segments, patches, _ = tokens.shape
        normed = self.norm(tokens)
        packed = self.query_key_value(normed)
        # (3, B, T, P, heads, size)
        packed = packed.view(batch, segments, patches, 3, -1, self.size).movedim(3, 0)
        frame, tube = packed.split((self.frame_heads, self.tube_heads), dim=-2)
        mixed = [self._in_frames(frame, self.edges(normed))]
        if self.tube_heads:
            mixed.append(self._along_tubes(tube))
        branch: Tensor = self.out(torch.cat(mixed, dim=-2).flatten(-2))
        return tokens + self.gate * branch

    def _in_frames(self, packed: Tensor, edges: Tensor) -> Tensor:
        _, batch, segments, patches, heads, _ = packed.shape
        query, key, value = packed.flatten(1, 2).transpose(-2, -3)  # each (B T, heads, P, size)
        bias = self.frame_bias[:, self.down, self.across].to(query.dtype)
        if edges.dim() == 4:
            edges = edges.flatten(0, 1).unsqueeze(1)
        mask = bias.masked_fill(~edges, float("-inf"))
        if mask.dim() == 3:
            mask = mask.unsqueeze(0)
        mixed = F.scaled_dot_product_attention(query, key, value, mask, self._rate)
        return mixed.transpose(1, 2).reshape(batch, segments, patches, heads, self.size)

    def _along_tubes(self, packed: Tensor) -> Tensor:
        _, batch, segments, patches, heads, _ = packed.shape
        # (3, B P, heads, T, size)
        query, key, value = packed.permute(0, 1, 3, 4, 2, 5).flatten(1, 2)
        bias = self.tube_bias[:, self.lag].to(query.dtype).unsqueeze(0)
        mixed = F.scaled_dot_product_attention(query, key, value, bias, self._rate)
        return mixed.view(batch, patches, heads, segments, self.size).permute(0, 3, 1, 2, 4)

    @property
    def _rate(self) -> float:
        return self.dropout if self.training else 0.0
