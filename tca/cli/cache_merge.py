"""`tca cache merge`: one store out of parts that were made on several machines."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option
from tca.errors import UsageError

BESIDE = (".lock", ".failures", ".failures.csv")
"""Ends the names of what is no store, but belongs to the one of the name before."""


@click.command("merge")
@click.argument("out", metavar="OUT")
@click.argument("parts", metavar="PART...", nargs=-1, required=True)
@json_option
def merge(out: str, parts: tuple[str, ...], as_json: bool) -> None:
    """Put the shards of every PART into the store OUT, which is made if it is not there.

    The parts are stores made from the same annotations with the same settings, each with some of
    the shards. Every row is checked before it is copied, and a merge that was stopped goes on where
    it was. OUT may be one of the parts.

    \b
    Examples:
      tca cache merge cache/train.zarr node1/train.zarr node2/train.zarr
      tca cache merge node1/train.zarr node2/train.zarr
    """
    from tca.cache.failures import report_failures
    from tca.cache.merge import merge as merge_stores
    from tca.cache.store import Store
    from tca.cli.late_line import LateLine
    from tca.console import print_json

    target, *sources = _folders(out, parts)
    with LateLine(f"merge into {out}", "MB") as line:

        def report(done: int, total: int) -> None:
            line.reach(done // 1_000_000, total // 1_000_000)

        done = merge_stores(target, sources, report)
    failures = report_failures(Store.open(target))
    if as_json:
        print_json(done.to_json())
        return
    for part, count in done.copied.items():
        click.echo(f"{count} shards copied from {part}")
    if done.missing:
        click.echo(
            f"{out}: {done.shards - len(done.missing)} of {done.shards} shards; missing with "
            f"{done.missing_rows} rows: {_ranges(done.missing)}"
        )
    else:
        click.echo(f"{out}: all {done.shards} shards, {done.rows} rows")
    if failures is not None:
        click.echo(f"rows without features and why: {failures}")


def _folders(out: str, parts: tuple[str, ...]) -> list[Path]:
    """Return OUT and every PART as paths, without what only lies beside a part."""
    from tca.cache.remote import as_place

    folders = []
    for name in (out, *parts):
        place = as_place(name)
        if not isinstance(place, Path):
            remedy = (
                "OUT must be on a disk of this machine; copy it to where it shall be afterwards"
                if name == out
                else f"bring it to a disk of this machine with `tca cache convert {name} FOLDER`, "
                "and merge that"
            )
            raise UsageError(f"{name} is a URL; {remedy}.")
        folders.append(place)
    # What lies beside a part comes along where a shell expands train.part-*.
    beside = {f.with_name(f.name + end) for f in folders for end in BESIDE}
    return [folder for folder in folders if folder not in beside]


def _ranges(shards: list[int]) -> str:
    """Return ascending numbers as `0-3, 7`."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][-1] + 1:
            runs[-1][1:] = [shard]
        else:
            runs.append([shard])
    return ", ".join("-".join(map(str, run)) for run in runs)
