"""An example store as others would write it, by zarr-python alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from example_store import Example
from zarr.codecs import BytesCodec

from tca.cache.ids import encode_ids


def write_foreign(
    path: Path,
    example: Example,
    *,
    chunk_rows: int = 1,
    shard_rows: int | None = None,
    compressors: Iterable[Any] = (),
    endian: str = "little",
    **settings: Any,
) -> None:
    """Write all rows of `example`; `settings` are further ones of every `create_array`."""
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=example.spec.attributes())
    columns = {name: getattr(example.table, name) for name in ("label", "video", "view")}
    columns |= {"id": encode_ids(example.table.ids), "status": example.status}
    held = {name: example.types[name] for name in example.streams}
    for name, values in (example.features | columns).items():
        rows, shape = len(values), values.shape[1:]
        features = name in example.features
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(chunk_rows if features else rows, *shape),
            shards=(shard_rows, *shape) if features and shard_rows else None,
            compressors=list(compressors),
            serializer=BytesCodec(endian=endian) if values.dtype.itemsize > 1 else BytesCodec(),
            filters=None,
            fill_value=255 if name == "status" else 0,
            attributes={"tca_dtype": held.get(name, values.dtype.name)},
            **settings,
        )
        array[:] = values


def rows_of(example: Example) -> np.ndarray:
    """Return the rows with features."""
    return np.flatnonzero(example.status == 0)
