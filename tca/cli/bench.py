"""`tca bench`: how near tca comes to what this machine can do."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import load_project


@click.group("bench")
def command() -> None:
    """Measure tca on this machine, with your own videos and backbones.

    \b
    Example:
      tca bench extract --videos 256
    """


@command.command("extract")
@project_options
@click.option("--split", type=split_choice, default="train", show_default=True)
@click.option("--device", help="A torch device.  [default: the first GPU, else the CPU]")
@click.option(
    "--videos", type=click.IntRange(1), default=128, show_default=True, help="Videos a round."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@json_option
def extract(
    config: Path | None,
    overrides: tuple[str, ...],
    split: str,
    device: str | None,
    videos: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure decoding, mapping and writing alone, and all of them together.

    efficiency = whole / limit. The limit is the slowest stage alone if the backbones run on a GPU;
    where all share the CPU, it is the cores over the CPU seconds that a row takes in all stages.
    Stores are written beside yours and deleted.

    \b
    Examples:
      tca bench extract
      tca bench extract --split validation --videos 512 extract.batch_size=16
    """
    from tca.console import print_json, print_table
    from tca.device import choose_device
    from tca.extract.bench import bench_extract

    project, folder = load_project(config, overrides)
    place = project.local_store(split).absolute()
    found = bench_extract(
        split,
        project,
        device=str(choose_device(device or "auto")),
        videos=videos,
        rounds=rounds,
        folder=folder,
        scratch=next(parent for parent in place.parents if parent.exists()),
    )
    if as_json:
        print_json(found.to_json())
        return
    rows = [
        (name, f"{speed.rows_per_second:.2f}", f"{speed.cpu_seconds:.3f}")
        for name, speed in {**found.alone, "whole": found.whole}.items()
    ]
    print_table(
        f"{found.device}, {found.cores} cores: {found.rounds} rounds of {found.rows} rows in "
        f"batches of {found.batch_size}",
        ["", "rows/s", "CPU seconds a row"],
        [
            *rows,
            (f"limit (mostly {found.slowest})", f"{found.limit:.2f}", ""),
            ("efficiency", f"{found.efficiency:.2f}", ""),
        ],
    )
