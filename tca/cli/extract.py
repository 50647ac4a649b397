"""`tca extract`: annotations and videos in, stores out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tca.cli.options import chosen_splits, json_option, project_options, splits_option
from tca.errors import TcaError, UsageError
from tca.project import load_project

if TYPE_CHECKING:
    from tca.extract.plan import Plan
    from tca.extract.run import Engine, ExtractSummary


@click.command("extract")
@project_options
@splits_option
@click.option("--gpus", help="GPUs to use, one process each: 0,1 or all.  [default: the first]")
@click.option("--device", help="A torch device instead, for example cpu.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes on a CPU; with --engine ray, actors.  [default: 1; ray: one a GPU]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="local: processes here; ray: actors over a cluster (tca[ray]).  [default: local]",
)
@click.option("--ray-address", help="A running Ray cluster.  [default: $RAY_ADDRESS, or a new one]")
@click.option(
    "--part",
    metavar="I/N",
    help="Make only part I of N, in a store of its own; `tca cache merge` puts them together.",
)
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["zarr", "hdf5"]),
    help="Format of the store; the name in `stores` gets its ending.  [default: as it ends, zarr]",
)
@click.option("--allow-missing", is_flag=True, help="Go on if videos are missing.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and write nothing.")
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    splits: tuple[str, ...],
    gpus: str | None,
    device: str | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    part: str | None,
    store_format: str | None,
    allow_missing: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Decode each video once, run both frozen backbones and cache the features.

    A run that was stopped or killed goes on where it was: run the same command again. Videos that
    cannot be read cost their row, never the run; they are listed beside the store.

    \b
    Examples:
      tca extract --split train --gpus 0,1
      tca extract --split validation --allow-missing semantic.keep=frames semantic.pool=2
      tca extract --format hdf5 extract.dtype=int8 --dry-run
      tca extract --split train --part 3/16        (docs/cluster.md: Slurm, Ray)
    """
    from tca.cache.formats import path_in_format
    from tca.console import print_json
    from tca.extract.plan import Part

    project, folder = load_project(config, overrides)
    wanted = chosen_splits(splits, project.data.annotations)
    common: dict[str, Any] = {
        "part": None if part is None else Part.parse(part),
        "store_format": store_format,
        "folder": folder,
        "allow_missing": allow_missing,
    }
    stores = {split: path_in_format(project.local_store(split), store_format) for split in wanted}
    with _engine(engine, ray_address, gpus, device, workers) as (devices, run):
        from tca.extract.run import extract, plan

        common["devices"] = devices
        if dry_run:
            plans = [plan(split, stores[split], project, **common) for split in wanted]
            _print_plans(plans, as_json)
            return
        summaries = [
            extract(split, stores[split], project, engine=run, **common) for split in wanted
        ]
    if as_json:
        print_json([summary.to_json() for summary in summaries])
    else:
        for summary in summaries:
            _print_summary(summary)


@contextmanager
def _engine(
    name: str, address: str | None, gpus: str | None, device: str | None, workers: int | None
) -> Iterator[tuple[list[str], Engine]]:
    """Give the devices and the engine that works on them."""
    if name == "local":
        from tca.extract.server import start_server

        # First of all, for both import for seconds: this process and the one that it forks from.
        start_server()
        from tca.device import device_names
        from tca.extract.engine import run_local

        if address is not None:
            raise UsageError("--ray-address goes with --engine ray; add that or leave it out.")
        yield device_names(gpus, device, workers), run_local
        return
    if gpus is not None or device not in (None, "cpu"):
        raise UsageError(
            "--engine ray chooses GPUs itself; say how many with --workers N, or --device cpu."
        )
    from tca.extract.ray_engine import ray_cluster

    with ray_cluster(address, workers, on_cpu=device == "cpu") as cluster:
        yield cluster.devices, cluster.run


def _print_plans(plans: list[Plan], as_json: bool) -> None:
    from tca.console import print_json, print_table

    if as_json:
        print_json([plan.to_json() for plan in plans])
    else:
        for plan in plans:
            print_table(f"{plan.split}: would be extracted", ["", ""], plan.lines())
    for plan in plans:
        if plan.problem is not None:
            raise TcaError(plan.problem)


def _print_summary(summary: ExtractSummary) -> None:
    from tca.console import duration, print_table

    counts = ", ".join(f"{count:,} {name}" for name, count in summary.status.items())
    rows: list[tuple[str, object]] = [("rows", f"{summary.rows:,}: {counts}")]
    if summary.done:
        rows += [
            ("made now", f"{summary.done:,} in {duration(summary.seconds)}"),
            ("videos/s", f"{summary.videos_per_second:.2f}"),
            ("slowest step", max(summary.busy, key=lambda step: summary.busy[step])),
        ]
    else:
        rows.append(("made now", "none: all were there"))
    if summary.failures is not None:
        rows.append(("failures", summary.failures))
    if summary.part is not None:
        rows.append(("part", f"{summary.part}; put all parts together with `tca cache merge`"))
    print_table(f"{summary.split}: {summary.store}", ["", ""], rows)
