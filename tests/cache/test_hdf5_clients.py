"""Any HDF5 client reads the store: h5py through `index.h5` or a shard, and HDF5's own programs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from example_store import Example, contents, read_all

from tca.cache.layout import TYPES, Status
from tca.cache.store import Store

COLUMNS = ("label", "video", "view")


def program(*command: object) -> str:
    """Run one of HDF5's programs and return what it prints."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"needs {command[0]} (Debian package hdf5-tools)")
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_stored(example: Example, name: str, file: Path, array: str) -> np.ndarray:
    """What h5dump says are the bytes of an array."""
    raw = file.parent / "raw"
    program("h5dump", "-d", f"/{array}", "-b", "FILE", "-o", raw, file)
    return np.fromfile(raw, example.features[name].dtype)


@pytest.fixture(params=[("float16", "float32"), ("int8", "bfloat16"), ("bfloat16", "int8")])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    types = dict(zip(("semantic", "motion"), request.param, strict=True))
    return Example(tmp_path / "cache/train.h5", types=types)


@pytest.mark.parametrize("shards", [None, (), (0,), (1, 2)], ids=["none", "all", "first", "rest"])
def test_h5py_reads_the_split_through_its_index(
    example: Example, shards: tuple[int, ...] | None
) -> None:
    if shards is None:
        example.writer()
    else:
        example.write(*shards)
    done = {None: (), (): (0, 1, 2)}.get(shards, shards)
    there = np.isin(np.arange(example.rows) // 8, done)
    with h5py.File(example.path / "index.h5") as file:
        assert set(file) == {*example.features, *COLUMNS, "id", "status"}
        for name, array in example.features.items():
            assert (file[name].dtype, file[name].shape) == (array.dtype, array.shape)
            assert np.array_equal(file[name][there], array[there])
            assert not file[name][~there].any()
            row = int(np.flatnonzero(~there)[0]) if not there.all() else 5
            assert np.array_equal(file[name][row], array[row] * there[row])
        assert np.array_equal(file["status"][there], example.status[there])
        assert (file["status"][~there] == Status.NOT_EXTRACTED).all()
        for name in COLUMNS:
            assert np.array_equal(file[name], getattr(example.table, name))
            assert file[name].dtype == getattr(example.table, name).dtype
        assert [bytes(row).rstrip(b"\0").decode() for row in file["id"]] == example.table.ids


def test_the_attributes_say_what_it_is(example: Example) -> None:
    example.write()
    held = {**{name: stream.type for name, stream in example.streams.items()}, "status": "uint8"}
    held |= {f"{name}_scale": "float16" for name, kind in held.items() if kind == "int8"}
    held |= {"label": "int32", "video": "int32", "view": "uint8", "id": "uint8"}
    with h5py.File(example.path / "index.h5") as file:
        assert {name: json.loads(value) for name, value in file.attrs.items()} == {
            "tca_layout": 1,
            "split": "train",
            "classes": list(example.classes),
            "grid": [2, 2],
            "identity": example.identity,
            "record": {"tca": "0.1.0"},
            "rows_per_shard": 8,
        }
        assert {name: file[name].attrs["tca_dtype"].decode() for name in file} == held


def test_h5py_reads_a_shard_alone(example: Example) -> None:
    example.write()
    for shard, rows in enumerate((range(8), range(8, 16), range(16, 21))):
        with h5py.File(example.path / f"shards/{shard:06d}.h5") as file:
            assert np.array_equal(file["status"], example.status[rows])
            columns = json.loads(file["crc32c"].attrs["columns"])
            assert columns == list(example.features)
            assert file["crc32c"].shape == (len(rows), len(columns))
            for name, array in example.features.items():
                assert np.array_equal(file[name], array[rows])
                assert file[name].chunks == (1, *array.shape[1:])
                assert file[name].compression is None


def test_a_store_that_was_moved_is_whole(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.write()
    moved = tmp_path / "elsewhere/again"
    shutil.move(example.path.parent, moved)
    read_all(moved / "train.h5")
    monkeypatch.chdir(tmp_path)
    for path in (moved / "train.h5/index.h5", Path("elsewhere/again/train.h5/index.h5")):
        with h5py.File(path) as file:
            for name, array in example.features.items():
                assert np.array_equal(file[name], array)
            assert np.array_equal(file["status"], example.status)


def test_two_writes_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [Example(tmp_path / f"{number}/train.h5") for number in range(2)]
    stores[0].write()
    monkeypatch.setattr("time.time", lambda: 4e9)
    stores[1].write(2)
    stores[1].write()
    assert contents(stores[0].path.parent) == contents(stores[1].path.parent)


def test_every_file_is_of_the_oldest_version_that_can_do_it(example: Example) -> None:
    example.write()
    for name, data in contents(example.path).items():
        # Superblock version 3 is HDF5 1.10; HDF5 2 calls 4 its latest.
        assert data[:9] == b"\x89HDF\r\n\x1a\n\x03", name
        said = program("h5debug", example.path / name)
        assert "Superblock version number:                         3" in said
        assert program("h5dump", "--header", example.path / name).startswith("HDF5")


def test_h5dump_prints_a_row(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.h5")
    example.write(0, 2)
    files = [("index.h5", 18), ("shards/000002.h5", 2)]
    for name, row in files:
        command = ["h5dump", "-y", "-w", "0", "-m", "%.9g", "-d", "/motion"]
        said = program(*command, "-s", f"{row},0,0", "-c", "1,8,5", example.path / name)
        numbers = said.split("DATA {")[1].split("}")[0].replace(",", " ").split()
        assert np.array_equal(np.array(numbers, "f4").reshape(8, 5), example.features["motion"][18])
    said = program("h5dump", "-y", "-w", "0", "-d", "/status", example.path / "index.h5")
    numbers = said.split("DATA {")[1].split("}")[0].replace(",", " ").split()
    assert list(map(int, numbers)) == [*example.status[:8], *[255] * 8, *example.status[16:]]


def test_h5dump_gives_the_bytes_of_every_type(example: Example) -> None:
    example.write()
    for name, array in example.features.items():
        for file, rows in (("index.h5", slice(None)), ("shards/000001.h5", slice(8, 16))):
            found = as_stored(example, name, example.path / file, name)
            assert np.array_equal(found.view("u1"), array[rows].reshape(-1).view("u1"))


@pytest.mark.parametrize("stored", TYPES)
def test_a_repacked_shard_is_still_read(tmp_path: Path, stored: str) -> None:
    types = {"semantic": stored, "motion": "float32"}
    example = Example(tmp_path / "train.h5", types=types)
    example.write()
    file = example.path / "shards/000001.h5"
    for options in (["-f", "GZIP=5"], ["-l", "CONTI"], ["-f", "SHUF", "-f", "GZIP=1"], []):
        repacked = tmp_path / "repacked.h5"
        program("h5repack", *options, file, repacked)
        os.replace(repacked, file)
        store = Store.open(example.path)
        for name, array in example.features.items():
            rows = np.array([14, 0, 9, 20, 8, 14])
            assert np.array_equal(store.read(name, rows), array[rows])
        with h5py.File(example.path / "index.h5") as group:
            assert np.array_equal(group["motion"], example.features["motion"])


@pytest.mark.parametrize("libver", ["earliest", "v114", "latest"])
def test_a_shard_in_another_version_of_the_file_format_is_read(tmp_path: Path, libver: Any) -> None:
    example = Example(tmp_path / "train.h5")
    example.write()
    for shard in range(3):
        file = example.path / f"shards/{shard:06d}.h5"
        version = libver if libver in ("earliest", "latest") else (libver, libver)
        with h5py.File(file) as ours, h5py.File(tmp_path / "copy", "w", libver=version) as copy:
            for name in ours:
                ours.copy(name, copy)
        os.replace(tmp_path / "copy", file)
        store = Store.open(example.path)
        assert np.array_equal(store.status, example.status)
        for name, array in example.features.items():
            assert np.array_equal(store.read(name, store.ready()), array[store.ready()])
