"""Zarr v3 stores that are laid out in another way or lie behind a URL, through zarr-python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from typing_extensions import override
from zarr.storage import LocalStore

from tca.cache.format import Array, DamageError, Extents, Format, reading_failed
from tca.cache.ids import IdTable
from tca.cache.layout import COLUMNS, STREAMS, RowTable, Status, StoreSpec, rows_per_shard
from tca.cache.place import INDEX
from tca.cache.remote import LOOK_AT, RemoteError, RemoteFolder, zarr_store
from tca.cache.sums import remote_sums
from tca.cache.watched_files import WatchedFiles
from tca.cache.zarr_metadata import (
    GROUP,
    Metadata,
    is_plain,
    metadata_from,
    metadata_name,
    spec_from,
)
from tca.errors import TcaError

MAX_SHARD = 4096
"""A foreign chunk of more rows is not taken for a shard: what is read at once has to fit memory."""


class LibraryZarr(Format):
    """A Zarr store that is read through zarr-python, and never written."""

    name = "zarr"
    writable = False
    at_once = True

    def __init__(self, path: Path | str, spec: StoreSpec, arrays: Mapping[str, Any]) -> None:
        self.path = path
        self.spec = spec
        self._arrays = arrays

    @classmethod
    def open(cls, path: Path | str, metadata: Metadata) -> LibraryZarr:
        """Open the store at `path`, whose metadata has been read and checked.

        Raises:
            TcaError: it lacks something that a store has, or its labels or ids are damaged.
        """
        # tca writes zeros too; others may leave out chunks of nothing else, and views are that.
        lenient = {"status"} if is_plain(metadata) else {"status", "view"}
        files = LocalStore(path, read_only=True) if isinstance(path, Path) else zarr_store(path)
        watched = WatchedFiles(files, lenient)
        arrays = {
            name: _called(path, name, partial(_open_array, watched, name))
            for name in metadata
            if name != GROUP
        }
        rows = _check_shapes(path, arrays)
        columns = {
            name: _called(path, name, partial(_whole, arrays[name])).astype(dtype)
            for name, dtype in COLUMNS.items()
        }
        ids = IdTable(_called(path, "id", partial(_whole, arrays["id"])))
        _check_labels(path, columns["label"], len(metadata[GROUP]["attributes"]["classes"]))
        spec = spec_from(metadata, RowTable(ids, **columns), _rows_per_shard(arrays, rows))
        return cls(path, spec, arrays)

    @override
    def shard_status(self, shard: int) -> Array | None:
        rows = self.spec.shard_rows(shard)
        found = self._status(slice(rows.start, rows.stop))
        return None if (found == Status.NOT_EXTRACTED).all() else found

    @override
    def all_status(self) -> Array:
        return self._status(slice(None))

    @override
    def checked_status(self, shard: int) -> Array | None:
        return self.shard_status(shard)

    @override
    def extents(self, array: str, shard: int) -> Extents | None:
        return None

    @override
    def read_through_library(self, array: str, rows: Array, out: Array) -> None:
        try:
            places = np.arange(len(rows))
            for shards in _dense(rows, self._arrays[array]):
                inside = (rows >= shards.start) & (rows < shards.stop)
                if self._read_whole(array, shards, rows[inside], out, places[inside]):
                    rows, places = rows[~inside], places[~inside]
            if len(rows):
                out[places] = self._read_exactly(array, rows)
        except RemoteError as error:
            raise RemoteError(f"{self._named(rows)}: {error}") from error

    def _read_whole(
        self, array: str, shards: slice, rows: Array, out: Array, places: Array
    ) -> bool:
        """Read all of some shards, and of that `rows` into `out[places]`; say whether it worked.

        A server gives a shard as fast as a few of its rows, for which zarr-python asks one by one.
        """
        try:
            out[places] = self._arrays[array][shards][rows - shards.start]
        except (RemoteError, MemoryError):
            raise
        except Exception:
            # Damage, of these rows or of others. Reading exactly these tells.
            return False
        return True

    def _read_exactly(self, array: str, rows: Array) -> Array:
        """Read rows and none beside them: one without features may have no chunk."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        source = self._arrays[array]
        try:
            found: Array = source[first:last] if len(rows) == last - first else source.oindex[rows]
        except (DamageError, OSError, MemoryError):
            raise
        except Exception as error:
            # Codecs raise what they like.
            raise DamageError(_first_line(error)) from error
        return found

    def _named(self, rows: Array) -> str:
        first, last = int(rows[0]), int(rows[-1])
        others = f" to {last}" if last > first else ""
        return f"row {first} (id {self.spec.rows.ids[first]}){others}"

    @override
    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        raise NotImplementedError("such stores are not written")

    @override
    def shard_file(self, array: str, shard: int) -> Path:
        if not isinstance(self.path, Path):
            raise TcaError(
                f"{self.path} is not on a disk of this machine; bring it there with "
                "`tca cache convert`."
            )
        return self.path / array

    @override
    def record_file(self, shard: int) -> Path:
        return self.shard_file("status", shard)

    @override
    def shard_name(self, array: str, shard: int) -> str:
        return f"{self.path}/{array}"

    @property
    @override
    def repair_first(self) -> str:
        return "put that file back from where the store came from"

    def _status(self, rows: slice) -> Array:
        found: Array = _called(self.path, "status", lambda: self._arrays["status"][rows])
        return found.astype(np.uint8)


