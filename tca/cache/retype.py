"""Rows of a store in another stored type, a few at a time."""

from __future__ import annotations

import numpy as np
import torch

from tca.cache.format import Array
from tca.cache.layout import SCALE, Stream
from tca.cache.store import Store
from tca.cache.types import decode, encode, finite, from_numpy, to_numpy
from tca.errors import TcaError

PART_BYTES = 64 << 20
"""Of float32 that are in memory at once."""


def read_as(store: Store, name: str, rows: Array, wanted: str) -> dict[str, Array]:
    """Return rows of the stream `name` as arrays of the type `wanted`, by array name.

    Raises:
        TcaError: a row cannot be read, or has numbers that `wanted` cannot hold.
    """
    stream = store.streams[name]
    made = Stream((len(rows), *stream.row_shape), wanted).arrays(name)
    out = {array: np.empty((len(rows), *a.row_shape), a.dtype) for array, a in made.items()}
    step = max(1, PART_BYTES // (4 * int(np.prod(stream.row_shape))))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        exact = _exact(store, name, part)
        encoded = encode(name, exact, wanted)
        good = finite(encoded)
        if not bool(good.all()):
            bad = int((~good).nonzero()[0])
            raise _not_held(store, name, int(part[bad]), exact[bad], wanted)
        for array, tensor in encoded.items():
            out[array][first : first + step] = to_numpy(tensor)
    return out


def _exact(store: Store, name: str, rows: Array) -> torch.Tensor:
    stored = store.streams[name].type
    numbers = from_numpy(store.read(name, rows), stored)
    scale = from_numpy(store.read(name + SCALE, rows), "float16") if stored == "int8" else None
    return decode(numbers, scale)


def _not_held(store: Store, name: str, row: int, exact: torch.Tensor, wanted: str) -> TcaError:
    where = f"{name} of row {row} (id {store.table.ids[row]}) of {store.path}"
    if not bool(exact.isfinite().all()):
        return TcaError(
            f"{where} has numbers that are not finite; keep its type, or extract the store again."
        )
    return TcaError(
        f"{where} has numbers up to {float(exact.abs().max()):.3g}, more than {wanted} holds; "
        "choose float32 or bfloat16 with --type."
    )
