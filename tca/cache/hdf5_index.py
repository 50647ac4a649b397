"""The `index.h5` of an HDF5 store, read and checked: what the store was made with."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tca.cache.format import Array, DamageError, reading_failed
from tca.cache.hdf5_guard import is_hard_link, library_words, open_own
from tca.cache.ids import IdTable
from tca.cache.layout import COLUMNS, STREAMS, RowTable, StoreSpec
from tca.cache.place import INDEX
from tca.cache.sums import check_sum, put_back, remedy, sums_of
from tca.cache.zarr_metadata import check_version, feature_streams
from tca.errors import TcaError

ATTRIBUTES = {
    "tca_layout": int,
    "split": str,
    "classes": list,
    "grid": list,
    "identity": dict,
    "record": dict,
    "rows_per_shard": int,
}

MOST_DEFLATED = 1032
"""Bytes that deflate makes of one, at most."""


def read_index(store: Path) -> StoreSpec:
    """Return what the store at `store` was made with.

    Raises:
        TcaError: not one of tca's stores, a newer layout, or a missing or changed index.
    """
    try:
        data = (store / INDEX).read_bytes()
    except OSError as error:
        raise reading_failed(store / INDEX, error, remedy(store, error)) from None
    check_sum(store, INDEX, data, sums_of(store))
    try:
        return parse_index(store, data)
    except DamageError as error:
        raise TcaError(f"{store / INDEX} is damaged: {error}; {put_back(store)}.") from None


def parse_index(store: Path, data: bytes) -> StoreSpec:
    """Return what the bytes of an `index.h5` say; HDF5's own checksums are all that guards them.

    Raises:
        DamageError: they are not as they were written.
        TcaError: not one of tca's stores, or a newer layout.
    """
    try:
        with h5py.File(BytesIO(data), "r") as group:
            return _spec(store, group)
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DamageError(library_words(error)) from None


def _spec(store: Path, group: h5py.File) -> StoreSpec:
    attributes = {name: json.loads(group.attrs[name]) for name in ATTRIBUTES if name in group.attrs}
    check_version(str(store), attributes)
    for name, kind in ATTRIBUTES.items():
        if not isinstance(attributes.get(name), kind):
            raise DamageError(f"its {name} is {attributes.get(name)!r:.80}")
    grid, classes = attributes["grid"], attributes["classes"]
    if len(grid) != 2 or any(type(size) is not int or size < 1 for size in grid):
        raise DamageError(f"its grid is {grid!r:.80}")
    if not all(isinstance(name, str) for name in classes) or attributes["rows_per_shard"] < 1:
        raise DamageError("its classes or its rows_per_shard cannot be such")
    described = {name: _described(group, name) for name in STREAMS if name in group}
    columns = {name: _column(group, name, dtype) for name, dtype in COLUMNS.items()}
    table = RowTable(ids=IdTable(_column(group, "id", np.dtype("u1"))), **columns)
    streams = feature_streams(store, described)
    lengths = {len(table), *map(len, columns.values()), *(s.shape[0] for s in streams.values())}
    if len(lengths) != 1:
        raise DamageError(f"its arrays have different numbers of rows: {sorted(lengths)}")
    return StoreSpec(
        split=attributes["split"],
        rows=table,
        streams=streams,
        rows_per_shard=attributes["rows_per_shard"],
        classes=classes,
        identity=attributes["identity"],
        record=attributes["record"],
        grid=(grid[0], grid[1]),
    )


def _described(group: h5py.File, name: str) -> dict[str, Any]:
    if not is_hard_link(group.id, name.encode()) or not isinstance(group[name], h5py.Dataset):
        raise DamageError(f"its {name} is no data set of its own")
    array = group[name]
    return {
        "shape": array.shape,
        "data_type": array.dtype.name,
        "attributes": {key: bytes(value).decode() for key, value in array.attrs.items()},
    }


def _column(group: h5py.File, name: str, dtype: np.dtype[Any]) -> Array:
    column = h5py.Dataset(open_own(group.id, name))
    if column.dtype != dtype:
        raise DamageError(f"its {name} is {column.dtype} instead of {dtype}")
    if column.nbytes > MOST_DEFLATED * column.id.get_storage_size():
        raise DamageError(f"its {name} has shape {column.shape} and fewer bytes than that takes")
    values: Array = column[...]
    return values
