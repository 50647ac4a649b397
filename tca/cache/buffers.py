"""Memory for batches that is used again, since pages fresh from the system cost as much as a read.

Nothing is ever overwritten that somebody can still see: memory is taken back when the last tensor
(or view of one) that refers to it is gone. Pinned memory is left to torch, whose allocator does the
same and also waits for copies to a GPU that are under way.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tca.cache import pages
from tca.cache.format import Array
from tca.cache.layout import SCALE, FeatureArray, Stream, feature_arrays
from tca.cache.types import from_numpy


class Buffers:
    """Lends tensors of rows; may be used by several threads.

    Args:
        streams: what the rows are made of.
        rows: the most rows that are usually asked for.
        keep: how many tensors an array may lie ready, unused.
        pin: lend pinned memory.
    """

    def __init__(self, streams: Mapping[str, Stream], rows: int, keep: int, pin: bool) -> None:
        self._arrays = feature_arrays(streams)
        self._types = stored_types(streams)
        self._rows, self._pin = rows, pin
        self._free: dict[str, deque[Array]] = {name: deque(maxlen=keep) for name in self._arrays}

    def lend(self, rows: int) -> dict[str, Tensor]:
        """Return a tensor (rows, …) of stored numbers for every array; its content is anything."""
        return {name: self._lend(name, what, rows) for name, what in self._arrays.items()}

    def _lend(self, name: str, what: FeatureArray, rows: int) -> Tensor:
        shape = (rows, *what.row_shape)
        if self._pin:
            dtype = torch_type(what, self._types[name])
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        free = self._free[name]
        wanted = rows * what.row_bytes
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(0, dtype=np.uint8)
        if memory.nbytes < wanted or memory.nbytes == 0:
            size = max(rows, self._rows) * what.row_bytes
            memory = pages.empty((size,), np.dtype(np.uint8))
        # The tensor's storage holds this array for as long as any tensor shares it.
        lent = memory[:wanted].view(what.dtype).reshape(shape)
        weakref.finalize(lent, free.append, memory).atexit = False
        return from_numpy(lent, self._types[name])


def stored_types(streams: Mapping[str, Stream]) -> dict[str, str]:
    """Return the stored type of every array, one of `layout.TYPES`."""
    return {
        array: "float16" if array.endswith(SCALE) else stream.type
        for name, stream in streams.items()
        for array in stream.arrays(name)
    }


def torch_type(what: FeatureArray, stored: str) -> torch.dtype:
    """Return the torch type of an array's numbers."""
    return from_numpy(np.empty(0, dtype=what.dtype), stored).dtype
