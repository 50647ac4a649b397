"""The statuses of hundreds of shard files, at the cost of a `pread` each.

Files that are made alike begin alike: superblock, header of the group with all its links, then
`status` and `status_crc32c`. Where HDF5 finds the statuses in one file it finds them in every
other whose first bytes are the same, but for the statuses themselves, their checksum, and the
file's length with the checksum of the superblock that says it.

    0   superblock, version 3: signature, version, sizes, flags, base, extension
    28  length of the file, 8 bytes
    36  address of the group
    44  checksum of the superblock, 4 bytes
    48  header of the group, …

Source: the HDF5 file format specification 3.0, II.A.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from awscrt.checksums import crc32c
from h5py import h5d, h5f, h5o

from tca.cache.format import Array, DamageError
from tca.cache.hdf5_guard import opened

MOST = 65536
"""Longest beginning that is worth comparing."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LENGTH = slice(28, 36)
SUPERBLOCK_CHECKSUM = slice(44, 48)


class Prologue:
    """What the files of a store's full shards begin with, and where in it the statuses lie."""

    def __init__(self, data: bytes, status: slice, checksum: slice) -> None:
        self._size = len(data)
        self._status = status
        self._checksum = checksum
        self._fixed = self._without_what_differs(data)

    @classmethod
    def of(cls, file: Path, rows: int) -> Prologue | None:
        """Find the statuses of `rows` rows in a file; None if not they alone are at its beginning.

        A damaged file has no prologue: whoever reads its statuses says what is wrong.
        """
        try:
            with opened(file) as group:
                ends = [_header_end(group)]
                places = []
                for name, size in (("status", rows), ("status_crc32c", 4)):
                    data_set = h5d.open(group, name.encode())
                    start = data_set.get_offset()
                    if start is None or data_set.get_storage_size() != size:
                        return None
                    places.append(slice(start, start + size))
                    ends += [_header_end(data_set), start + size]
            with open(file, "rb") as readable:
                data = readable.read(max(ends))
        except (DamageError, OSError):
            return None
        known = data[:8] == SIGNATURE and data[8] in (2, 3) and data[12:20] == bytes(8)
        if not known or len(data) < max(ends) or len(data) > MOST:
            return None
        return cls(data, *places)

    def status(self, file: str) -> Array | None:
        """Return the statuses in a file; None if it does not begin alike or they are damaged."""
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.pread(descriptor, self._size, 0)
            length = os.fstat(descriptor).st_size
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if len(data) != self._size or self._without_what_differs(data) != self._fixed:
            return None
        if int.from_bytes(data[LENGTH], "little") > length:
            return None
        found = data[self._status]
        if crc32c(found) != int.from_bytes(data[self._checksum], "little"):
            return None
        return np.frombuffer(found, np.uint8)

    def _without_what_differs(self, data: bytes) -> bytes:
        rest = bytearray(data)
        for part in (LENGTH, SUPERBLOCK_CHECKSUM, self._status, self._checksum):
            rest[part] = bytes(part.stop - part.start)
        return bytes(rest)


def _header_end(found: h5f.FileID | h5d.DatasetID) -> int:
    """Return where an object's header ends, too far away if it is in pieces."""
    header = h5o.get_info(found)
    return int(header.addr + header.hdr.space.total) if header.hdr.nchunks == 1 else MOST + 1
