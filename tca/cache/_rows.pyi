# The module _rows.c; what fills a buffer wants it C-contiguous.
from typing import Any

import numpy as np

Buffer = memoryview | bytes | np.ndarray[Any, Any]

def copy_rows(
    out: Buffer,
    width: int,
    places: Buffer,
    starts: Buffer,
    maps: Buffer,
    descriptors: Buffer,
    expected: Buffer | None,
    check: bool,
    streamed: bool,
    done: Buffer,
    next: Buffer,
    /,
) -> None: ...
def crc32c(data: Buffer, wide: bool, /) -> int: ...
def map_file(descriptor: int, size: int, /) -> int: ...
def unmap(address: int, size: int, /) -> None: ...
