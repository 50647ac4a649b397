"""The bytes are zarr-python's own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from example_store import Example, contents
from zarr.codecs import BytesCodec, Crc32cCodec

from tca.cache.creation import create_store
from tca.cache.format import ABSENT
from tca.cache.layout import Status
from tca.cache.zarr_shard import row_offsets, shard_parts


def zarr_shard(folder: Path, array: np.ndarray, rows_per_shard: int) -> bytes | None:
    """What zarr-python, asked without tca for the layout of DESIGN, writes for one shard."""
    row = array.shape[1:]
    target = zarr.create_array(
        folder / "array",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(1, *row),
        shards=(rows_per_shard, *row),
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        fill_value=0,
    )
    target[:] = array
    file = folder / "array" / "c" / "/".join("0" * array.ndim)
    return file.read_bytes() if file.exists() else None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [8, 5, 1], ids=["whole", "partial", "one row"])
@pytest.mark.parametrize(
    "special", ["none", "failed", "zeros", "minus zero", "one bit", "nan", "infinite"]
)
def test_a_shard_is_zarr_pythons(tmp_path: Path, dtype: str, rows: int, special: str) -> None:
    array = np.random.default_rng(0).normal(size=(rows, 3, 4)).astype(dtype)
    parts: list[np.ndarray | None] = list(array)
    last = rows - 1
    if special == "failed" and rows > 1:
        array[0] = array[last] = 0
        parts[0] = parts[last] = None
    values = {"zeros": 0.0, "minus zero": -0.0, "one bit": 0.0, "nan": np.nan, "infinite": np.inf}
    if special in values and (rows > 1 or special != "zeros"):
        array[last] = values[special]
    if special == "one bit":
        array[last, 2, 3] = -0.0
    ours = b"".join(shard_parts([*parts, *[None] * (8 - rows)]))
    assert ours == zarr_shard(tmp_path, array, 8)


def test_rows_in_any_memory_order_are_written_alike() -> None:
    row = np.random.default_rng(0).normal(size=(3, 4)).astype("f4")
    expected = b"".join(shard_parts([row]))
    assert b"".join(shard_parts([np.asfortranarray(row)])) == expected
    assert b"".join(shard_parts([np.repeat(row, 2, axis=0)[::2]])) == expected
    assert b"".join(shard_parts([row.astype(">f4")])) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rows_per_shard": 256},
        {"rows_per_shard": 9, "rows": 18},
        {"rows": 1, "failed": {}},
        {"failed": {row: Status.MISSING for row in range(8, 16)}},
        {"row_shapes": {"semantic": (8, 4, 6), "motion": (8, 5)}},
        {"types": {"semantic": "int8", "motion": "bfloat16"}},
        {"row_shapes": {"semantic": (8, 4, 6)}, "types": {"semantic": "int8"}},
    ],
    ids=[
        "default",
        "one shard",
        "whole shards",
        "one row",
        "a shard of failures",
        "frames",
        "int8 and bfloat16",
        "semantic alone",
    ],
)
@pytest.mark.parametrize("shards", [(), (0,), (1, 2)], ids=["all", "first", "without first"])
def test_a_store_is_zarr_pythons(
    tmp_path: Path, settings: dict[str, object], shards: tuple[int, ...]
) -> None:
    ours = Example(tmp_path / "ours/train.zarr", **settings)
    last = -(-ours.rows // ours.rows_per_shard) - 1
    done = tuple(shard for shard in shards if shard <= last) or tuple(range(last + 1))
    ours.write(*done)
    theirs = tmp_path / "theirs/train.zarr"
    create_store(theirs, ours.spec, "zarr")
    group = zarr.open_group(theirs, mode="r+")
    for shard in done:
        rows = slice(shard * ours.rows_per_shard, (shard + 1) * ours.rows_per_shard)
        for name, array in ours.features.items():
            group[name][rows] = array[rows]
        group["status"][rows] = ours.status[rows]
    assert contents(ours.path.parent) == contents(theirs.parent)


def test_a_good_row_of_zeros_alone_keeps_its_shard(tmp_path: Path) -> None:
    # Here alone we differ from zarr-python, which writes no file: its loss would go unnoticed.
    example = Example(tmp_path / "train.zarr", rows=2, failed={1: Status.EMPTY})
    example.features["motion"][0] = 0
    store = example.write()
    assert (row_offsets(store.path / "motion/c/0/0/0", 8, 8 * 5 * 4) == ABSENT).all()
    assert not store.read("motion", np.array([0])).any()
    assert zarr_shard(tmp_path, example.features["motion"], 8) is None
    shutil.rmtree(store.path / "motion/c")
    assert not zarr.open_group(store.path, mode="r")["motion"][:].any()
