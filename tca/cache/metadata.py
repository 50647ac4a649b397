"""Metadata files of a store: read, checked against their sums and against the layout.

The sums lie beside the store: a foreign file inside the group makes zarr-python warn. One file
serves all stores of a folder, in the format of `sha256sum`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.files import locked, write_atomic
from tca.cache.layout import LAYOUT_VERSION, STREAMS, Stream
from tca.errors import TcaError

WHOLE_ARRAYS: dict[str, np.dtype[Any]] = {
    "label": np.dtype("i4"),
    "video": np.dtype("i4"),
    "view": np.dtype("u1"),
}
"""Arrays of one number a row in a single chunk, written at creation."""

ARRAYS = (*STREAMS, *WHOLE_ARRAYS, "id", "status")
FEATURE_TYPES = ("float16", "float32")

Metadata = dict[str, dict[str, Any]]


def sums_path(store: Path) -> Path:
    """Return where the sha256 of every metadata file of `store` is written."""
    return store.resolve().with_name("tca.sums")


def write_sums(store: Path, folder: Path) -> None:
    """Write the sums of the metadata in `folder`, which is about to become `store`.

    Raises:
        TcaError: the folder of the store cannot be written or locked.
    """
    path = sums_path(store)
    # Two splits may be made at the same moment; each keeps the other's lines.
    with locked(path.with_name("tca.sums.lock"), wait=True):
        sums = _read_sums(path)
        ours = f"{store.resolve().name}/"
        for name in map(_file, ("", *ARRAYS)):
            sums[ours + name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
        write_atomic(path, ["".join(lines).encode(errors="surrogateescape")])


def read_metadata(store: Path) -> Metadata:
    """Return every `zarr.json` by array name; the group's is under "".

    Raises:
        TcaError: no store there, not one of tca's, a newer layout, or a changed file.
    """
    if not store.exists():
        raise TcaError(f"there is no store at {store}; make it with `tca extract`.")
    if not (store / "zarr.json").is_file():
        raise TcaError(f"{store} is not a store: it has no zarr.json; give the path of a store.")
    sums = _read_sums(sums_path(store))
    metadata: Metadata = {}
    for array in ("", *ARRAYS):
        name = _file(array)
        data = _read(store / name, "put the file back or extract the store again")
        expected = sums.get(f"{store.resolve().name}/{name}")
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise TcaError(
                f"{store / name} has changed since the store was made (its sha256 is not that in "
                f"{sums_path(store)}); put the file back or extract the store again."
            )
        try:
            metadata[array] = json.loads(data)
        except ValueError:
            raise TcaError(f"{store / name} is not JSON; extract the store again.") from None
        if not array:
            _check_version(store, metadata[""])
        if expected is None:
            raise TcaError(
                f"{sums_path(store)} has no sha256 of {store.resolve().name}/{name}: a store is "
                "moved under its own name and together with its lines of that file; bring them too."
            )
    return metadata


def read_streams(store: Path, metadata: Metadata) -> tuple[dict[str, Stream], int]:
    """Return the streams and the rows of a shard.

    Raises:
        TcaError: an array is not laid out as tca reads it.
    """
    streams: dict[str, Stream] = {}
    rows_per_shard = int(_chunks(metadata["status"])[0])
    for name in STREAMS:
        array = metadata[name]
        shape = tuple(int(size) for size in array["shape"])
        held = array["attributes"].get("tca_dtype", array["data_type"])
        if held not in FEATURE_TYPES or held != array["data_type"]:
            raise TcaError(
                f"{store}: {name} holds {held}, which this tca does not read (it reads "
                f"{' and '.join(FEATURE_TYPES)}); update tca or extract again."
            )
        if _codec_names(array) != _sharded(shape) or _chunks(array) != [rows_per_shard, *shape[1:]]:
            raise TcaError(f"{store}: {name} is not sharded as docs/cache.md says; extract again.")
        streams[name] = Stream(shape, np.dtype(array["data_type"]))
    return streams, rows_per_shard


def reading_failed(path: Path, error: OSError, remedy: str) -> TcaError:
    """Turn the system's reason into one sentence."""
    return TcaError(f"cannot read {path}: {error.strerror or error}; {remedy}.")


def _file(array: str) -> str:
    return f"{array}/zarr.json" if array else "zarr.json"


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise reading_failed(path, error, remedy) from None


def _read_sums(path: Path) -> dict[str, str]:
    """Return sha256 by file name; of a damaged line nothing that would fit any file."""
    if not path.exists():
        return {}
    text = _read(path, "make it readable").decode(errors="surrogateescape")
    parts = (line.partition("  ") for line in text.split("\n"))
    return {name: digest for digest, _, name in parts if name}


def _check_version(store: Path, group: Any) -> None:
    attributes = group.get("attributes") if isinstance(group, dict) else None
    version = attributes.get("tca_layout") if isinstance(attributes, dict) else None
    if version is None:
        raise TcaError(f"{store} is a Zarr group, but not a store of tca; give another path.")
    if version > LAYOUT_VERSION:
        raise TcaError(
            f"{store} has layout {version}, this tca reads up to {LAYOUT_VERSION}; update tca."
        )


def _chunks(array: dict[str, Any]) -> list[int]:
    return list(array["chunk_grid"]["configuration"]["chunk_shape"])


def _codec_names(array: dict[str, Any]) -> Any:
    """Return what the reader relies on: names, order, chunk shape; not how it is spelled."""
    codecs = array["codecs"]
    sharding = codecs[0].get("configuration", {})
    return (
        [codec["name"] for codec in codecs],
        sharding.get("chunk_shape"),
        [codec["name"] for codec in sharding.get("codecs", [])],
        [codec["name"] for codec in sharding.get("index_codecs", [])],
        sharding.get("index_location", "end"),
    )


def _sharded(shape: tuple[int, ...]) -> Any:
    checked = ["bytes", "crc32c"]
    return (["sharding_indexed"], [1, *shape[1:]], checked, checked, "end")
