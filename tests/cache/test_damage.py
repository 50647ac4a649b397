"""Damage is an error that names file and row, never wrong numbers and never a dead process."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_store import FORMATS, Example, read_all

from tca.cache.store import Store
from tca.cache.sums import _WARNED as WARNED
from tca.cache.zarr_shard import index_bytes
from tca.errors import TcaError

WHOLE = ["label/c/0", "id/c/0/0", "video/c/0", "view/c/0", "status/c/1"]
ARRAYS = ("semantic", "motion", "label", "video", "view", "id", "status")
METADATA = ["zarr.json", *(f"{array}/zarr.json" for array in ARRAYS)]

in_zarr = pytest.mark.parametrize("sound", ["zarr"], indirect=True)
in_hdf5 = pytest.mark.parametrize("sound", ["hdf5"], indirect=True)


@pytest.fixture(scope="module", params=FORMATS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    example = Example(tmp_path_factory.mktemp("sound") / f"train.{request.param}")
    example.write()
    return example


@pytest.fixture
def path(sound: Example, tmp_path: Path) -> Path:
    shutil.copytree(sound.path.parent, tmp_path / "cache")
    return tmp_path / "cache" / sound.path.name


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def bits_of(size: int, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).choice(8 * size, min(count, 8 * size), replace=False)


@pytest.fixture(params=[3, pytest.param(60, marks=pytest.mark.long)])
def count(request: pytest.FixtureRequest) -> int:
    return request.param


@in_zarr
@pytest.mark.parametrize("name", [*WHOLE, *METADATA])
def test_a_flipped_bit_is_found_at_opening(path: Path, name: str, count: int) -> None:
    file = path / name
    whole = file.read_bytes()
    for bit in bits_of(len(whole), count):
        flip(file, int(bit))
        with pytest.raises(TcaError, match=name):
            Store.open(path)
        file.write_bytes(whole)
    read_all(path)


@in_zarr
def test_a_flipped_bit_in_the_sums_is_found_at_opening(path: Path, count: int) -> None:
    file = path.parent / "tca.sums"
    whole = file.read_bytes()
    for bit in bits_of(len(whole), 4 * count):
        flip(file, int(bit))
        with pytest.raises(TcaError, match=r"tca\.sums"):
            Store.open(path)
        file.write_bytes(whole)
    read_all(path)


@in_hdf5
def test_a_flipped_bit_in_the_sum_of_an_index_is_found_or_warned_of(
    path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = path.parent / "tca.sums"
    whole = file.read_bytes()
    for bit in bits_of(len(whole), 4 * count):
        flip(file, int(bit))
        # Where the line's name is hit, the store looks like one that was moved without its sums.
        WARNED.clear()
        said = ""
        try:
            read_all(path)
        except TcaError as error:
            said = str(error)
        assert "tca.sums" in said + capsys.readouterr().err
        file.write_bytes(whole)


@pytest.mark.parametrize("stream", ["semantic", "motion"])
def test_a_flipped_bit_in_a_row_hits_that_row_alone(
    path: Path, sound: Example, stream: str, count: int
) -> None:
    # Shard 1 holds rows 8 to 15, all good.
    file = Store.open(path).format.shard_file(stream, 1)
    whole = file.read_bytes()
    for row in (8, 12, 15):
        data = sound.features[stream][row].tobytes()
        for bit in bits_of(len(data), count, row):
            flip(file, int(bit) + 8 * whole.index(data))
            store = Store.open(path)
            others = np.setdiff1d(store.ready(), [row])
            assert np.array_equal(store.read(stream, others), sound.features[stream][others])
            with pytest.raises(TcaError) as error:
                store.read(stream, np.arange(8, 16))
            for part in (
                f"row {row} ",
                f"id {store.ids[row]})",
                str(file),
                "tca cache repair",
            ):
                assert part in str(error.value)
            file.write_bytes(whole)


@in_zarr
def test_a_flipped_bit_in_an_index_is_found_at_the_first_read(path: Path, count: int) -> None:
    file = path / "motion/c/0/0/0"
    whole = file.read_bytes()
    start = 8 * (len(whole) - index_bytes(8))
    for bit in bits_of(index_bytes(8), 5 * count):
        flip(file, start + int(bit))
        store = Store.open(path)
        with pytest.raises(TcaError, match=r"row 1 \(id .+motion/c/0/0/0 is damaged: the index"):
            store.read("motion", [1])
        assert len(store.read("motion", [8])) == 1
        file.write_bytes(whole)


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "without its end": lambda data: data[:-1],
    "without its beginning": lambda data: data[len(data) // 2 :],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "all zeros": lambda data: bytes(len(data)),
}


@in_zarr
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("name", [*WHOLE, "semantic/c/2/0/0"])
def test_a_file_of_another_length_is_found(
    path: Path, name: str, cut: Callable[[bytes], bytes]
) -> None:
    (path / name).write_bytes(cut((path / name).read_bytes()))
    with pytest.raises(TcaError, match=name):
        read_all(path)


@in_hdf5
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["index.h5", "shards/000000.h5", "shards/000002.h5"])
def test_an_hdf5_file_of_another_length_is_found(path: Path, name: str, cut: str) -> None:
    (path / name).write_bytes(CUTS[cut]((path / name).read_bytes()))
    if cut == "longer" and name != "index.h5":
        # HDF5 knows how long its file is; what somebody hung on is not looked at.
        read_all(path)
    else:
        with pytest.raises(TcaError, match=name):
            read_all(path)


@in_zarr
def test_an_index_that_points_behind_the_end_is_refused(path: Path) -> None:
    file = path / "semantic/c/1/0/0"
    file.write_bytes(file.read_bytes()[-index_bytes(8) :])
    with pytest.raises(TcaError, match=r"row 15 .+semantic/c/1/0/0 .+ does not fit the shape"):
        Store.open(path).read("semantic", [15])


@in_zarr
@pytest.mark.parametrize("name", [*WHOLE[:-1], *METADATA[1:], "motion/c/0/0/0"])
def test_a_file_that_is_gone_is_found(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(TcaError, match=name):
        read_all(path)


def test_a_shard_of_other_rows_is_refused(path: Path) -> None:
    # Sound checksums, but of rows of another shape: put there by someone.
    shapes = {"semantic": (4, 6), "motion": (8, 4)}
    other = Example(path.parent / f"other{path.suffix}", row_shapes=shapes).write()
    file = Store.open(path).format.shard_file("motion", 1)
    shutil.copy(other.format.shard_file("motion", 1), file)
    words = "does not fit the shape|its motion is float32 .8, 8, 4. instead of float32 .8, 8, 5."
    with pytest.raises(TcaError, match=rf"row 8 .+{file}.+{words}"):
        read_all(path)


@pytest.mark.parametrize("sums", [True, False], ids=["with sums", "without sums"])
@in_hdf5
def test_the_index_of_another_store_is_refused(path: Path, sums: bool) -> None:
    other = Example(path.parent / "other.h5", rows=61, rows_per_shard=9).write()
    shutil.copy(other.path / "index.h5", path)
    if not sums:
        (path.parent / "tca.sums").unlink()
    with pytest.raises(TcaError, match="has changed since" if sums else r"instead of uint8 .9,"):
        read_all(path)


def test_a_shard_that_is_garbage_is_named(path: Path) -> None:
    file = Store.open(path).format.shard_file("semantic", 1)
    for size in (0, 1, 100, 10_000):
        file.write_bytes(np.random.default_rng(size).bytes(size))
        with pytest.raises(TcaError, match=rf"{file}.* is damaged: .+tca cache repair"):
            read_all(path)


AFTER_OPENING = """
import os, sys
import numpy as np
from tca.cache.store import Store
from tca.errors import TcaError
store = Store.open(sys.argv[1])
rows = np.arange(8, 16)
store.read("semantic", rows)
size = int(sys.argv[2])
file = store.format.shard_file("semantic", 1)
os.truncate(file, size)
try:
    store.read("semantic", rows)
