"""Plain files in `cache_reading.py`: one big map, which is the limit, h5py, .npy, safetensors."""

# The base classes say what the methods do, `settings` what a reader is.
# ruff: noqa: D101, D102
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from made_rows import Array, MadeRows
from reading import ROWS_PER_FILE, RandomReader, Read, in_threads, pool_of


class _OneBigFile(RandomReader):
    family = files = "one big map"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        with open(folder / "all.bin", "wb") as file:
            for _, block in made.blocks():
                file.write(block.data)


def _mapped(folder: Path, made: MadeRows) -> torch.Tensor:
    # Private and so writable, or torch warns; nobody writes.
    shape = made.rows, *made.shape
    return torch.from_numpy(np.memmap(folder / "all.bin", np.float16, "c", shape=shape))


class IndexSelect(_OneBigFile):
    name = "one big map, threads of torch"
    settings = "`torch.index_select(map, 0, rows, out=buffer)`, every row in torch's threads"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        mapped = _mapped(folder, made)

        def read(rows: Array, out: Array) -> Array:
            torch.index_select(mapped, 0, torch.from_numpy(rows), out=torch.from_numpy(out))
            return out

        return read


class IndexSelectParts(_OneBigFile):
    name = "one big map, a part of the batch a thread"
    settings = "the same a thread, each for its part of the batch"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        mapped = _mapped(folder, made)
        pool = pool_of(threads)

        def read(rows: Array, out: Array) -> Array:
            numbers, target = torch.from_numpy(rows), torch.from_numpy(out)
            parts = zip(numbers.tensor_split(threads), target.tensor_split(threads), strict=True)
            for done in [
                pool.submit(torch.index_select, mapped, 0, some, out=place) for some, place in parts
            ]:
                done.result()
            return out

        return read


LIMITS = (IndexSelect, IndexSelectParts)


class H5py(RandomReader):
    name, family, files = "h5py", "h5py", "HDF5, contiguous"
    settings = "one contiguous data set, `read_direct` a row, ascending; its lock allows one thread"
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


class H5pyChunk(RandomReader):
    name, family, files = "h5py, read_direct_chunk", "h5py", "HDF5, a chunk a row"
    settings = "one file, low-level `id.read_direct_chunk(out=)`, ascending; one thread"
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


class Npy(RandomReader):
    name, family, files = ".npy a video, np.load", ".npy", ".npy"
    settings = "`out[i] = np.load(file)`, in threads"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        for numbers, block in made.blocks():
            for number, row in zip(numbers, block, strict=True):
                np.save(folder / f"{number}.npy", row)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        start = str(folder) + "/"

        def one(row: int, out: Array) -> None:
            out[...] = np.load(f"{start}{row}.npy")

        return in_threads(one, threads)


class NpyInto(Npy):
    name = ".npy a video, into the buffer"
    settings = "header skipped, `os.preadv` into the buffer, in threads"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        start = str(folder) + "/"
        header = os.path.getsize(f"{start}0.npy") - made.row_bytes

        def one(row: int, out: Array) -> None:
            file = os.open(f"{start}{row}.npy", os.O_RDONLY)
            os.preadv(file, [out.data], header)
            os.close(file)

        return in_threads(one, threads)


class Safetensors(RandomReader):
    name, family, files = "safetensors, get_slice", "safetensors", "safetensors"
    settings = "256 rows a file, `safe_open` once, `get_slice(…)[row]`, in threads"
    needs = ("safetensors",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        from safetensors.numpy import save_file

        for numbers, block in made.blocks(ROWS_PER_FILE):
            file = folder / f"{numbers.start // ROWS_PER_FILE}.safetensors"
            save_file({"semantic": block}, file)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        from safetensors import safe_open

        files = [safe_open(file, "pt").get_slice("semantic") for file in _shards(folder, made)]

        def one(row: int, out: Array) -> None:
            torch.from_numpy(out).copy_(files[row // ROWS_PER_FILE][row % ROWS_PER_FILE])

        return in_threads(one, threads)


class SafetensorsMapped(Safetensors):
    name = "safetensors, all files mapped"
    settings = "`load_file` of every file at opening, which maps it; rows copied in threads"

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        from safetensors.torch import load_file

        files = [load_file(file)["semantic"] for file in _shards(folder, made)]

        def one(row: int, out: Array) -> None:
            torch.from_numpy(out).copy_(files[row // ROWS_PER_FILE][row % ROWS_PER_FILE])

        return in_threads(one, threads)


def _shards(folder: Path, made: MadeRows) -> list[Path]:
    return [folder / f"{shard}.safetensors" for shard in range(-(-made.rows // ROWS_PER_FILE))]


READERS: tuple[type[RandomReader], ...] = (
    H5py,
    H5pyChunk,
    Npy,
    NpyInto,
    Safetensors,
    SafetensorsMapped,
)
