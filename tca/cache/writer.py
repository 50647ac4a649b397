"""Committing the shards of a store, so that a kill at any moment costs one shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.creation import Json, create_store
from tca.cache.files import remove, write_atomic
from tca.cache.layout import RowTable, Status, Stream, differences
from tca.cache.metadata import WHOLE_ARRAYS
from tca.cache.shard import Array, shard_parts, with_checksum
from tca.cache.store import Store, shard_file, status_file
from tca.errors import TcaError


class StoreWriter:
    """Commits shards into a store. The caller holds `files.sole_writer`.

    Attributes:
        store: the store as it was when the writer was made; open it anew to read what was
            committed since.
    """

    def __init__(self, path: Path) -> None:
        self.store = Store.open(path)

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        *,
        split: str,
        rows: RowTable,
        streams: Mapping[str, Stream],
        rows_per_shard: int,
        classes: Sequence[str],
        identity: Json,
        record: Json,
        grid: tuple[int, int],
    ) -> StoreWriter:
        """Go on with the store at `path`, or make it; see `create_store`.

        A store that is there keeps its own `rows_per_shard` and `record`.

        Raises:
            TcaError: the store there is for other rows or other features; says how they differ.
        """
        if not path.exists():
            create_store(
                path,
                split=split,
                rows=rows,
                streams=streams,
                rows_per_shard=rows_per_shard,
                classes=classes,
                identity=identity,
                record=record,
                grid=grid,
            )
        writer = cls(path)
        asked = _description(split, rows, streams, classes, identity, grid)
        store = writer.store
        found = _description(
            store.split, store.table, store.streams, store.classes, store.identity, store.grid
        )
        if asked["rows"] != found["rows"]:
            # Their number says it all.
            asked["row"] = found["row"] = None
        different = differences(asked, found)
        if different:
            raise TcaError(
                f"{path} was made with other settings: {'; '.join(different)}; name another path "
                "in `stores`, or delete that store."
            )
        return writer

    @property
    def shards(self) -> int:
        """Number of shards, committed or not."""
        return self.store.shards

    def shard_rows(self, shard: int) -> range:
        """Return the row numbers of one shard; the last one may be shorter."""
        first = shard * self.store.rows_per_shard
        return range(first, min(first + self.store.rows_per_shard, self.store.rows))

    def committed(self) -> set[int]:
        """Return the shards that need not be done: those with a status chunk on disk.

        Raises:
            TcaError: a status chunk is damaged.
        """
        return {s for s in range(self.shards) if self.store.shard_status(s) is not None}

    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        """Write one shard: first its features, then its status, which makes it exist.

        Args:
            shard: which.
            features: for every stream one array a row of the shard, None for a failed row.
            status: (rows of the shard,) `Status` values, none of them "not extracted".

        Raises:
            TcaError: disk full or not writable; what was committed before stays.
        """
        rows = len(self.shard_rows(shard))
        padding = self.store.rows_per_shard - rows
        good = np.asarray(status) == Status.OK
        if good.shape != (rows,) or (np.asarray(status) == Status.NOT_EXTRACTED).any():
            raise ValueError(f"shard {shard} has {rows} rows, each with a status; got {status}")
        for name, stream in self.store.streams.items():
            _check(name, stream, features[name], good)
        for name in self.store.streams:
            path = self.store.path / shard_file(self.store, name, shard)
            if good.any():
                write_atomic(path, shard_parts([*features[name], *[None] * padding]))
            else:
                # Perhaps left by a run that was killed before it wrote the status.
                remove(path)
        padded = np.full(self.store.rows_per_shard, Status.NOT_EXTRACTED, dtype=np.uint8)
        padded[:rows] = status
        write_atomic(self.store.path / status_file(shard), with_checksum(padded))


def _check(name: str, stream: Stream, rows: Sequence[Array | None], good: Array) -> None:
    if [row is not None for row in rows] != good.tolist():
        raise ValueError(f"{name} must have an array for every good row and None for the others")
    for row in rows:
        if row is not None and (row.shape != stream.row_shape or row.dtype != stream.dtype):
            raise ValueError(f"{name} rows are {stream}, got {row.dtype} {row.shape}")


def _description(
    split: str,
    rows: RowTable,
    streams: Mapping[str, Stream],
    classes: Sequence[str],
    identity: Json,
    grid: tuple[int, int],
) -> Any:
    """Return all that must be equal for a store to be continued, as JSON spells it."""
    return json.loads(
        json.dumps(
            {
                "split": split,
                "classes": list(classes),
                "grid": grid,
                "identity": identity,
                "streams": {n: f"{s.dtype} {s.row_shape} a row" for n, s in streams.items()},
                "rows": len(rows),
                "row": {
                    "id": rows.ids,
                    **{name: getattr(rows, name).tolist() for name in WHOLE_ARRAYS},
                },
            }
        )
    )
