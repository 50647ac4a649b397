"""How fast shards are committed, next to plain files of the same bytes that are flushed alike.

A plain file is written whole under a temporary name, flushed and renamed, and its folder is
flushed: what nobody can do without who wants to keep a shard through a power cut. The libraries
know no such thing: their files are flushed after they have written them. Disks are noisy, so there
are many pairs, of which the median counts.

    python benchmarks/cache_writing.py --folder /scratch --markdown
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import click
import h5py
import numpy as np
import zarr
from made_rows import Array, MadeRows, made_spec
from measuring import files_under, seconds, take_turns
from report import Numbers, Report, common_options, run, working_folder
from typing_extensions import override

from tca.cache.creation import create_store
from tca.cache.layout import Status
from tca.cache.store import Store
from tca.cache.writer import StoreWriter

BAR = 0.75
SHARDS = 4
"""Of the stores; each turn writes the next one, whose files are deleted before."""


class Writer(ABC):
    """Writes shards of one store.

    Attributes:
        name: as the table has it.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, made: dict[str, MadeRows]) -> None:
        self.path = folder / "train"
        self.made = made
        self.shard_size = next(iter(made.values())).rows // SHARDS
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what is there before the first shard."""

    @abstractmethod
    def shard_files(self, shard: int) -> list[Path]:
        """Return the files that `write` makes."""

    @abstractmethod
    def write(self, shard: int, features: dict[str, Array]) -> None:
        """Write one shard and flush it."""

    def features(self, shard: int) -> dict[str, Array]:
        """Return what `write` gets."""
        first = shard * self.shard_size
        rows = range(first, first + self.shard_size)
        return {name: made.block(rows) for name, made in self.made.items()}

    @abstractmethod
    def holds(self, shard: int, features: dict[str, Array]) -> bool:
        """Tell whether a client of the format finds these features in a shard."""


class _Tca(Writer):
    store_format: ClassVar[str]

    @override
    def prepare(self) -> None:
        shapes = {name: made.shape for name, made in self.made.items()}
        spec = made_spec(self.shard_size * SHARDS, shapes, self.shard_size)
        self._writer = StoreWriter.open_or_create(self.path, spec, self.store_format)
        self._format = Store.open(self.path).format

    @override
    def shard_files(self, shard: int) -> list[Path]:
        return self._format.shard_files(shard)

    @override
    def write(self, shard: int, features: dict[str, Array]) -> None:
        status = np.full(self.shard_size, Status.OK, np.uint8)
        self._writer.commit(shard, {name: list(rows) for name, rows in features.items()}, status)

    @override
    def holds(self, shard: int, features: dict[str, Array]) -> bool:
        store = Store.open(self.path)
        rows = self._writer.shard_rows(shard)
        return all(_same(store.read(name, rows), some) for name, some in features.items())


class TcaZarr(_Tca):
    """`StoreWriter.commit`."""

    name, store_format = "tca Zarr", "zarr"


class TcaHdf5(_Tca):
    """`StoreWriter.commit`."""

    name, store_format = "tca HDF5", "hdf5"


class ZarrPython(Writer):
    """`array[rows] = features` into the same store."""

    name = "zarr-python"

    @override
    def prepare(self) -> None:
        shapes = {name: made.shape for name, made in self.made.items()}
        spec = made_spec(self.shard_size * SHARDS, shapes, self.shard_size)
        create_store(self.path, spec, "zarr")
        self._format = Store.open(self.path).format
        self._group = zarr.open_group(self.path, mode="r+")

    @override
    def shard_files(self, shard: int) -> list[Path]:
        return self._format.shard_files(shard)

    @override
    def write(self, shard: int, features: dict[str, Array]) -> None:
        rows = slice(shard * self.shard_size, (shard + 1) * self.shard_size)
        for name, some in features.items():
            self._group[name][rows] = some
        self._group["status"][rows] = np.full(self.shard_size, Status.OK, np.uint8)
        _flush(self.shard_files(shard))

    @override
    def holds(self, shard: int, features: dict[str, Array]) -> bool:
        rows = slice(shard * self.shard_size, (shard + 1) * self.shard_size)
        return all(_same(self._group[name][rows], some) for name, some in features.items())


class H5py(Writer):
    """`data_set[...] = features` into a file a shard, a chunk a row."""

    name = "h5py"

    @override
    def prepare(self) -> None:
        self.path.mkdir()

    @override
    def shard_files(self, shard: int) -> list[Path]:
        return [self.path / f"{shard}.h5"]

    @override
    def write(self, shard: int, features: dict[str, Array]) -> None:
        (path,) = self.shard_files(shard)
        with h5py.File(path, "w", libver="latest") as file:
            file["status"] = np.full(self.shard_size, Status.OK, np.uint8)
            for name, some in features.items():
                file.create_dataset(name, data=some, chunks=(1, *some.shape[1:]))
        _flush([path])

    @override
    def holds(self, shard: int, features: dict[str, Array]) -> bool:
        with h5py.File(*self.shard_files(shard)) as file:
            return all(_same(file[name][...], some) for name, some in features.items())


WRITERS: tuple[type[Writer], ...] = (TcaZarr, TcaHdf5, ZarrPython, H5py)


def write_plainly(folder: Path, contents: list[bytes]) -> None:
    """Write files of these contents, whole or not at all, and flush them."""
    for number, data in enumerate(contents):
        temporary = folder / ".tmp"
        with open(temporary, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        os.replace(temporary, folder / str(number))
        _flush_folder(folder)


def measured(folder: Path, writer: Writer, pairs: int) -> tuple[float, float, float]:
    """Return GB/s, those of plain files beside it, and the ratio."""
    features = writer.features(0)
    writer.write(0, features)
    if not writer.holds(0, features):
        raise ValueError(f"{writer.name} did not write what it was given")
    contents = [file.read_bytes() for file in writer.shard_files(0)]
    size = sum(map(len, contents))
    plain = folder / "plain"
    plain.mkdir()
    shards = iter(range(2 * pairs))

    def shard_speed() -> float:
        shard = next(shards) % SHARDS
        some = writer.features(shard)
        return _speed(size, writer.shard_files(shard), partial(writer.write, shard, some))

    def plain_speed() -> float:
        return _speed(size, files_under(plain), lambda: write_plainly(plain, contents))

    return take_turns(plain_speed, {writer.name: shard_speed}, pairs)[writer.name]


def _speed(size: int, before: list[Path], write: Callable[[], None]) -> float:
    """Return GB/s; the files of an earlier turn are out of the way and off the disk first."""
    for file in before:
        file.unlink(missing_ok=True)
    os.sync()
    return size / seconds(write) / 1e9


def _same(found: Array, expected: Array) -> bool:
    return np.array_equal(found.view(np.uint16), expected.view(np.uint16))


def _flush(files: list[Path]) -> None:
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--shard-rows", type=click.IntRange(8), default=256, show_default=True)
@click.option("--semantic", type=Numbers(), default=(196, 768), help="[default: 196,768]")
@click.option("--motion", type=Numbers(), default=(8, 512), help="[default: 8,512]")
@click.option("--pairs", type=click.IntRange(1), default=30, show_default=True)
@common_options
def main(
    shard_rows: int,
    semantic: tuple[int, ...],
    motion: tuple[int, ...],
    pairs: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    rows = shard_rows * SHARDS
    made = {"semantic": MadeRows(rows, semantic), "motion": MadeRows(rows, motion)}
    megabytes = sum(some.row_bytes for some in made.values()) * shard_rows / 1e6
    settings = {"shard_rows": shard_rows, "shard_mb": round(megabytes, 1), "pairs": pairs}
    report = Report("cache_writing", settings)
    table = []
    with working_folder(folder, keep) as place:
        for kind in WRITERS:
            own = place / kind.__name__
            own.mkdir()
            speed, limit, ratio = measured(own, kind(own, made), pairs)
            bar = ratio >= BAR if issubclass(kind, _Tca) else None
            table.append([kind.name, speed, limit, ratio, bar])
    columns = ["writer", "GB/s", "plain files beside it", "ratio", f"≥ {BAR}"]
    report.table("Writing shards", columns, table)
    report.show(output)


if __name__ == "__main__":
    run(main)
