"""From token streams to class scores, keeping coarse place and coarse time.

On a few hundred videos the head decides what is learned: an average over all tokens forgets order
and place, and attention pooling finds spurious ones. So every frame is averaged into a few cells,
every cell of every segment keeps its own place in a long vector, and one linear classifier reads
it. What a cell holds is split into its average over the clip and its departures from it: the
average says where the video was taken, the departures what happened. How much changed, whatever it
looked like, is kept on a finer grid (`MotionEnergy`): it tells where something moved even if its
look was never seen in training, which no linear reading of the departures can.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AMPLITUDE_SCALE = 20.0
SHARE_SCALE = 10.0
"""One energy stands among `rank` departures; scaled like this it is heard (docs/model.md)."""


class MotionEnergy(nn.Module):
    """Where a clip's tokens (B, T, P, D) change, and when: energies without direction.

    After the motion energy images of Bobick and Davis 2001, on features instead of pixels. Change
    is told from the clip's average and from the segment before, each as an amplitude beside the
    clip's usual one and as a share of its frame.

    Args:
        segments: T, at least 2.
        grid: patches (vertically, horizontally).
        cells: energies are averaged into at most cells x cells a frame.
    """

    def __init__(self, segments: int, grid: tuple[int, int], cells: int) -> None:
        super().__init__()
        self.grid = grid
        self.cells = _at_most(cells, grid)
        count = self.cells[0] * self.cells[1]
        # A frame of one cell has no shares.
        self.shares = count > 1
        self.features = (2 * segments - 1) * count * (1 + self.shares)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, features)."""
        found = []
        for change in (tokens - tokens.mean(1, keepdim=True), tokens[:, 1:] - tokens[:, :-1]):
            of_patch = change.square().mean(-1, keepdim=True)
            energy = pool(of_patch, self.grid, self.cells).squeeze(-1) + 1e-6
            amplitude = energy.sqrt()
            usual = amplitude.mean((1, 2), keepdim=True)
            found.append(AMPLITUDE_SCALE * (amplitude / usual - 1).flatten(1))
            if self.shares:
                of_frame = energy.mean(2, keepdim=True)
                found.append(SHARE_SCALE * (energy / of_frame - 1).flatten(1))
        return torch.cat(found, dim=-1)


class Readout(nn.Module):
    """Pools one stream (B, T, P, D) into a vector (B, features) that keeps coarse order.

    Args:
        segments: T.
        grid: patches (vertically, horizontally).
        width: features D.
        cells: the grid is averaged into at most cells x cells.
        rank: features kept of each cell and segment, by a projection all of them share.
        energy_cells: motion energy is averaged into at most this many cells each way.
    """

    def __init__(
        self,
        segments: int,
        grid: tuple[int, int],
        width: int,
        cells: int,
        rank: int,
        energy_cells: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.cells = _at_most(cells, grid)
        rank = min(rank, width)
        self.static = nn.Linear(width, rank, bias=False)
        nn.init.orthogonal_(self.static.weight)
        count = self.cells[0] * self.cells[1]
        self.features = count * rank
        if segments > 1:
            self.change = nn.Linear(width, rank, bias=False)
            nn.init.orthogonal_(self.change.weight)
            self.energy = MotionEnergy(segments, grid, energy_cells)
            self.features += segments * count * rank + self.energy.features

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, features)."""
        pooled = pool(tokens, self.grid, self.cells)
        average = pooled.mean(1, keepdim=True)
        parts = [self.static(average).flatten(1)]
        if pooled.shape[1] > 1:
            parts += [self.change(pooled - average).flatten(1), self.energy(tokens)]
        return torch.cat(parts, dim=-1)


def pool(tokens: Tensor, grid: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Return tokens (B, T, P, D) averaged from a grid of patches into cells."""
    if cells == grid:
        return tokens
    batch, segments, _, width = tokens.shape
    frames = tokens.reshape(batch * segments, *grid, width).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(frames, cells)
    return pooled.flatten(2).transpose(1, 2).reshape(batch, segments, -1, width)


def _at_most(cells: int, grid: tuple[int, int]) -> tuple[int, int]:
    return min(cells, grid[0]), min(cells, grid[1])


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
