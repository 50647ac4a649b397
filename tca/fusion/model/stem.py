"""What every stream goes through first: to float, pooled, standardised, not too wide, placed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.positions import Positions


class Moments:
    """Mean and standard deviation of each feature over any number of tokens, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, tokens: Tensor) -> None:
        """Count in tokens (N, D)."""
        exact = tokens.detach().double()
        self.count += len(exact)
        self.total = self.total + exact.sum(0)
        self.squares = self.squares + exact.square().sum(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (D,)."""
        mean = torch.as_tensor(self.total) / self.count
        variance = torch.as_tensor(self.squares) / self.count - mean.square()
        return mean, variance.clamp_min(0).sqrt()


class Stem(nn.Module):
    """Turns stored features (B, [T,] P, D) into tokens (B, T, P, D').

    Frozen features differ in scale by orders of magnitude, some by a constant; each is brought to
    mean 0 and standard deviation 1 with the statistics of the training rows (`standardise`).

    Args:
        segments: T; 1 where the store kept a time average.
        grid: patches (vertically, horizontally) as stored.
        width: features D.
        pool: patches are averaged pool x pool; must divide the grid.
        max_width: D' is the smaller of this and D.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, segments: int, grid: tuple[int, int], width: int, pool: int, max_width: int
    ) -> None:
        super().__init__()
        self.segments, self.stored_grid, self.pool = segments, grid, pool
        self.grid = (grid[0] // pool, grid[1] // pool)
        self.width = min(width, max_width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.narrow = nn.Linear(width, max_width) if width > max_width else nn.Identity()
        self.positions = Positions(segments, self.grid, self.width)

    @classmethod
    def of_stream(cls, name: str, config: ModelConfig, shapes: FeatureShapes) -> Stem:
        """Return the stem of the semantic or the motion stream of a store."""
        if name == "semantic":
            segments, width = shapes.segments or 1, shapes.semantic_width
            return cls(segments, shapes.grid, width, config.pool, config.max_width)
        return cls(shapes.motion_segments, (1, 1), shapes.motion_width, 1, config.max_width)

    def forward(self, features: Tensor) -> Tensor:
        """Return tokens (B, T, P, D')."""
        tokens = (self._pooled(features) - self.mean) / self.deviation
        placed: Tensor = self.positions(self.narrow(tokens))
        return placed

    def observe(self, features: Tensor, moments: Moments) -> None:
        """Add the tokens of a batch to `moments`."""
        moments.add(self._pooled(features).flatten(0, -2))

    def standardise(self, moments: Moments) -> None:
        """Bring what `moments` saw to mean 0 and standard deviation 1, from now on."""
        mean, deviation = moments.result()
        # A feature that never changes carries nothing; dividing by its rounding noise would.
        floor = 1e-3 * deviation.max().clamp_min(1e-6)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(floor))

    def _pooled(self, features: Tensor) -> Tensor:
        height, across = self.stored_grid
        expected = (self.segments, height * across, len(self.mean))
        if math.prod(features.shape[1:]) != math.prod(expected):
            # Reshaped all the same, several videos would pass for segments of one.
            raise ValueError(
                f"features of shape {tuple(features.shape)} are not (videos, segments, patches, "
                f"width) with {expected[0]} segments of {expected[1]} patches, {expected[2]} wide"
            )
        exact = features.to(self.mean.dtype)
        frames = exact.reshape(-1, self.segments, height, across, features.shape[-1])
        if self.pool > 1:
            rows, columns = self.grid
            frames = frames.reshape(
                -1, self.segments, rows, self.pool, columns, self.pool, frames.shape[-1]
            ).mean((3, 5))
        return frames.flatten(2, 3)
