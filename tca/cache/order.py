"""Which row comes when: pure functions of seed, epoch and settings, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Order:
    """All rows of an epoch in the order in which all ranks together use them.

    Attributes:
        rows: row numbers.
        windows: where in `rows` each window ends; rows of one window are read together. Empty
            where rows are read batch by batch.
    """

    rows: Rows
    windows: Rows


@dataclass(frozen=True)
class Plan:
    """What one rank reads from some position of an epoch on.

    Attributes:
        rows: row numbers in the order of use.
        batches: where in `rows` each batch ends; two equal ends are an empty batch.
        firsts: where in the order of the epoch each batch begins.
        positions: how many rows of the epoch all ranks together have used after each batch.
        windows: where in `rows` each window ends; no window is empty.
    """

    rows: Rows
    batches: list[int]
    firsts: list[int]
    positions: list[int]
    windows: list[int]


def as_given(rows: Rows) -> Order:
    """Return the rows in the order in which they are given."""
    return Order(rows, _NONE)


def shuffled_rows(rows: Rows, seed: int, epoch: int) -> Order:
    """Return the rows in an order in which any may follow any."""
    return Order(rows[np.argsort(_keys(len(rows), seed, epoch), kind="stable")], _NONE)


def shuffled_blocks(
    rows: Rows, seed: int, epoch: int, block_rows: int, buffer_blocks: int
) -> Order:
    """Return the rows window by window.

    A block is those of `rows` that lie in one range of `block_rows` neighbouring rows of the
    store. Blocks are shuffled, `buffer_blocks` of them make a window, and the rows of a window are
    shuffled.
    """
    rows = np.sort(rows)
    blocks, of_row = np.unique(rows // block_rows, return_inverse=True)
    keys = _keys(len(blocks) + len(rows), seed, epoch)
    window_of_block = np.empty(len(blocks), dtype=np.int64)
    shuffled = np.argsort(keys[: len(blocks)], kind="stable")
    window_of_block[shuffled] = np.arange(len(blocks)) // buffer_blocks
    window = window_of_block[of_row]
    return Order(
        rows[np.lexsort((keys[len(blocks) :], window))], np.cumsum(np.bincount(window), dtype="i8")
    )


def plan(order: Order, batch_size: int, rank: int, world_size: int, start: int) -> Plan:
    """Return what `rank` of `world_size` reads after `start` rows of the epoch have been used.

    A global batch is the next `batch_size` rows, fewer at the end. Each rank takes a slice of it,
    as `numpy.array_split` cuts it, so that their slices one behind the other are the global batch.
    """
    total = len(order.rows)
    first = np.arange(start, total, batch_size)
    positions = np.minimum(first + batch_size, total)
    share, extra = np.divmod(positions - first, world_size)
    first = first + rank * share + np.minimum(rank, extra)
    sizes = share + (rank < extra)
    ends = np.cumsum(sizes)
    # Places in the global order, a run of neighbours for every batch.
    places = np.repeat(first - (ends - sizes), sizes) + np.arange(sizes.sum())
    windows = np.searchsorted(places, order.windows)
    return Plan(
        order.rows[places],
        ends.tolist(),
        first.tolist(),
        positions.tolist(),
        np.unique(windows[windows > 0]).tolist(),
    )


_NONE: Rows = np.empty(0, dtype=np.int64)


def _keys(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    # Raw bits: numpy promises their stream for good, that of permutation() it does not.
    return np.random.PCG64([seed, epoch]).random_raw(count)
