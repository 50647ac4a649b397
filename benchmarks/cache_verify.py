"""How fast `verify` checks a store, next to reading the same files with as many threads.

python benchmarks/cache_verify.py --folder /scratch --markdown
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import click
from made_rows import MadeRows, write_store
from measuring import forget_files, read_files, seconds, take_turns, use_cores
from report import Numbers, Report, common_options, run, working_folder

from tca.cache.formats import FORMATS
from tca.cache.verify import verify

BAR = 1.0
"""GB/s a core, or the disk's speed."""
DISK_SPEED = 0.9
"""From which share on it is the disk's speed."""


class Sides:
    """Verifying one store, and reading its files."""

    def __init__(self, path: Path, made: dict[str, MadeRows], cores: int) -> None:
        self.path, self.cores = path, cores
        self._rows = sum(some.rows for some in made.values())
        self._size = read_files(path)

    def verify(self, cold: bool) -> float:
        """Return GB/s of `verify`.

        Raises:
            ValueError: it says that something is wrong, or did not look at all rows.
        """
        self._prepare(cold)
        begin = time.perf_counter()
        found = verify(self.path)
        took = time.perf_counter() - begin
        if found.problems or found.rows != self._rows:
            raise ValueError(f"{found.rows} of {self._rows} rows, {found.problems}")
        return self._size / took / 1e9

    def read(self, cold: bool) -> float:
        """Return GB/s of reading the files."""
        self._prepare(cold)
        return self._size / seconds(lambda: read_files(self.path, self.cores)) / 1e9

    def _prepare(self, cold: bool) -> None:
        if cold:
            forget_files(self.path)


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--rows", type=click.IntRange(1), default=6_000, show_default=True)
@click.option("--semantic", type=Numbers(), default=(196, 768), help="[default: 196,768]")
@click.option("--motion", type=Numbers(), default=(8, 512), help="[default: 8,512]")
@click.option("--cores", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--cold-rounds", type=click.IntRange(0), default=3, show_default=True)
@common_options
def main(
    rows: int,
    semantic: tuple[int, ...],
    motion: tuple[int, ...],
    cores: int,
    rounds: int,
    cold_rounds: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    cores = use_cores(cores)
    made = {"semantic": MadeRows(rows, semantic), "motion": MadeRows(rows, motion)}
    report = Report("cache_verify", {"rows": rows, "cores": cores, "rounds": rounds})
    size = len(FORMATS) * sum(some.rows * some.row_bytes for some in made.values())
    table = []
    with working_folder(folder, keep, size) as place:
        for store_format in FORMATS:
            path = place / f"train.{store_format}"
            write_store(path, made, store_format)
            sides = Sides(path, made, cores)
            sides.verify(cold=False)
            for state, turns in (("warm", rounds), ("cold", cold_rounds)):
                if not turns:
                    continue
                cold = state == "cold"
                checking, reading = partial(sides.verify, cold), partial(sides.read, cold)
                ours, limit, ratio = take_turns(reading, {"verify": checking}, turns)["verify"]
                met = ours / cores >= BAR or (cold and ratio >= DISK_SPEED)
                table.append([f"{store_format}, {state}", ours, ours / cores, limit, ratio, met])
    columns = ["store", "GB/s", "GB/s a core", "reading the files, GB/s", "ratio", "met"]
    report.table("`verify`", columns, table)
    report.show(output)


if __name__ == "__main__":
    run(main)
