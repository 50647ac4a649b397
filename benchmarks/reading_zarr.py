"""Other clients of Zarr in `cache_reading.py`.

Each reads the sharded store that tca wrote, and one that suits it best: a file a row.
"""

# The base classes say what the methods do, `settings` what a reader is.
# ruff: noqa: D101, D102
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from made_rows import Array, MadeRows
from reading import RandomReader, Read
from reading_tca import ZarrChecked

SHARDED = "train.zarr/semantic"
FILE_A_ROW = "rows.zarr"


class _Sharded(RandomReader):
    files = ZarrChecked.files
    write = staticmethod(ZarrChecked.write)


class _FileARow(RandomReader):
    files = "Zarr, a file a row"

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        import zarr

        array = zarr.create_array(
            folder / FILE_A_ROW,
            shape=(made.rows, *made.shape),
            chunks=(1, *made.shape),
            dtype="float16",
            compressors=None,
        )
        for numbers, block in made.blocks():
            array[numbers.start : numbers.stop] = block


class ZarrPython(_Sharded):
    name, family = "zarr-python, as documented", "zarr-python"
    settings = "sharded store, `array.oindex[rows]`, no settings"
    needs = ("zarr",)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import zarr

        array = zarr.open_array(folder / SHARDED, mode="r")
        return lambda rows, out: np.asarray(array.oindex[rows])


class ZarrPythonRows(_FileARow):
    name, family = "zarr-python, a file a row, as documented", "zarr-python"
    settings = "chunk = file = row, no codecs, `array.oindex[rows]`"
    needs = ("zarr",)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import zarr

        array = zarr.open_array(folder / FILE_A_ROW, mode="r")
        return lambda rows, out: np.asarray(array.oindex[rows])


class _Gather(RandomReader):
    """A task a row on an event loop of its own, and as many threads for files as the others."""

    family = "zarr-python"
    needs = ("zarr",)
    array: ClassVar[str]

    @classmethod
    def open(cls, folder: Path, made: MadeRows, threads: int) -> Read:  # type: ignore[override]
        from zarr.api.asynchronous import open_array

        runner = asyncio.Runner()
        array = runner.run(open_array(store=folder / cls.array, mode="r"))

        async def gather(rows: Array, out: Array) -> Array:
            async def one(row: int, place: int) -> None:
                out[place] = np.asarray(await array.getitem(row))

            await asyncio.gather(*(one(row, place) for place, row in enumerate(rows.tolist())))
            return out

        return lambda rows, out: runner.run(gather(rows, out))


class ZarrPythonGather(_Sharded, _Gather):
    name = "zarr-python, a task a row"
    settings = "sharded store, `asyncio.gather` of `AsyncArray.getitem(row)`"
    array = SHARDED


class ZarrPythonRowsGather(_FileARow, _Gather):
    name = "zarr-python, a file and a task a row"
    settings = "chunk = file = row, no codecs, `asyncio.gather` of `AsyncArray.getitem(row)`"
    array = FILE_A_ROW


class Zarrs(_Sharded):
    name, family = "zarr-python with zarrs", "zarrs"
    settings = "sharded store, codec pipeline in Rust, `array.oindex[rows]`"
    needs = ("zarr", "zarrs")

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        import zarr

        settings = {
            "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
            "threading.max_workers": threads,
        }
        with zarr.config.set(settings):
            array = zarr.open_array(folder / SHARDED, mode="r")

        def read(rows: Array, out: Array) -> Array:
            with zarr.config.set(settings):
                return np.asarray(array.oindex[rows])

        return read


def _tensorstore(path: Path, threads: int) -> Any:
    import tensorstore

    context = {
        "data_copy_concurrency": {"limit": threads},
        "file_io_concurrency": {"limit": threads},
        "cache_pool": {"total_bytes_limit": 0},
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "recheck_cached_metadata": "open",
        "recheck_cached_data": "open",
    }
    return tensorstore.open(spec, read=True, context=tensorstore.Context(context)).result()


class Tensorstore(_Sharded):
    name, family = "tensorstore", "tensorstore"
    settings = "sharded store, `array[rows].read()`, no cache, concurrency = threads"
    needs = ("tensorstore",)

    @staticmethod
    def open(folder: Path, made: MadeRows, threads: int) -> Read:
        array = _tensorstore(folder / SHARDED, threads)
        return lambda rows, out: array[rows].read().result()


class _Into(RandomReader):
    """Rows go straight into the buffer, which tensorstore takes for an array of its own."""

    family = "tensorstore"
    array: ClassVar[str]

    @classmethod
    def open(cls, folder: Path, made: MadeRows, threads: int) -> Read:  # type: ignore[override]
        import tensorstore

        array = _tensorstore(folder / cls.array, threads)

        def read(rows: Array, out: Array) -> Array:
            target = tensorstore.array(out)
            with tensorstore.Batch() as batch:
                copies = [
                    target[place].write(array[row], batch=batch)
                    for place, row in enumerate(rows.tolist())
                ]
            for copy in copies:
                copy.result()
            return out

        return read


class TensorstoreInto(_Sharded, _Into):
    name = "tensorstore, into the buffer"
    settings = "sharded store, `array(out)[i].write(array[row], batch=Batch())`, else the same"
    needs = ("tensorstore",)
    array = SHARDED


class TensorstoreRowsInto(_FileARow, _Into):
    name = "tensorstore, a file a row, into the buffer"
    settings = "chunk = file = row, no codecs, else the same"
    needs = ("tensorstore", "zarr")
    array = FILE_A_ROW


READERS: tuple[type[RandomReader], ...] = (
    ZarrPython,
    ZarrPythonGather,
    Zarrs,
    Tensorstore,
    TensorstoreInto,
    ZarrPythonRows,
    ZarrPythonRowsGather,
    TensorstoreRowsInto,
)
