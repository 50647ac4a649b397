"""Attention along a graph: neighbours on the grid, look-alikes, and the tube through time.

The one class serves both streams: a segment line is a grid of one column, so that |dt| <= w is a
Chebyshev distance too.

With frames kept, the heads are divided as in ViViT's factorised dot-product attention (Arnab et
al. 2021, model 4): half of them look along the edges inside the frame, half along the tube. A joint
softmax would need every patch's own key list, which no fused kernel offers and which costs forty
times the memory of the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.gate import Gate

Triple = tuple[Tensor, Tensor, Tensor]
"""Query, key and value."""


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

    Similarity is the cosine, in float32 or better; of equals, the lower index is taken. A token is
    not counted among its own look-alikes.
    """
    size = tokens.shape[-2]
    count = min(count, size - 1)
    with torch.autocast(tokens.device.type, enabled=False):
        exact = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        unit = F.normalize(exact, dim=-1)
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


@dataclass(frozen=True)
class Graph:
    """Who attends to whom in one layer of graph attention, as one batch makes it.

    Of patches, a frame is a frame. Of segments, the one time line of a video is the frame and its
    segments are the nodes: T is 1 and P the number of segments.

    Attributes:
        edges: inside frames, bool (B, T, P, P): from a node (row) to those that it attends to.
        tube: T, if every node also attends to the same node of all frames; None if it does not.
        frame_weights: attention along `edges`, (B, T, heads, P, P); rows sum to 1, and what is no
            edge is 0. None if it was not asked for.
        tube_weights: attention through time, (B, P, heads, T, T).
    """

    edges: Tensor
    tube: int | None
    frame_weights: Tensor | None = None
    tube_weights: Tensor | None = None

    def adjacency(self) -> Tensor:
        """Return all edges between the T·P nodes, frame by frame, bool (B, T·P, T·P)."""
        batch, segments, nodes, _ = self.edges.shape
        same_frame = torch.eye(segments, dtype=torch.bool, device=self.edges.device)
        joined = self.edges[:, :, :, None] & same_frame[:, None, :, None]  # (B, T, P, T, P)
        if self.tube is not None:
            same_node = torch.eye(nodes, dtype=torch.bool, device=self.edges.device)
            joined = joined | same_node[None, None, :, None, :]
        return joined.reshape(batch, segments * nodes, segments * nodes)


class GraphAttention(nn.Module):
    """Pre-norm residual multi-head attention on tokens (B, T, P, D) whose edges form a graph.

    Args:
        width: features D.
        grid: patches (vertically, horizontally); P is their product.
        segments: T where tokens are joined through time, None where a frame stands alone.
        radius: Chebyshev distance of grid neighbours, the patch itself included.
        similar: further edges to the most similar patches of the same frame.
        config: heads (with `segments`, half of them look through time), dropout on attention
            weights, stochastic depth.
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
        *,
        radius: int,
        similar: int,
        config: ModelConfig,
    ) -> None:
        super().__init__()
        heads = config.heads
        self.size = head_width(width, heads)
        self.similar, self.dropout = similar, config.dropout
        self.tube_heads = heads // 2 if segments is not None else 0
        self.frame_heads = heads - self.tube_heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * heads * self.size)
        self.out = nn.Linear(heads * self.size, width)
        self.gate = Gate(config.drop_path)
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
        (query, key, value), tubes = self._packed(normed)
        mask = self._frame_mask(self.edges(normed), query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, mask, self._rate)
        mixed = mixed.transpose(1, 2).reshape(batch, segments, patches, -1)
        if tubes is not None:
            mask = self._tube_mask(query.dtype)
            along = F.scaled_dot_product_attention(*tubes, mask, self._rate)
            along = along.view(batch, patches, -1, segments, self.size).permute(0, 3, 1, 2, 4)
            mixed = torch.cat((mixed, along.flatten(-2)), dim=-1)
        after: Tensor = self.gate(tokens, mixed, self.out)
        return after

    def graph(self, tokens: Tensor, *, weights: bool = False) -> Graph:
        """Return the edges that `forward` uses on the same tokens.

        Args:
            tokens: (B, T, P, D).
            weights: also the attention along them, without dropout.
        """
        batch, segments, patches, _ = tokens.shape
        normed = self.norm(tokens)
        edges = self.edges(normed).expand(batch, segments, -1, -1)
        (query, key, _), tubes = self._packed(normed)
        graph = Graph(edges, segments if tubes is not None else None)
        if not weights:
            return graph
        frame = _weights(query, key, self._frame_mask(edges, query.dtype))
        frame = frame.view(batch, segments, *frame.shape[1:])
        tube = None
        if tubes is not None:
            tube = _weights(*tubes[:2], self._tube_mask(query.dtype))
            tube = tube.view(batch, patches, *tube.shape[1:])
        return replace(graph, frame_weights=frame, tube_weights=tube)

    def _packed(self, normed: Tensor) -> tuple[Triple, Triple | None]:
        """Return query, key and value of frames and of tubes.

        They are (B T, heads, P, size) and (B P, heads, T, size) each.
        """
        packed: Tensor = self.query_key_value(normed)
        # (3, B, T, P, heads, size)
        packed = packed.view(*normed.shape[:-1], 3, -1, self.size).movedim(3, 0)
        frame, tube = torch.split(packed, [self.frame_heads, self.tube_heads], dim=-2)
        query, key, value = frame.flatten(1, 2).transpose(-2, -3)
        if not self.tube_heads:
            return (query, key, value), None
        along, at, of = tube.permute(0, 1, 3, 4, 2, 5).flatten(1, 2)
        return (query, key, value), (along, at, of)

    def _frame_mask(self, edges: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to scores, (1 or B T, heads, P, P): -inf off the graph."""
        bias = self.frame_bias[:, self.down, self.across].to(dtype)
        edges = edges.reshape(-1, 1, *edges.shape[-2:])
        return bias.masked_fill(~edges, float("-inf"))

    def _tube_mask(self, dtype: torch.dtype) -> Tensor:
        return self.tube_bias[:, self.lag].to(dtype).unsqueeze(0)

    @property
    def _rate(self) -> float:
        return self.dropout if self.training else 0.0


def _weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax that the fused kernel keeps to itself, in float32 or better."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
