"""Where the rows of a store lie, looked up once a shard, and the files that are open meanwhile."""

from __future__ import annotations

import os
import resource
from collections import deque
from pathlib import Path
from threading import Lock
from typing import ClassVar
from weakref import WeakSet

import numpy as np

from tca.cache import native
from tca.cache.format import Array, DamageError, Extents, Format

UNKNOWN = -2
"""Offset of a row whose shard has not been looked at."""


class OpenFile:
    """An open file; closed when the last reader lets go of it.

    Attributes:
        used: whether it was read since the last look for files to close.
        size: its bytes when it was opened.
        address: where they are mapped, 0 if they are not.
    """

    descriptor = -1
    address = 0

    def __init__(self, path: Path) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamageError("the file is missing") from None
        found = os.fstat(self.descriptor)
        self.fingerprint = (found.st_ino, found.st_mtime_ns, found.st_size)
        self.size = found.st_size
        self.address = native.map_file(self.descriptor, self.size)
        self.used = True

    def __del__(self) -> None:
        if self.address:
            native.unmap(self.address, self.size)
        if self.descriptor >= 0:
            os.close(self.descriptor)


class RowFiles:
    """Places and files of one feature array; may be used by several threads.

    Attributes:
        offset: (N,) int64 bytes from the start of the shard's file, `ABSENT` for a row without
            bytes, `UNKNOWN` until `file` has been asked for its shard.
        checksum: (N,) uint32 CRC32C of every row; None where it is in the 4 bytes behind the row.
    """

    def __init__(self, store_format: Format, array: str, room: OpenFiles) -> None:
        self._format, self._array, self._room = store_format, array, room
        rows = len(store_format.spec.rows)
        self.offset = np.full(rows, UNKNOWN, dtype=np.int64)
        self.checksum: Array | None = None
        if not store_format.checksum_behind_row:
            self.checksum = np.zeros(rows, dtype=np.uint32)
        self._open: list[OpenFile | None] = [None] * store_format.spec.shards
        self._known: dict[int, tuple[int, int, int]] = {}
        self._for_library: set[int] = set()

    def file(self, shard: int) -> OpenFile | None:
        """Return the open file of a shard; None if only the format's library can read its rows.

        Raises:
            DamageError: it is missing, damaged, or another one than before.
            OSError: it cannot be opened.
        """
        # Without the lock: threads come here once a row, and nearly always find it.
        opened = self._open[shard]
        if opened is None and shard not in self._for_library:
            with self._room.lock:
                opened = self._open[shard] or self._opened(shard)
        if opened is not None:
            opened.used = True
        return opened

    def readable(self, shard: int) -> OpenFile | None:
        """Return the open file of a shard; None if its rows cannot be read from one."""
        try:
            return self.file(shard)
        except (DamageError, OSError):
            return None

    def _opened(self, shard: int) -> OpenFile | None:
        extents = None
        if shard not in self._known:
            extents = self._format.extents(self._array, shard)
            if extents is None:
                self._for_library.add(shard)
                return None
        opened = OpenFile(self._format.shard_file(self._array, shard))
        if extents is not None:
            self._learn(shard, opened, extents)
        elif self._known[shard] != opened.fingerprint:
            raise DamageError("it was replaced since the store was opened; open the store anew")
        self._room.make(self._open, shard)
        self._open[shard] = opened
        return opened

    def _learn(self, shard: int, opened: OpenFile, extents: Extents) -> None:
        rows = self._format.spec.shard_rows(shard)
        if self.checksum is not None:
            self.checksum[rows.start : rows.stop] = extents.checksum
        self.offset[rows.start : rows.stop] = extents.offset[: len(rows)]
        self._known[shard] = opened.fingerprint


class OpenFiles:
    """Bounds the files that all arrays of all open stores keep open; one object a store.

    The store with most of them closes one for a new one. Which one says the clock algorithm: the
    first in its queue that was not used since it was last looked at.
    """

    lock = Lock()
    """One for all stores, since each may close files of another."""

    _stores: ClassVar[WeakSet[OpenFiles]] = WeakSet()

    def __init__(self) -> None:
        self._most = open_files_allowed()
        self._queue: deque[tuple[list[OpenFile | None], int]] = deque()
        with self.lock:
            self._stores.add(self)

    def make(self, owner: list[OpenFile | None], place: int) -> None:
        """Make room for one more file, `owner[place]`; the caller holds the lock."""
        while sum(len(store._queue) for store in self._stores) >= self._most:
            max(self._stores, key=lambda store: len(store._queue))._turn()
        self._queue.append((owner, place))

    def _turn(self) -> None:
        files, oldest = self._queue.popleft()
        found = files[oldest]
        if found is not None and found.used:
            found.used = False
            self._queue.append((files, oldest))
        else:
            files[oldest] = None


def _new_lock() -> None:
    OpenFiles.lock = Lock()


# In a forked process nobody may be there to let go of it.
os.register_at_fork(after_in_child=_new_lock)


def open_files_allowed() -> int:
    """Return how many files all stores keep open: half of what the process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(2048, soft // 2))
