"""Epochs of a store that does not fit in the memory that the process may use.

The process is put into a control group (takes root, or a group of one's own); the file cache counts
as its memory. The limit is reading the store's files once from front to back. Every turn begins
with none of the files in the file cache, and every row that comes is looked at.

    sudo python benchmarks/cache_cold.py --folder /scratch --markdown
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import click
from limited_epochs import FILES
from made_rows import MadeRows, write_store
from memory_group import NoGroupError, run_limited
from report import Numbers, Report, common_options, run, working_folder

from tca.cache.formats import FORMATS


@click.command(help=__doc__.replace("    sudo", "\b\n    sudo"))
@click.option("--rows", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--semantic", type=Numbers(), default=(196, 768), help="[default: 196,768]")
@click.option("--motion", type=Numbers(), default=(8, 512), help="[default: 8,512]")
@click.option("--memory", default=2.0, show_default=True, help="GiB that the process may use.")
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True)
@click.option("--buffer-blocks", type=click.IntRange(1), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@common_options
def main(
    rows: int,
    semantic: tuple[int, ...],
    motion: tuple[int, ...],
    memory: float,
    batch: int,
    buffer_blocks: int,
    rounds: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    made = {"semantic": MadeRows(rows, semantic), "motion": MadeRows(rows, motion)}
    row_bytes = sum(some.row_bytes for some in made.values())
    gigabytes = row_bytes * rows / 1e9
    size = len(FORMATS) * row_bytes * rows
    settings = {
        "rows": rows,
        "store_gb": round(gigabytes, 1),
        "memory_gib": memory,
        "batch": batch,
        "buffer_blocks": buffer_blocks,
        "rounds": rounds,
    }
    report = Report("cache_cold", settings)
    table = []
    script = str(Path(__file__).with_name("limited_epochs.py"))
    numbers = [str(number) for number in (batch, rounds, buffer_blocks)]
    with working_folder(folder, keep, size) as place:
        for store_format in FORMATS:
            path = place / f"train.{store_format}"
            write_store(path, made, store_format)
            command = [sys.executable, script, str(path), *numbers]
            try:
                turns = json.loads(run_limited(command, int(memory * 2**30)))
            except NoGroupError as error:
                report.notes.append(f"not measured: {error}; run it as root")
                break
            limit = turns[FILES]
            for name, speeds in turns.items():
                ratio = statistics.median(a / b for a, b in zip(speeds, limit, strict=True))
                speed = statistics.median(speeds)
                table.append([f"{store_format}, {name}", speed, speed * row_bytes / 1e9, ratio])
    columns = ["reader", "rows/s", "GB/s", "share of the files' speed"]
    report.table(f"Epochs of {gigabytes:.1f} GB in {memory:g} GiB of memory", columns, table)
    report.show(output)


if __name__ == "__main__":
    run(main)
