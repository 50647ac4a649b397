"""Numbers of a data set in a few words: extremes, percentiles, mean, histogram."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

MOST_BINS = 12

OUTLYING = 4
"""A histogram with a range over this many times that of its middle 98 % has wider outer bins."""


@dataclass(frozen=True)
class Distribution:
    """How a number is spread.

    Attributes:
        min, p5, median, mean, p95, max: of all values; p5 and p95 are percentiles.
        histogram: count by value where few differ, else by `FROM-TO` with FROM <= value < TO;
            in ascending order, bins between that nothing falls into included. Where a few values
            lie far away, the first or the last bin is wider and holds them.
    """

    min: float
    p5: float
    median: float
    mean: float
    p95: float
    max: float
    histogram: dict[str, int]


def describe(values: Iterable[float]) -> Distribution | None:
    """Return the distribution of `values`, None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    p5, p95 = (float(number) for number in np.percentile(ordered, (5, 95)))
    return Distribution(
        min=ordered[0],
        p5=p5,
        median=statistics.median(ordered),
        mean=statistics.fmean(ordered),
        p95=p95,
        max=ordered[-1],
        histogram=_histogram(ordered),
    )


def _histogram(ordered: Sequence[float]) -> dict[str, int]:
    counts = Counter(ordered)
    if len(counts) <= MOST_BINS:
        return {f"{value:.12g}": count for value, count in counts.items()}
    low, high = ordered[0], ordered[-1]
    usual_low, usual_high = (float(number) for number in np.percentile(ordered, (1, 99)))
    if high - low > OUTLYING * (usual_high - usual_low) > 0:
        low, high = usual_low, usual_high
    width = _bin_width(high - low)
    first, last = floor(low / width), floor(high / width)
    bins = Counter(min(max(floor(value / width), first), last) for value in ordered)
    edges = [place * width for place in range(first, last + 2)]
    edges[0] = min(edges[0], floor(ordered[0] / width) * width)
    edges[-1] = max(edges[-1], (floor(ordered[-1] / width) + 1) * width)
    return {
        f"{edges[place - first]:.12g}-{edges[place - first + 1]:.12g}": bins[place]
        for place in range(first, last + 1)
    }


def _bin_width(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten that parts `span` into at most `MOST_BINS` bins."""
    # One bin is lost to where the lowest value lies within its own.
    least = span / (MOST_BINS - 1)
    power = 10.0 ** floor(log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)
