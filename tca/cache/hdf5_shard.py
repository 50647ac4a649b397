"""One shard of an HDF5 store: a file with features, their checksums and the rows' statuses.

    status         (rows,) uint8, contiguous
    status_crc32c  (1,) uint32, contiguous: CRC32C of `status`
    crc32c         (rows, arrays) uint32, contiguous: CRC32C of every row, 0 for a failed one; the
                   attribute `columns` names the arrays
    semantic, …    (rows, …), a chunk a row, no filters; a failed row has no chunk

HDF5 checks its own metadata (superblock, headers, chunk indices) by checksums but not what is in
a data set, hence the two CRC32C.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from awscrt.checksums import crc32c
from h5py import h5d, h5f, h5p, h5s, h5t

from tca.cache.files import replacing
from tca.cache.format import ABSENT, Array, DamageError, Extents
from tca.cache.hdf5_guard import open_array, open_own, opened, opened_shard
from tca.cache.hdf5_sink import Sink
from tca.cache.interrupts import interrupts_wait
from tca.cache.layout import FeatureArray
from tca.cache.zarr_shard import row_view

LIBVER = ("v110", "v110")
"""HDF5 1.10 and all later ones read it; 1.14 does not read what HDF5 2 calls its latest."""

HEADER_ROOM = 400
"""Bytes that the links of 7 data sets take in the header of the group, and some more."""


def write_shard(
    file: Path,
    arrays: Mapping[str, FeatureArray],
    held: Mapping[str, str],
    features: Mapping[str, Sequence[Array | None]],
    status: Array,
) -> None:
    """Write a shard under a temporary name, flush, rename to `file`.

    Args:
        file: where.
        arrays: every array of features and scales, by name.
        held: their attributes `tca_dtype`.
        features: for every array one row of features a row, None for a failed one.
        status: (rows,) `Status` values.

    Raises:
        TcaError: disk full, read-only or otherwise not writable; nothing is left behind.
    """
    with replacing(file) as target:
        sink = Sink(target)
        try:
            # In the midst of HDF5's calls to the sink Ctrl-C would leave a file without an end.
            with interrupts_wait(), h5py.File(sink, "w", libver=LIBVER) as group:
                _write_group(group, arrays, held, features, status)
        except (OSError, RuntimeError):
            # HDF5 may stumble over what it could not write; the reason is in the sink.
            if sink.error is None:
                raise
        if sink.error is not None:
            raise sink.error


def _write_group(
    group: h5py.File,
    arrays: Mapping[str, FeatureArray],
    held: Mapping[str, str],
    features: Mapping[str, Sequence[Array | None]],
    status: Array,
) -> None:
    # All links shall be in front of `status`, see hdf5_prologue: what an attribute took up is
    # theirs when it is gone.
    group.attrs.create("room", np.zeros(HEADER_ROOM, np.uint8))
    del group.attrs["room"]
    rows = len(status)
    status = status.astype(np.uint8)
    _contiguous(group, "status", (rows,), "u1")[...] = status
    _contiguous(group, "status_crc32c", (1,), "<u4")[...] = crc32c(status.data)
    checksums = _contiguous(group, "crc32c", (rows, len(arrays)), "<u4")
    set_text(checksums, "columns", json.dumps(list(arrays)))
    made = {}
    for name, what in arrays.items():
        shape = what.row_shape
        made[name] = group.create_dataset(
            name,
            shape=(rows, *shape),
            dtype=what.dtype.newbyteorder("<"),
            chunks=(1, *shape),
            track_times=False,
        )
        set_text(made[name], "tca_dtype", held[name])
    sums = np.zeros(checksums.shape, dtype="<u4")
    for column, (name, data_set) in enumerate(made.items()):
        corner = (0,) * len(arrays[name].row_shape)
        for row, values in enumerate(features[name]):
            if values is not None:
                data = row_view(values)
                sums[row, column] = crc32c(data)
                data_set.id.write_direct_chunk((row, *corner), data)
    checksums[...] = sums


def set_text(at: h5py.HLObject, name: str, text: str) -> None:
    """Set an attribute to a text of fixed length: one of any length would lie in a heap that
    HDF5 keeps no checksums of.
    """  # noqa: D205
    data = text.encode()
    at.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))


def read_status(file: Path, rows: int) -> Array:
    """Return the statuses of a shard, (rows,) uint8.

    Raises:
        FileNotFoundError: there is no such file.
        DamageError: they are not as they were written.
        OSError: the file cannot be read.
    """
    with opened(file) as group:
        status = _whole(group, "status", (rows,), np.dtype("u1"))
        expected = _whole(group, "status_crc32c", (1,), np.dtype("u4"))
    if crc32c(status.data) != int(expected[0]):
        raise DamageError("the checksum of its status does not hold")
    return status


def read_extents(file: Path, array: str, what: FeatureArray, rows: int) -> Extents | None:
    """Return where the rows of an array lie; None if they are laid out in another way.

    Raises:
        DamageError: the file is missing or damaged, or of rows of another shape.
        OSError: the file cannot be read.
    """
    with opened_shard(file) as group:
        data_set = open_array(group, array, (rows, *what.row_shape), what.dtype)
        checksums = _checksums(group, array, rows)
        if not _is_plain(group, data_set, what):
            return None
        offsets = np.full(rows, ABSENT, dtype=np.int64)
        size = what.row_bytes
        end = os.stat(file).st_size - size

        def found(chunk: h5d.StoreInfo) -> None:
            row, *inner = chunk.chunk_offset
            fits = chunk.size == size and 0 < chunk.byte_offset <= end
            if not fits or row >= rows or any(inner):
                # Raising in here would end in HDF5's words instead of ours.
                bad.append(chunk)
            else:
                offsets[row] = chunk.byte_offset

        bad: list[h5d.StoreInfo] = []
        data_set.chunk_iter(found)
        if bad:
            raise DamageError(
                f"row {bad[0].chunk_offset[0]} of its {array} is {bad[0].size} bytes at "
                f"{bad[0].byte_offset}, which does not fit the file"
            )
        lost = np.flatnonzero((offsets == ABSENT) & (checksums != 0))
        if len(lost):
            raise DamageError(f"row {lost[0]} of its {array} has a checksum and no features")
    return Extents(offsets, checksums)


def read_rows(
    file: Path, array: str, what: FeatureArray, rows: int, chosen: Array, out: Array
) -> None:
    """Read rows of a shard of `rows` rows through HDF5, whatever its layout, and check them.

    Args:
        file: of the shard.
        array: name of the array.
        what: its shape and type.
        rows: of the shard.
        chosen: (n,) rows counted from the shard's first.
        out: (n, …) array to fill.

    Raises:
        DamageError: the file is missing or damaged.
        OSError: the file cannot be read.
    """
    with opened_shard(file) as group:
        data_set = h5py.Dataset(open_array(group, array, (rows, *what.row_shape), what.dtype))
        checksums = _checksums(group, array, rows)
        for place, row in enumerate(chosen.tolist()):
            values = data_set[row]
            if crc32c(row_view(values)) != int(checksums[row]):
                raise DamageError("the row's checksum does not hold")
            out[place] = values


def _contiguous(group: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    """Make a data set whose bytes lie right behind its header."""
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_layout(h5d.CONTIGUOUS)
    how.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    space = h5s.create_simple(shape)
    kind = h5t.py_create(np.dtype(dtype))
    return h5py.Dataset(h5d.create(group.id, name.encode(), kind, space, how))


def _whole(
    group: h5f.FileID, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, np.dtype[Any]]:
    data_set = open_array(group, name, shape, dtype)
    values = np.empty(shape, dtype=dtype)
    data_set.read(h5s.ALL, h5s.ALL, values)
    return values


def _checksums(group: h5f.FileID, array: str, rows: int) -> Array:
    """Return the checksums of the rows of an array, (rows,) uint32."""
    columns = h5py.Dataset(open_own(group, "crc32c")).attrs.get("columns")
    try:
        names = json.loads(columns)
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or array not in names:
        raise DamageError(f"its crc32c has no column {array}")
    table = _whole(group, "crc32c", (rows, len(names)), np.dtype("u4"))
    return np.ascontiguousarray(table[:, names.index(array)])


def _is_plain(group: h5f.FileID, data_set: h5d.DatasetID, what: FeatureArray) -> bool:
    """Say whether a row's bytes lie in the file as they are, in one piece."""
    how = data_set.get_create_plist()
    return bool(
        how.get_layout() == h5d.CHUNKED
        and how.get_chunk() == (1, *what.row_shape)
        and how.get_nfilters() == 0
        and data_set.dtype == what.dtype.newbyteorder("<")
        and group.get_create_plist().get_userblock() == 0
    )
