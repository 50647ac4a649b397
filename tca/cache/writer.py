"""Making a store and committing its shards, so that a kill at any moment costs one shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from tca.cache.files import sync_folder, write_atomic, writing_failed
from tca.cache.layout import LAYOUT_VERSION, RowTable, Status, Stream, differences
from tca.cache.metadata import WHOLE_ARRAYS, write_sums
from tca.cache.shard import Array, parse_chunk, shard_parts, with_checksum
from tca.cache.store import Store, shard_file, status_file
from tca.errors import TcaError

Json = Mapping[str, Any]


def create_store(
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
) -> None:
    """Make a store without features: it is there whole, or not at all.

    Args:
        path: where; nothing may be there.
        split: train, validation or test.
        rows: ids, labels, videos and views.
        streams: shape and type of "semantic" and "motion", float16 or float32.
        rows_per_shard: rows in one shard file, fixed from now on.
        classes: class names, by label.
        identity: what makes the features; compared by training and evaluation.
        record: versions and sources, shown only; no times or host names.
        grid: patches (vertically, horizontally) of the semantic stream.

    Raises:
        TcaError: no rows, something there already, or the folder cannot be written.
    """
    if not len(rows):
        raise TcaError(f"{path} would have no rows; look at the annotations of split {split}.")
    if path.exists():
        raise TcaError(f"{path} exists already; give another path or delete it.")
    attributes = {
        "tca_layout": LAYOUT_VERSION,
        "split": split,
        "classes": list(classes),
        "grid": list(grid),
        "identity": dict(identity),
        "record": dict(record),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(temporary, mode="w-", zarr_format=3, attributes=attributes)
        _add_arrays(group, rows, streams, rows_per_shard)
        _sync_tree(temporary)
        write_sums(path, temporary)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise writing_failed(path, error) from None


class StoreWriter:
    """Commits shards into a store. The caller holds `files.sole_writer`."""

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
        """Return the shards that need not be done: those with a valid status chunk on disk."""
        return {shard for shard in range(self.shards) if self._is_committed(shard)}

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
            path = self.store.path / shard_file(self.store, name, shard)
            if good.any():
                write_atomic(path, shard_parts([*features[name], *[None] * padding]))
            else:
                # Left by a run that was killed before it wrote the status.
                path.unlink(missing_ok=True)
        padded = np.full(self.store.rows_per_shard, Status.NOT_EXTRACTED, dtype=np.uint8)
        padded[:rows] = status
        write_atomic(self.store.path / status_file(shard), with_checksum(padded))

    def _is_committed(self, shard: int) -> bool:
        path = self.store.path / status_file(shard)
        try:
            parse_chunk(path.read_bytes(), np.dtype("u1"), (self.store.rows_per_shard,))
        except (FileNotFoundError, ValueError):
            return False
        return True


def _add_arrays(
    group: zarr.Group, rows: RowTable, streams: Mapping[str, Stream], rows_per_shard: int
) -> None:
    count = len(rows)
    for name, stream in streams.items():
        _add(
            group,
            name,
            stream.shape,
            stream.dtype,
            chunks=(1, *stream.row_shape),
            shards=(rows_per_shard, *stream.row_shape),
        )
    for name, dtype in WHOLE_ARRAYS.items():
        _add(group, name, (count,), dtype, chunks=(count,))[:] = getattr(rows, name)
    encoded = [text.encode() for text in rows.ids]
    width = max(1, *map(len, encoded))
    table = np.array(encoded, dtype=f"S{width}").view(np.uint8).reshape(count, width)
    _add(group, "id", table.shape, table.dtype, chunks=table.shape)[:] = table
    status = np.dtype("u1")
    _add(group, "status", (count,), status, chunks=(rows_per_shard,), fill=Status.NOT_EXTRACTED)


def _add(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    fill: int = 0,
) -> Any:
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype.newbyteorder("<"),
        chunks=chunks,
        shards=shards,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        fill_value=int(fill),
        attributes={"tca_dtype": dtype.name},
        # A column of zeros is a file too, or its loss would read as zeros.
        config={"write_empty_chunks": shards is None},
    )


def _sync_tree(folder: Path) -> None:
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(Path(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


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
                "streams": {n: f"{s.dtype} {s.shape}" for n, s in streams.items()},
                "id": rows.ids,
                **{name: getattr(rows, name).tolist() for name in WHOLE_ARRAYS},
            }
        )
    )
