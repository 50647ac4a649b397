"""Arrays that rows are read into: they begin with a page of memory.

The processor copies slowly to a place that is, counted from the beginning of a page, a few bytes
behind the one it copies from. numpy's large arrays are 16 bytes behind one, and rows in files often
begin with one: reading into them took up to twice as long.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from tca.cache.format import Array


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return what `numpy.empty` does, beginning with a page."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + mmap.PAGESIZE, dtype=np.uint8)
    start = -memory.ctypes.data % mmap.PAGESIZE
    return memory[start : start + size].view(dtype).reshape(shape)
