"""Reading a store: a row is a slice of a mapped file, checked and copied.

Nothing here needs zarr-python, which reads the same files many times slower.
"""

from __future__ import annotations

import errno
import mmap
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from tca.cache.layout import FeatureShapes, RowTable, Status, Stream, status_words
from tca.cache.metadata import WHOLE_ARRAYS, read_metadata, read_streams, reading_failed
from tca.cache.shard import ABSENT, CHECKSUM_BYTES, Array, checksum, parse_chunk, parse_index
from tca.errors import TcaError

MAX_MAPS = 64
"""Shards mapped at a time: each holds a descriptor, and a process has about a thousand."""


class Store:
    """One split's cache, opened for reading; may be used by several threads.

    Attributes:
        path: where it lies.
        rows: N.
        split: train, validation or test.
        classes: class names, by label.
        identity: what made the features; stores that differ in it do not go together.
        record: versions and sources, for display.
        grid: patches (vertically, horizontally).
        streams: shape and type of "semantic" and "motion".
        rows_per_shard: rows in one shard file.
        ids: video id of every row.
        label: (N,) int32, −1 unknown.
        video: (N,) int32 index of the row's video; its views share it.
        view: (N,) uint8 index of the row's view.
        status: (N,) uint8, see `Status`; as it was when the store was opened.
    """

    def __init__(self, path: Path, metadata: dict[str, dict[str, Any]]) -> None:
        attributes = metadata[""]["attributes"]
        self.path = path
        self.split: str = attributes["split"]
        self.classes: list[str] = attributes["classes"]
        self.identity: dict[str, Any] = attributes["identity"]
        self.record: dict[str, Any] = attributes["record"]
        self.grid: tuple[int, int] = (attributes["grid"][0], attributes["grid"][1])
        self.streams: dict[str, Stream]
        self.streams, self.rows_per_shard = read_streams(path, metadata)
        rows, width = metadata["id"]["shape"]
        self.rows = int(rows)
        columns = {
            name: self._chunk(f"{name}/c/0", dtype, (self.rows,))
            for name, dtype in WHOLE_ARRAYS.items()
        }
        self.label, self.video, self.view = (columns[name] for name in ("label", "video", "view"))
        table = self._chunk("id/c/0/0", np.dtype("u1"), (self.rows, width))
        # A text of fixed width is what numpy calls zero-padded.
        self.ids = [text.decode() for text in table.view(f"S{width}").ravel().tolist()]
        self.status = self._read_status()
        self._maps: OrderedDict[tuple[str, int], _Shard] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store, complete or not.

        Raises:
            TcaError: nothing there, not a store, made by a newer tca, or damaged metadata,
                labels, ids or statuses; the message names the file.
        """
        path = Path(path)
        return cls(path, read_metadata(path))

    @property
    def shapes(self) -> FeatureShapes:
        """What a fusion model is built from."""
        semantic, motion = self.streams["semantic"].row_shape, self.streams["motion"].row_shape
        segments = semantic[0] if len(semantic) == 3 else None
        return FeatureShapes(segments, self.grid, semantic[-1], motion[0], motion[1])

    @property
    def table(self) -> RowTable:
        """What was known of the rows before extraction."""
        return RowTable(self.ids, self.label, self.video, self.view)

    @property
    def shards(self) -> int:
        """Number of shards, committed or not."""
        return -(-self.rows // self.rows_per_shard)

    def ready(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of the rows that have features, ascending."""
        return np.flatnonzero(self.status == Status.OK).astype(np.int64)

    def read(self, stream: str, rows: Array, out: Array | None = None) -> Array:
        """Read rows in any order, each checked against its CRC32C.

        Args:
            stream: "semantic" or "motion".
            rows: row numbers; may repeat.
            out: (len(rows), …) array of the stored type to fill; made if not given.

        Returns:
            `out`, C-contiguous where it was made here.

        Raises:
            TcaError: a row without features, or a damaged, shortened or missing file; the message
                names store, row and id.
        """
        rows = np.asarray(rows, dtype=np.int64)
        what = self.streams[stream]
        if out is None:
            out = np.empty((len(rows), *what.row_shape), dtype=what.dtype)
        elif out.shape != (len(rows), *what.row_shape) or out.dtype != what.dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, {stream} rows are {what}")
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store of {self.rows}")
        bad = rows[self.status[rows] != Status.OK]
        if len(bad):
            row = int(bad[0])
            raise TcaError(
                f"row {row} (id {self.ids[row]}) of {self.path} has no features: "
                f"{status_words(int(self.status[row]))}; read rows of status ok only."
            )
        for place in np.argsort(rows, kind="stable"):
            row = int(rows[place])
            number, inside = divmod(row, self.rows_per_shard)
            try:
                self._shard(stream, number).copy(inside, out[place])
            except ValueError as error:
                raise self._damaged(stream, row, str(error)) from None
            except OSError as error:
                remedy = _REMEDIES.get(error.errno or 0, "look at the disk and try again")
                file = self.path / shard_file(self, stream, number)
                raise reading_failed(file, error, remedy) from None
        return out

    def shard_status(self, shard: int) -> Array | None:
        """Return the statuses of one shard, (rows_per_shard,), as they are on disk now.

        None if the shard is not committed.

        Raises:
            TcaError: they cannot be read or are damaged.
        """
        path = self.path / status_file(shard)
        try:
            return parse_chunk(path.read_bytes(), np.dtype("u1"), (self.rows_per_shard,))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise reading_failed(path, error, "make it readable") from None
        except ValueError as error:
            raise TcaError(
                f"{path}, the status of shard {shard}, is damaged: {error}; delete that file and "
                "extract again: that shard alone is redone."
            ) from None

    def _shard(self, stream: str, number: int) -> _Shard:
        """Return a mapped shard, dropping the one unused for longest when there are many."""
        with self._lock:
            shard = self._maps.get((stream, number))
            if shard is None:
                shard = _Shard(self.path / shard_file(self, stream, number), self.rows_per_shard)
                self._maps[stream, number] = shard
                if len(self._maps) > MAX_MAPS:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end((stream, number))
            return shard

    def _damaged(self, stream: str, row: int, reason: str) -> TcaError:
        shard = row // self.rows_per_shard
        return TcaError(
            f"row {row} (id {self.ids[row]}) of {self.path} cannot be read: "
            f"{shard_file(self, stream, shard)} is damaged: {reason}; delete "
            f"{self.path / status_file(shard)} and extract again: that shard alone is redone."
        )

    def _chunk(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        path = self.path / name
        try:
            return parse_chunk(path.read_bytes(), dtype, shape)
        except OSError as error:
            raise reading_failed(path, error, "extract the store again") from None
        except ValueError as error:
            raise TcaError(f"{path} is damaged: {error}; extract the store again.") from None

    def _read_status(self) -> Array:
        status = np.full(self.shards * self.rows_per_shard, Status.NOT_EXTRACTED, dtype=np.uint8)
        for shard, part in enumerate(status.reshape(-1, self.rows_per_shard)):
            found = self.shard_status(shard)
            if found is not None:
                part[:] = found
        return status[: self.rows]


_REMEDIES = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (ulimit -n)",
    errno.EACCES: "make it readable",
    errno.ENOMEM: "free some memory",
}


