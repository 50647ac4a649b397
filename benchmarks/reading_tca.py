"""tca's own stores in `cache_reading.py`: what one call reads, and what the loader delivers."""

# The base classes say what the methods do, `settings` what a reader is.
# ruff: noqa: D101, D102
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from made_rows import MadeRows, write_store
from reading import RandomReader, Read, Reader, StreamReader

from tca.cache.loader import Loader
from tca.cache.store import Store


class _Zarr(Reader):
    family, files = "tca", "tca Zarr"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        write_store(folder / "train.zarr", {"semantic": made}, "zarr")


class _Hdf5(Reader):
    family, files = "tca", "tca HDF5"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        write_store(folder / "train.h5", {"semantic": made}, "hdf5")


def _read(path: Path, check: bool) -> Read:
    store = Store.open(path)
    return lambda rows, out: store.read("semantic", rows, out, check=check)


class ZarrUnchecked(_Zarr, RandomReader):
    name, settings = "tca Zarr, unchecked", "`Store.read(…, out, check=False)`"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _read(folder / "train.zarr", False)


class ZarrChecked(_Zarr, RandomReader):
    name, settings = "tca Zarr, checked", "`Store.read(…, out)`"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _read(folder / "train.zarr", True)


class Hdf5Unchecked(_Hdf5, RandomReader):
    name, settings = "tca HDF5, unchecked", "`Store.read(…, out, check=False)`"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _read(folder / "train.h5", False)


class Hdf5Checked(_Hdf5, RandomReader):
    name, settings = "tca HDF5, checked", "`Store.read(…, out)`"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _read(folder / "train.h5", True)


def _batches(path: Path, batch: int) -> Iterator[Any]:
    store = Store.open(path)
    loader = Loader(store, np.arange(store.rows), batch, seed=0)
    return (found.arrays["semantic"] for found in loader.epoch(0))


class ZarrLoader(_Zarr, StreamReader):
    name, settings = "tca Zarr, loader", "`Loader`, shuffle rows, checked"

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, threads: int) -> Iterator[Any]:
        return _batches(folder / "train.zarr", batch)


class Hdf5Loader(_Hdf5, StreamReader):
    name, settings = "tca HDF5, loader", "`Loader`, shuffle rows, checked"

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, threads: int) -> Iterator[Any]:
        return _batches(folder / "train.h5", batch)


READERS: tuple[type[Reader], ...] = (
    ZarrUnchecked,
    ZarrChecked,
    ZarrLoader,
    Hdf5Unchecked,
    Hdf5Checked,
    Hdf5Loader,
)
