"""From token streams to class scores, keeping coarse place and coarse time.

On a few hundred videos the head decides what is learned: an average over all tokens forgets order
and place, and attention pooling finds spurious ones. So every frame is averaged into a few cells,
every cell of every segment keeps its own place in a long vector, and one linear classifier reads
it. What a cell holds is split into its average over the clip and its departures from it: the
average says where the video was taken, the departures what happened. How strong a departure is,
whatever its direction, is kept as a feature of its own: it tells where something moved even if its
look was never seen in training, which no linear reading of the departures can.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRENGTH_SCALE = 20.0
"""One strength stands among `rank` departures; scaled like this it is heard (docs/model.md)."""


class Readout(nn.Module):
    """Pools one stream (B, T, P, D) into a vector (B, features) that keeps coarse order.

    Args:
        segments: T.
        grid: patches (vertically, horizontally).
        width: features D.
        cells: the grid is averaged into at most cells x cells.
        rank: features kept of each cell and segment, by a projection all of them share.
    """

    def __init__(
        self, segments: int, grid: tuple[int, int], width: int, cells: int, rank: int
    ) -> None:
        super().__init__()
        self.grid = grid
        self.cells = (min(cells, grid[0]), min(cells, grid[1]))
        rank = min(rank, width)
        self.static = nn.Linear(width, rank, bias=False)
        nn.init.orthogonal_(self.static.weight)
        count = self.cells[0] * self.cells[1]
        self.features = count * rank
        if segments > 1:
            self.change = nn.Linear(width, rank, bias=False)
            nn.init.orthogonal_(self.change.weight)
            self.features += segments * count * (rank + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, features)."""
        pooled = self._pool(tokens)
        average = pooled.mean(1, keepdim=True)
        parts = [self.static(average).flatten(1)]
        if pooled.shape[1] > 1:
            departure = pooled - average
            parts.append(self.change(departure).flatten(1))
            strength = departure.square().mean(-1).add(1e-6).sqrt()
            usual = strength.mean((1, 2), keepdim=True)
            parts.append(STRENGTH_SCALE * (strength / usual - 1).flatten(1))
        return torch.cat(parts, dim=-1)

    def _pool(self, tokens: Tensor) -> Tensor:
        if self.cells == self.grid:
            return tokens
        batch, segments, _, width = tokens.shape
        frames = tokens.reshape(batch * segments, *self.grid, width).permute(0, 3, 1, 2)
        pooled = F.adaptive_avg_pool2d(frames, self.cells)
        return pooled.flatten(2).transpose(1, 2).reshape(batch, segments, -1, width)


class Head(nn.Module):
    """Pools each stream, concatenates, normalises, classifies."""

    def __init__(self, readouts: dict[str, Readout], classes: int, dropout: float) -> None:
        super().__init__()
        self.readouts = nn.ModuleDict(readouts)
        features = sum(readout.features for readout in readouts.values())
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classify = self.classifier(features, classes)

    def forward(self, streams: dict[str, Tensor]) -> Tensor:
        """Return scores (B, classes) of streams (B, T, P, D)."""
        vectors = [readout(streams[name]) for name, readout in self.readouts.items()]
        scores: Tensor = self.classify(self.dropout(self.norm(torch.cat(vectors, dim=-1))))
        return scores

    @staticmethod
    def classifier(features: int, classes: int) -> nn.Linear:
        """Return a linear classifier with equal scores to begin with.

        A random one on thousands of features must first be unlearned.
        """
        classify = nn.Linear(features, classes)
        nn.init.zeros_(classify.weight)
        nn.init.zeros_(classify.bias)
        return classify
