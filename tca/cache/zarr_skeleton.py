"""The files of a Zarr store outside its shards, checked one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.format import CHECKSUM_BYTES, Array, DamageError, reading_failed
from tca.cache.ids import IdTable
from tca.cache.layout import COLUMNS, SCALE, STREAMS, RowTable, StoreSpec, Stream
from tca.cache.skeleton import CHANGED, MISSING, Skeleton, sum_line_damaged
from tca.cache.sums import digest, sums_of
from tca.cache.zarr_format import ZarrFormat
from tca.cache.zarr_metadata import (
    COLUMN_FILES,
    GROUP,
    Metadata,
    check_version,
    feature_streams,
    is_known,
    is_plain,
    metadata_name,
)
from tca.cache.zarr_shard import parse_chunk
from tca.errors import TcaError


def examine(path: Path) -> Skeleton:
    """Check every metadata file and every column of the store at `path`.

    Nothing is found in a store that is not laid out as tca does it.

    Raises:
        TcaError: made by a newer tca, or a file cannot be read.
    """
    skeleton = Skeleton(None)
    metadata = _sound_metadata(path, skeleton)
    if GROUP in metadata:
        check_version(str(path), metadata[GROUP].get("attributes"))
    if not skeleton.damage and not is_plain(metadata):
        return Skeleton(None)
    # Where all of the metadata is lost, the lengths of files tell the same.
    rows = _common(metadata, skeleton, "rows", _rows) or _length_of_columns(path)
    per_shard = _common(metadata, skeleton, "rows in a shard", _rows_per_shard)
    per_shard = per_shard or _length_of_statuses(path)
    skeleton.rows_per_shard = per_shard
    streams: dict[str, Stream] = {}
    for name in STREAMS:
        if name in metadata:
            try:
                streams |= feature_streams(path, {name: metadata[name]})
            except (TcaError, KeyError, TypeError) as error:
                skeleton.damage[metadata_name(name)] = f"it does not describe features ({error})"
    skeleton.unchecked = [
        name
        for name in expected_arrays(path)
        if (stream := name.removesuffix(SCALE)) in STREAMS and stream not in streams
    ]
    columns = _columns(path, rows, metadata, skeleton)
    skeleton.lost_sums = [name for name in skeleton.lost_sums if name not in skeleton.damage]
    if rows and per_shard:
        table = RowTable(
            ids=IdTable(columns["id"]) if "id" in columns else [""] * rows,
            **{name: columns.get(name, np.zeros(rows, dtype)) for name, dtype in COLUMNS.items()},
        )
        skeleton.ids = "id" in columns
        skeleton.format = ZarrFormat(path, _spec(table, streams, per_shard, metadata))
    return skeleton


def expected_arrays(path: Path) -> list[str]:
    """Return the group and every array that a store has or had, as its files and sums tell."""
    sums = sums_of(path)
    attributes = _json_there(path, GROUP).get("attributes")
    identity = attributes.get("identity") if isinstance(attributes, dict) else None
    if not isinstance(identity, dict):
        identity = {}

    def known(name: str) -> bool:
        return is_known(name, sums, identity) or (path / name).exists()

    def has_scales(name: str) -> bool:
        held = _json_there(path, name).get("attributes")
        return isinstance(held, dict) and held.get("tca_dtype") == "int8"

    streams = [name for name in STREAMS if known(name)] or list(STREAMS)
    scales = [name + SCALE for name in streams if known(name + SCALE) or has_scales(name)]
    return [GROUP, *streams, *scales, *COLUMNS, "id", "status"]


def _json_there(path: Path, array: str) -> dict[str, Any]:
    """Return the metadata of an array as they are, checked or not; {} if they cannot be read."""
    try:
        found = json.loads((path / metadata_name(array)).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def skeleton_files(path: Path) -> list[str]:
    """Return the names of all files outside the shards that a store has or had."""
    return [*map(metadata_name, expected_arrays(path)), *COLUMN_FILES.values()]


def _sound_metadata(path: Path, skeleton: Skeleton) -> Metadata:
    """Return the metadata that can be trusted, and note the rest."""
    sums, metadata = sums_of(path), {}
    for array in expected_arrays(path):
        name = metadata_name(array)
        data = _unchanged(path, name, sums, skeleton)
        if data is None:
            continue
        try:
            parsed = json.loads(data)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            skeleton.damage[name] = "it is not JSON"
        else:
            metadata[array] = parsed
    return metadata


def _unchanged(path: Path, name: str, sums: Mapping[str, str], skeleton: Skeleton) -> bytes | None:
    """Return the bytes of a file if they are those of its sum, or if it has none; else note why."""
    try:
        data = (path / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        skeleton.damage[name] = MISSING
        return None
    except OSError as error:
        raise reading_failed(path / name, error) from None
    if sums and name not in sums:
        skeleton.lost_sums.append(name)
    elif sums and digest(data) != sums[name]:
        if not sum_line_damaged(data, sums[name]):
            skeleton.damage[name] = CHANGED
            return None
        skeleton.lost_sums.append(name)
    return data


def _common(metadata: Metadata, skeleton: Skeleton, what: str, fact: Any) -> int | None:
    """Return a number in which all arrays agree; those that do not are damaged and dropped."""
    found: dict[str, int] = {}
    for array in [name for name in metadata if name != GROUP]:
        try:
            value = fact(array, metadata[array])
        except (KeyError, TypeError, IndexError, ValueError):
            value = -1
        if value is not None:
            found[array] = value
    if not found:
        return None
    ((common, _),) = Counter(found.values()).most_common(1)
    for array, value in found.items():
        if value != common:
            skeleton.damage[metadata_name(array)] = (
                f"it does not say {common} {what}, as the others do"
            )
            del metadata[array]
    return common if common > 0 else None


def _rows(array: str, metadata: dict[str, Any]) -> int:
    return int(metadata["shape"][0])


def _rows_per_shard(array: str, metadata: dict[str, Any]) -> int | None:
    if array in (*COLUMNS, "id"):
        return None
    return int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])


def _columns(
    path: Path, rows: int | None, metadata: Metadata, skeleton: Skeleton
) -> dict[str, Array]:
    """Return the columns that are sound, by name, and note the rest."""
    sums, columns = sums_of(path), {}
    for name, file in COLUMN_FILES.items():
        data = _unchanged(path, file, sums, skeleton)
        if data is None or not rows:
            continue
        shape: tuple[int, ...] = (rows,)
        if name == "id":
            width = max(1, (len(data) - CHECKSUM_BYTES) // rows)
            shape = tuple(metadata["id"]["shape"]) if "id" in metadata else (rows, width)
        try:
            columns[name] = parse_chunk(data, COLUMNS.get(name, np.dtype("u1")), shape)
        except DamageError as error:
            skeleton.damage[file] = str(error)
    return columns


def _spec(
    table: RowTable, streams: dict[str, Stream], rows_per_shard: int, metadata: Metadata
) -> StoreSpec:
    attributes = metadata.get(GROUP, {}).get("attributes", {})
    return StoreSpec(
        split=attributes.get("split", ""),
        rows=table,
        streams=streams,
        rows_per_shard=rows_per_shard,
        classes=attributes.get("classes", []),
        identity=attributes.get("identity", {}),
        record=attributes.get("record", {}),
        grid=tuple(attributes.get("grid", (1, 1))),
    )


def _length_of_columns(path: Path) -> int | None:
    files = {path / COLUMN_FILES[name]: kind.itemsize for name, kind in COLUMNS.items()}
    return _commonest(
        (file.stat().st_size - CHECKSUM_BYTES) // size
        for file, size in files.items()
        if file.exists()
    )


def _length_of_statuses(path: Path) -> int | None:
    files = [file for file in path.glob("status/c/*") if not file.name.startswith(".")]
    return _commonest(file.stat().st_size - CHECKSUM_BYTES for file in files)


def _commonest(numbers: Iterable[int]) -> int | None:
    counts = Counter(number for number in numbers if number > 0)
    return counts.most_common(1)[0][0] if counts else None
