import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_store import FORMATS, Example, contents, read_all

import tca.cache.creation as creation_module
import tca.cache.layout as layout_module
from tca.cache.creation import create_store
from tca.cache.files import temporary_path
from tca.cache.layout import RowTable, Status, differences, rows_per_shard
from tca.cache.store import Store
from tca.cache.sums import sums_path
from tca.cache.writer import StoreWriter
from tca.errors import TcaError


@pytest.fixture(params=FORMATS)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    return Example(tmp_path / f"train.{request.param}")


@pytest.fixture
def zarr_example(tmp_path: Path) -> Example:
    return Example(tmp_path / "train.zarr")


def store_format(example: Example) -> str:
    return example.path.suffix.removeprefix(".")


def test_a_writer_says_what_is_left_to_do(example: Example) -> None:
    writer = example.writer()
    assert writer.shards == 3
    assert [writer.shard_rows(shard) for shard in range(3)] == [
        range(0, 8),
        range(8, 16),
        range(16, 21),
    ]
    assert writer.committed() == set()
    example.commit(writer, 2)
    assert writer.committed() == {2}
    assert example.writer().committed() == {2}


def test_shards_in_any_order_give_the_same_store(example: Example, tmp_path: Path) -> None:
    example.write(2, 0)
    example.write()
    other = Example(tmp_path / "other" / example.path.name)
    other.write()
    assert contents(example.path) == contents(other.path)


def test_the_last_status_chunk_is_padded_with_255(zarr_example: Example) -> None:
    zarr_example.write()
    data = (zarr_example.path / "status/c/2").read_bytes()
    assert list(data[:-4]) == [0, 4, 0, 0, 0, 255, 255, 255]


def test_a_shard_without_a_good_row_has_only_its_status(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr", failed={row: Status.MISSING for row in range(8)})
    store = example.write()
    assert sorted(file.parts[-3:] for file in store.path.glob("*/c/0")) != []
    files = [name for name in contents(store.path) if "/c/0" in name]
    assert sorted(files) == ["id/c/0/0", "label/c/0", "status/c/0", "video/c/0", "view/c/0"]
    assert store.ready().tolist() == list(range(8, 21))


def test_what_a_killed_run_left_is_taken_away(tmp_path: Path) -> None:
    # It had features of rows that now all fail: the videos went away in between.
    example = Example(tmp_path / "train.zarr")
    writer = example.writer()
    example.commit(writer, 0)
    (example.path / "status/c/0").unlink()
    temporary_path(example.path / "motion/c/0/0/0").touch()
    writer.commit(0, {"semantic": [None] * 8, "motion": [None] * 8}, np.full(8, Status.MISSING))
    assert [name for name in contents(example.path) if name.startswith(("sem", "mot"))] == [
        "motion/zarr.json",
        "semantic/zarr.json",
    ]


def test_stale_temporaries_are_taken_over(example: Example) -> None:
    writer = example.writer()
    for file in Store.open(example.path).format.shard_files(1):
        temporary = temporary_path(file)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"half a shard")
    assert writer.committed() == set()
    Store.open(example.path)
    example.write()
    assert not [name for name in contents(example.path) if ".tmp" in name]
    read_all(example.path)


def broken(features: dict[str, list[Any]], status: np.ndarray, how: str) -> None:
    row = features["motion"][0]
    if how == "no array":
        features["motion"][0] = None
    if how == "array of a failure":
        status[0] = Status.EMPTY
    if how == "shape":
        features["motion"][0] = row[:4]
    if how == "type":
        features["motion"][0] = row.astype("f2")
    if how == "too few":
        features["motion"].pop()
    if how == "not extracted":
        status[0] = 255


