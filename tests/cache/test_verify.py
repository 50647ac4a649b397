"""Whatever is damaged is found, all of it, and what is sound is not blamed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from example_store import Example

from tca.cache.store import Store
from tca.cache.verify import verify
from tca.errors import TcaError

ARRAYS = ("semantic", "motion", "label", "video", "view", "id", "status")
FILES = [
    "zarr.json",
    *(f"{array}/zarr.json" for array in ARRAYS),
    *("label/c/0", "id/c/0/0", "video/c/0", "view/c/0"),
    *("status/c/1", "semantic/c/1/0/0", "motion/c/2/0/0"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Example(tmp_path / "cache/train.zarr").write()
    return tmp_path / "cache/train.zarr"


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def test_a_sound_store_has_no_problems(path: Path) -> None:
    found = verify(path)
    assert (found.problems, found.shards) == ([], 3)
    # Both streams of the rows without a failure.
    assert found.rows == 2 * 18


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_its_file_named(path: Path, name: str, count: int) -> None:
    file = path / name
    whole = file.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), count, replace=False).tolist():
        flip(file, bit)
        problems = verify(path).problems
        assert str(file) in {problem.file for problem in problems}
        for problem in problems:
            assert problem.damage
            # Arrays whose metadata is damaged cannot be checked; nothing else is blamed.
            assert problem.file == str(file) or problem.array == Path(name).parent.name
        file.write_bytes(whole)
    assert not verify(path).problems


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.long)])
def test_a_flipped_bit_in_the_sums_is_found(path: Path, count: int) -> None:
    file = path.parent / "tca.sums"
    whole = file.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), count, replace=False).tolist():
        flip(file, bit)
        assert str(file) in {problem.file for problem in verify(path).problems}
        file.write_bytes(whole)


def test_every_problem_is_reported_with_its_row(path: Path) -> None:
    flip(path / "label/c/0", 5)
    # Rows 8 to 15 of shard 1 are good, of 48 bytes and a checksum each.
    flip(path / "semantic/c/1/0/0", 8 * 3)
    flip(path / "semantic/c/1/0/0", 8 * (5 * 52 + 50))
    (path / "motion/c/0/0/0").unlink()
    found = {
        (Path(p.file).relative_to(path).as_posix(), p.row, p.id) for p in verify(path).problems
    }
    assert found == {
        ("label/c/0", None, None),
        ("motion/c/0/0/0", None, None),
        ("semantic/c/1/0/0", 8, "4"),
        ("semantic/c/1/0/0", 13, "röw6"),
    }


def test_a_store_without_any_sums_is_a_problem_with_a_remedy(path: Path) -> None:
    (path.parent / "tca.sums").unlink()
    (problem,) = verify(path).problems
    assert f"tca cache repair {path}" in str(problem)


def test_what_is_not_extracted_or_left_by_a_killed_run_is_no_damage(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr")
    example.write(0)
    (example.path / "motion/c/2/0").mkdir(parents=True, exist_ok=True)
    (example.path / "motion/c/2/0/.0.tmp").write_bytes(b"half")
    shutil.copy(example.path / "motion/c/0/0/0", example.path / "motion/c/2/0/0")
    found = verify(example.path)
    assert (found.problems, found.shards) == ([], 1)
    assert len(found.notes) == 2


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    Example(tmp_path / "cache/train.h5").write()
    return tmp_path / "cache/train.h5"


def test_a_sound_hdf5_store_has_no_problems(hdf5: Path) -> None:
    found = verify(hdf5)
    assert (found.problems, found.shards, found.rows) == ([], 3, 36)


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.long)])
def test_a_flipped_bit_in_a_row_of_hdf5_is_found(hdf5: Path, count: int) -> None:
    file = hdf5 / "shards/000001.h5"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    features = Example(hdf5).features
    for number in range(count):
        array = ("semantic", "motion")[number % 2]
        row = int(random.integers(8, 16))
        values = features[array][row].tobytes()
        flip(file, 8 * whole.index(values) + int(random.integers(8 * len(values))))
        (problem,) = verify(hdf5).problems
        assert (problem.file, problem.shard, problem.row) == (str(file), 1, row)
        assert (problem.array, problem.damage) == (array, True)
        file.write_bytes(whole)


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_a_flipped_bit_anywhere_in_a_shard_of_hdf5_is_found_or_changes_nothing(
    hdf5: Path, count: int
) -> None:
    # Between what HDF5 wrote there are bytes that mean nothing.
    file = hdf5 / "shards/000000.h5"
    whole = file.read_bytes()
    example = Example(hdf5)
    sound = 0
    for bit in np.random.default_rng(1).choice(8 * len(whole), count, replace=False).tolist():
        flip(file, bit)
        problems = verify(hdf5).problems
        assert {problem.file for problem in problems} <= {str(file)}
        if not problems:
            sound += 1
            store = Store.open(hdf5)
            assert np.array_equal(store.status, example.status)
            for array, values in example.features.items():
                assert np.array_equal(store.read(array, store.ready()), values[store.ready()])
        file.write_bytes(whole)
    assert sound < count / 2


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.long)])
def test_a_flipped_bit_in_the_index_of_hdf5_is_found(hdf5: Path, count: int) -> None:
    file = hdf5 / "index.h5"
    whole = file.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), count, replace=False).tolist():
        flip(file, bit)
        (problem,) = verify(hdf5).problems
        assert (problem.file, problem.damage) == (str(file), True)
        file.write_bytes(whole)


def test_shards_are_checked_without_the_index_of_hdf5(hdf5: Path) -> None:
    (hdf5 / "index.h5").unlink()
    file = hdf5 / "shards/000001.h5"
    flip(file, 8 * (file.read_bytes().index(Example(hdf5).features["motion"][12].tobytes()) + 3))
    index, row = verify(hdf5).problems
    assert index.file == str(hdf5 / "index.h5")
    # Whose row it is only the index says.
    assert (row.file, row.row, row.id) == (str(file), 12, None)


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder", "file", "nothing"):
        with pytest.raises(TcaError, match=name):
            verify(tmp_path / name)


@pytest.mark.parametrize("damage", [b"", b"junk" * 1000])
def test_a_broken_file_of_a_shard_is_one_problem(tmp_path: Path, damage: bytes) -> None:
    example = Example(tmp_path / "train.h5")
    example.write()
    file = example.path / "shards/000001.h5"
    file.write_bytes(damage)
    (problem,) = verify(example.path).problems
    assert (problem.file, problem.shard, problem.row) == (str(file), 1, None)
