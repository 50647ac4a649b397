"""`tca cache info`: what is in a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from tca.cli.options import json_option
from tca.errors import TcaError

LABELS = 20
"""Classes shown without `--labels`."""

REASONS = 10


@click.command("info")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--labels", "all_labels", is_flag=True, help=f"Show every class, not {LABELS}.")
@json_option
def info(stores: tuple[str, ...], all_labels: bool, as_json: bool) -> None:
    """Show shape, size, provenance and completeness of each STORE, failures and labels.

    STORE is a folder or a URL such as s3://bucket/train.zarr.

    \b
    Examples:
      tca cache info cache/train.zarr
      tca cache info cache/*.zarr --json
    """
    from tca.cache.info import describe
    from tca.cache.store import Store
    from tca.console import print_json

    documents: list[dict[str, Any]] = []
    failed: list[str] = []
    for store in stores:
        try:
            found = describe(Store.open(store))
        except TcaError as error:
            if len(stores) == 1:
                raise
            failed.append(store)
            documents.append({"path": store, "error": str(error)})
            click.echo(f"error: {error}", err=True)
            continue
        documents.append(found)
        if not as_json:
            _print(found, None if all_labels else LABELS)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    if failed:
        raise TcaError(f"not opened: {', '.join(failed)}; look at what is named above.")


def _print(found: dict[str, Any], labels: int | None) -> None:
    from tca.console import print_table

    print_table(found["path"], ["", ""], _rows(found))
    reasons = list(found["reasons"].items())
    if reasons:
        shown: list[tuple[str, object]] = reasons[:REASONS]
        if len(reasons) > REASONS:
            rest = sum(count for _, count in reasons[REASONS:])
            shown.append((f"… and {len(reasons) - REASONS} more", rest))
        print_table("why rows failed", ["reason", "rows"], shown)
    if found["labels"]:
        _print_labels(found["labels"], labels)


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    shards = found["shards"]
    yield "format", found["format"]
    yield "split", found["split"]
    yield "rows", found["rows"]
    for name, count in found["status"].items():
        yield f"- {name}", count
    yield "shards committed", f"{shards['committed']} of {shards['total']}"
    yield "rows per shard", found["rows_per_shard"]
    for name, stream in found["streams"].items():
        shape = " x ".join(str(size) for size in stream["shape"])
        yield name, f"{shape} {stream['type']}, {stream['bytes'] / 1e6:.1f} MB"
    if found["bytes"] is not None:
        yield "bytes on disk", f"{found['bytes'] / 1e6:.1f} MB"
    yield "classes", found["classes"]
    yield "rows without label", found["unlabelled"]
    yield from _flat("", found["identity"])
    yield from _flat("", found["record"])


def _flat(prefix: str, tree: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _print_labels(labels: dict[str, int], most: int | None) -> None:
    """Print a bar a class, the most frequent first."""
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    from tca.console import out

    ordered = sorted(labels.items(), key=lambda item: -item[1])
    shown = ordered if most is None else ordered[:most]
    table = Table(
        title=Text("rows by class", style="bold"), title_justify="left", show_header=False
    )
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column(width=30)
    largest = max(1, ordered[0][1])
    for name, count in shown:
        table.add_row(Text(name), Text(str(count)), Bar(largest, 0, count))
    out.print(table)
    rest = ordered[len(shown) :]
    if rest:
        low, high = rest[-1][1], rest[0][1]
        click.echo(f"… and {len(rest)} more with {low} to {high} rows (--labels shows all)")
