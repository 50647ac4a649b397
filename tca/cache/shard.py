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

ABSENT = 2**64 - 1
CHECKSUM_BYTES = 4


def checksum(data: bytes | memoryview) -> bytes:
    """Return the CRC32C of `data`, 4 bytes, little-endian."""
    # The extension takes bytes and arrays, but no memoryview.
    found = int(google_crc32c.value(np.frombuffer(data, np.uint8)))
    return found.to_bytes(CHECKSUM_BYTES, "little")


def with_checksum(array: Array) -> Iterator[bytes | memoryview]:
    """Yield a whole-array chunk (codecs bytes, crc32c): its bytes, then its checksum."""
    data = row_view(array)
    yield data
    yield checksum(data)


def row_view(row: Array) -> memoryview:
    """Return the little-endian bytes of one row without copying where that is possible."""
    row = np.ascontiguousarray(row, dtype=row.dtype.newbyteorder("<"))
    return row.reshape(-1).view(np.uint8).data


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


def parse_chunk(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return the array of a whole-array chunk, read-only.

    Raises:
        ValueError: the length or the checksum does not hold; the message says which.
    """
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + CHECKSUM_BYTES
    if len(data) != expected:
        raise ValueError(f"it has {len(data)} bytes instead of {expected}")
    body = memoryview(data)[:-CHECKSUM_BYTES]
    if checksum(body) != bytes(data[-CHECKSUM_BYTES:]):
        raise ValueError("its checksum does not hold")
    return np.frombuffer(body, dtype=dtype.newbyteorder("<")).reshape(shape)


def parse_index(data: memoryview, rows: int) -> Array:
    """Return the (rows, 2) offsets and lengths at the end of a shard file.

    Raises:
        ValueError: the file is too short or the index's checksum does not hold.
    """
    length = index_bytes(rows)
    if len(data) < length:
        raise ValueError(f"it has {len(data)} bytes, too few for its index")
    try:
        return parse_chunk(data[-length:], np.dtype("u8"), (rows, 2))
    except ValueError as error:
        raise ValueError(f"the index at its end is damaged ({error})") from None


def _any_bit_set(row: Array) -> bool:
    # Bits, not values: zarr-python tells −0.0 from the fill value.
    return bool(np.frombuffer(row_view(row), np.uint8).any())
