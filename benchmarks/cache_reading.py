"""How fast random rows are read: tca's stores, what a user would pick instead, and the limit.

The limit is `torch.index_select` out of one big mapped file into a buffer, with torch's threads.
Everybody reads the same rows in the same order on the same cores, each next to the limit, whose
speed beside it is the measure.

    python benchmarks/cache_reading.py --folder /scratch --markdown
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import reading_files
import reading_streams
import reading_tca
import reading_zarr
import torch
from made_rows import Array, MadeRows, numbers_of
from measuring import drop_file_cache, read_files, take_turns, use_cores
from reading import RandomReader, Read, Reader, StreamReader
from report import Numbers, Report, common_options, run, working_folder

from tca.cache import pages
from tca.console import note

READERS: tuple[type[Reader], ...] = (
    *reading_tca.READERS,
    *reading_zarr.READERS,
    *reading_files.READERS,
    *reading_streams.READERS,
)
BARS = {"zarr-python": 20.0, "h5py": 2.5}
"""How many times as fast as a family of peers tca must be, where that is not `OTHERS`."""
OTHERS = 1.5
OURS = {
    "checked": ("tca Zarr, checked", "tca HDF5, checked"),
    "unchecked": ("tca Zarr, unchecked", "tca HDF5, unchecked"),
    "loader": ("tca Zarr, loader", "tca HDF5, loader"),
}

Speeds = dict[str, tuple[float, float, float]]
"""By name: rows/s, those of the limit beside it, and the ratio."""


class Bench:
    """One set of rows on one disk, and how it is read."""

    def __init__(
        self, folder: Path, made: MadeRows, batch: int, threads: int, rounds: int, seconds: float
    ) -> None:
        self.folder, self.made = folder, made
        self.batch, self.threads, self.rounds, self.seconds = batch, threads, rounds, seconds
        self.order = np.random.default_rng(1).permutation(made.rows)
        # As a loader's batches and torch's tensors are: see tca.cache.pages.
        self.buffer = pages.empty((batch, *made.shape), np.dtype(np.float16))
        self.buffer.fill(1)
        self.cold_way = ""
        self._limit_folder = folder / "limit"
        self._limit_folder.mkdir()
        reading_files.IndexSelect.write(self._limit_folder, made)
        self.limit, _ = reading_files.LIMITS
        self.limit_way = self._other_limit()

    def compare(
        self, readers: list[type[Reader]], cold_rows: int, cold_rounds: int
    ) -> tuple[Speeds, Speeds]:
        """Write the files that `readers` share, let them read warm and cold, delete them.

        Raises:
            ValueError: somebody read something else than was asked for.
        """
        place = self.folder / "reader"
        place.mkdir()
        try:
            readers[0].write(place, self.made)
            return self._warm(place, readers), self._cold(place, readers, cold_rows, cold_rounds)
        finally:
            shutil.rmtree(place)

    def _other_limit(self) -> str:
        """Say how fast copying out of the map is when each thread has a part of the batch."""
        read_files(self._limit_folder)
        one, other = (
            partial(self._random, self._open(limit, self._limit_folder), self.order)
            for limit in reading_files.LIMITS
        )
        one()
        _, _, ratio = take_turns(one, {"other": other}, 5)["other"]
        first, second = reading_files.LIMITS
        return f"the limit is {first.name}; {second.name}: {ratio:.2f} of its speed"

    def _warm(self, place: Path, readers: list[type[Reader]]) -> Speeds:
        for folder in (self._limit_folder, place):
            read_files(folder)
        read = self._open(self.limit, self._limit_folder)
        limit = partial(self._random, read, self.order)
        contenders: dict[str, Callable[[], float]] = {}
        for reader in readers:
            if issubclass(reader, RandomReader):
                read = self._open(reader, place)
                self._check(read, reader.name)
                contenders[reader.name] = partial(self._random, read, self.order)
            elif issubclass(reader, StreamReader):
                self._check_stream(reader, place)
                contenders[reader.name] = partial(self._stream, reader, place)
        limit()
        return take_turns(limit, contenders, self.rounds)

    def _cold(self, place: Path, readers: list[type[Reader]], rows: int, rounds: int) -> Speeds:
        """Measure the first `rows` of the order from disk."""
        chosen = self.order[:rows]

        def random(reader: type[RandomReader], folder: Path) -> float:
            # Opened anew each time: what somebody has mapped does not leave the file cache.
            self.cold_way = drop_file_cache(self.folder)
            return self._random(self._open(reader, folder), chosen)

        def stream(reader: type[StreamReader]) -> float:
            self.cold_way = drop_file_cache(self.folder)
            return self._stream(reader, place, rows=len(chosen))

        contenders: dict[str, Callable[[], float]] = {}
        for reader in readers:
            if issubclass(reader, RandomReader):
                contenders[reader.name] = partial(random, reader, place)
            elif issubclass(reader, StreamReader):
                contenders[reader.name] = partial(stream, reader)
        limit = partial(random, self.limit, self._limit_folder)
        if not rounds:
            return {}
        return take_turns(limit, contenders, rounds)

    def _open(self, reader: type[RandomReader], folder: Path) -> Read:
        return reader.open(folder, self.made, self.threads)

    def _batches(self, order: Array) -> Iterator[Array]:
        for first in range(0, len(order), self.batch):
            yield order[first : first + self.batch]

    def _random(self, read: Read, order: Array) -> float:
        """Return rows/s; slow ones stop after `seconds`."""
        begin, done = time.perf_counter(), 0
        for rows in self._batches(order):
            read(rows, self.buffer[: len(rows)])
            done += len(rows)
            if time.perf_counter() - begin > self.seconds:
                break
        return done / (time.perf_counter() - begin)

    def _stream(self, reader: type[StreamReader], place: Path, rows: int | None = None) -> float:
        """Return rows/s of an epoch from the second batch on, or of `rows` with the start."""
        begin, done = time.perf_counter(), 0
        for number, batch in enumerate(self._epoch(reader, place)):
            if number == 0 and rows is None:
                # Without the start of worker processes.
                begin = time.perf_counter()
                continue
            done += len(batch)
            late = time.perf_counter() - begin > self.seconds
            if late or (rows is not None and done >= rows):
                break
        return done / (time.perf_counter() - begin)

    def _epoch(self, reader: type[StreamReader], place: Path) -> Iterator[Any]:
        return reader.batches(place, self.made, self.batch, self.threads)

    def _check(self, read: Read, name: str) -> None:
        """Hold the rows of some batches, the last one too, against those that were made."""
        batches = list(self._batches(self.order))
        for rows in (*batches[:2], batches[-1]):
            self._same(read(rows, self.buffer[: len(rows)]), rows, name)

    def _check_stream(self, reader: type[StreamReader], place: Path) -> None:
        seen: list[int] = []
        for number, batch in enumerate(self._epoch(reader, place)):
            rows = numbers_of(batch.numpy())
            seen += rows.tolist()
            if number < 2:
                self._same(batch.numpy(), rows, reader.name)
        least = self.made.rows - self.batch * self.threads
        if len(set(seen)) != len(seen) or len(seen) < least:
            raise ValueError(f"{reader.name} delivered {len(seen)} rows, {len(set(seen))} of them")

    def _same(self, found: Array, rows: Array, name: str) -> None:
        expected = self.made.block(rows)
        found = np.ascontiguousarray(found)
        # Bits: the number that a row begins with may look like no number.
        if not np.array_equal(found.view(np.uint16), expected.view(np.uint16)):
            raise ValueError(f"{name} read other rows than those asked for")


def missing(reader: type[Reader]) -> list[str]:
    """Return the modules that this reader lacks here."""
    return [module for module in reader.needs if importlib.util.find_spec(module) is None]


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--rows", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--shape", type=Numbers(), default=(196, 768), help="Of a row.  [default: 196,768]")
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="And cores.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="After which a slow reader stops.")
@click.option("--cold-rows", type=click.IntRange(1), default=2048, show_default=True)
@click.option("--cold-rounds", type=click.IntRange(0), default=3, show_default=True)
@click.option("--reader", "only", multiple=True, help="A name or its beginning; else all.")
@common_options
def main(
    rows: int,
    shape: tuple[int, ...],
    batch: int,
    threads: int,
    rounds: int,
    seconds: float,
    cold_rows: int,
    cold_rounds: int,
    only: tuple[str, ...],
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    chosen = [reader for reader in READERS if not only or reader.name.startswith(only)]
    if not chosen:
        raise click.UsageError(
            f"no --reader begins so; there are: {'; '.join(map(_name, READERS))}"
        )
    there = [reader for reader in chosen if not missing(reader)]
    threads = use_cores(threads)
    torch.set_num_threads(threads)
    made = MadeRows(rows, shape)
    settings = {"rows": rows, "shape": shape, "batch": batch, "threads": threads, "rounds": rounds}
    report = Report("cache_reading", settings)
    warm: Speeds = {}
    cold: Speeds = {}
    with working_folder(folder, keep, int(2.1 * rows * made.row_bytes)) as place:
        bench = Bench(place, made, batch, threads, rounds, seconds)
        for files in dict.fromkeys(reader.files for reader in there):
            note(f"{files} …")
            sharing = [reader for reader in there if reader.files == files]
            found = bench.compare(sharing, cold_rows, cold_rounds)
            for state, speeds in zip(("warm", "cold"), found, strict=True):
                for name, (speed, _, ratio) in speeds.items():
                    note(f"  {state}: {name}: {speed:,.0f} rows/s, {ratio:.3f} of the limit")
            warm |= found[0]
            cold |= found[1]
    report.table("Random rows, warm file cache", COLUMNS, _table(there, warm))
    report.notes.append(bench.limit_way)
    if cold:
        title = f"{min(cold_rows, rows):,} random rows, cold file cache"
        report.table(title, COLUMNS, _table(there, cold))
        report.notes.append(f"cold: {bench.cold_way}")
    bars = list(_bars(there, warm))
    if bars:
        report.table("Bars, warm file cache", ["tca", "bar", "Zarr", "HDF5", "met"], bars)
    how = [[reader.name, reader.settings] for reader in (*reading_files.LIMITS, *there)]
    report.table("How each reads", ["reader", "settings"], how)
    report.notes += [
        f"{reader.name}: not installed ({', '.join(missing(reader))})"
        for reader in chosen
        if missing(reader)
    ]
    report.show(output)


def _name(reader: type[Reader]) -> str:
    return reader.name


COLUMNS = ["reader", "rows/s", "limit beside it", "share of the limit"]


def _table(readers: list[type[Reader]], speeds: Speeds) -> list[list[Any]]:
    return [[reader.name, *speeds[reader.name]] for reader in readers]


def _bars(readers: list[type[Reader]], speeds: Speeds) -> Iterator[list[Any]]:
    """Yield what the issue asks for and what was reached, by the shares of the limit."""
    share = {name: ratio for name, (_, _, ratio) in speeds.items()}
    for how, least in (("unchecked", 0.85), ("checked", 0.75)):
        if set(OURS[how]) <= set(share):
            reached = [share[name] for name in OURS[how]]
            yield [how, f"≥ {least} × the limit", *reached, min(reached) >= least]
    families: dict[str, list[type[Reader]]] = {}
    for reader in readers:
        if reader.family != "tca":
            families.setdefault(reader.family, []).append(reader)
    for family, peers in families.items():
        fastest = max(peers, key=lambda peer: share[peer.name])
        streams = issubclass(fastest, StreamReader)
        for how in ("loader",) if streams else ("checked", "unchecked"):
            if set(OURS[how]) <= set(share):
                least = BARS.get(family, OTHERS)
                reached = [share[name] / share[fastest.name] for name in OURS[how]]
                yield [how, f"≥ {least:g} × {fastest.name}", *reached, min(reached) >= least]


if __name__ == "__main__":
    run(main)
