"""`tca cache repair`: taking away what is damaged, so that extraction makes it again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tca.cli.options import json_option
from tca.errors import TcaError

if TYPE_CHECKING:
    from tca.cache.repair import Repair
    from tca.cli.late_line import LateLine


@click.command("repair")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def repair(stores: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Take away the damaged parts of each STORE, so that `tca extract` makes just those again.

    Damaged shards are removed. Damaged metadata, labels and ids are set aside in STORE.damaged and
    come back when the store is extracted again. Lost lines of tca.sums are written anew, which
    takes the metadata as they are. What cannot be read is left alone.

    \b
    Examples:
      tca cache repair cache/train.zarr
      tca cache repair cache/*.zarr --dry-run
    """
    from tca.cache.remote import as_place
    from tca.cache.repair import repair as repair_store
    from tca.cli.late_line import LateLine
    from tca.console import print_json

    documents: list[dict[str, Any]] = []
    unreadable = False
    failed: list[str] = []
    for store in stores:
        try:
            with LateLine(f"verify {store}", "shards") as line:
                report = partial(_report, line)
                done = repair_store(as_place(store), dry_run=dry_run, report=report)
        except TcaError as error:
            if len(stores) == 1:
                raise
            failed.append(store)
            documents.append({"path": store, "error": str(error)})
            click.echo(f"error: {error}", err=True)
            continue
        documents.append({"path": store, **done.to_json()})
        unreadable = unreadable or bool(done.unreadable)
        if not as_json:
            _print(store, done, dry_run)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    if failed:
        raise TcaError(f"not repaired: {', '.join(failed)}; look at what is named above.")
    if unreadable:
        raise TcaError(
            "some files cannot be read and were left alone, see above; make them readable and run "
            "the command again."
        )


def _report(line: LateLine, done: int, total: int, size: int) -> None:
    line.reach(done, total)


def _print(store: str, done: Repair, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if done.shards:
        shards = ", ".join(map(str, done.shards))
        click.echo(
            f"{store}: damaged shards {would}removed: {len(done.shards)} ({shards}), with "
            f"{done.rows} rows"
        )
    if done.files:
        click.echo(
            f"{store}: damaged or missing outside the shards: {', '.join(done.files)}; what there "
            f"was {would or 'is '}set aside in {done.aside}"
        )
    if done.sums:
        click.echo(
            f"{store}: the sums of {', '.join(done.sums)} {would or 'were '}written anew, from the "
            "files as they are now"
        )
    for problem in done.unreadable:
        click.echo(f"{problem} (left alone)")
    if done.unchecked:
        click.echo(
            f"{store}: some shards could not be checked; run `tca cache repair` once more when the "
            "metadata are back"
        )
    if done.needed and not dry_run and (done.shards or done.files):
        click.echo(
            f"{store}: run tca extract again, or tca cache convert if that made the store; it "
            "makes what is missing and nothing else"
        )
    if not done.needed and not done.unreadable:
        click.echo(f"{store}: nothing to repair")
