"""Everybody who reads rows in `cache_reading.py`, each with the fastest settings it documents.

A peer writes its own files and reads them. Those with random access get the numbers of a batch's
rows; `out` is a touched buffer that they may fill or leave alone, the batch is what they return.
Those without stream the whole set through their shuffle buffer.
"""

# The base classes say what the methods do, `settings` what a peer is.
# ruff: noqa: D101, D102
from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from measuring import Array, MadeRows, write_store

ROWS_PER_FILE = 256
SHUFFLE_ROWS = 1000
"""Rows in the shuffle buffer of those that stream."""

Read = Callable[[Array, Array], Array]
"""(row numbers, out) to the batch."""


class Peer(ABC):
    """Reads random rows.

    Attributes:
        files: peers with the same word read the same files.
        settings: what a reader of the table should know.
        needs: modules without which it does not run.
    """

    name: ClassVar[str]
    files: ClassVar[str]
    settings: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    @abstractmethod
    def write(folder: Path, made: MadeRows) -> None:
        """Write the made rows into `folder`, which is empty."""

    @staticmethod
    @abstractmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        """Open what `write` wrote."""


class _TcaZarrFiles(Peer):
    files = "Zarr store of tca"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        write_store(folder / "train.zarr", {"semantic": made}, "zarr")


class _TcaHdf5Files(Peer):
    files = "HDF5 store of tca"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        write_store(folder / "train.h5", {"semantic": made}, "hdf5")


def _tca(path: Path, check: bool) -> Read:
    from tca.cache.store import Store

    store = Store.open(path)
    return lambda rows, out: store.read("semantic", rows, out, check=check)


class TcaZarrUnchecked(_TcaZarrFiles):
    name, settings = "tca Zarr, unchecked", "Store.read(check=False)"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _tca(folder / "train.zarr", False)


class TcaZarr(_TcaZarrFiles):
    name, settings = "tca Zarr, checked", "Store.read"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _tca(folder / "train.zarr", True)


class TcaHdf5Unchecked(_TcaHdf5Files):
    name, settings = "tca HDF5, unchecked", "Store.read(check=False)"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _tca(folder / "train.h5", False)


class TcaHdf5(_TcaHdf5Files):
    name, settings = "tca HDF5, checked", "Store.read"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        return _tca(folder / "train.h5", True)


class ZarrPython(_TcaZarrFiles):
    name = "zarr-python"
    settings = "async.concurrency 64, threading.max_workers = threads, get_orthogonal_selection"
    needs = ("zarr",)
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    @classmethod
    def open(cls, folder: Path, made: MadeRows, threads: int) -> Read:  # type: ignore[override]
        import zarr

        settings = {
            "codec_pipeline.path": cls.pipeline,
            "async.concurrency": 64,
            "threading.max_workers": threads,
        }
        with zarr.config.set(settings):
            array = zarr.open_array(folder / "train.zarr/semantic", mode="r")

        def read(rows: Array, out: Array) -> Array:
            with zarr.config.set(settings):
                return np.asarray(array.get_orthogonal_selection((rows,)))

        return read


class Zarrs(ZarrPython):
    name = "zarr-python with zarrs"
    settings = "codec pipeline in Rust, threading.max_workers = threads, one call a batch"
    needs = ("zarr", "zarrs")
    pipeline = "zarrs.ZarrsCodecPipeline"


class Tensorstore(_TcaZarrFiles):
    name = "tensorstore"
    settings = "data_copy_concurrency = file_io_concurrency = threads, no cache, a read a batch"
    needs = ("tensorstore",)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import tensorstore

        context = {
            "data_copy_concurrency": {"limit": threads},
            "file_io_concurrency": {"limit": threads},
            "cache_pool": {"total_bytes_limit": 0},
        }
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder / "train.zarr/semantic")},
            "recheck_cached_metadata": "open",
            "recheck_cached_data": "open",
        }
        array = tensorstore.open(spec, read=True, context=tensorstore.Context(context)).result()
        return lambda rows, out: array[rows].read().result()


