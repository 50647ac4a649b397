"""The Zarr arrays of a new store, made through zarr-python: all but features and statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from tca.cache.ids import encode_ids
from tca.cache.layout import COLUMNS, Status, StoreSpec
from tca.cache.zarr_metadata import COLUMN_FILES, GROUP, metadata_name


def write_group(folder: Path, spec: StoreSpec) -> list[str]:
    """Write the group of an empty store to `folder`, which must not exist.

    Returns:
        The names of its metadata files and columns.

    Raises:
        TcaError: an id cannot be stored.
        OSError: the folder cannot be written.
    """
    group = zarr.open_group(folder, mode="w-", zarr_format=3, attributes=spec.attributes())
    made: list[str] = [GROUP]

    def add(
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        chunks: tuple[int, ...],
        shards: tuple[int, ...] | None = None,
        fill: int = 0,
        held: str | None = None,
    ) -> Any:
        made.append(name)
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
            attributes={"tca_dtype": held or dtype.name},
            # A column of zeros is a file too, or its loss would read as zeros.
            config={"write_empty_chunks": shards is None},
        )

    count = len(spec.rows)
    for stream, what in spec.streams.items():
        for name, array in what.arrays(stream).items():
            shape = array.row_shape
            add(
                name,
                (count, *shape),
                array.dtype,
                chunks=(1, *shape),
                shards=(spec.rows_per_shard, *shape),
                held=what.type if name == stream else None,
            )
    for name, dtype in COLUMNS.items():
        add(name, (count,), dtype, chunks=(count,))[:] = getattr(spec.rows, name)
    ids = encode_ids(spec.rows.ids)
    add("id", ids.shape, ids.dtype, chunks=ids.shape)[:] = ids
    add(
        "status",
        (count,),
        np.dtype("u1"),
        chunks=(spec.rows_per_shard,),
        fill=Status.NOT_EXTRACTED,
    )
    return [*map(metadata_name, made), *COLUMN_FILES.values()]
