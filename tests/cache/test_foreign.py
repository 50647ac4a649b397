"""Stores that others wrote or rewrote, in layouts that tca never writes: the same rows.

A chunk that is not there is to Zarr one of fill values. tca cannot serve zeros for lost features:
where nothing tells a lost file from one of zeros that was left out, reading raises. Inside a shard
that can be told: its index says that the row was left out, so such a row is one of zeros.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import zarr
from example_store import Example, contents
from foreign_store import write_foreign
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tca.cache.convert import convert
from tca.cache.layout import Status
from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.cache.types import to_numpy
from tca.errors import TcaError

FAILED = {3: Status.UNREADABLE, 7: Status.MISSING, 17: Status.TIMED_OUT}


def made(path: Path, stored: str = "float16", **settings: Any) -> Example:
    types = {"semantic": stored, "motion": "int8" if stored == "int8" else "float32"}
    return Example(path, rows=37, types=types, failed=FAILED, **settings)


def holds(path: Path, example: Example) -> Store:
    """Hold rows, statuses, labels and a loader's batches against what was written."""
    store = Store.open(path)
    assert store.rows == example.rows
    assert store.ids == example.table.ids
    for name in ("label", "video", "view"):
        assert np.array_equal(getattr(store, name), getattr(example.table, name))
    assert np.array_equal(store.status, example.status)
    ready = store.ready()
    rows = np.random.default_rng(0).choice(ready, 50)
    for name in store.format.arrays:
        for chosen in (rows, ready, ready[:0], ready[::-1]):
            found = store.read(name, chosen)
            assert found.dtype == example.features[name].dtype
            assert np.array_equal(found, example.features[name][chosen])
    seen = []
    for batch in Loader(store, ready, 8, seed=1).epoch(0):
        seen += batch.rows.tolist()
        assert np.array_equal(batch.label, example.table.label[batch.rows])
        for name, tensor in batch.arrays.items():
            assert np.array_equal(to_numpy(tensor), example.features[name][batch.rows])
    assert sorted(seen) == ready.tolist()
    return store


WITH_ZARR: dict[str, dict[str, Any]] = {
    "sharded": {"shard_rows": 8},
    "sharded, compressed": {"shard_rows": 8, "compressors": [ZstdCodec()]},
    "sharded, chunks of rows": {"shard_rows": 8, "chunk_rows": 4},
    "a chunk a row": {},
    "zstd": {"compressors": [ZstdCodec(level=3, checksum=True)]},
    "blosc": {"compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle")]},
    "gzip": {"compressors": [GzipCodec()]},
    "big-endian": {"endian": "big"},
    "big-endian, sharded": {"endian": "big", "shard_rows": 8},
    "chunks of rows": {"chunk_rows": 5},
    "one chunk": {"chunk_rows": 37},
    "names with points": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "names as in v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}


@pytest.mark.parametrize("how", WITH_ZARR)
def test_stores_that_zarr_python_wrote(tmp_path: Path, how: str) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example, **WITH_ZARR[how])
    store = holds(example.path, example)
    assert not store.format.writable


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
@pytest.mark.parametrize("how", ["sharded", "chunks of rows", "big-endian"])
def test_types_that_zarr_does_not_know(tmp_path: Path, how: str, stored: str) -> None:
    example = made(tmp_path / "train.zarr", stored)
    write_foreign(example.path, example, **WITH_ZARR[how])
    assert holds(example.path, example).streams["semantic"].type == stored


def test_shards_that_zarr_python_wrote_as_tca_does_are_read_as_its_own(tmp_path: Path) -> None:
    example = made(tmp_path / "train.zarr")
    example.writer()
    group = zarr.open_group(example.path, mode="r+")
    good = np.flatnonzero(example.status == 0)
    for name, features in example.features.items():
        for row in good:
            group[name][row] = features[row]
    group["status"][:] = example.status
    assert holds(example.path, example).format.writable


def write_with_tensorstore(path: Path, example: Example, inner: list[dict[str, Any]]) -> None:
    """Write every array by tensorstore, sharded, and the group by hand."""
    write_foreign(path, example)
    for name, features in example.features.items():
        attributes = zarr.open_array(path, path=name).attrs.asdict()
        shutil.rmtree(path / name)
        rows, *shape = features.shape
        sharding = {
            "chunk_shape": [1, *shape],
            "codecs": inner,
            "index_codecs": [BYTES, {"name": "crc32c"}],
        }
        metadata = {
            "shape": [rows, *shape],
            "data_type": features.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, *shape]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": attributes,
        }
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        array = tensorstore.open(spec | {"metadata": metadata}, create=True).result()
        array.write(features).result()


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