def open_remote(url: str) -> tuple[LibraryZarr, bool]:
    """Open the store behind a URL; say also whether there were sums to check its metadata by.

    Raises:
        TcaError: no driver for such URLs, nothing there, no answer, or as `LibraryZarr.open`.
    """
    folder = RemoteFolder(url)
    try:
        if not folder.has(metadata_name(GROUP)):
            raise TcaError(_not_there(folder))
        sums = remote_sums(url, RemoteFolder(url.rpartition("/")[0]).read)
        there = [
            name
            for name in STREAMS
            if metadata_name(name) in sums or folder.has(metadata_name(name))
        ]
        metadata = metadata_from(url, folder.read, there, sums)
    except RemoteError as error:
        raise reading_failed(url, error, LOOK_AT) from None
    return LibraryZarr.open(url, metadata), bool(sums)


def _not_there(folder: RemoteFolder) -> str:
    if folder.url.endswith((".h5", ".hdf5")) or folder.has(INDEX):
        return (
            f"{folder.url} is HDF5, which tca reads from disks only; copy or mount it, or put a "
            "Zarr store there (`tca cache convert`)."
        )
    return f"there is no store at {folder.url}: it has no zarr.json; give the URL of a store."


def _dense(rows: Array, source: Any) -> list[slice]:
    """Return runs of shards of which at least half is among `rows`, as slices of rows.

    Where each chunk is a file of its own there are no shards, and nothing is gained.
    """
    if not source.shards:
        return []
    width = int(source.shards[0])
    shards, counts = np.unique(rows // width, return_counts=True)
    dense = shards[2 * counts >= width]
    runs = np.split(dense, np.flatnonzero(np.diff(dense) > 1) + 1)
    return [slice(int(run[0]) * width, int(run[-1] + 1) * width) for run in runs if len(run)]


def _open_array(files: WatchedFiles, name: str) -> Any:
    return zarr.open_array(files, path=name, mode="r", zarr_format=3)


def _whole(array: Any) -> Any:
    return array[:]


def _called(path: Path | str, array: str, read: Callable[[], Any]) -> Any:
    """Call into the library and turn what it raises into a sentence on `array`."""
    place = f"{path}/{array}"
    try:
        return read()
    except RemoteError as error:
        raise reading_failed(place, error, LOOK_AT) from None
    except OSError as error:
        raise reading_failed(place, error) from None
    except MemoryError:
        raise
    except Exception as error:
        raise TcaError(
            f"{place} cannot be read: {_first_line(error)}; put it back from where the store came "
            "from."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_shapes(path: Path | str, arrays: Mapping[str, Any]) -> int:
    """Return N."""
    rows = int(arrays["label"].shape[0]) if arrays["label"].ndim else 0
    for name, array in arrays.items():
        dimensions = {"id": 2, **dict.fromkeys((*COLUMNS, "status"), 1)}.get(name)
        if array.shape[:1] != (rows,) or dimensions not in (None, array.ndim) or not rows:
            raise TcaError(
                f"{path}: {name} has shape {array.shape}, label {arrays['label'].shape}; all "
                "arrays of a store begin with the number of its rows."
            )
        if dimensions is not None and array.dtype.kind not in "iu":
            raise TcaError(f"{path}: {name} holds {array.dtype}, it must hold integers.")
    if arrays["id"].dtype != np.uint8:
        raise TcaError(f"{path}: id holds {arrays['id'].dtype}, it must hold uint8.")
    return rows


def _check_labels(path: Path | str, label: Array, classes: int) -> None:
    if not -1 <= label.min() <= label.max() < classes:
        raise TcaError(
            f"{path}: label has numbers from {label.min()} to {label.max()}, but there are "
            f"{classes} classes; correct the store."
        )


def _rows_per_shard(arrays: Mapping[str, Any], rows: int) -> int:
    """Return the rows of the widest file of features, where that is a number to work by."""
    for name in (*STREAMS, "status"):
        if name in arrays:
            array = arrays[name]
            count = int((array.shards or array.chunks)[0])
            if 1 < count <= MAX_SHARD:
                return count
    return rows_per_shard(rows)
