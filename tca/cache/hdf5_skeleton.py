"""The `index.h5` of an HDF5 store, checked; without a sound one the shards tell what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5f

from tca.cache.format import DamageError, reading_failed
from tca.cache.hdf5_format import Hdf5Format
from tca.cache.hdf5_guard import open_own, opened
from tca.cache.hdf5_index import parse_index
from tca.cache.layout import COLUMNS, STREAMS, RowTable, StoreSpec
from tca.cache.place import INDEX, SHARDS
from tca.cache.skeleton import CHANGED, MISSING, Skeleton, sum_line_damaged
from tca.cache.sums import digest, sums_of
from tca.cache.zarr_metadata import feature_streams
from tca.errors import TcaError


def examine(path: Path) -> Skeleton:
    """Check the index of the store at `path`.

    Raises:
        TcaError: made by a newer tca, or the index cannot be read.
    """
    skeleton = Skeleton(None)
    spec = _sound_index(path, skeleton)
    if spec is None:
        spec = _as_shards_tell(path)
        skeleton.ids = False
    if spec is not None:
        skeleton.format = Hdf5Format(path, spec)
        skeleton.rows_per_shard = spec.rows_per_shard
    return skeleton


def shard_lengths(path: Path) -> dict[int, int]:
    """Return how many rows the committed shards have, by shard; those that cannot be read lack."""
    lengths = {}
    for shard, file in _shard_files(path).items():
        try:
            with opened(file) as group:
                lengths[shard] = open_own(group, "status").shape[0]
        except (DamageError, OSError):
            continue
    return lengths


def _sound_index(path: Path, skeleton: Skeleton) -> StoreSpec | None:
    try:
        data = (path / INDEX).read_bytes()
    except FileNotFoundError:
        skeleton.damage[INDEX] = MISSING
        return None
    except OSError as error:
        raise reading_failed(path / INDEX, error) from None
    sums = sums_of(path)
    lost = bool(sums) and INDEX not in sums
    if INDEX in sums and digest(data) != sums[INDEX]:
        if not sum_line_damaged(data, sums[INDEX]):
            skeleton.damage[INDEX] = CHANGED
            return None
        lost = True
    try:
        spec = parse_index(path, data)
    except DamageError as error:
        skeleton.damage[INDEX] = str(error)
        return None
    if lost:
        skeleton.lost_sums.append(INDEX)
    return spec


def _as_shards_tell(path: Path) -> StoreSpec | None:
    """Return enough of what a store was made with to read its shards; None if none can be read."""
    files, lengths = _shard_files(path), shard_lengths(path)
    if not lengths:
        return None
    # The last shard may be shorter, any other is full.
    first, last = min(lengths), max(files)
    per_shard = lengths[first]
    rows = last * per_shard + lengths.get(last, per_shard)
    try:
        with opened(files[first]) as group:
            streams = feature_streams(path, _described(group, rows))
    except (DamageError, OSError, TcaError):
        return None
    return StoreSpec(
        split="",
        rows=RowTable(
            [""] * rows, **{name: np.zeros(rows, kind) for name, kind in COLUMNS.items()}
        ),
        streams=streams,
        rows_per_shard=per_shard,
        classes=[],
        identity={},
        record={},
        grid=(1, 1),
    )


def _described(shard: h5f.FileID, rows: int) -> dict[str, dict[str, Any]]:
    described = {}
    for name in STREAMS:
        if shard.links.exists(name.encode()):
            data_set = h5py.Dataset(open_own(shard, name))
            described[name] = {
                "shape": (rows, *data_set.shape[1:]),
                "data_type": data_set.dtype.name,
                "attributes": {"tca_dtype": bytes(data_set.attrs["tca_dtype"]).decode()},
            }
    return described


def _shard_files(path: Path) -> dict[int, Path]:
    """Return the files of the committed shards by their numbers, ascending."""
    found = sorted((path / SHARDS).glob("*.h5"))
    return {int(file.stem): file for file in found if file.stem.isdecimal()}
