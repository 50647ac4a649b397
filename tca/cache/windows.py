"""Blocks of neighbouring rows read in file order and handed out mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

import numpy as np
from torch import Tensor

from tca.cache.buffers import Buffers
from tca.cache.order import Rows
from tca.cache.residency import RowSource
from tca.cache.threads import take
from tca.cache.types import to_numpy


@dataclass(frozen=True)
class Window:
    """The rows of some blocks.

    Attributes:
        arrays: by name, (n, …) stored numbers in the order of the store, each row once.
        places: where among them the first, second, … row in use is.
    """

    arrays: dict[str, Tensor]
    places: Rows


def read_window(source: RowSource, rows: Rows, buffers: Buffers, stopping: Event) -> Window:
    """Read `rows`, which are in the order of use, in the order in which they lie in their files.

    Gives up half-way when `stopping` is set.

    Raises:
        TcaError: a row cannot be read; see `Store.read`.
    """
    ascending = np.unique(rows)
    arrays = buffers.lend(len(ascending))
    for part in source.parts(ascending):
        if stopping.is_set():
            break
        source.read(ascending[part], {name: array[part] for name, array in arrays.items()})
    return Window(arrays, np.searchsorted(ascending, rows))


class Mixer:
    """Hands out the rows of windows, one window after the other."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows = windows
        self._window: Window | None = None
        self._used = 0

    def fill(self, out: dict[str, Tensor], rows: int) -> None:
        """Copy the next `rows` rows into tensors of that length."""
        filled = 0
        while filled < rows:
            if self._window is None:
                self._window, self._used = next(self._windows), 0
            places = self._window.places[self._used : self._used + rows - filled]
            end = filled + len(places)
            for name, tensor in out.items():
                take(to_numpy(self._window.arrays[name]), places, to_numpy(tensor[filled:end]))
            filled, self._used = end, self._used + len(places)
            if self._used == len(self._window.places):
                # Before the next one is asked for, or three would be in memory.
                self._window = None
