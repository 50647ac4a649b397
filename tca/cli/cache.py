"""`tca cache`: what is in a store."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("cache")
def command() -> None:
    """Look at stores."""


@command.command("info")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(store: Path, as_json: bool) -> None:
    """Show shape, size, provenance and completeness of STORE.

    \b
    Example:
      tca cache info cache/train.zarr
    """
    from tca.cache.info import describe, lines
    from tca.cache.store import Store
    from tca.console import print_json, print_table

    found = describe(Store.open(store))
    if as_json:
        print_json(found)
    else:
        print_table(str(store), ["", ""], lines(found))
