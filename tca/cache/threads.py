"""The threads that copy rows, shared by all stores of a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

from tca.cache.format import Array

T = TypeVar("T")

MOST = 4
"""More threads wait for Python's lock longer than they copy; docs/benchmarks.md has the numbers."""

WORTH_SHARING = 1 << 20
"""Bytes: fewer are copied faster by one thread than they are handed out."""

SMALL_ROW = 32 << 10
"""Bytes: a smaller row costs more Python than copying, which threads cannot do side by side."""


def reading_threads() -> int:
    """Return how many threads copy rows: one a core that this process may use, four at most."""
    return min(MOST, len(os.sched_getaffinity(0)))


def threads_for(rows: Array) -> int:
    """Return how many threads should fill `rows`, an array whose first axis is rows."""
    if rows.nbytes < WORTH_SHARING or rows.nbytes < SMALL_ROW * len(rows):
        return 1
    return min(reading_threads(), len(rows))


def side_by_side(work: Callable[[T], None], parts: Sequence[T]) -> None:
    """Do `work` on every part, the first by the calling thread instead of waiting.

    When it returns or raises, no part is being worked on. Raises what the first of the parts raised
    that did.
    """
    waiting = [_pool().submit(work, part) for part in parts[1:]]
    try:
        work(parts[0])
    finally:
        failures = [future.exception() for future in waiting]
    for failure in failures:
        if failure is not None:
            raise failure


def take(source: Array, places: Array, out: Array) -> None:
    """Copy `source[places]`, rows of a C-contiguous array, into `out`.

    As `torch.index_select`, which in any thread but the main one may have one core to itself.
    """

    def copy(part: Array) -> None:
        # Clipping is what lets numpy write to `out` itself; callers know their places.
        np.take(source, places[part], axis=0, out=out[part[0] : part[-1] + 1], mode="clip")

    if len(places):
        side_by_side(copy, np.array_split(np.arange(len(places)), threads_for(out)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, reading_threads() - 1), "tca-read")


# A forked process (a worker of torch's DataLoader, say) has the pool but none of its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
