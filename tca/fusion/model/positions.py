"""Where a token sits: a function of the shape alone, never of the content."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """Adds fixed sine-cosine positions to tokens (B, T, P, D), with one learned scale.

    A third of the features holds the segment t, a third the row y and a third the column x, as in
    Vaswani et al. 2017, extended to several axes. The scale starts small: content comes first, and
    the similarity edges of the graphs must follow it.
    """

    table: Tensor

    def __init__(self, segments: int, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("table", _table(segments, grid, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens plus their positions, same shape."""
        return tokens + self.scale * self.table


def _table(segments: int, grid: tuple[int, int], width: int) -> Tensor:
    """Return (T, P, D) float32."""
    height, across = grid
    axes = torch.meshgrid(
        torch.arange(segments), torch.arange(height), torch.arange(across), indexing="ij"
    )
    share = -(-width // 3)
    parts = [_wave(axis.reshape(segments, -1), share) for axis in axes]
    # Interleaved, so that cutting to the width takes the same from every axis.
    return torch.stack(parts, dim=-1).flatten(-2)[..., :width].contiguous()


def _wave(place: Tensor, width: int) -> Tensor:
    frequency = 100.0 ** (-torch.arange((width + 1) // 2) / ((width + 1) // 2))
    angle = place[..., None].float() * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[..., :width]
