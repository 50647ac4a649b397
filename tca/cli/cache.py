"""`tca cache`: what is in a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tca.cli.cache_convert import convert
from tca.cli.options import json_option


@click.group("cache")
def command() -> None:
    """Look at stores."""


command.add_command(convert)


@command.command("info")
@click.argument("store", type=click.Path(path_type=Path))
@json_option
def info(store: Path, as_json: bool) -> None:
    """Show shape, size, provenance and completeness of STORE.

    \b
    Example:
      tca cache info cache/train.zarr
    """
    from tca.cache.info import describe
    from tca.cache.store import Store
    from tca.console import print_json, print_table

    found = describe(Store.open(store))
    if as_json:
        print_json(found)
        return
    shards = found["shards"]
    rows: list[tuple[str, object]] = [
        ("split", found["split"]),
        ("rows", found["rows"]),
        *((f"- {name}", count) for name, count in found["status"].items()),
        ("shards committed", f"{shards['committed']} of {shards['total']}"),
    ]
    for name, stream in found["streams"].items():
        shape = " x ".join(str(size) for size in stream["shape"])
        rows.append((name, f"{shape} {stream['type']}, {stream['bytes'] / 1e6:.1f} MB"))
    rows += [
        ("bytes in all", f"{found['bytes'] / 1e6:.1f} MB"),
        ("classes", found["classes"]),
        ("rows without label", found["unlabelled"]),
        *_flat("", found["identity"]),
        *_flat("", found["record"]),
    ]
    print_table(str(store), ["", ""], rows)


def _flat(prefix: str, tree: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
