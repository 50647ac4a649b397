"""What a store of very many rows costs: making it, opening it, planning an epoch, reading rows.

The rows are small, so that all of Something-Something-V2's fit; what is measured is what grows
with their number. Opening, planning and reading are measured in fresh processes, without imports.

    python benchmarks/cache_scale.py --markdown
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
from made_rows import MadeRows, made_spec, write_store
from measuring import seconds
from report import Numbers, Report, common_options, run, working_folder

from tca.cache.creation import create_store
from tca.cache.formats import FORMATS, SUFFIXES

SHAPES = {"semantic": (4, 8), "motion": (2, 8)}
OPEN_MS, OPEN_MB = 150, 100
MEASURES = ("open", "open_bytes", "rows", "blocks", "first_reads", "reads", "read_bytes")
COLUMNS = [
    "store",
    "rows",
    "create, ms",
    "fill, rows/s",
    "open, ms",
    "MB open",
    "shuffle rows, ms",
    "shuffle blocks, ms",
    "first reads, rows/s",
    "reads, rows/s",
    "MB after them",
]


def probed(path: Path, reads: int, processes: int) -> dict[str, float]:
    """Return the medians of what fresh processes needed; see `opened_store`."""
    script = str(Path(__file__).with_name("opened_store.py"))
    runs = []
    for _ in range(processes):
        command = [sys.executable, script, str(path), str(reads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in MEASURES}


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--rows", type=Numbers(), default=(2_000, 20_000, 220_847), help="Of each store.")
@click.option("--reads", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=5, show_default=True)
@common_options
def main(
    rows: tuple[int, ...],
    reads: int,
    processes: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    settings = {"shapes": SHAPES, "reads": reads, "processes": processes}
    report = Report("cache_scale", settings)
    table, bars = [], []
    with working_folder(folder, keep) as place:
        for store_format in FORMATS:
            suffix = next(end for end, name in SUFFIXES.items() if name == store_format)
            tiny = {name: MadeRows(8, shape) for name, shape in SHAPES.items()}
            write_store(place / f"tiny{suffix}", tiny, store_format)
            for count in rows:
                path = place / f"{count}{suffix}"
                made = {name: MadeRows(count, shape) for name, shape in SHAPES.items()}
                spec = made_spec(count, SHAPES)
                create = seconds(partial(create_store, path, spec, store_format))
                fill = seconds(partial(write_store, path, made, store_format))
                found = probed(path, reads, processes)
                opened, megabytes = 1000 * found["open"], found["open_bytes"] / 1e6
                after = found["read_bytes"] / 1e6
                table.append(
                    [
                        store_format,
                        count,
                        1000 * create,
                        count / fill,
                        opened,
                        megabytes,
                        1000 * found["rows"],
                        1000 * found["blocks"],
                        reads / found["first_reads"],
                        reads / found["reads"],
                        after,
                    ]
                )
                if count == max(rows):
                    bars.append([f"{store_format}: open ≤ {OPEN_MS} ms", opened, opened <= OPEN_MS])
                    bars.append([f"{store_format}: open ≤ {OPEN_MB} MB", after, after <= OPEN_MB])
    report.table("Stores of more and more rows", COLUMNS, table)
    report.table(f"Bars, {max(rows):,} rows", ["bar", "reached", "met"], bars)
    report.show(output)


if __name__ == "__main__":
    run(main)
