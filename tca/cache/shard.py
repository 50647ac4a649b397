"""The bytes of one shard file, as zarr-python's sharding codec writes them.

Rows lie one behind the other, each followed by its CRC32C; at the end an index of (offset,
length) pairs, one a row, and the index's own CRC32C. A row that is absent has both words
2⁶⁴−1. Source: the Zarr v3 `sharding_indexed` and `crc32c` codec specifications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ABSENT = np.uint64(2**64 - 1)
CHECKSUM_BYTES = 4


def checksum(data: bytes | memoryview) -> bytes:
    """Return the CRC32C of `data`, 4 bytes, little-endian."""
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def with_checksum(array: Array) -> Iterator[bytes | memoryview]:
    """Yield a whole-array chunk (codecs bytes, crc32c): its bytes, then its checksum."""
    data = row_view(array)
    yield data
    yield checksum(data)


def row_view(row: Array) -> memoryview:
    """Return the little-endian bytes of one row without copying where that is possible."""
    row = np.ascontiguousarray(row, dtype=row.dtype.newbyteorder("<"))
    return memoryview(row.reshape(-1).view(np.uint8))


def shard_parts(rows: Sequence[Array | None]) -> Iterator[bytes | memoryview]:
    """Yield the parts of a shard file in order.

    A row that is None, or all zeros (the fill value), is left out of the index: this is what
    zarr-python does, and a test holds the two byte-identical.
    """
    index = np.full((len(rows), 2), ABSENT, dtype="<u8")
    offset = 0
    for number, row in enumerate(rows):
        if row is None or not _any_bit_set(row):
            continue
        data = row_view(row)
        yield data
        yield checksum(data)
        length = len(data) + CHECKSUM_BYTES
        index[number] = offset, length
        offset += length
    yield from with_checksum(index)


def index_bytes(rows: int) -> int:
    """Length of the index of a shard of `rows` rows, with its checksum."""
    return rows * 16 + CHECKSUM_BYTES


def parse_index(data: bytes | memoryview) -> Array | None:
    """Return the (rows, 2) offsets and lengths, or None if the checksum does not hold."""
    body, stored = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if checksum(bytes(body)) != bytes(stored):
        return None
    return np.frombuffer(body, dtype="<u8").reshape(-1, 2)


def _any_bit_set(row: Array) -> bool:
    return bool(row.any())
