"""What a stored type costs in precision, on the features of a float32 store.

    tca extract extract.dtype=float32 'stores=cache/exact/{split}.zarr'
    python benchmarks/stored_types.py cache/exact/train.zarr

A patch (or segment) is the vector of one place. Its error is the length of what the stored type
changes over the length of the vector.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from report import Report
from torch import Tensor

from tca.cache.layout import TYPES, Stream
from tca.cache.residency import read_decoded
from tca.cache.store import Store
from tca.cache.types import decode, encode

ROWS_AT_ONCE = 8


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "output", flag_value="json", help="Print JSON instead of a table.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown.")
def command(path: Path, output: str | None) -> None:
    """Print the errors of every stored type on the store at PATH, which must hold float32."""
    store = Store.open(path)
    table = []
    for name, stream in store.streams.items():
        if stream.type != "float32":
            raise click.UsageError(f"{path} holds {stream.type}; errors are measured on float32.")
        for stored in TYPES:
            errors = torch.cat(
                [
                    _errors(read_decoded(store, name, rows), stored)
                    for rows in np.array_split(store.ready(), -(-store.rows // ROWS_AT_ONCE))
                ]
            )
            size = Stream(stream.shape, stored).row_bytes
            shown = [f"{float(value):.1e}" for value in (errors.mean(), errors.max())]
            table.append([name, stored, size / 1000, *shown])
    report = Report("stored_types", {"rows": len(store.ready())})
    report.table(
        "errors of stored types",
        ["stream", "stored as", "kB a row", "mean error of a patch", "largest"],
        table,
    )
    report.show(output)


def _errors(exact: Tensor, stored: str) -> Tensor:
    """Return the relative error of every patch."""
    numbers, *scale = encode("patches", exact, stored).values()
    changed = decode(numbers, *scale or [None]).float() - exact
    return (changed.norm(dim=-1) / exact.norm(dim=-1)).flatten()


if __name__ == "__main__":
    command()