@pytest.mark.parametrize(
    "inner",
    [
        [BYTES],
        [BYTES, {"name": "crc32c"}],
        [BYTES, {"name": "zstd", "configuration": {"level": 3}}],
        [{"name": "transpose", "configuration": {"order": [2, 1, 0]}}, BYTES],
    ],
    ids=["plain", "crc32c", "zstd", "transposed"],
)
def test_stores_that_tensorstore_wrote(tmp_path: Path, inner: list[dict[str, Any]]) -> None:
    example = made(tmp_path / "train.zarr")
    write_with_tensorstore(example.path, example, inner)
    holds(example.path, example)


def test_a_type_of_tensorstore_alone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example)
    shutil.rmtree(example.path / "semantic")
    place = {"driver": "file", "path": str(example.path / "semantic")}
    metadata = {"shape": [37, 4, 6], "data_type": "bfloat16"}
    spec = {"driver": "zarr3", "kvstore": place, "metadata": metadata}
    tensorstore.open(spec, create=True).result()
    with pytest.raises(TcaError) as error:
        Store.open(example.path)
    for part in ("semantic holds numbers of the type bfloat16", "as uint16 with", "tca_dtype"):
        assert part in str(error.value)


def refused(store: Store, array: str, row: int, *parts: str) -> None:
    """Hold that reading a row, alone and among others, raises and names it."""
    ready = store.ready()
    for rows in ([row], ready, ready[::-1]):
        with pytest.raises(TcaError) as error:
            store.read(array, rows)
        for part in (f"row {row} (id {store.ids[row]}) of ", *parts):
            assert part in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "file", "lost"),
    [
        ("a chunk a row", "c/20/0/0", [20]),
        ("zstd", "c/20/0/0", [20]),
        ("chunks of rows", "c/2/0/0", [10, 11, 12, 13, 14]),
        ("sharded", "c/2/0/0", [16, 18, 19, 20, 21, 22, 23]),
        ("names as in v2", "20.0.0", [20]),
    ],
)
def test_a_lost_file_is_an_error_and_not_zeros(
    tmp_path: Path, how: str, file: str, lost: list[int]
) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example, **WITH_ZARR[how])
    (example.path / "motion" / file).unlink()
    store = Store.open(example.path)
    refused(store, "motion", lost[0], f"{file} is missing", "put that file back")
    others = np.setdiff1d(store.ready(), lost)
    assert np.array_equal(store.read("motion", others), example.features["motion"][others])
    with pytest.raises(TcaError, match="is missing"):
        list(Loader(store, store.ready(), 8, seed=0).epoch(0))


@pytest.mark.parametrize("array", ["label", "id", "video", "status"])
def test_a_lost_column_is_an_error_at_opening(tmp_path: Path, array: str) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example)
    shutil.rmtree(example.path / array / "c")
    if array == "status":
        # No commit record: no row is there.
        assert not len(Store.open(example.path).ready())
        return
    with pytest.raises(TcaError, match=rf"{array} cannot be read: c/0.* is missing"):
        Store.open(example.path)


def with_zeros(path: Path) -> Example:
    example = made(path)
    example.features["motion"][20] = 0
    return example


@pytest.mark.parametrize("how", ["sharded", "sharded, compressed"])
def test_a_row_left_out_of_its_shard_is_one_of_zeros(tmp_path: Path, how: str) -> None:
    # The shard's index, under its checksum, says that whoever wrote it left the row out.
    example = with_zeros(tmp_path / "train.zarr")
    write_foreign(example.path, example, **WITH_ZARR[how])
    holds(example.path, example)


def test_a_row_left_out_without_a_shard_is_an_error(tmp_path: Path) -> None:
    # It is a file that is not there; nothing tells it from a lost one.
    example = with_zeros(tmp_path / "train.zarr")
    write_foreign(example.path, example)
    refused(Store.open(example.path), "motion", 20, "c/20/0/0 is missing", "write_empty_chunks")
    write_foreign(example.path, example, config={"write_empty_chunks": True})
    holds(example.path, example)


