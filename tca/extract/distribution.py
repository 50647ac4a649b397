"""Numbers of a data set in a few words: extremes, median, histogram."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10

MOST_BINS = 12


@dataclass(frozen=True)
class Distribution:
    """How a number is spread.

    Attributes:
        min, median, max: of all values.
        histogram: count by value where few differ, else by `FROM-TO` with FROM <= value < TO;
            in ascending order, bins between that nothing falls into included.
    """

    min: float
    median: float
    max: float
    histogram: dict[str, int]


def describe(values: Iterable[float]) -> Distribution | None:
    """Return the distribution of `values`, None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    counts: Counter[float] = Counter(ordered)
    if len(counts) <= MOST_BINS:
        histogram = {f"{value:.12g}": count for value, count in counts.items()}
    else:
        width = _bin_width(ordered[-1] - ordered[0])
        bins = Counter(floor(value / width) for value in ordered)
        histogram = {
            f"{place * width:.12g}-{(place + 1) * width:.12g}": bins[place]
            for place in range(min(bins), max(bins) + 1)
        }
    return Distribution(ordered[0], statistics.median(ordered), ordered[-1], histogram)


def _bin_width(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten that parts `span` into at most `MOST_BINS` bins."""
    # One bin is lost to where the lowest value lies within its own.
    least = span / (MOST_BINS - 1)
    power = 10.0 ** floor(log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)
