"""What every benchmark of the cache needs: made rows, fair timing, cold files, one table.

Machines that run these are rarely idle, so nothing is timed alone: contenders and the limit take
turns, and the ratio of the two that ran side by side is what counts, its median over all rounds.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.writer import StoreWriter
from tca.console import note, print_json, print_table

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK = 16 << 20
"""Bytes that reading a file alone asks for at once."""


class MadeRows:
    """Rows of random float16 numbers, which do not compress; each begins with its own number.

    Few are drawn and used again and again: drawing 6 GB would take longer than anything else.
    """

    def __init__(self, rows: int, shape: tuple[int, ...] = (196, 768)) -> None:
        self.rows, self.shape = rows, shape
        width = int(np.prod(shape))
        if width < 2:
            raise ValueError("a row needs room for its number")
        draw = np.random.default_rng(0).standard_normal((min(rows, 64), width), np.float32)
        self._drawn = draw.astype(np.float16)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * 2

    def block(self, rows: Array | range) -> Array:
        """Return rows of these numbers, (n, …) float16."""
        numbers = np.asarray(rows, dtype=np.int64)
        block = self._drawn[numbers % len(self._drawn)]
        block.view(np.uint16)[:, :2] = numbers.astype("<u4").view(np.uint16).reshape(-1, 2)
        return block.reshape(len(numbers), *self.shape)

    def blocks(self, size: int = 256) -> Iterator[tuple[range, Array]]:
        """Yield all rows, `size` at a time, with their numbers."""
        for start in range(0, self.rows, size):
            numbers = range(start, min(start + size, self.rows))
            yield numbers, self.block(numbers)


def numbers_of(block: Array) -> Array:
    """Return which rows these are, by what they begin with."""
    flat = np.ascontiguousarray(block.reshape(len(block), -1)[:, :2])
    return flat.view(np.uint16).view("<u4").ravel().astype(np.int64)


def made_spec(
    rows: int, shapes: Mapping[str, tuple[int, ...]], rows_per_shard: int = 256
) -> StoreSpec:
    """Return what a store of `rows` made rows holds."""
    number = np.arange(rows)
    table = RowTable(
        [str(10**5 + row) for row in number],
        (number % 174).astype(np.int32),
        number.astype(np.int32),
        np.zeros(rows, np.uint8),
    )
    return StoreSpec(
        split="train",
        rows=table,
        streams={name: Stream((rows, *shape), "float16") for name, shape in shapes.items()},
        rows_per_shard=rows_per_shard,
        classes=tuple(f"class {label}" for label in range(174)),
        identity={"made": "random"},
        record={},
        grid=(14, 14),
    )


def write_store(path: Path, made: Mapping[str, MadeRows], store_format: str) -> StoreWriter:
    """Write a whole store of made rows, one `MadeRows` a stream."""
    some = next(iter(made.values()))
    spec = made_spec(some.rows, {name: rows.shape for name, rows in made.items()})
    writer = StoreWriter.open_or_create(path, spec, store_format)
    for shard in range(writer.shards):
        numbers = writer.shard_rows(shard)
        features = {name: list(rows.block(numbers)) for name, rows in made.items()}
        writer.commit(shard, features, np.full(len(numbers), Status.OK, np.uint8))
    return writer


Measured = Callable[[], float]
"""Does the work once and returns how much of it a second."""


def take_turns(
    limit: Measured, contenders: Mapping[str, Measured], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Let every contender and, next to each, the limit work `rounds` times.

    Returns:
        By name the medians of speed, of the limit's speed beside it, and of the ratio of the two.
    """
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, contender in contenders.items():
            # Whoever goes second finds the processor's caches in another state.
            if turn % 2:
                ours = contender()
                speeds[name].append((ours, limit()))
            else:
                theirs = limit()
                speeds[name].append((contender(), theirs))
    return {
        name: (
            statistics.median(ours for ours, _ in pairs),
            statistics.median(theirs for _, theirs in pairs),
            statistics.median(ours / theirs for ours, theirs in pairs),
        )
        for name, pairs in speeds.items()
    }


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def files_under(folder: Path) -> list[Path]:
    """Return all files of a folder (or the file itself), in order."""
    if folder.is_file():
        return [folder]
    return sorted(file for file in folder.rglob("*") if file.is_file())


def read_files(folder: Path, chunk: int = CHUNK) -> int:
    """Read all files of a folder one after the other, as `cat` would; return their bytes."""
    room = memoryview(bytearray(chunk))
    total = 0
    for file in files_under(folder):
        with open(file, "rb", buffering=0) as opened:
            while got := opened.readinto(room):
                total += got
    return total


def drop_file_cache() -> bool:
    """Empty the system's file cache; False where that is not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    except OSError:
        return False
    return True


COLD_NOT_ALLOWED = "cold: skipped, emptying the file cache takes root"


@contextmanager
def working_folder(folder: Path | None, keep: bool) -> Iterator[Path]:
    """Yield a folder of our own under `folder`, deleted at the end unless `keep`."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="tca-benchmark-", dir=folder))
    try:
        yield made
    finally:
        if keep:
            note(f"kept: {made}")
        else:
            shutil.rmtree(made, ignore_errors=True)


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all benchmarks of the cache have."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option("--keep", is_flag=True, help="Do not delete what was written."),
        click.option(
            "--folder",
            type=click.Path(path_type=Path),
            help="Where to write; on the disk to be measured.  [default: the temporary folder]",
        ),
    ):
        command = option(command)
    return command


@dataclass
class Report:
    """The tables of one benchmark."""

    what: str
    settings: dict[str, Any]
    tables: list[tuple[str, list[str], list[list[Any]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""
        self.tables.append((title, list(columns), [list(row) for row in rows]))

    def show(self, as_json: bool) -> None:
        """Print everything; numbers in JSON are not rounded."""
        if not as_json:
            for title, columns, rows in self.tables:
                print_table(title, columns, [[shown(cell) for cell in row] for row in rows])
            for line in self.notes:
                note(line)
            return
        print_json(
            {
                "benchmark": self.what,
                "settings": self.settings,
                "machine": machine(),
                "tables": [
                    {"title": title, "rows": [dict(zip(columns, r, strict=True)) for r in rows]}
                    for title, columns, rows in self.tables
                ],
                "notes": self.notes,
            }
        )


def shown(cell: Any) -> str:
    """Return a cell as a person reads it: three digits that matter."""
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else str(cell)
    if abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.3g}" if abs(cell) < 0.01 else f"{cell:.1f}" if cell >= 10 else f"{cell:.2f}"


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of this machine; no names."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
