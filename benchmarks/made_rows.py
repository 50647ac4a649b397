"""Rows to measure with: of the size of real ones, quickly made, and each says which it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.writer import StoreWriter

Array = np.ndarray[Any, np.dtype[Any]]


class MadeRows:
    """Rows of random float16 numbers, which do not compress; each begins with its own number.

    Few are drawn and used again and again: drawing 6 GB would take longer than anything else.
    """

    def __init__(self, rows: int, shape: tuple[int, ...] = (196, 768)) -> None:
        self.rows, self.shape = rows, shape
        width = int(np.prod(shape))
        if width < 2:
            raise ValueError("a row needs room for its number")
        draw = np.random.default_rng(0).standard_normal((min(rows, 64), width), np.float32)
        self._drawn = draw.astype(np.float16)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * 2

    def block(self, rows: Array | range) -> Array:
        """Return rows of these numbers, (n, …) float16."""
        numbers = np.asarray(rows, dtype=np.int64)
        block = self._drawn[numbers % len(self._drawn)]
        block.view(np.uint16)[:, :2] = numbers.astype("<u4").view(np.uint16).reshape(-1, 2)
        return block.reshape(len(numbers), *self.shape)

    def blocks(self, size: int = 256) -> Iterator[tuple[range, Array]]:
        """Yield all rows, `size` at a time, with their numbers."""
        for start in range(0, self.rows, size):
            numbers = range(start, min(start + size, self.rows))
            yield numbers, self.block(numbers)


def numbers_of(block: Array) -> Array:
    """Return which rows these are, by what they begin with."""
    flat = np.ascontiguousarray(block.reshape(len(block), -1)[:, :2])
    return flat.view(np.uint16).view("<u4").ravel().astype(np.int64)


def made_spec(
    rows: int, shapes: Mapping[str, tuple[int, ...]], rows_per_shard: int = 256
) -> StoreSpec:
    """Return what a store of `rows` made rows holds."""
    number = np.arange(rows)
    table = RowTable(
        [str(10**5 + row) for row in number],
        (number % 174).astype(np.int32),
        number.astype(np.int32),
        np.zeros(rows, np.uint8),
    )
    return StoreSpec(
        split="train",
        rows=table,
        streams={name: Stream((rows, *shape), "float16") for name, shape in shapes.items()},
        rows_per_shard=rows_per_shard,
        classes=tuple(f"class {label}" for label in range(174)),
        identity={"made": "random"},
        record={},
        grid=(14, 14),
    )


def write_store(path: Path, made: Mapping[str, MadeRows], store_format: str) -> StoreWriter:
    """Write a whole store of made rows, one `MadeRows` a stream."""
    some = next(iter(made.values()))
    spec = made_spec(some.rows, {name: rows.shape for name, rows in made.items()})
    writer = StoreWriter.open_or_create(path, spec, store_format)
    for shard in range(writer.shards):
        numbers = writer.shard_rows(shard)
        features = {name: list(rows.block(numbers)) for name, rows in made.items()}
        writer.commit(shard, features, np.full(len(numbers), Status.OK, np.uint8))
    return writer
