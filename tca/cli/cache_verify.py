"""`tca cache verify`: whether a store is as it was written, or holds the same as another."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import click

from tca.cli.options import json_option
from tca.errors import TcaError, UsageError

if TYPE_CHECKING:
    from tca.cache.compare import Comparison
    from tca.cache.verify import Verification


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse what every difference is within: `nan`, `inf`."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} allows anything; give a number such as 0.01.")
    return value


@click.command("verify")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option(
    "--against",
    metavar="OTHER",
    help="Compare with this store of the same rows, perhaps made on another kind of device.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    callback=_finite,
    help="With --against: how far a row may be off, relative to its largest magnitude.  "
    "[default: 8 roundings of the coarser stored type, for float16 0.0039]",
)
@json_option
def verify(
    stores: tuple[str, ...], against: str | None, tolerance: float | None, as_json: bool
) -> None:
    """Check every byte of each STORE against its checksum, and name all that is damaged.

    Exit code 1 if there is damage, or if --against finds more than rounding.

    \b
    Examples:
      tca cache verify cache/train.zarr cache/validation.zarr
      tca cache verify cache/train.zarr --against other/train.h5
    """
    from tca.console import print_json

    if against is not None and len(stores) > 1:
        raise UsageError("--against compares one STORE with OTHER; name one.")
    if tolerance is not None and against is None:
        raise UsageError("--tolerance is for --against.")
    documents: list[dict[str, Any]] = []
    failed: list[str] = []
    for store in stores:
        try:
            document = _verified(store, as_json)
        except TcaError as error:
            if len(stores) == 1:
                raise
            document = {"path": store, "error": str(error)}
            click.echo(f"error: {error}", err=True)
        documents.append(document)
        if "error" in document or document["problems"]:
            failed.append(store)
    if against is not None and not failed:
        documents[0]["against"] = _compared(stores[0], against, tolerance, as_json)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    _exit(documents, failed, against)


def _exit(documents: list[dict[str, Any]], failed: list[str], against: str | None) -> None:
    """Raise the error that says what to do, if there was a problem."""
    if failed:
        problems = [p for document in documents for p in document.get("problems", [])]
        remedy = "look at what is named above"
        if any(problem["damage"] for problem in problems):
            remedy = (
                "`tca cache repair` takes away what is damaged and `tca extract` makes it again"
            )
        raise TcaError(f"not sound: {', '.join(failed)}; {remedy}.")
    if against is not None and not documents[0]["against"]["agrees"]:
        raise TcaError(
            f"{documents[0]['path']} and {against} do not hold the same; see above, or allow more "
            "with --tolerance."
        )


def _verified(store: str, as_json: bool) -> dict[str, Any]:
    from tca.cache.remote import as_place
    from tca.cache.verify import verify as verify_store
    from tca.cli.late_line import LateLine

    started = time.monotonic()
    with LateLine(f"verify {store}", "shards") as line:
        seen = 0

        def report(done: int, total: int, size: int) -> None:
            nonlocal seen
            seen += size
            rate = seen / 1e9 / max(time.monotonic() - started, 1e-9)
            line.reach(done, total, f"{rate:.2f} GB/s")

        found = verify_store(as_place(store), report)
    seconds = time.monotonic() - started
    if not as_json:
        _print(store, found, seconds)
    return {
        "path": store,
        **found.to_json(),
        "seconds": seconds,
        "bytes_per_second": found.bytes / seconds,
    }


def _print(store: str, found: Verification, seconds: float) -> None:
    for problem in found.problems:
        click.echo(str(problem))
    for text in found.notes:
        click.echo(f"{store}: {text}")
    count = len(found.problems)
    click.echo(
        f"{store}: {f'problems: {count}' if count else 'sound'}; {found.shards} shards, "
        f"{found.rows} rows of features, {found.bytes / 1e9:.2f} GB in {seconds:.1f} s, "
        f"{found.bytes / 1e9 / seconds:.2f} GB/s"
    )


def _compared(store: str, against: str, tolerance: float | None, as_json: bool) -> dict[str, Any]:
    from tca.cache.compare import compare
    from tca.cache.store import Store
    from tca.cli.late_line import LateLine

    one, other = Store.open(store), Store.open(against)
    with LateLine(f"compare with {against}", "rows") as line:
        found = compare(one, other, tolerance, line.reach)
    if not as_json:
        _print_comparison(store, against, found)
    return {"path": against, **found.to_json()}


def _print_comparison(store: str, against: str, found: Comparison) -> None:
    from tca.console import print_table

    for text in found.settings:
        click.echo(f"made differently: {text}")
    streams = found.streams.values()
    print_table(
        f"{store} against {against}",
        ["", *found.streams],
        [
            ("stored types", *(" and ".join(dict.fromkeys(s.types)) for s in streams)),
            ("rows compared", *(s.rows for s in streams)),
            ("rows that differ", *(s.different for s in streams)),
            ("largest difference", *(f"{s.absolute:.3g}" for s in streams)),
            ("- of the row's largest magnitude", *(f"{s.relative:.3g}" for s in streams)),
            ("allowed of that", *(f"{s.tolerance:.2g}" for s in streams)),
            ("rows beyond that", *(s.beyond for s in streams)),
        ],
    )
    for problem in found.problems:
        click.echo(problem)
