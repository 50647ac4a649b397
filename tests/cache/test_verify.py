"""Whatever is damaged is found, all of it, and what is sound is not blamed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from example_store import Example

from tca.cache.verify import verify

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