@pytest.mark.parametrize(
    "how", ["no array", "array of a failure", "shape", "type", "too few", "not extracted"]
)
def test_features_that_do_not_fit_are_refused_before_writing(example: Example, how: str) -> None:
    writer = example.writer()
    before = contents(example.path)
    features = {name: list(array[8:16]) for name, array in example.features.items()}
    status = np.zeros(8, dtype=np.uint8)
    broken(features, status, how)
    with pytest.raises(ValueError, match=r"shard 1 has|must have an array|motion rows are"):
        writer.commit(1, features, status)
    with pytest.raises(ValueError, match="shard 1 has 8 rows"):
        writer.commit(1, features, np.zeros(7))
    assert contents(example.path) == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (
            {"identity": {"keep": "frames", "size": [224, 224]}},
            "identity.keep: expected 'frames', found 'mean'",
        ),
        (
            {"identity": {"keep": "mean", "size": [112, 112]}},
            "identity.size: entry 0 is expected 112, found 224",
        ),
        ({"classes": ("push", "pull", "shake")}, "classes: entry 2 is expected 'shake', found"),
        ({"classes": ("a", "b", "c", "d")}, "classes: expected 4 entries, found 3;"),
        ({"rows": 30}, "other settings: rows: expected 30, found 21; name"),
        (
            {"types": {"semantic": "float32", "motion": "float32"}},
            "streams.semantic: expected 'float32 (4, 6) a row', found 'float16 (4, 6) a row'",
        ),
    ],
)
def test_a_store_of_other_settings_is_not_continued(
    example: Example, changes: dict[str, Any], difference: str
) -> None:
    example.write(0)
    before = contents(example.path)
    with pytest.raises(TcaError) as error:
        StoreWriter.open_or_create(example.path, example.changed(**changes))
    for part in (str(example.path), difference, "name another path"):
        assert part in str(error.value)
    assert contents(example.path) == before


def test_rows_per_shard_and_record_stay_as_they_were(example: Example) -> None:
    example.write(0)
    spec = replace(example.changed(rows_per_shard=16), record={"tca": "9"})
    writer = StoreWriter.open_or_create(example.path, spec)
    assert writer.spec.rows_per_shard == 8
    assert writer.spec.record == {"tca": "0.1.0"}
    assert writer.committed() == {0}


def test_a_damaged_commit_record_is_not_passed_over(example: Example) -> None:
    record = example.write().format.record_file(1)
    record.write_bytes(b"x" * 12)
    with pytest.raises(TcaError, match=r"the status of shard 1, .+ run `tca cache repair") as error:
        example.writer().committed()
    assert str(record) in str(error.value)
    record.unlink()
    assert example.writer().committed() == {0, 2}


def test_create_refuses_what_is_there(example: Example) -> None:
    example.writer()
    with pytest.raises(TcaError, match=rf"{example.path.name} exists already"):
        create_store(example.path, example.spec, store_format(example))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "would have no rows; look at the annotations of split train"),
        (["a", "b\udcff"], "is not valid UTF-8"),
        (["a\0b"], "has a zero character"),
    ],
)
def test_rows_that_cannot_be_stored(example: Example, ids: list[str], message: str) -> None:
    count = len(ids)
    table = RowTable(ids, np.zeros(count, "i4"), np.zeros(count, "i4"), np.zeros(count, "u1"))
    with pytest.raises(TcaError, match=message):
        create_store(example.path, replace(example.spec, rows=table), store_format(example))
    assert not list(example.path.parent.iterdir())


