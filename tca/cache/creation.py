"""Making a store without features: its arrays, attributes and what is known of its rows."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from tca.cache.files import sync_folder, temporary_path, writing_failed
from tca.cache.layout import LAYOUT_VERSION, RowTable, Status, Stream
from tca.cache.metadata import WHOLE_ARRAYS, write_sums
from tca.cache.shard import Array
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
        TcaError: no rows, something there already, an id that is not valid text, a class name
            that occurs twice, or the folder cannot be written.
    """
    _check_table(rows, len(classes))
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise TcaError(f"the class {twice[0]!r} is listed twice; correct the list of classes.")
    if not len(rows):
        raise TcaError(f"{path} would have no rows; look at the annotations of split {split}.")
    if path.exists():
        raise TcaError(f"{path} exists already; give another path or delete it.")
    attributes: dict[str, Any] = {
        "tca_layout": LAYOUT_VERSION,
        "split": split,
        "classes": list(classes),
        "grid": list(grid),
        "identity": dict(identity),
        "record": dict(record),
    }
    ids = _id_table(rows.ids)
    temporary = temporary_path(path)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(temporary, mode="w-", zarr_format=3, attributes=attributes)
        _add_arrays(group, rows, ids, streams, rows_per_shard)
        _sync_tree(temporary)
        write_sums(path, temporary)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise writing_failed(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add_arrays(
    group: zarr.Group,
    rows: RowTable,
    ids: Array,
    streams: Mapping[str, Stream],
    rows_per_shard: int,
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
    _add(group, "id", ids.shape, ids.dtype, chunks=ids.shape)[:] = ids
    status = np.dtype("u1")
    _add(group, "status", (count,), status, chunks=(rows_per_shard,), fill=Status.NOT_EXTRACTED)


def _id_table(ids: Sequence[str]) -> Array:
    """Return (N, L) uint8, UTF-8, zero-padded."""
    encoded = []
    for text in ids:
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:
            raise TcaError(
                f"the video id {text!r} is not valid UTF-8 and cannot be stored; rename that video."
            ) from None
        if "\0" in text:
            raise TcaError(f"the video id {text!r} has a zero character; rename that video.")
    width = max(1, *map(len, encoded))
    return np.array(encoded, dtype=f"S{width}").view(np.uint8).reshape(len(ids), width)


def _check_table(rows: RowTable, classes: int) -> None:
    for name in WHOLE_ARRAYS:
        if getattr(rows, name).shape != (len(rows),):
            raise ValueError(f"{name} has shape {getattr(rows, name).shape}, rows {len(rows)}")
    if len(rows) and not -1 <= rows.label.min() <= rows.label.max() < classes:
        raise ValueError(f"labels {rows.label.min()} to {rows.label.max()} of {classes} classes")


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