def shard_file(store: Store, stream: str, shard: int) -> str:
    """Return the name, inside the store, of one shard's features."""
    return f"{stream}/c/{shard}" + "/0" * len(store.streams[stream].row_shape)


def status_file(shard: int) -> str:
    """Return the name, inside the store, of the commit record of a shard."""
    return f"status/c/{shard}"


class _Shard:
    """One mapped shard file. Unmapped when the last reader lets go of it."""

    def __init__(self, path: Path, rows: int) -> None:
        """Map the file at `path`.

        Raises:
            ValueError: the file is missing, empty, or has no sound index.
            OSError: the system does not let us; the file may be sound.
        """
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ValueError("the file is missing") from None
        self._data = memoryview(self._map)
        self._index = parse_index(self._data, rows)

    def copy(self, row: int, out: Array) -> None:
        """Copy one row into `out`.

        Raises:
            ValueError: the row or the file is not as it was written; the message says how.
        """
        # Touching a page behind the end of the file would kill the process.
        if self._map.size() < len(self._data):
            raise ValueError(f"it was shortened to {self._map.size()} bytes")
        offset, length = (int(word) for word in self._index[row])
        if offset == length == ABSENT:
            # The row was all zeros: Zarr leaves the fill value out.
            out[...] = 0
            return
        if length != out.nbytes + CHECKSUM_BYTES or offset + length > len(self._data):
            raise ValueError("its index does not fit the shape of the rows")
        end = offset + out.nbytes
        body = self._data[offset:end]
        if checksum(body) != self._data[end : end + CHECKSUM_BYTES]:
            raise ValueError("the row's checksum does not hold")
        out[...] = np.frombuffer(body, dtype=out.dtype.newbyteorder("<")).reshape(out.shape)