except TcaError as error:
    print(error)
"""


@pytest.mark.parametrize("size", [0, 5000, 9000])
@pytest.mark.parametrize("store_format", FORMATS)
def test_a_shard_shortened_under_an_open_store_does_not_kill(
    tmp_path: Path, store_format: str, size: int
) -> None:
    # Rows larger than a page, so that touching one behind the end would be fatal.
    shapes = {"semantic": (4, 600), "motion": (8, 5)}
    path = Example(tmp_path / f"train.{store_format}", row_shapes=shapes).write().path
    command = [sys.executable, "-c", AFTER_OPENING, str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"shortened to {size} bytes" in done.stdout
    # The first row behind the end; neighbours that are read by one call share its first.
    assert "row 8 " in done.stdout or "row 9 " in done.stdout


def test_too_many_open_files_is_no_damage(path: Path) -> None:
    store = Store.open(path)
    file = store.format.shard_file("semantic", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(TcaError, match=rf"{file}: Too many open files; .+ulimit -n") as error:
            store.read("semantic", [8])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "repair" not in str(error.value)
    assert len(store.read("semantic", [8])) == 1


@pytest.mark.parametrize("name", ["split", "classes", "grid", "identity", "record"])
@pytest.mark.parametrize("value", [None, 7])
def test_attributes_that_somebody_took_or_changed_are_named(
    tmp_path: Path, name: str, value: object
) -> None:
    example = Example(tmp_path / "train.zarr")
    example.write()
    (tmp_path / "tca.sums").unlink()
    file = example.path / "zarr.json"
    group = json.loads(file.read_text())
    del group["attributes"][name]
    if value is not None:
        group["attributes"][name] = value
    file.write_text(json.dumps(group))
    with pytest.raises(TcaError, match=f"lacks attributes .+: {name}; docs/cache.md"):
        Store.open(example.path)
