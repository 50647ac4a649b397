"""What it takes to be measured by `cache_reading.py`.

A reader writes files of its own and reads them. Those with random access get the numbers of a
batch's rows; those without stream the whole set through their shuffle buffer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, ClassVar

import numpy as np
import torch
from made_rows import Array, MadeRows

ROWS_PER_FILE = 256
"""Rows in one file where a file holds many."""

Read = Callable[[Array, Array], Array]
"""(row numbers, a touched buffer to fill or to leave alone) to the batch."""


class Reader(ABC):
    """Anybody who reads rows.

    Attributes:
        name: as the table has it.
        family: "tca", or which of the issue's peers it is a way of using.
        files: readers with the same word read the same files.
        settings: what a reader of the table should know.
        needs: modules without which it does not run.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    files: ClassVar[str]
    settings: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    @abstractmethod
    def write(folder: Path, made: MadeRows) -> None:
        """Write the made rows into `folder`, which is empty."""


class RandomReader(Reader):
    """Reads random rows."""

    @staticmethod
    @abstractmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        """Open what `write` wrote."""


class StreamReader(Reader):
    """Yields batches of all rows, in an order of its own."""

    @staticmethod
    @abstractmethod
    def batches(folder: Path, made: MadeRows, batch: int, threads: int) -> Iterator[Any]:
        """Yield tensors (B, …) until all rows have been seen, perhaps but for the last few."""


def in_threads(some: Callable[[int, Array], None], threads: int) -> Read:
    """Return `some`, which reads one row into its place, done by several threads."""
    pool = pool_of(threads)

    def part(rows: Array, out: Array, places: Array) -> None:
        for row, place in zip(rows[places].tolist(), places.tolist(), strict=True):
            some(row, out[place])

    def read(rows: Array, out: Array) -> Array:
        parts = np.array_split(np.argsort(rows), threads)
        for done in [pool.submit(part, rows, out, places) for places in parts]:
            done.result()
        return out

    return read


def pool_of(threads: int) -> ThreadPoolExecutor:
    """Return threads in which torch uses no threads of its own: they would be in each other's way.

    Torch keeps that number by thread, and takes it over when it is first asked for it.
    """
    everybody = torch.get_num_threads()
    together = Barrier(threads)

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()
        together.wait()

    pool = ThreadPoolExecutor(threads, initializer=alone)
    for _ in range(threads):
        pool.submit(int)
    pool.submit(int).result()
    torch.set_num_threads(everybody)
    return pool
