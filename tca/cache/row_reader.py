"""Rows out of files at memory speed: a `pread` a row, straight into the caller's buffer.

A row that is in the system's file cache costs one copy, which is also all that a memory map would
do; but a short file ends a `pread` early, where it would kill a process that has it mapped. See
docs/cache.md for both, measured.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Lock

import numpy as np
from crc32c import crc32c

from tca.cache.format import ABSENT, Array, DamageError, Extents, Format

CHECKSUM_BYTES = 4
MAX_RUN = 256
"""Neighbouring rows read by one call; each takes two of the system's 1,024 buffers a call."""

CACHE_SAMPLE = 32
"""Rows that are looked at before a prefetch: if all are in memory, so are the others, nearly."""

PARALLEL_BYTES = 1 << 20
"""Less than this is read faster by one thread than it is handed out."""


class RowError(Exception):
    """Row `row` could not be read because of `reason`, a DamageError or an OSError."""

    def __init__(self, row: int, reason: Exception) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason


class RowReader:
    """Reads rows of one store's feature arrays; may be used by several threads.

    Files stay open while there is room: a part of the descriptors that the process may have.
    """

    def __init__(self, store_format: Format, open_files: int | None = None) -> None:
        self._format = store_format
        self._room = open_files or open_files_allowed()
        self._files: OrderedDict[tuple[str, int], _File] = OrderedDict()
        # Kept when the file is closed: 8 bytes a row, and costly to read again.
        self._known: dict[tuple[str, int], tuple[_Fingerprint, Extents]] = {}
        self._lock = Lock()

    def read(self, array: str, rows: Array, out: Array, *, check: bool) -> None:
        """Read rows in any order.

        Args:
            array: name of a feature array.
            rows: (n,) row numbers, all with features; may repeat.
            out: (n, …) C-contiguous array of the stored type to fill.
            check: hold each row against its CRC32C.

        Raises:
            RowError: of the lowest row that cannot be read.
        """
        if self._format.at_once:
            self._read_at_once(array, rows, out)
            return
        order = np.argsort(rows, kind="stable")
        threads = reading_threads()
        if out.nbytes < PARALLEL_BYTES or threads == 1 or len(rows) == 1:
            self._read_part(array, rows, order, out, check)
            return
        parts = np.array_split(order, threads)
        waiting = [
            _pool().submit(self._read_part, array, rows, part, out, check) for part in parts[1:]
        ]
        try:
            # This thread works too, instead of waiting.
            self._read_part(array, rows, parts[0], out, check)
        finally:
            # Nobody may write to `out` any more when this returns.
            failures = [future.exception() for future in waiting]
        for failure in failures:
            if failure is not None:
                raise failure

    def prefetch(self, array: str, rows: Array) -> None:
        """Ask the system to read rows into its file cache, and return at once.

        What cannot be read is left to `read` to report.
        """
        length = self._format.arrays[array].row_bytes + CHECKSUM_BYTES
        rows = np.sort(rows)
        # Asking for what is there already would cost a fifth of reading it: look at a few first.
        sample = rows[:: max(1, len(rows) // CACHE_SAMPLE)]
        if all(_is_cached(file, start) for file, start in self._places(array, sample)):
            return
        for file, start in self._places(array, rows):
            os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def _places(self, array: str, ascending: Array) -> Iterator[tuple[_File, int]]:
        """Yield file and offset of rows that have both, until a file cannot be read."""
        for shard, insides in _by_shard(ascending, self._format.spec.rows_per_shard):
            try:
                file = self._file(array, shard)
            except (DamageError, OSError):
                return
            if file is None:
                continue
            for start in file.offsets[insides].tolist():
                if start != ABSENT:
                    yield file, start

    def _read_at_once(self, array: str, rows: Array, out: Array) -> None:
        """Let the format's library read all rows by one call; it checks what it can."""
        unique, places = np.unique(rows, return_inverse=True)
        found = np.empty((len(unique), *out.shape[1:]), out.dtype)
        try:
            self._format.read_through_library(array, unique, found)
        except OSError as error:
            raise RowError(int(unique[0]), error) from None
        except DamageError as error:
            raise self._lowest_damaged(array, unique, error) from None
        np.take(found, places, axis=0, out=out)

    def _lowest_damaged(self, array: str, rows: Array, error: DamageError) -> RowError:
        """Find the row: of many that were read at once the library does not say which it was."""
        while len(rows) > 1:
            half, rest = np.array_split(rows, 2)
            what = self._format.arrays[array]
            some = np.empty((len(half), *what.row_shape), what.dtype)
            try:
                self._format.read_through_library(array, half, some)
                rows = rest
            except DamageError as found:
                rows, error = half, found
            except OSError as found:
                return RowError(int(half[0]), found)
        return RowError(int(rows[0]), error)

    def _read_part(self, array: str, rows: Array, order: Array, out: Array, check: bool) -> None:
        """Read `rows[order]`, which ascend, into `out[order]`."""
        if not len(order):
            return
        flat = memoryview(out.reshape(-1).view(np.uint8).data)
        width = out.nbytes // len(out)
        start = 0
        for shard, insides in _by_shard(rows[order], self._format.spec.rows_per_shard):
            places = order[start : start + len(insides)]
            start += len(insides)
            first_row = int(rows[places[0]] - insides[0])
            try:
                file = self._file(array, shard)
                if file is None:
                    some = np.empty((len(places), *out.shape[1:]), out.dtype)
                    self._format.read_through_library(array, rows[places], some)
                    out[places] = some
                    continue
            except (DamageError, OSError) as error:
                raise RowError(first_row + int(insides[0]), error) from None
            views = [flat[place * width : (place + 1) * width] for place in places.tolist()]
            try:
                file.copy(insides, views, check)
            except _RowInFileError as error:
                raise RowError(first_row + error.row, error.reason) from None

    def _file(self, array: str, shard: int) -> _File | None:
        """Return an open file, closing the one unused for longest when there are many.

        None if its rows can be read through the format's library alone.
        """
        key = array, shard
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                return file
            known = self._known.get(key)
            extents = known[1] if known else self._format.extents(array, shard)
            if extents is None:
                return None
            file = _File(extents)
            if known and known[0] != file.fingerprint:
                raise DamageError("it was replaced since the store was opened; open the store anew")
            self._known[key] = file.fingerprint, extents
            self._files[key] = file
            if len(self._files) > self._room:
                self._files.popitem(last=False)
            return file


def reading_threads() -> int:
    """Return how many threads read rows: one a core that this process may use, 8 at most."""
    return min(8, len(os.sched_getaffinity(0)))


def open_files_allowed() -> int:
    """Return how many files a store keeps open: half of what the process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(2048, soft // 2))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, reading_threads() - 1), "tca-read")


def _by_shard(ascending: Array, rows_per_shard: int) -> Iterator[tuple[int, Array]]:
    """Yield (shard, its rows counted from its first) for every shard that occurs."""
    shards = ascending // rows_per_shard
    insides = ascending - shards * rows_per_shard
    bounds = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(ascending)]
    for first, last in pairwise(bounds):
        if last > first:
            yield int(shards[first]), insides[first:last]


_Fingerprint = tuple[int, int, int]


class _File:
    """One open file of rows; closed when the last reader lets go of it."""

    descriptor = -1

    def __init__(self, extents: Extents) -> None:
        self.offsets = extents.offset
        self._checksums = extents.checksum
        try:
            self.descriptor = os.open(extents.file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamageError("the file is missing") from None
        found = os.fstat(self.descriptor)
        self.fingerprint: _Fingerprint = (found.st_ino, found.st_mtime_ns, found.st_size)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def copy(self, rows: Array, views: Sequence[memoryview], check: bool) -> None:
        """Copy rows of this file, which ascend, into `views`.

        Raises:
            _RowInFileError: of the first row that cannot be read.
        """
        numbers, offsets = rows.tolist(), self.offsets[rows].tolist()
        width = len(views[0])
        # Where the checksums lie behind the rows, the call that reads a row brings its own.
        gap = CHECKSUM_BYTES if self._checksums is None else 0
        tails = memoryview(bytearray(gap * len(rows)))
        end = 0
        while end < len(offsets):
            first, end = end, _run_end(offsets, end, width + gap)
            try:
                if offsets[first] == ABSENT:
                    views[first][:] = bytes(width)
                else:
                    self._read(views[first:end], tails[gap * first : gap * end], offsets[first])
            except (DamageError, OSError) as error:
                raise _RowInFileError(numbers[first], error) from None
            if not check:
                continue
            for place in range(first, end):
                if self._checksums is not None:
                    expected = int(self._checksums[numbers[place]])
                elif offsets[place] == ABSENT:
                    continue
                else:
                    expected = int.from_bytes(tails[gap * place : gap * (place + 1)], "little")
                if crc32c(views[place]) != expected:
                    reason = DamageError("the row's checksum does not hold")
                    raise _RowInFileError(numbers[place], reason)

    def _read(self, views: Sequence[memoryview], tails: memoryview, offset: int) -> None:
        """Read neighbouring rows, and into `tails` what lies behind each."""
        if not tails:
            _read_fully(self.descriptor, list(views), offset)
        elif len(views) == 1:
            _read_fully(self.descriptor, [views[0], tails], offset)
        else:
            parts = (tails[i : i + CHECKSUM_BYTES] for i in range(0, len(tails), CHECKSUM_BYTES))
            both = zip(views, parts, strict=True)
            _read_fully(self.descriptor, [part for pair in both for part in pair], offset)


class _RowInFileError(Exception):
    """A row, counted from the first of its shard, could not be read because of `reason`."""

    def __init__(self, row: int, reason: Exception) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason


def _run_end(offsets: list[int], first: int, step: int) -> int:
    """Return the end of the run of rows from `first` on that lie one behind the other."""
    end = first + 1
    if offsets[first] == ABSENT:
        return end
    limit = min(len(offsets), first + MAX_RUN)
    while end < limit and offsets[end] == offsets[end - 1] + step:
        end += 1
    return end


def _is_cached(file: _File, offset: int) -> bool:
    """Tell whether a byte can be read without waiting for the disk."""
    try:
        return os.preadv(file.descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        # Not there, or a file system that cannot tell.
        return False


def _read_fully(descriptor: int, buffers: list[memoryview], offset: int) -> None:
    wanted = sum(map(len, buffers))
    got = os.preadv(descriptor, buffers, offset)
    if got == wanted:
        return
    # Rare: a signal, a network file system, or the end of the file.
    for buffer in buffers:
        skip = min(got, len(buffer))
        got -= skip
        offset += skip
        rest = buffer[skip:]
        while rest:
            more = os.preadv(descriptor, [rest], offset)
            if more == 0:
                size = os.fstat(descriptor).st_size
                raise DamageError(f"it was shortened to {size} bytes")
            offset += more
            rest = rest[more:]
