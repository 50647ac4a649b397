"""`tca cache convert`: a store in, the same in another form out."""

from __future__ import annotations

import re
from pathlib import Path

import click

from tca.cli.options import json_option, split_choice
from tca.errors import UsageError

ROWS_PER_SHARD = 65_536
"""The most that can be asked for: a shard is held in memory, and is lost or copied as a whole."""


def _range(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int | None, int | None] | None:
    """Read FIRST:END, of which either may be left out."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d*):(\d*)", value)
    if found is None or value == ":":
        raise click.BadParameter(f"{value!r} is not FIRST:END, for example 0:1000.")
    first, end = (int(text) if text else None for text in found.groups())
    return first, end


@click.command("convert")
@click.argument("source")
@click.argument("target")
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["zarr", "hdf5"]),
    help="Format of TARGET.  [default: as its name ends, or zarr]",
)
@click.option(
    "--type",
    "stored",
    type=click.Choice(["float16", "bfloat16", "float32", "int8"]),
    help="Stored type of the features.  [default: as in SOURCE]",
)
@click.option(
    "--rows-per-shard",
    type=click.IntRange(1, ROWS_PER_SHARD),
    metavar="N",
    help="Rows in one shard.  [default: as in SOURCE]",
)
@click.option("--stream", type=click.Choice(["semantic", "motion"]), help="The one stream to keep.")
@click.option(
    "--split",
    "splits",
    type=split_choice,
    multiple=True,
    help="What {split} in SOURCE and TARGET stands for; may be repeated.",
)
@click.option(
    "--ids",
    "ids_file",
    type=click.Path(path_type=Path),
    help="Keep the videos listed in this file, one id a line.",
)
@click.option("--rows", callback=_range, metavar="FIRST:END", help="Keep these rows.")
@click.option("--only-ok", is_flag=True, help="Keep rows that have features only.")
@json_option
def convert(
    source: str,
    target: str,
    store_format: str | None,
    stored: str | None,
    rows_per_shard: int | None,
    stream: str | None,
    splits: tuple[str, ...],
    ids_file: Path | None,
    rows: tuple[int | None, int | None] | None,
    only_ok: bool,
    as_json: bool,
) -> None:
    """Copy the store SOURCE to TARGET in another format, type, sharding or selection.

    SOURCE may be any store that tca reads, made by others or behind a URL. A conversion that was
    stopped goes on where it was: run the same command again. Rows that SOURCE has not extracted
    yet follow when it has, by running it once more.

    \b
    Examples:
      tca cache convert cache/train.zarr cache/train.h5
      tca cache convert cache/train.zarr small/train.zarr --type int8 --stream semantic
      tca cache convert s3://bucket/{split}.zarr cache/{split}.zarr --split train --split test
    """
    from tca.cache.conversion import Changes
    from tca.cache.convert import convert as convert_store
    from tca.cache.failures import report_failures
    from tca.cache.remote import as_place
    from tca.cache.selection import Selection, read_ids
    from tca.cache.store import Store
    from tca.console import print_json

    ids = None if ids_file is None else read_ids(ids_file)
    changes = Changes(stored, rows_per_shard, stream, Selection(rows, ids, only_ok))
    documents = []
    try:
        for source_path, target_path in _pairs(source, target, splits):
            place = as_place(target_path)
            if not isinstance(place, Path):
                raise UsageError(
                    f"{target_path} is a URL; TARGET must be on a disk of this machine."
                )
            done = convert_store(source_path, place, changes, store_format)
            report_failures(Store.open(place))
            documents.append(done.to_json())
            if not as_json:
                later = f", {done.missing} to come when {done.source} has them" * bool(done.missing)
                failed = f", {done.failed} without features" * bool(done.failed)
                size = f"{done.bytes / 1e6:.1f} MB as {done.format}"
                click.echo(f"{done.rows} rows{failed}{later}, {size}: {place}")
    finally:
        # Splits before one that failed are done and stay.
        if as_json and documents:
            print_json(documents)


def _pairs(source: str, target: str, splits: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return what to convert to what."""
    named = ["{split}" in path for path in (source, target)]
    if not any(named):
        if splits:
            raise UsageError(
                "--split says what {split} in SOURCE and TARGET stands for, and they have none; "
                "write for example cache/{split}.zarr."
            )
        return [(source, target)]
    if not all(named) or not splits:
        raise UsageError(
            "{split} must be in both SOURCE and TARGET, and --split must say what it stands for, "
            "for example --split train --split validation."
        )
    return [
        (source.replace("{split}", split), target.replace("{split}", split))
        for split in dict.fromkeys(splits)
    ]
