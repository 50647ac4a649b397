"""Zarr v3 stores: shards are read and written as files, without zarr-python's cost a chunk.

The bytes are those that zarr-python writes; tests hold it. A group whose arrays are laid out in
another way (compressed, not sharded) is read through zarr-python, see `library_zarr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from tca.cache.files import remove, write_atomic
from tca.cache.format import Array, DamageError, Extents, Format, reading_failed
from tca.cache.ids import IdTable
from tca.cache.layout import COLUMNS, RowTable, Status, StoreSpec
from tca.cache.sums import check_sum, put_back, remedy, sums_of
from tca.cache.zarr_metadata import COLUMN_FILES, Metadata, spec_from
from tca.cache.zarr_shard import (
    parse_chunk,
    row_offsets,
    shard_parts,
    with_checksum,
)
from tca.errors import TcaError


class ZarrFormat(Format):
    """A Zarr store on a local disk, laid out as docs/cache.md says."""

    name = "zarr"
    checksum_behind_row = True
    path: Path

    def __init__(self, path: Path, spec: StoreSpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def open(cls, path: Path, metadata: Metadata) -> ZarrFormat:
        """Open the store at `path`, whose metadata has been read and checked.

        Raises:
            TcaError: labels, ids, videos or views are missing, damaged or changed.
        """
        rows, width = metadata["id"]["shape"]
        sums = sums_of(path)
        columns = {
            name: _column(path, COLUMN_FILES[name], dtype, (rows,), sums)
            for name, dtype in COLUMNS.items()
        }
        ids = IdTable(_column(path, COLUMN_FILES["id"], np.dtype("u1"), (rows, width), sums))
        return cls(path, spec_from(metadata, RowTable(ids, **columns)))

    @override
    def shard_status(self, shard: int) -> Array | None:
        try:
            data = self.record_file(shard).read_bytes()
        except FileNotFoundError:
            return None
        status = parse_chunk(data, np.dtype("u1"), (self.spec.rows_per_shard,))
        return status[: len(self.spec.shard_rows(shard))]

    @override
    def extents(self, array: str, shard: int) -> Extents:
        file = self.shard_file(array, shard)
        offsets = row_offsets(file, self.spec.rows_per_shard, self.arrays[array].row_bytes)
        return Extents(offsets, None)

    @override
    def read_through_library(self, array: str, rows: Array, out: Array) -> None:
        raise NotImplementedError("every row of such a store has extents")

    @override
    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        rows = self.spec.rows_per_shard
        padding = [None] * (rows - len(status))
        for array in self.arrays:
            file = self.shard_file(array, shard)
            if (status == Status.OK).any():
                write_atomic(file, shard_parts([*features[array], *padding]))
            else:
                # Perhaps left by a run that was killed before it wrote the status.
                remove(file)
        padded = np.full(rows, Status.NOT_EXTRACTED, dtype=np.uint8)
        padded[: len(status)] = status
        write_atomic(self.record_file(shard), with_checksum(padded))

    @override
    def shard_file(self, array: str, shard: int) -> Path:
        inner = "/0" * len(self.arrays[array].row_shape)
        return self.path / f"{array}/c/{shard}{inner}"

    @override
    def record_file(self, shard: int) -> Path:
        return self.path / f"status/c/{shard}"


def _column(
    store: Path,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    sums: Mapping[str, str],
) -> Array:
    file = store / name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise reading_failed(file, error, remedy(store, error)) from None
    try:
        values = parse_chunk(data, dtype, shape)
    except DamageError as error:
        raise TcaError(f"{file} is damaged: {error}; {put_back(store)}.") from None
    # After the checksum, which tells damage from a column that somebody wrote anew.
    check_sum(store, name, data, sums)
    return values
