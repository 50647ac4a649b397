"""Rows out of files at memory speed, straight into the caller's buffer.

`native` copies them. What it leaves, because it is not there or a row is not sound, is read here by
a `preadv` a row, and what is wrong is said; see docs/cache.md.

Between two rows there is as little Python as possible: threads read and check side by side, but
only one of them at a time can be between two rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from awscrt.checksums import crc32c

from tca.cache import native
from tca.cache.format import ABSENT, CHECKSUM_BYTES, Array, DamageError, Format
from tca.cache.row_files import UNKNOWN, OpenFile, OpenFiles, RowFiles, open_files_allowed
from tca.cache.threads import side_by_side, threads_for

MAX_RUN = 256
"""Neighbouring rows read by one call; each takes two of the system's 1,024 buffers a call."""

RUN_BYTES = 1 << 20
"""Of neighbouring rows read by one call: their sums are made while they are in the core's cache."""

CACHE_SAMPLE = 32
"""Rows that are looked at before a prefetch: if all are in memory, so are the others, nearly."""


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

    def __init__(self, store_format: Format) -> None:
        self._format = store_format
        room = OpenFiles()
        self._files = {name: RowFiles(store_format, name, room) for name in store_format.arrays}

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
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        if native.AVAILABLE:
            order = order[~self._copied(array, rows[order], order, out, check)]
            if not len(order):
                return
        reading = _Reading(self._format, self._files[array], array, rows[order], order, out)
        side_by_side(lambda _: reading.work(check), range(threads_for(out)))
        reading.finish()

    def _copied(self, array: str, rows: Array, places: Array, out: Array, check: bool) -> Array:
        """Let `_rows.c` copy ascending rows, and return which of them it did."""
        files = self._files[array]
        shards = rows // self._format.spec.rows_per_shard
        # The files of one call stay open until it returns, and others may be reading too.
        file_of_row = np.concatenate(([0], np.cumsum(np.diff(shards) > 0)))
        most = max(1, open_files_allowed() // 8)
        bounds = np.searchsorted(file_of_row, range(0, file_of_row[-1] + 1 + most, most))
        parts = []
        for start, end in pairwise(bounds.tolist()):
            part = slice(start, end)
            opened = [files.readable(shard) for shard in dict.fromkeys(shards[part].tolist())]
            parts.append(
                native.copy_rows(
                    opened,
                    file_of_row[part] - file_of_row[start],
                    files.offset[rows[part]],
                    places[part],
                    out,
                    check=check,
                    sums=None if files.checksum is None else files.checksum[rows[part]],
                )
            )
        return np.concatenate(parts)

    def prefetch(self, array: str, rows: Array) -> None:
        """Ask the system to read rows into its file cache, and return at once.

        What cannot be read is left to `read` to report.
        """
        length = self._format.arrays[array].row_bytes + CHECKSUM_BYTES
        rows = np.sort(rows)
        # Asking for what is there already would cost a fifth of reading it: look at a few first.
        sample = rows[:: max(1, len(rows) // CACHE_SAMPLE)]
        if all(is_cached(file.descriptor, start) for file, start in self._places(array, sample)):
            return
        for file, start in self._places(array, rows):
            os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def _places(self, array: str, ascending: Array) -> Iterator[tuple[OpenFile, int]]:
        """Yield file and offset of the rows that have both."""
        files = self._files[array]
        for rows in _by_shard(ascending, self._format.spec.rows_per_shard):
            file = files.readable(int(rows[0]) // self._format.spec.rows_per_shard)
            if file is None:
                continue
            for start in files.offset[rows].tolist():
                if start != ABSENT:
                    yield file, start

    def _read_at_once(self, array: str, rows: Array, out: Array) -> None:
        unique, places = np.unique(rows, return_inverse=True)
        np.take(_through_library(self._format, array, unique), places, axis=0, out=out)


def _through_library(store_format: Format, array: str, rows: Array) -> Array:
    """Read ascending rows by one call of the format's library, which checks what it can.

    Raises:
        RowError: of the lowest row that cannot be read.
    """
    what = store_format.arrays[array]
    found = np.empty((len(rows), *what.row_shape), what.dtype)
    try:
        store_format.read_through_library(array, rows, found)
    except OSError as error:
        raise RowError(int(rows[0]), error) from None
    except DamageError as error:
        # Of many rows that were read at once the library does not say which it was.
        if len(rows) == 1:
            raise RowError(int(rows[0]), error) from None
        for part in np.array_split(rows, 2):
            _through_library(store_format, array, part)
        raise RowError(int(rows[0]), error) from None
    return found


class _Reading:
    """Rows of one array, ascending, that some threads read together into `out[places]`."""

    def __init__(
        self,
        store_format: Format,
        files: RowFiles,
        array: str,
        rows: Array,
        places: Array,
        out: Array,
    ) -> None:
        self._format, self._files, self._array = store_format, files, array
        self._rows, self._places, self._out = rows, places, out
        self._shards = rows // store_format.spec.rows_per_shard
        self._width = out.nbytes // len(out)
        flat = memoryview(out.reshape(-1).view(np.uint8).data)
        # All there is to make is made before the first row is read: see above.
        self._views = [
            flat[start : start + self._width] for start in (places * self._width).tolist()
        ]
        # Where the checksums lie behind the rows, the call that reads a row brings its own.
        self._gap = gap = CHECKSUM_BYTES if store_format.checksum_behind_row else 0
        self._checksums = memoryview(bytearray(gap * len(rows)))
        self._tails = [
            self._checksums[gap * number : gap * (number + 1)]
            for number in range(len(rows) if gap else 0)
        ]
        self._look_up()
        offsets = files.offset[rows]
        self._starts: list[int] = offsets.tolist()
        # Each thread takes the next run when it is done with one: Python's lock sees to it that no
        # two take the same.
        self._runs_left = pairwise(self._runs(offsets))
        self._sums: list[int | None] = [None] * len(rows)
        self._failures: list[RowError] = []

    def work(self, check: bool) -> None:
        """Read runs until there are none left or one failed; any number of threads may do so."""
        views, tails, sums, starts = self._views, self._tails, self._sums, self._starts
        shards: list[int] = self._shards.tolist()
        preadv = os.preadv
        tailed = check and self._gap > 0
        wanted = self._width + self._gap * tailed
        shard, file = -1, None
        for first, end in self._runs_left:
            try:
                if shards[first] != shard:
                    shard = shards[first]
                    file = self._files.file(shard)
                if file is None:
                    self._read_through_library(first, end)
                    continue
                if starts[first] == ABSENT:
                    views[first][:] = bytes(self._width)
                    if self._gap:
                        continue
                elif end - first > 1:
                    self._read_run(file, first, end, starts[first])
                else:
                    buffers = [views[first], tails[first]] if tailed else [views[first]]
                    if preadv(file.descriptor, buffers, starts[first]) != wanted:
                        _read_fully(file.descriptor, buffers, starts[first])
            except RowError as error:
                self._failures.append(error)
            except (DamageError, OSError) as error:
                self._failures.append(RowError(int(self._rows[first]), error))
            else:
                if check:
                    for number in range(first, end):
                        sums[number] = crc32c(views[number])
            if self._failures:
                # All lower rows were taken before, and whoever took one finishes it.
                return

    def finish(self) -> None:
        """Hold the sums of the rows against those stored with them, after all threads are done.

        Raises:
            RowError: of the lowest row that could not be read or whose sum does not hold.
        """
        failures = self._failures
        numbers = [number for number, value in enumerate(self._sums) if value is not None]
        if numbers:
            if self._files.checksum is None:
                expected = np.frombuffer(self._checksums, dtype="<u4")
            else:
                expected = self._files.checksum[self._rows]
            found = np.array([self._sums[number] for number in numbers], dtype=np.uint32)
            wrong = np.flatnonzero(expected[numbers] != found)
            if len(wrong):
                reason = DamageError("the row's checksum does not hold")
                failures.append(RowError(int(self._rows[numbers[wrong[0]]]), reason))
        if failures:
            raise min(failures, key=lambda failure: failure.row)

    def _look_up(self) -> None:
        """Learn where the rows lie, shard by shard; what fails here fails again when it is read."""
        unknown = self._files.offset[self._rows] == UNKNOWN
        if not unknown.any():
            return
        for shard in np.unique(self._shards[unknown]).tolist():
            try:
                self._files.file(shard)
            except (DamageError, OSError):
                return

    def _runs(self, offsets: Array) -> list[int]:
        """Return the bounds of runs of rows that lie one behind the other, short ones."""
        most = max(1, min(MAX_RUN, RUN_BYTES // self._width))
        together = np.diff(offsets) == self._width + self._gap
        # Rows without a place are each alone; those that a library reads are a shard's together.
        together &= (offsets[1:] >= 0) & (offsets[:-1] >= 0)
        together |= offsets[1:] == UNKNOWN
        together &= np.diff(self._shards) == 0
        if not together.any():
            return list(range(len(offsets) + 1))
        bounds = [0]
        for end in [*(np.flatnonzero(~together) + 1).tolist(), len(offsets)]:
            while end - bounds[-1] > most and offsets[bounds[-1]] != UNKNOWN:
                bounds.append(bounds[-1] + most)
            bounds.append(end)
        return bounds

    def _read_run(self, file: OpenFile, first: int, end: int, offset: int) -> None:
        """Read neighbouring rows by one call, with what lies between them."""
        buffers = self._views[first:end]
        if self._gap:
            pairs = zip(buffers, self._tails[first:end], strict=True)
            buffers = [part for pair in pairs for part in pair]
        _read_fully(file.descriptor, buffers, offset)

    def _read_through_library(self, first: int, end: int) -> None:
        places = self._places[first:end]
        self._out[places] = _through_library(self._format, self._array, self._rows[first:end])


def _by_shard(ascending: Array, rows_per_shard: int) -> list[Array]:
    """Cut rows into those of each shard."""
    if not len(ascending):
        return []
    shards = ascending // rows_per_shard
    return np.split(ascending, np.flatnonzero(np.diff(shards)) + 1)


def is_cached(descriptor: int, offset: int) -> bool:
    """Tell whether a byte can be read without waiting for the disk."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        # Not there, or a file system that cannot tell.
        return False


def _read_fully(descriptor: int, buffers: list[memoryview], offset: int) -> None:
    got = os.preadv(descriptor, buffers, offset)
    if got == sum(map(len, buffers)):
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