@pytest.mark.parametrize("how", ["zstd", "gzip", "sharded, compressed", "one chunk", "sharded"])
def test_a_shortened_file_is_an_error_that_names_a_row(tmp_path: Path, how: str) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example, **WITH_ZARR[how])
    file = max((example.path / "semantic/c").glob("*/0/0"), key=lambda file: int(file.parts[-3]))
    file.write_bytes(file.read_bytes()[:-3])
    shard = int(file.parts[-3])
    first = {"zstd": shard, "gzip": shard, "one chunk": 0}.get(how, 8 * shard)
    refused(Store.open(example.path), "semantic", first, "semantic is damaged")


def test_a_flipped_bit_under_a_checksum_is_found(tmp_path: Path) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example, **WITH_ZARR["zstd"])
    file = example.path / "semantic/c/9/0/0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    refused(Store.open(example.path), "semantic", 9, "semantic is damaged")


WITH_H5PY: dict[str, Callable[[int, tuple[int, ...]], dict[str, Any]]] = {
    "gzip": lambda rows, shape: {"chunks": (1, *shape), "compression": "gzip"},
    "lzf": lambda rows, shape: {"chunks": (1, *shape), "compression": "lzf", "shuffle": True},
    "contiguous": lambda rows, shape: {},
    "chunks of rows": lambda rows, shape: {"chunks": (min(rows, 3), *shape)},
    "checked by HDF5": lambda rows, shape: {"chunks": (1, *shape), "fletcher32": True},
}


def rewrite(file: Path, how: str, order: str = "<") -> None:
    """Write an HDF5 shard again as somebody else would."""
    with h5py.File(file) as shard:
        read = {name: (array[...], dict(array.attrs)) for name, array in shard.items()}
    file.unlink()
    with h5py.File(file, "w") as shard:
        for name, (values, attributes) in read.items():
            settings = {}
            if name in ("semantic", "motion"):
                settings = WITH_H5PY[how](len(values), values.shape[1:])
                values = values.astype(values.dtype.newbyteorder(order))
            shard.create_dataset(name, data=values, **settings).attrs.update(attributes)


@pytest.mark.parametrize("how", WITH_H5PY)
def test_shards_that_h5py_rewrote(tmp_path: Path, how: str) -> None:
    example = made(tmp_path / "train.h5")
    example.write()
    for file in (example.path / "shards").iterdir():
        rewrite(file, how)
    holds(example.path, example)


def test_rewritten_shards_become_tca_s_own_by_converting(tmp_path: Path) -> None:
    example = made(tmp_path / "train.h5")
    example.write()
    original = contents(example.path / "shards")
    for file in (example.path / "shards").iterdir():
        rewrite(file, "chunks of rows")
    convert(example.path, tmp_path / "new.h5")
    assert contents(tmp_path / "new.h5/shards") == original


def test_big_endian_shards_that_h5py_rewrote(tmp_path: Path) -> None:
    example = made(tmp_path / "train.h5")
    example.write()
    for file in (example.path / "shards").iterdir():
        rewrite(file, "contiguous", ">")
    holds(example.path, example)


def test_a_rewritten_shard_is_still_held_against_its_checksums(tmp_path: Path) -> None:
    example = made(tmp_path / "train.h5")
    example.write()
    file = example.path / "shards/000002.h5"
    rewrite(file, "gzip")
    with h5py.File(file, "r+") as shard:
        shard["motion"][4, 1, 1] += 1
    store = Store.open(example.path)
    for rows in ([20], store.ready()):
        with pytest.raises(TcaError, match=rf"row 20 \(id {store.ids[20]}\) .+ checksum .+ repair"):
            store.read("motion", rows)


@pytest.mark.parametrize(
    "options",
    [["-f", "GZIP=4"], ["-f", "SHUF", "-f", "GZIP=1", "-l", "CHUNK=4x4x6"], ["-l", "CONTI"], []],
    ids=["gzip", "chunks of rows", "contiguous", "as it is"],
)
def test_shards_that_h5repack_rewrote(tmp_path: Path, options: list[str]) -> None:
    example = made(tmp_path / "train.h5")
    example.write()
    for file in sorted((example.path / "shards").iterdir()):
        old = file.rename(tmp_path / "old.h5")
        try:
            subprocess.run(["h5repack", *options, old, file], check=True)
        except FileNotFoundError:
            pytest.skip("needs h5repack")
    holds(example.path, example)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    example = made(tmp_path / "train.zarr")
    write_foreign(example.path, example)
    before = contents(tmp_path)
    holds(example.path, example)
    assert contents(tmp_path) == before
