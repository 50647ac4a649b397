"""The index of a new HDF5 store: all but features, statuses and checksums.

`index.h5` has the columns themselves, and of the shards' arrays virtual data sets, which HDF5
looks up in `shards/` beside it, wherever the folder lies. The attributes of its root are JSON in
texts of fixed length: `json.loads(file.attrs["classes"])`.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tca.cache.format import Array
from tca.cache.hdf5_shard import LIBVER, set_text
from tca.cache.ids import encode_ids
from tca.cache.layout import COLUMNS, SCALE, Status, StoreSpec, feature_arrays
from tca.cache.place import INDEX, SHARDS


def write_index(folder: Path, spec: StoreSpec) -> list[str]:
    """Write an empty store to `folder`, which must not exist.

    Returns:
        The names of its metadata files.

    Raises:
        TcaError: an id cannot be stored.
        OSError: the folder cannot be written.
    """
    data = index_bytes(spec)
    (folder / SHARDS).mkdir(parents=True)
    (folder / INDEX).write_bytes(data)
    return [INDEX]


def index_bytes(spec: StoreSpec) -> bytes:
    """Return the bytes of `index.h5`.

    Raises:
        TcaError: an id cannot be stored.
    """
    columns: dict[str, Array] = {
        name: np.asarray(getattr(spec.rows, name), dtype) for name, dtype in COLUMNS.items()
    }
    columns["id"] = encode_ids(spec.rows.ids)
    held = held_types(spec)
    # Made in memory, since HDF5 cannot give up a file on a disk that is full.
    made = BytesIO()
    with h5py.File(made, "w", libver=LIBVER) as group:
        for name, value in {**spec.attributes(), "rows_per_shard": spec.rows_per_shard}.items():
            set_text(group, name, json.dumps(value))
        for name, values in columns.items():
            _add_column(group, name, values)
        for name, array in feature_arrays(spec.streams).items():
            _add_virtual(group, spec, name, array.row_shape, array.dtype, fill=0)
            set_text(group[name], "tca_dtype", held[name])
        _add_virtual(group, spec, "status", (), np.dtype("u1"), fill=Status.NOT_EXTRACTED)
        set_text(group["status"], "tca_dtype", "uint8")
    return made.getvalue()


def shard_name(shard: int) -> str:
    """Return the name of a shard's file inside the store."""
    return f"{SHARDS}/{shard:06d}.h5"


def held_types(spec: StoreSpec) -> dict[str, str]:
    """Return what the numbers of every feature array mean, by name: its attribute `tca_dtype`."""
    return {
        name: array.dtype.name if name.endswith(SCALE) else spec.streams[name].type
        for name, array in feature_arrays(spec.streams).items()
    }


def _add_column(group: h5py.File, name: str, values: Array) -> None:
    # One chunk, so that HDF5's own checksum holds the whole of it.
    group.create_dataset(
        name,
        data=values.astype(values.dtype.newbyteorder("<")),
        chunks=values.shape,
        fletcher32=True,
        track_times=False,
    )
    set_text(group[name], "tca_dtype", values.dtype.name)


def _add_virtual(
    group: h5py.File,
    spec: StoreSpec,
    name: str,
    row_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    fill: int,
) -> None:
    """Add an array whose rows are in the files of the shards; where there is none, `fill`."""
    # h5py's VirtualLayout would put the time of day into the file.
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_layout(h5d.VIRTUAL)
    how.set_obj_track_times(False)
    how.set_fill_value(np.array(fill, dtype))
    whole = (len(spec.rows), *row_shape)
    origin = (0,) * len(row_shape)
    space = h5s.create_simple(whole)
    for shard in range(spec.shards):
        rows = spec.shard_rows(shard)
        size = (len(rows), *row_shape)
        space.select_hyperslab((rows.start, *origin), (1,) * len(whole), block=size)
        how.set_virtual(space, shard_name(shard).encode(), name.encode(), h5s.create_simple(size))
    kind = h5t.py_create(dtype.newbyteorder("<"))
    h5d.create(group.id, name.encode(), kind, h5s.create_simple(whole), how)
