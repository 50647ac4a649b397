"""Whether extraction's memory stays flat: peak of all its processes, early and late in a long run.

One `tca extract` in a process of its own, on many videos (links to the given ones, under new
names), with small random backbones; memory is the resident memory of its whole process tree.

    python benchmarks/extract_memory.py --data FOLDER --markdown
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
from report import Report, common_options, run, working_folder
from tiny_backbones import TINY

from tca.cache.layout import rows_per_shard
from tca.config import dump_yaml
from tca.errors import TcaError
from tca.extract.video_files import VIDEO_SUFFIXES

EVERY_S = 0.2
BAR = 1.05


def project(folder: Path, data: Path, videos: int) -> Path:
    """Write a data set of `videos` links and its tca.yaml, and return that."""
    found = sorted(f for f in data.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise TcaError(f"there are no videos below {data}.")
    (folder / "videos").mkdir()
    names = []
    for number in range(videos):
        file = found[number % len(found)]
        names.append(f"{number:06}")
        (folder / "videos" / f"{names[-1]}{file.suffix}").symlink_to(file.absolute())
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "label"], *([name, "any"] for name in names)])
    config = {
        "data": {"videos": "videos", "annotations": {"train": "train.csv"}},
        "semantic": {"weights": "random:0", **TINY["semantic"], "size": 64},
        "motion": {"weights": "random:0", "blocks": [1, 1, 1, 1], "size": 32},
    }
    (folder / "tca.yaml").write_text(dump_yaml(config))
    return folder / "tca.yaml"


def resident_bytes(process: psutil.Process) -> int:
    """Return the resident memory of a process and all below it."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def watch(config: Path, device: str, part: int) -> list[tuple[int, int]]:
    """Extract, and return (rows committed, bytes) again and again.

    Raises:
        TcaError: it failed.
    """
    command = [sys.executable, "-m", "tca", "extract", "--config", str(config), "--device", device]
    said = config.with_name("stderr")
    seen: list[tuple[int, int]] = []
    with said.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        status = config.parent / "cache/train.zarr/status/c"
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            rows = part * len(list(status.glob("[0-9]*"))) if status.exists() else 0
            seen.append((rows, resident_bytes(tree)))
            time.sleep(EVERY_S)
    if process.returncode:
        raise TcaError(f"tca extract failed: {said.read_text().splitlines()[-1]}")
    return seen


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--videos", type=click.IntRange(4), default=2000, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@common_options
def main(
    data: Path, videos: int, device: str, output: str | None, keep: bool, folder: Path | None
) -> None:
    report = Report("extract_memory", {"videos": videos, "device": device})
    quarter = videos // 4
    with working_folder(folder, keep) as place:
        config = project(place, data, videos)
        seen = watch(config, device, rows_per_shard(videos))
    first = max(size for rows, size in seen if 0 < rows <= quarter)
    last = max(size for rows, size in seen if rows >= videos - quarter)
    table = [[first / 1e6, last / 1e6, last / first, last / first <= BAR]]
    columns = [f"first {quarter} rows, peak MB", f"last {quarter} rows, peak MB", "ratio", "≤ 1.05"]
    report.table("Resident memory of all processes of `tca extract`", columns, table)
    report.notes.append("from the first commit on: what fills up at the start is no growth")
    report.show(output)


if __name__ == "__main__":
    run(main)
