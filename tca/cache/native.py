"""Rows copied by `_rows.c`, where it was built and the processor has what it needs.

It is all the speed and none of the judgement: a row that it cannot copy, or whose checksum does not
hold, is left to `row_reader`, which reads it again and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tca.cache.format import CHECKSUM_BYTES, Array
from tca.cache.threads import reading_threads, side_by_side

if TYPE_CHECKING:
    from tca.cache.row_files import OpenFile

try:
    from tca.cache import _rows
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True

LARGE_BATCH = 4 << 20
"""Bytes: a batch of which little would stay in a core's cache is written past it."""

WORTH_A_THREAD = 1 << 20
"""Bytes that one more thread should have to copy."""


def map_file(descriptor: int, size: int) -> int:
    """Return the address of a file's bytes for reading, 0 if it cannot be mapped."""
    return _rows.map_file(descriptor, size) if AVAILABLE else 0


def unmap(address: int, size: int) -> None:
    """Let go of what `map_file` gave."""
    _rows.unmap(address, size)


def copy_rows(
    files: Sequence[OpenFile | None],
    of_row: Array,
    starts: Array,
    places: Array,
    out: Array,
    *,
    check: bool,
    sums: Array | None,
) -> Array:
    """Copy rows into `out[places]` by several threads.

    Args:
        files: the files that the rows lie in; None for what has none.
        of_row: (n,) index into `files` of each row.
        starts: (n,) int64 bytes from the start of the file; negative for a row without bytes.
        places: (n,) int64 rows of `out`.
        out: (…) C-contiguous array to fill.
        check: hold each row against its CRC32C.
        sums: (n,) uint32 CRC32C of the rows; None where it is in the 4 bytes behind each.

    Returns:
        (n,) bool, which rows were copied and found sound.
    """
    done = np.zeros(len(starts), dtype=np.uint8)
    width = out.nbytes // len(out)
    length = width + (CHECKSUM_BYTES if sums is None else 0)
    sizes = np.array([0 if file is None else file.size for file in files], dtype=np.int64)
    descriptors = np.array([-1 if file is None else file.descriptor for file in files], np.int32)
    maps = np.array([0 if file is None else file.address for file in files], dtype=np.int64)
    arguments = (
        out.reshape(-1).view(np.uint8),
        width,
        np.ascontiguousarray(places, dtype=np.int64),
        np.where(starts + length <= sizes[of_row], starts, -1),
        maps[of_row],
        descriptors[of_row],
        None if sums is None else np.ascontiguousarray(sums, dtype=np.uint32),
        check,
        out.nbytes >= LARGE_BATCH,
        done,
        np.zeros(1, dtype=np.int64),
    )
    threads = max(1, min(reading_threads(), out.nbytes // WORTH_A_THREAD))
    side_by_side(lambda _: _rows.copy_rows(*arguments), range(threads))
    return done.astype(bool)