def test_labels_and_classes_go_together(example: Example) -> None:
    path, kind = example.path, store_format(example)
    with pytest.raises(ValueError, match="labels -1 to 2 of 2 classes"):
        create_store(path, replace(example.spec, classes=["a", "b"]), kind)
    with pytest.raises(TcaError, match="class 'a' is listed twice"):
        create_store(path, replace(example.spec, classes=["a", "b", "a"]), kind)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_killed_between_sums_and_rename(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(creation_module.os, "rename", rename)
        patch.setattr(creation_module.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            example.writer()
    assert sums_path(example.path).exists()
    assert temporary_path(example.path).exists()
    with pytest.raises(TcaError, match=r"there is no store at .+ make it with `tca extract`"):
        Store.open(example.path)
    example.write()
    assert not temporary_path(example.path).exists()
    other = Example(tmp_path / "other" / example.path.name)
    other.write()
    assert contents(example.path) == contents(other.path)
    assert sums_path(example.path).read_bytes() == sums_path(other.path).read_bytes()


def test_the_sums_are_those_of_sha256sum_for_every_store_of_the_folder(tmp_path: Path) -> None:
    import hashlib

    for name in ("validation.zarr", "train.zarr", "train.zarr.old"):
        Example(tmp_path / name).writer()
    lines = (tmp_path / "tca.sums").read_text().splitlines()
    found = dict(reversed(line.split("  ")) for line in lines)
    # A store without shards: all that there is.
    files = [file for file in tmp_path.rglob("*.zarr*/**/*") if file.is_file()]
    assert found == {
        str(file.relative_to(tmp_path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    assert len(lines) == 3 * (8 + 4)
    # Made anew, with other settings: the others stay valid.
    shutil.rmtree(tmp_path / "train.zarr")
    Example(tmp_path / "train.zarr", identity={}).writer()
    for name in ("validation.zarr", "train.zarr", "train.zarr.old"):
        Store.open(tmp_path / name)


def test_stores_made_at_the_same_moment_keep_each_others_sums(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.{FORMATS[number % 2]}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda path: Example(path).writer(), paths))
    for path in paths:
        Store.open(path)


def test_a_store_moved_without_its_sums_is_read_with_a_warning(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example.write()
    (tmp_path / "moved").mkdir()
    moved = Path(shutil.move(example.path, tmp_path / "moved"))
    read_all(moved)
    assert "moved/tca.sums" in capsys.readouterr().err
    shutil.copy(tmp_path / "tca.sums", tmp_path / "moved")
    read_all(moved)
    assert not capsys.readouterr().err


def test_a_store_that_lost_some_of_its_sums_is_refused(zarr_example: Example) -> None:
    zarr_example.write()
    sums = sums_path(zarr_example.path)
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(TcaError, match=r"tca\.sums has lost the sha256 of .+tca cache repair"):
        Store.open(zarr_example.path)


@pytest.mark.parametrize("with_sums", [True, False])
def test_a_newer_layout_is_refused(
    example: Example, monkeypatch: pytest.MonkeyPatch, with_sums: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(layout_module, "LAYOUT_VERSION", 2)
        create_store(example.path, example.spec, store_format(example))
    # A layout that keeps its sums elsewhere, or other arrays, is still called newer.
    if example.path.suffix == ".zarr":
        shutil.rmtree(example.path / "view")
    if not with_sums:
        sums_path(example.path).unlink()
    with pytest.raises(TcaError, match="has layout 2, this tca reads 1 to 1; update tca"):
        Store.open(example.path)


def test_what_is_no_store(tmp_path: Path) -> None:
    import zarr

    with pytest.raises(TcaError, match="there is no store at"):
        Store.open(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        with pytest.raises(TcaError, match=f"{name} is not a store"):
            Store.open(tmp_path / name)
    zarr.open_group(tmp_path / "foreign", mode="w")
    with pytest.raises(TcaError, match="not a store of tca"):
        Store.open(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("rows", "devices", "expected"),
    [(168_913, 1, 256), (4096, 2, 256), (4095, 2, 255), (200, 1, 25), (20, 8, 8), (1, 1, 8)],
)
def test_every_device_gets_eight_shards(rows: int, devices: int, expected: int) -> None:
    size = rows_per_shard(rows, devices)
    assert size == expected
    assert size == 8 or -(-rows // size) >= 8 * devices


def test_differences_are_named_by_key() -> None:
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 1}, "c": [1]}) == []
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": "x" * 100}) == [
        "a.b: expected 1, found 3",
        "c: expected 2, found nothing",
        "d: expected nothing, found '" + "x" * 76 + "…",
    ]
