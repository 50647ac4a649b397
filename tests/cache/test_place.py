"""Where no store can be: said in one sentence, before a lock or anything else is made."""

import shutil
from pathlib import Path

import pytest
import zarr
from example_store import FORMATS, Example, contents

from tca.cache.convert import convert
from tca.cache.creation import create_store
from tca.cache.files import sole_writer
from tca.cache.merge import merge
from tca.cache.repair import repair
from tca.errors import TcaError


@pytest.fixture
def example(tmp_path: Path) -> Example:
    made = Example(tmp_path / "cache/train.zarr")
    made.write()
    return made


@pytest.mark.parametrize("name", ["tca.sums", "tca.sums.lock", "two\nlines.zarr"])
def test_names_that_a_store_cannot_have(example: Example, tmp_path: Path, name: str) -> None:
    target = tmp_path / "new" / name
    for made in (
        lambda: convert(example.path, target),
        lambda: merge(target, [example.path]),
        lambda: create_store(target, example.spec, "zarr"),
        lambda: sole_writer(target).__enter__(),
    ):
        with pytest.raises(TcaError, match="cannot be named") as error:
            made()
        assert "\n" not in str(error.value)
    assert not target.parent.exists()


@pytest.mark.parametrize("store_format", FORMATS)
@pytest.mark.parametrize("inside", ["new.zarr", "semantic/new.h5", "a/b/c"])
def test_no_store_inside_a_store(
    example: Example, tmp_path: Path, store_format: str, inside: str
) -> None:
    around = Example(tmp_path / f"around/test.{store_format}", store_format=store_format)
    around.write()
    before = contents(around.path.parent)
    target = around.path / inside
    for made in (
        lambda: convert(example.path, target),
        lambda: merge(target, [example.path]),
        lambda: create_store(target, example.spec, "zarr"),
    ):
        with pytest.raises(TcaError, match="lies inside the store"):
            made()
    assert contents(around.path.parent) == before


def test_a_group_of_somebody_else_may_hold_stores(example: Example, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "all.zarr")
    convert(example.path, tmp_path / "all.zarr/train.zarr")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_no_lock_is_left_beside_what_is_no_store(
    example: Example, tmp_path: Path, kind: str
) -> None:
    labels = tmp_path / "data/labels"
    labels.parent.mkdir()
    if kind == "file":
        labels.write_text("labels")
    else:
        labels.mkdir()
        (labels / "train.json").write_text("[]")
    before = contents(labels.parent)
    for made in (lambda: convert(example.path, labels), lambda: merge(labels, [example.path])):
        with pytest.raises(TcaError, match="is not a store"):
            made()
    assert contents(labels.parent) == before


def test_a_folder_of_stores_is_not_repaired(example: Example) -> None:
    Example(example.path.with_name("test.zarr")).write()
    before = contents(example.path.parent)
    with pytest.raises(TcaError, match="is not a store"):
        repair(example.path.parent)
    assert contents(example.path.parent) == before


@pytest.mark.parametrize("names", [("train.zarr",), ("label", "video", "id"), ("motion", "status")])
def test_a_folder_of_somebody_else_is_not_repaired(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "data"
    for name in names:
        zarr.create_array(folder / name, shape=(3,), dtype="i4")[:] = 1
    before = contents(tmp_path)
    with pytest.raises(TcaError, match="is not a store"):
        repair(folder)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["clip.h5", "0.h5"])
def test_a_folder_of_hdf5_files_is_not_repaired(tmp_path: Path, name: str) -> None:
    (tmp_path / "data/shards").mkdir(parents=True)
    (tmp_path / "data/shards" / name).write_bytes(b"x")
    before = contents(tmp_path)
    with pytest.raises(TcaError, match="is not a store"):
        repair(tmp_path / "data")
    assert contents(tmp_path) == before


def test_a_store_without_sums_and_group_is_known_by_its_arrays(example: Example) -> None:
    expected = contents(example.path)
    (example.path.parent / "tca.sums").unlink()
    (example.path / "zarr.json").unlink()
    shutil.rmtree(example.path / "label")
    done = repair(example.path)
    assert {"zarr.json", "label/zarr.json", "label/c/0"} == set(done.files)
    example.writer()
    assert contents(example.path) == expected
