"""Reading a store, whatever its format: one object, opened once, for any number of threads."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache import pages
from tca.cache.format import Array, DamageError, reading_failed
from tca.cache.formats import open_format
from tca.cache.layout import FeatureShapes, RowTable, Status, Stream, status_words
from tca.cache.remote import LOOK_AT, RemoteError, as_place
from tca.cache.row_reader import RowError, RowReader
from tca.errors import TcaError


class Store:
    """One split's cache, opened for reading; may be used by several threads.

    Attributes:
        path: where it lies; text where that is a URL.
        format: its files, for those who check, repair or copy them.
        spec: what it was made with.
        status: (N,) uint8, see `Status`; as it was when the store was opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.format = open_format(path)
        self.spec = self.format.spec
        self.status = self.format.all_status()
        self._reader = RowReader(self.format)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store, complete or not: a folder, or a URL such as s3://bucket/train.zarr.

        Raises:
            TcaError: nothing there, not a store, made by a newer tca, or damaged metadata,
                labels, ids or statuses; the message names the file.
        """
        return cls(as_place(path))

    @property
    def folder(self) -> Path:
        """Where it lies on this machine's disks.

        Raises:
            TcaError: it is behind a URL.
        """
        if isinstance(self.path, Path):
            return self.path
        raise TcaError(
            f"{self.path} is not on a disk of this machine; bring it there with "
            "`tca cache convert`."
        )

    @property
    def rows(self) -> int:
        """N."""
        return len(self.spec.rows)

    @property
    def split(self) -> str:
        """train, validation or test."""
        return self.spec.split

    @property
    def classes(self) -> list[str]:
        """Class names, by label."""
        return list(self.spec.classes)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What made the features; stores that differ in it do not go together."""
        return self.spec.identity

    @property
    def record(self) -> Mapping[str, Any]:
        """Versions and sources, for display."""
        return self.spec.record

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (vertically, horizontally)."""
        return self.spec.grid

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Shape and type of "semantic", "motion" or both."""
        return self.spec.streams

    @property
    def rows_per_shard(self) -> int:
        """Rows in one shard."""
        return self.spec.rows_per_shard

    @property
    def table(self) -> RowTable:
        """What was known of the rows before extraction."""
        return self.spec.rows

    @cached_property
    def ids(self) -> list[str]:
        """Video id of every row."""
        return list(self.spec.rows.ids[:])

    @property
    def label(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """(N,) class index, −1 unknown."""
        return self.spec.rows.label

    @property
    def video(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """(N,) index of the row's video; its views share it."""
        return self.spec.rows.video

    @property
    def view(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(N,) index of the row's view."""
        return self.spec.rows.view

    @property
    def shards(self) -> int:
        """Number of shards, committed or not."""
        return self.spec.shards

    @property
    def shapes(self) -> FeatureShapes:
        """What a fusion model is built from."""
        semantic = self.streams["semantic"].row_shape if "semantic" in self.streams else (0, 0)
        motion = self.streams["motion"].row_shape if "motion" in self.streams else (0, 0)
        segments = semantic[0] if len(semantic) == 3 else None
        return FeatureShapes(segments, self.grid, semantic[-1], motion[0], motion[1])

    def ready(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of the rows that have features, ascending."""
        return np.flatnonzero(self.status == Status.OK).astype(np.int64)

    def read(
        self, array: str, rows: Array, out: Array | None = None, *, check: bool = True
    ) -> Array:
        """Read rows in any order, as they are stored.

        Args:
            array: "semantic", "motion", or for int8 also "semantic_scale", "motion_scale".
            rows: row numbers; may repeat.
            out: (len(rows), …) array of the stored type to fill; made if not given.
            check: hold every row against its CRC32C.

        Returns:
            `out`, C-contiguous where it was made here.

        Raises:
            TcaError: a row without features, or a damaged, shortened or missing file; the message
                names store, row and id.
        """
        rows = np.asarray(rows, dtype=np.int64)
        what = self.format.arrays[array]
        shape = (len(rows), *what.row_shape)
        if out is None:
            out = pages.empty(shape, what.dtype)
        elif out.shape != shape or out.dtype != what.dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, {array} rows are {what}")
        self._require_features(rows)
        target = out if out.flags.c_contiguous else pages.empty(shape, what.dtype)
        try:
            self._reader.read(array, rows, target, check=check)
        except RowError as error:
            raise self._failed(array, error.row, error.reason) from None
        if target is not out:
            out[...] = target
        return out

    def prefetch(self, array: str, rows: Array) -> None:
        """Ask the system to have rows in memory soon; returns at once."""
        self._reader.prefetch(array, np.asarray(rows, dtype=np.int64))

    def shard_status(self, shard: int) -> Array | None:
        """Return the statuses of one shard's rows as they are on disk now.

        None if the shard is not committed.

        Raises:
            TcaError: they cannot be read or are damaged.
        """
        return self.format.checked_status(shard)

    def _require_features(self, rows: Array) -> None:
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store of {self.rows}")
        bad = rows[self.status[rows] != Status.OK]
        if len(bad):
            row = int(bad[0])
            raise TcaError(
                f"row {row} (id {self.spec.rows.ids[row]}) of {self.path} has no features: "
                f"{status_words(int(self.status[row]))}; read rows of status ok only."
            )

    def _failed(self, array: str, row: int, reason: Exception) -> TcaError:
        file = self.format.shard_name(array, row // self.rows_per_shard)
        if isinstance(reason, RemoteError):
            return reading_failed(file, reason, LOOK_AT)
        if isinstance(reason, OSError):
            remedy = _REMEDIES.get(reason.errno or 0, "look at the disk and try again")
            return reading_failed(file, reason, remedy)
        if not isinstance(reason, DamageError):
            raise reason
        return TcaError(
            f"row {row} (id {self.spec.rows.ids[row]}) of {self.path} cannot be read: {file} is "
            f"damaged: {reason}; {self.format.repair_first}."
        )


_REMEDIES = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (ulimit -n)",
    errno.EACCES: "make it readable",
    errno.ENOMEM: "free some memory",
}