class H5py(Peer):
    name = files = "h5py"
    settings = "one file, contiguous, read_direct a row, ascending; threads do not help its lock"
    needs = ("h5py",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        import h5py

        with h5py.File(folder / "all.h5", "w", libver="latest") as file:
            array = file.create_dataset("semantic", (made.rows, *made.shape), np.float16)
            for numbers, block in made.blocks():
                array[numbers.start : numbers.stop] = block

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import h5py

        array = h5py.File(folder / "all.h5", "r")["semantic"]

        def read(rows: Array, out: Array) -> Array:
            for place in np.argsort(rows).tolist():
                array.read_direct(out, np.s_[rows[place]], np.s_[place])
            return out

        return read


class H5pyChunk(Peer):
    name = files = "h5py, read_direct_chunk"
    settings = "one file, chunk = row, low-level id.read_direct_chunk(out=), ascending"
    needs = ("h5py",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        import h5py

        with h5py.File(folder / "all.h5", "w", libver="latest") as file:
            shape = made.rows, *made.shape
            array = file.create_dataset("semantic", shape, np.float16, chunks=(1, *made.shape))
            for numbers, block in made.blocks():
                array[numbers.start : numbers.stop] = block

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import h5py

        chunks = h5py.File(folder / "all.h5", "r")["semantic"].id
        inside = (0,) * len(made.shape)

        def read(rows: Array, out: Array) -> Array:
            flat = out.reshape(len(out), -1).view(np.uint8)
            for place in np.argsort(rows).tolist():
                chunks.read_direct_chunk((int(rows[place]), *inside), out=flat[place])
            return out

        return read


class Npy(Peer):
    name = files = ".npy a video"
    settings = "np.load in `threads` threads"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        for numbers, block in made.blocks():
            for number, row in zip(numbers, block, strict=True):
                np.save(folder / f"{number}.npy", row)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        start = str(folder) + "/"

        def some(rows: Array, out: Array) -> None:
            for place, row in enumerate(rows.tolist()):
                out[place] = np.load(f"{start}{row}.npy")

        return in_threads(some, threads)


class Safetensors(Peer):
    name = files = "safetensors"
    settings = "256 rows a file, a tensor each, safe_open once, get_tensor in `threads` threads"
    needs = ("safetensors",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        from safetensors.numpy import save_file

        for numbers, block in made.blocks(ROWS_PER_FILE):
            rows = {str(number): row for number, row in zip(numbers, block, strict=True)}
            save_file(rows, folder / f"{numbers.start // ROWS_PER_FILE}.safetensors")

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import torch
        from safetensors import safe_open

        files = [
            safe_open(folder / f"{shard}.safetensors", "pt")
            for shard in range(-(-made.rows // ROWS_PER_FILE))
        ]

        def some(rows: Array, out: Array) -> None:
            target = torch.from_numpy(out)
            for place, row in enumerate(rows.tolist()):
                target[place] = files[row // ROWS_PER_FILE].get_tensor(str(row))

        return in_threads(some, threads)


def in_threads(some: Callable[[Array, Array], None], threads: int) -> Read:
    """Return `some` done by several threads, each with its part of a batch."""
    pool = ThreadPoolExecutor(threads)

    def read(rows: Array, out: Array) -> Array:
        cuts = np.linspace(0, len(rows), threads + 1).astype(int)
        parts = [slice(*cut) for cut in pairwise(cuts.tolist())]
        for done in [pool.submit(some, rows[part], out[part]) for part in parts]:
            done.result()
        return out

    return read


class Streaming(ABC):
    """Yields batches of all rows, in an order of its own."""

    name: ClassVar[str]
    settings: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    @staticmethod
    @abstractmethod
    def write(folder: Path, made: MadeRows) -> None:
        """Write the made rows into `folder`, which is empty."""

    @staticmethod
    @abstractmethod
    def batches(folder: Path, made: MadeRows, batch: int, workers: int) -> Iterator[Any]:
        """Yield tensors (B, …) until all rows have been seen, perhaps but for the last few."""


class Webdataset(Streaming):
    name = "webdataset"
    settings = "256 rows a tar, raw bytes, shuffle buffer, batched in `threads` worker processes"
    needs = ("webdataset",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        for numbers, block in made.blocks(ROWS_PER_FILE):
            with tarfile.open(folder / f"{numbers.start // ROWS_PER_FILE:06d}.tar", "w") as tar:
                for number, row in zip(numbers, block, strict=True):
                    member = tarfile.TarInfo(f"{number:06d}.bin")
                    member.size = row.nbytes
                    tar.addfile(member, io.BytesIO(row.tobytes()))

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, workers: int) -> Iterator[Any]:
        import torch
        import webdataset

        def collate(samples: list[dict[str, Any]]) -> Any:
            together = torch.empty((len(samples), *made.shape), dtype=torch.float16)
            for place, sample in enumerate(samples):
                row = torch.frombuffer(bytearray(sample["bin"]), dtype=torch.float16)
                together[place] = row.reshape(made.shape)
            return together

        urls = [str(file) for file in sorted(folder.glob("*.tar"))]
        rows = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        rows = rows.shuffle(SHUFFLE_ROWS).batched(batch, collation_fn=collate)
        yield from webdataset.WebLoader(rows, batch_size=None, num_workers=workers)


class Litdata(Streaming):
    name = "litdata"
    settings = "64 MB a chunk, tensors, shuffle=True, StreamingDataLoader, `threads` workers"
    needs = ("litdata",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        import litdata

        global _made
        _made = made
        litdata.optimize(
            _litdata_row,
            list(range(made.rows)),
            str(folder / "chunks"),
            chunk_bytes="64MB",
            num_workers=1,
            verbose=False,
        )

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, workers: int) -> Iterator[Any]:
        import litdata

        rows = litdata.StreamingDataset(str(folder / "chunks"), shuffle=True, drop_last=False)
        yield from litdata.StreamingDataLoader(rows, batch_size=batch, num_workers=workers)


_made: MadeRows


def _litdata_row(number: int) -> Any:
    import torch

    return torch.from_numpy(_made.block(range(number, number + 1))[0])


RANDOM: tuple[type[Peer], ...] = (
    TcaZarrUnchecked,
    TcaZarr,
    TcaHdf5Unchecked,
    TcaHdf5,
    ZarrPython,
    Zarrs,
    Tensorstore,
    H5py,
    H5pyChunk,
    Npy,
    Safetensors,
)
# Litdata is not in yet: `optimize` starts new processes, which do not see `_made`.
STREAMING: tuple[type[Streaming], ...] = (Webdataset,)
