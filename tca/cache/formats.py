"""The formats by name, and which one a path holds."""

from __future__ import annotations

from pathlib import Path

from tca.cache.format import Format
from tca.cache.layout import StoreSpec
from tca.cache.place import INDEX, a_file, no_store
from tca.cache.sums import sums_of, warn_unchecked
from tca.errors import TcaError

FORMATS = ("zarr", "hdf5")
SUFFIXES = {".zarr": "zarr", ".h5": "hdf5", ".hdf5": "hdf5"}
"""Endings of a store's name that say its format."""


def open_format(path: Path | str) -> Format:
    """Open the store at `path`, whatever its format; see `remote` for URLs.

    A store without sums to check its metadata by is warned of.

    Raises:
        TcaError: nothing there, not a store, made by a newer tca, or damaged metadata, labels or
            ids; the message names the file.
    """
    if isinstance(path, str):
        from tca.cache.library_zarr import open_remote

        remote, checked = open_remote(path)
        if not checked:
            warn_unchecked(path)
        return remote
    found = open_local(path)
    if not sums_of(path):
        warn_unchecked(path)
    return found


def open_local(path: Path) -> Format:
    """Do as `open_format` with a path, without the warning."""
    if not path.exists():
        raise TcaError(f"there is no store at {path}; make it with `tca extract`.")
    if path.is_file():
        raise a_file(path)
    if (path / INDEX).is_file():
        from tca.cache.hdf5_format import Hdf5Format

        return Hdf5Format.open(path)
    if not (path / "zarr.json").is_file():
        if sums_of(path):
            raise TcaError(
                f"{path} has lost its zarr.json or {INDEX}; extract again, which makes it anew "
                "and keeps the shards."
            )
        raise no_store(path)
    from tca.cache.zarr_metadata import is_plain, read_metadata

    metadata = read_metadata(path)
    if is_plain(metadata):
        from tca.cache.zarr_format import ZarrFormat

        return ZarrFormat.open(path, metadata)
    from tca.cache.library_zarr import LibraryZarr

    return LibraryZarr.open(path, metadata)


def write_skeleton(folder: Path, spec: StoreSpec, store_format: str) -> list[str]:
    """Write an empty store to `folder`, which must not exist; return the files to sum.

    Raises:
        TcaError: an id cannot be stored.
        OSError: the folder cannot be written.
    """
    if store_format == "hdf5":
        from tca.cache.hdf5_creation import write_index

        return write_index(folder, spec)
    from tca.cache.zarr_creation import write_group

    return write_group(folder, spec)


def named_format(path: Path) -> str | None:
    """Return the format that the name of a store asks for; None if it asks for none."""
    return SUFFIXES.get(path.suffix)


def path_in_format(path: Path, store_format: str | None) -> Path:
    """Return `path` with the ending of `store_format`, where it has the other's."""
    if store_format is None or named_format(path) in (None, store_format):
        return path
    return path.with_suffix(".h5" if store_format == "hdf5" else ".zarr")


def existing_path(path: Path) -> Path:
    """Return where the store named `path` lies: there, or beside it in the other format."""
    if not path.exists() and named_format(path):
        for suffix in SUFFIXES:
            other = path.with_suffix(suffix)
            if other.exists():
                return other
    return path
