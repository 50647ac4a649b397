"""What is changed about a batch of cached features before a model learns from it.

Everything is drawn by row: a function of `seed.data`, the epoch and the place of the row in the
epoch's order. So a training goes on in the middle of an epoch, models that share a pass see the
same, and so do the rows of any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import betaincinv  # type: ignore[import-untyped]
from torch import Tensor

from tca.cache.layout import Stream
from tca.errors import UsageError
from tca.fusion.model.stem import Moments
from tca.fusion.train.config import AugmentConfig

SHIFT, MIXUP = 3, 4
DROPOUT = {"semantic": 5, "motion": 6}
NOISE = {"semantic": 7, "motion": 8}
"""Third words of the seeds, behind those of `sampling.py`.

A stream has its own: what it gets must not depend on whether the other one is read.
"""


class Augmentation:
    """Shifts, mixes, disturbs and drops, in this order; all of it may be off.

    Args:
        config: what is done.
        seed: `seed.data`.
        streams: what is read.
        classes: how many there are.

    Raises:
        UsageError: `shift` does not fit the streams.
    """

    def __init__(
        self, config: AugmentConfig, seed: int, streams: Mapping[str, Stream], classes: int
    ) -> None:
        self.config, self.seed, self.classes = config, seed, classes
        self._statistics: dict[str, tuple[Tensor, Tensor]] = {}
        if config.shift:
            _refuse_shift(config.shift, streams)

    @property
    def needs_statistics(self) -> bool:
        """Whether `fit` has to be called first."""
        return self.config.token_dropout > 0 or self.config.noise > 0

    def fit(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure each feature of each stream in `batches`.

        As stored, not as a model pools them: models that share a batch may pool differently.
        """
        moments: dict[str, Moments] = {}
        for inputs in batches:
            for name, features in inputs.items():
                moments.setdefault(name, Moments()).add(features.flatten(0, -2))
        for name, measured in moments.items():
            mean, deviation = measured.result()
            self._statistics[name] = mean.float(), deviation.float()

    def __call__(
        self, inputs: Mapping[str, Tensor], label: Tensor, epoch: int, first: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return what to learn from instead; the arguments stay as they are.

        Args:
            inputs: by stream, the features (B, …, D) of neighbours in the order of the epoch.
            label: their classes (B,).
            epoch: its number.
            first: where in its order the first of the rows stands.

        Returns:
            The streams in float32 if something was computed, and the target as for `fusion_loss`.
        """
        config, target = self.config, label
        found = dict(inputs)
        drawn = _Drawn(self.seed, epoch, first, len(label))
        if config.shift:
            raw = drawn.raw(SHIFT, 1)[:, 0] % np.uint64(2 * config.shift + 1)
            by = torch.from_numpy(raw.astype(np.int64) - config.shift).to(label.device)
            found = {name: _shifted(name, features, by) for name, features in found.items()}
        if config.mixup:
            share, partner = (part.to(label.device) for part in _pairs(drawn, config.mixup))
            found = {name: _mixed(numbers, share, partner) for name, numbers in found.items()}
            target = _mixed(F.one_hot(label, self.classes), share, partner)
        for name in found:
            if config.noise:
                found[name] = self._disturbed(name, found[name], drawn)
            if config.token_dropout:
                found[name] = self._dropped(name, found[name], drawn)
        return found, target

    def _disturbed(self, name: str, features: Tensor, drawn: _Drawn) -> Tensor:
        _, deviation = self._statistics[name]
        result = features.to(torch.float32, copy=True)
        generator = torch.Generator(result.device)
        for row, seed in zip(result, drawn.raw(NOISE[name], 1)[:, 0].tolist(), strict=True):
            generator.manual_seed(seed >> 1)
            noise = torch.randn(row.shape, generator=generator, device=row.device)
            row.addcmul_(noise, deviation, value=self.config.noise)
        return result

    def _dropped(self, name: str, features: Tensor, drawn: _Drawn) -> Tensor:
        mean, _ = self._statistics[name]
        tokens = features.shape[1:-1]
        drawn_here = drawn.uniform(DROPOUT[name], math.prod(tokens))
        dropped = torch.from_numpy(drawn_here < self.config.token_dropout).to(features.device)
        # The mean is what standardising makes 0 of: nothing is known of the place. A stored 0 is no
        # such thing, its features lie many deviations away from those of any patch.
        return torch.where(dropped.view(-1, *tokens, 1), mean, features.float())


class _Drawn:
    """Random numbers of neighbouring rows of an epoch's order; every place has its own."""

    def __init__(self, seed: int, epoch: int, first: int, rows: int) -> None:
        self.seed, self.epoch, self.first, self.rows = seed, epoch, first, rows

    def raw(self, word: int, each: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return (rows, each) raw numbers for the purpose that `word` stands for."""
        # Raw bits: numpy promises their stream for good. Place p has those from p * each on.
        bits = np.random.PCG64([self.seed, self.epoch, word]).advance(self.first * each)
        return bits.random_raw(self.rows * each).reshape(self.rows, each)

    def uniform(self, word: int, each: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (rows, each) numbers in [0, 1)."""
        bits = (self.raw(word, each) >> np.uint64(11)).astype(np.float64)
        return bits * 2.0**-53


def _pairs(drawn: _Drawn, alpha: float) -> tuple[Tensor, Tensor]:
    """Return how much of each row stays, (B,), and with which row of the batch it is mixed, (B,).

    Rows 2k and 2k + 1 of the epoch's order are a pair. Where the batch holds one of them only, it
    stays as it is: the other may be in another process.
    """
    share = betaincinv(alpha, alpha, drawn.uniform(MIXUP, 1)[:, 0])
    places = np.arange(drawn.rows)
    partner = ((places + drawn.first) ^ 1) - drawn.first
    alone = (partner < 0) | (partner >= drawn.rows)
    share[alone], partner[alone] = 1.0, places[alone]
    return torch.from_numpy(share.astype(np.float32)), torch.from_numpy(partner)


def _mixed(numbers: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    exact = numbers.float()
    kept = share.view(-1, *[1] * (exact.dim() - 1))
    return exact * kept + exact[partner] * (1 - kept)


def _shifted(name: str, features: Tensor, by: Tensor) -> Tensor:
    """Return features whose segment t is what t - by was; what comes in at an end is repeated."""
    if not _has_segments(name, features.dim() - 1):
        return features
    segments = features.shape[1]
    at = torch.arange(segments, device=features.device) - by[:, None]
    rows = torch.arange(len(features), device=features.device)[:, None]
    return features[rows, at.clamp(0, segments - 1)]


def _has_segments(name: str, dimensions: int) -> bool:
    return name == "motion" or dimensions == 3


def _refuse_shift(shift: int, streams: Mapping[str, Stream]) -> None:
    segments = {
        name: stream.row_shape[0]
        for name, stream in streams.items()
        if _has_segments(name, len(stream.row_shape))
    }
    counts = sorted(set(segments.values()))
    if len(counts) != 1:
        there = " and ".join(f"{count} of {name}" for name, count in segments.items())
        raise UsageError(
            f"train.augment.shift={shift} moves all streams alike by whole segments, and what is "
            f"read has {there or 'none'}; set it to 0."
        )
    if shift >= counts[0]:
        raise UsageError(
            f"train.augment.shift={shift} would move {counts[0]} segments out of sight; set it "
            f"below {counts[0]}."
        )
