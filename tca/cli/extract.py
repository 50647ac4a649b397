"""`tca extract`: annotations and videos in, stores out."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import chosen_splits, json_option, project_options, splits_option
from tca.project import load_project


@click.command("extract")
@project_options
@splits_option
@click.option("--gpus", help="GPUs to use, one process each, for example 0,1.")
@click.option("--device", help="A torch device instead, for example cpu.")
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["zarr", "hdf5"]),
    help="Format of the store; the name in `stores` gets its ending.  [default: as it ends, zarr]",
)
@click.option("--allow-missing", is_flag=True, help="Go on if videos are missing.")
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    splits: tuple[str, ...],
    gpus: str | None,
    device: str | None,
    store_format: str | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Decode each video once, run both frozen backbones and cache the features.

    A run that was stopped or killed goes on where it was: run the same command again. Videos that
    cannot be read cost their row, never the run; they are listed beside the store.

    \b
    Examples:
      tca extract --split train --gpus 0,1
      tca extract --split validation --allow-missing semantic.keep=frames semantic.pool=2
      tca extract --format hdf5 extract.dtype=int8
    """
    from tca.cache.formats import path_in_format
    from tca.console import duration, print_json, print_table
    from tca.device import device_names
    from tca.extract.run import extract

    project, folder = load_project(config, overrides)
    wanted = chosen_splits(splits, project.data.annotations)
    devices = device_names(gpus, device)
    summaries = [
        extract(
            split,
            path_in_format(project.local_store(split), store_format),
            project,
            devices=devices,
            store_format=store_format,
            folder=folder,
            allow_missing=allow_missing,
        )
        for split in wanted
    ]
    if as_json:
        print_json([summary.to_json() for summary in summaries])
        return
    for summary in summaries:
        counts = ", ".join(f"{count} {name}" for name, count in summary.status.items())
        slowest = max(summary.busy, key=lambda step: summary.busy[step])
        rows: list[tuple[str, object]] = [("rows", f"{summary.rows}: {counts}")]
        if summary.done:
            rows += [
                ("made now", f"{summary.done} in {duration(summary.seconds)}"),
                ("videos/s", f"{summary.videos_per_second:.2f}"),
                ("slowest step", slowest),
            ]
        else:
            rows.append(("made now", "none: all were there"))
        if summary.failures is not None:
            rows.append(("failures", summary.failures))
        print_table(f"{summary.split}: {summary.store}", ["", ""], rows)
