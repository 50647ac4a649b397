"""The `zarr.json` files of a store: read, checked, and what they say of the layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tca.cache.format import reading_failed
from tca.cache.layout import (
    COLUMNS,
    LAYOUT_VERSION,
    STREAMS,
    TYPES,
    RowTable,
    Status,
    StoreSpec,
    Stream,
    feature_arrays,
)
from tca.cache.sums import check_sum, put_back, remedy, sums_of
from tca.errors import TcaError

Metadata = dict[str, dict[str, Any]]
"""Every `zarr.json` by array name; the group's is under `GROUP`."""

Read = Callable[[str], bytes]

GROUP = ""

COLUMN_FILES = {**{name: f"{name}/c/0" for name in COLUMNS}, "id": "id/c/0/0"}
"""Columns by name, and the one file of each."""


def read_metadata(store: Path) -> Metadata:
    """Read the metadata of the group and of every array that a store has.

    Raises:
        TcaError: not one of tca's stores, a newer layout, or a missing or changed file.
    """
    there = [name for name in STREAMS if (store / name).exists()]
    return metadata_from(store, lambda name: (store / name).read_bytes(), there, sums_of(store))


def metadata_from(
    store: Path | str, read: Read, there: Sequence[str], sums: Mapping[str, str]
) -> Metadata:
    """Do as `read_metadata` for a store whose files are got through `read`.

    Args:
        store: where it lies, for messages.
        read: returns the bytes of a file by its name inside the store.
        there: the streams of which there is something; those that it is known to have are
            asked for too, and both if none is known.
        sums: sha256 by the same names; empty: nothing to check by.
    """
    metadata: Metadata = {GROUP: _read(store, read, GROUP, sums)}
    _check_attributes(store, metadata[GROUP].get("attributes"))
    identity = metadata[GROUP]["attributes"]["identity"]
    streams = [name for name in STREAMS if name in there or is_known(name, sums, identity)]
    for name in (*(streams or STREAMS), *COLUMNS, "id", "status"):
        metadata[name] = _read(store, read, name, sums)
    for name in feature_arrays(feature_streams(store, metadata)):
        if name not in metadata:
            metadata[name] = _read(store, read, name, sums)
    return metadata


def is_known(stream: str, sums: Mapping[str, str], identity: Mapping[str, Any]) -> bool:
    """Say whether a store was made with a stream, of which nothing may be left."""
    return metadata_name(stream) in sums or stream in identity


def metadata_name(array: str) -> str:
    """Return the name, inside the store, of the metadata of an array or of the group."""
    return f"{array}/zarr.json" if array else "zarr.json"


def check_version(store: str, attributes: Any) -> None:
    """Say whether attributes are those of a store that this tca reads.

    Raises:
        TcaError: they are not; says what to do.
    """
    version = attributes.get("tca_layout") if isinstance(attributes, dict) else None
    if version is None:
        raise TcaError(f"{store} is Zarr or HDF5, but not a store of tca; give another path.")
    if type(version) is not int or not 1 <= version <= LAYOUT_VERSION:
        raise TcaError(
            f"{store} has layout {version}, this tca reads 1 to {LAYOUT_VERSION}; update tca."
        )


def _check_attributes(store: Path | str, attributes: Any) -> None:
    check_version(str(store), attributes)
    kinds = {"split": str, "classes": list, "grid": list, "identity": dict, "record": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(attributes.get(name), kind)]
    if not wrong and [type(size) for size in attributes["grid"]] != [int, int]:
        wrong = ["grid"]
    if wrong:
        raise TcaError(
            f"{store} lacks attributes that a store has, or they are of another kind: "
            f"{', '.join(wrong)}; docs/cache.md says what they are."
        )


