"""The bytes of one shard file, as zarr-python's sharding codec writes them.

Rows lie one behind the other, each followed by its CRC32C; at the end an index of (offset,
length) pairs, one a row, and the index's own CRC32C. A row that is absent has both words
2⁶⁴−1. Source: the Zarr v3 `sharding_indexed` and `crc32c` codec specifications.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from awscrt.checksums import crc32c

from tca.cache.format import ABSENT, CHECKSUM_BYTES, Array, DamageError

NO_ROW = 2**64 - 1


def checksum(data: bytes | memoryview) -> bytes:
    """Return the CRC32C of `data`, 4 bytes, little-endian."""
    return int(crc32c(data)).to_bytes(CHECKSUM_BYTES, "little")


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
    index = np.full((len(rows), 2), NO_ROW, dtype="<u8")
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
        DamageError: the length or the checksum does not hold; the message says which.
    """
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + CHECKSUM_BYTES
    if len(data) != expected:
        raise DamageError(f"it has {len(data)} bytes instead of {expected}")
    body = memoryview(data)[:-CHECKSUM_BYTES]
    if checksum(body) != bytes(data[-CHECKSUM_BYTES:]):
        raise DamageError("its checksum does not hold")
    return np.frombuffer(body, dtype=dtype.newbyteorder("<")).reshape(shape)


def row_offsets(file: Path, rows: int, row_bytes: int) -> Array:
    """Return where each row lies in a shard file, (rows,) int64, `ABSENT` for one that does not.

    Raises:
        DamageError: the file is missing or too short, or its index is damaged or is of rows of
            another length.
        OSError: the file cannot be read; it may be sound.
    """
    length = index_bytes(rows)
    try:
        with open(file, "rb", buffering=0) as opened:
            size = os.fstat(opened.fileno()).st_size
            data = os.pread(opened.fileno(), length, max(0, size - length))
    except FileNotFoundError:
        raise DamageError("the file is missing") from None
    if len(data) < length:
        raise DamageError(f"it has {size} bytes, too few for its index")
    try:
        index = parse_chunk(data, np.dtype("u8"), (rows, 2))
    except DamageError as error:
        raise DamageError(f"the index at its end is damaged ({error})") from None
    absent = (index == NO_ROW).all(1)
    room = size - length - row_bytes - CHECKSUM_BYTES
    fits = (index[:, 1] == row_bytes + CHECKSUM_BYTES) & (index[:, 0] <= max(room, 0))
    if not (absent | fits).all() or (room < 0 and not absent.all()):
        raise DamageError("its index does not fit the shape of the rows")
    return np.where(absent, ABSENT, index[:, 0].astype(np.int64))


def _any_bit_set(row: Array) -> bool:
    # Bits, not values: zarr-python tells −0.0 from the fill value.
    data = np.frombuffer(row_view(row), np.uint8)
    # Nearly always there is one at the beginning, and the rest need not be looked at.
    return bool(data[:4096].any() or data.any())