def feature_streams(store: Path | str, metadata: Metadata) -> dict[str, Stream]:
    """Return the streams by name.

    Raises:
        TcaError: an array holds a type that this tca does not know.
    """
    streams: dict[str, Stream] = {}
    for name in STREAMS:
        if name not in metadata:
            continue
        array = metadata[name]
        shape = tuple(int(size) for size in array["shape"])
        held = array.get("attributes", {}).get("tca_dtype", array["data_type"])
        stream = Stream(shape, held)
        if held not in TYPES:
            raise TcaError(
                f"{store}: {name} holds {held}, which this tca does not read (it reads "
                f"{', '.join(TYPES)}); update tca or extract again."
            )
        if stream.dtype.name != array["data_type"]:
            # Such as the bfloat16 of tensorstore, which zarr-python does not know.
            raise TcaError(
                f"{store}: {name} holds numbers of the type {array['data_type']}, but {held} is "
                f"stored as {stream.dtype.name}; write it as {stream.dtype.name} with the "
                f"attribute tca_dtype: {held}."
            )
        streams[name] = stream
    return streams


def is_plain(metadata: Metadata) -> bool:
    """Say whether every array is laid out as tca writes it, so that its files can be read as such.

    What counts is what the reader relies on: names, order and chunk shapes, not the spelling.
    """
    try:
        return _is_plain(metadata)
    except (KeyError, TypeError, IndexError, AttributeError):
        # Metadata that Zarr allows and tca does not write.
        return False


def _is_plain(metadata: Metadata) -> bool:
    rows = _chunks(metadata["status"])[0]
    if not all(_spelt_plainly(name, array) for name, array in metadata.items() if name != GROUP):
        return False
    for name, what in feature_arrays(feature_streams("", metadata)).items():
        array = metadata[name]
        if _codecs(array) != _sharded(what.row_shape) or _chunks(array) != [rows, *what.row_shape]:
            return False
    return all(
        _codecs(metadata[name]) == (_CHECKED, None, [], [], "end")
        and (name == "status" or _chunks(metadata[name]) == metadata[name]["shape"])
        for name in (*COLUMNS, "id", "status")
    )


def spec_from(metadata: Metadata, table: RowTable, rows_per_shard: int | None = None) -> StoreSpec:
    """Return what a store was made with; its shards are the chunks of `status` if not given."""
    attributes = metadata[GROUP]["attributes"]
    return StoreSpec(
        split=attributes["split"],
        rows=table,
        streams=feature_streams("the store", metadata),
        rows_per_shard=rows_per_shard or int(_chunks(metadata["status"])[0]),
        classes=attributes["classes"],
        identity=attributes["identity"],
        record=attributes["record"],
        grid=(attributes["grid"][0], attributes["grid"][1]),
    )


_CHECKED = ["bytes", "crc32c"]


def _read(store: Path | str, read: Read, array: str, sums: Mapping[str, str]) -> dict[str, Any]:
    name = metadata_name(array)
    try:
        data = read(name)
    except OSError as error:
        raise reading_failed(f"{store}/{name}", error, remedy(store, error)) from None
    check_sum(store, name, data, sums)
    try:
        found = json.loads(data)
    except ValueError:
        raise TcaError(f"{store}/{name} is not JSON; {put_back(store)}.") from None
    return dict(found)


def _chunks(array: dict[str, Any]) -> list[int]:
    return list(array["chunk_grid"]["configuration"]["chunk_shape"])


def _codecs(array: dict[str, Any]) -> Any:
    codecs = array["codecs"]
    sharding = codecs[0].get("configuration", {})
    return (
        [codec["name"] for codec in codecs],
        sharding.get("chunk_shape"),
        [codec["name"] for codec in sharding.get("codecs", [])],
        [codec["name"] for codec in sharding.get("index_codecs", [])],
        sharding.get("index_location", "end"),
    )


def _spelt_plainly(name: str, array: dict[str, Any]) -> bool:
    """Say whether chunks have their usual names and bytes, and 0 (of statuses 255) where none."""
    keys = array["chunk_key_encoding"]
    codecs = array["codecs"]
    inner = codecs[0].get("configuration", {})
    swapped = "big" in (
        codec.get("configuration", {}).get("endian")
        for codec in (*codecs, *inner.get("codecs", []), *inner.get("index_codecs", []))
    )
    return (
        keys["name"] == "default"
        and keys.get("configuration", {}).get("separator", "/") == "/"
        and not array.get("storage_transformers")
        and not swapped
        and array["fill_value"] == (Status.NOT_EXTRACTED if name == "status" else 0)
    )


def _sharded(row_shape: tuple[int, ...]) -> Any:
    return (["sharding_indexed"], [1, *row_shape], _CHECKED, _CHECKED, "end")
