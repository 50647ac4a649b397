"""What is damaged is taken away and made again: the store is then that of an undisturbed run."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_store import Example, contents

import tca.cache.repair as repair_module
from tca.cache.conversion import Changes
from tca.cache.convert import convert
from tca.cache.failures import Failure, read_failures, write_failures
from tca.cache.files import sole_writer
from tca.cache.repair import Repair, repair
from tca.cache.store import Store
from tca.cache.sums import sums_path
from tca.cache.verify import verify
from tca.errors import TcaError

ENDING = {"zarr": "zarr", "hdf5": "h5"}
ARRAYS = ("semantic", "motion", "label", "id", "video", "view", "status")
SKELETON = {
    "zarr": [
        "zarr.json",
        *(f"{array}/zarr.json" for array in ARRAYS),
        *("label/c/0", "id/c/0/0", "video/c/0", "view/c/0"),
    ],
    "hdf5": ["index.h5"],
}
SHARD_1 = {
    "zarr": ["semantic/c/1/0/0", "motion/c/1/0/0", "status/c/1"],
    "hdf5": ["shards/000001.h5"],
}
OUTSIDE = [(name, file) for name, files in SKELETON.items() for file in files]
INSIDE = [(name, file) for name, files in SHARD_1.items() for file in files]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": Path.unlink,
}


def example(folder: Path, store_format: str, **changes: Any) -> Example:
    return Example(folder / f"cache/train.{ENDING[store_format]}", **changes)


@pytest.fixture(params=["zarr", "hdf5"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Example, dict[str, bytes]]:
    """An undisturbed store and every file of it and beside it."""
    found = example(tmp_path, request.param)
    with sole_writer(found.path):
        found.write()
    return found, contents(found.path.parent)


def mended(store: Example) -> Repair:
    """Repair the store and extract again."""
    done = repair(store.path)
    with sole_writer(store.path):
        store.write()
    assert not verify(store.path).problems
    return done


def files_now(store: Example) -> dict[str, bytes]:
    """Every file of the store and beside it, but for what repairing set aside."""
    aside = f"{store.path.name}.damaged/"
    found = contents(store.path.parent)
    return {name: data for name, data in found.items() if not name.startswith(aside)}


def untouched(store: Example, files: list[str]) -> dict[str, tuple[int, int]]:
    return {
        name: (os.stat(store.path / name).st_ino, os.stat(store.path / name).st_mtime_ns)
        for name in files
    }


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("store_format", "name"), INSIDE)
def test_a_damaged_shard_alone_is_made_again(
    tmp_path: Path, store_format: str, name: str, damage: str
) -> None:
    store = example(tmp_path, store_format)
    with sole_writer(store.path):
        store.write()
    expected = contents(store.path.parent)
    DAMAGE[damage](store.path / name)
    if damage == "gone" and name == SHARD_1[store_format][-1]:
        # Without its commit record a shard is not there, which is no damage.
        assert not repair(store.path).needed
    others = [file for file in contents(store.path) if file not in SHARD_1[store_format]]
    before = untouched(store, others)
    done = mended(store)
    if done.needed:
        assert (done.shards, done.rows, done.files, done.sums) == ([1], 8, [], [])
    assert contents(store.path.parent) == expected
    assert untouched(store, others) == before


@pytest.mark.parametrize(
    "damage",
    ["flipped", "gone", *(pytest.param(name, marks=pytest.mark.long) for name in ("cut", "empty"))],
)
@pytest.mark.parametrize(("store_format", "name"), OUTSIDE)
def test_files_outside_the_shards_come_back_as_they_were(
    tmp_path: Path, store_format: str, name: str, damage: str
) -> None:
    store = example(tmp_path, store_format)
    with sole_writer(store.path):
        store.write()
    expected = contents(store.path.parent)
    DAMAGE[damage](store.path / name)
    wrong = contents(store.path).get(name)
    others = [file for file in contents(store.path) if file != name]
    before = untouched(store, others)
    done = mended(store)
    assert (done.shards, done.files, done.sums) == ([], [name], [])
    assert files_now(store) == expected
    assert untouched(store, others) == before
    # What was there is kept: the annotations need not be at hand.
    assert contents(done.aside).get(name) == wrong if wrong is not None else True


def test_all_at_once(made: tuple[Example, dict[str, bytes]]) -> None:
    store, expected = made
    store_format = store.path.suffix[1:].replace("h5", "hdf5")
    for name in (*SKELETON[store_format], SHARD_1[store_format][0]):
        flip(store.path / name)
    done = repair(store.path)
    assert done.files
    # Arrays without their metadata could not be checked.
    assert done.unchecked == (store_format == "zarr")
    store.writer()
    mended(store)
    assert files_now(store) == expected


def test_the_store_keeps_the_rows_of_its_shards_and_its_record(
    made: tuple[Example, dict[str, bytes]],
) -> None:
    # The same command on another day: more devices, and another version of tca.
    store, expected = made
    flip(store.path / ("zarr.json" if store.path.suffix == ".zarr" else "index.h5"))
    # In the middle of the index are columns; its attributes can be read still.
    repair(store.path)
    later = Example(store.path, rows_per_shard=4, record={"tca": "9.9.9"})
    with sole_writer(store.path):
        later.write()
    assert files_now(store) == expected


def test_a_record_that_is_lost_is_that_of_the_new_run(
    made: tuple[Example, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, expected = made
    (store.path / ("zarr.json" if store.path.suffix == ".zarr" else "index.h5")).unlink()
    later = Example(store.path, rows_per_shard=4, record={"tca": "9.9.9"})
    later.write()
    assert "record" in capsys.readouterr().err
    found = Store.open(store.path)
    assert found.record == {"tca": "9.9.9"}
    assert (found.rows_per_shard, found.status.tolist()) == (8, store.status.tolist())
    assert not verify(store.path).problems
    changed = {name for name, data in files_now(store).items() if data != expected[name]}
    assert {Path(name).name for name in changed} <= {"zarr.json", "index.h5", "tca.sums"}


def test_other_settings_are_refused(made: tuple[Example, dict[str, bytes]]) -> None:
    store, _ = made
    is_zarr = store.path.suffix == ".zarr"
    lost = "motion/zarr.json" if is_zarr else "index.h5"
    flip(store.path / lost)
    repair(store.path)
    before = contents(store.path)
    shapes = {"semantic": (4, 6), "motion": (8, 4)}
    with pytest.raises(TcaError, match=r"does not go with these settings.+motion"):
        Example(store.path, row_shapes=shapes).writer()
    assert contents(store.path) == before
    if is_zarr:
        with pytest.raises(TcaError, match=r"identity\.keep: expected 'frames', found 'mean'"):
            Example(store.path, identity={"keep": "frames", "size": [224, 224]}).writer()
    assert contents(store.path) == before
    store.writer()
    assert not verify(store.path).problems


@pytest.mark.parametrize("lost", ["label/c/0", "semantic/zarr.json"])
def test_a_store_of_other_streams_is_refused(tmp_path: Path, lost: str) -> None:
    store = Example(tmp_path / "train.zarr")
    store.write()
    (store.path / lost).unlink()
    before = contents(store.path)
    with pytest.raises(TcaError, match=r"does not go with these settings.+semantic"):
        Example(store.path, row_shapes={"motion": (8, 5)}).writer()
    assert contents(store.path) == before


@pytest.mark.parametrize("left", [[0], [0, 1], [0, 2], [2], []])
@pytest.mark.parametrize("store_format", ["zarr", "hdf5"])
def test_an_incomplete_store_is_restored(
    tmp_path: Path, store_format: str, left: list[int]
) -> None:
    store = example(tmp_path, store_format)
    store.writer()
    if left:
        store.write(*left)
    expected = contents(store.path.parent)
    for name in SKELETON[store_format]:
        (store.path / name).unlink()
    # Nothing of the metadata is left, so that only shards tell how many rows they have; the
    # last one alone does not.
    other = 8 if left in ([2], []) else 4
    Example(store.path, rows_per_shard=other).writer()
    assert contents(store.path.parent) == expected


def test_a_last_shard_alone_that_does_not_tell(tmp_path: Path) -> None:
    store = example(tmp_path, "hdf5")
    store.write(2)
    (store.path / "index.h5").unlink()
    # 5 rows: a full third shard, or the last of shards of 8.
    with pytest.raises(TcaError, match="do not tell how many rows a shard has"):
        Example(store.path, rows_per_shard=6).writer()


def test_sums_that_were_lost_are_written_anew(made: tuple[Example, dict[str, bytes]]) -> None:
    store, expected = made
    sums = sums_path(store.path)
    sums.unlink()
    assert verify(store.path).problems
    assert repair(store.path, dry_run=True).sums
    assert not sums.exists()
    done = repair(store.path)
    assert (done.shards, done.files) == ([], [])
    assert contents(store.path.parent) == expected
    assert not repair(store.path).needed


def test_damaged_sums_are_written_anew(made: tuple[Example, dict[str, bytes]]) -> None:
    store, expected = made
    sums = sums_path(store.path)
    lines = sums.read_text().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(lines[-1][5], "0" if lines[-1][5] != "0" else "1", 1)
    sums.write_text("".join(lines))
    done = repair(store.path)
    assert (len(done.sums), done.shards, done.files) == (1, [], [])
    assert contents(store.path.parent) == expected


def test_a_store_moved_without_its_sums(
    made: tuple[Example, dict[str, bytes]], tmp_path: Path
) -> None:
    store, expected = made
    moved = tmp_path / "moved" / store.path.name
    shutil.copytree(store.path, moved)
    repair(moved)
    assert contents(moved.parent) == expected


def test_a_sound_store_is_left_alone(made: tuple[Example, dict[str, bytes]]) -> None:
    store, expected = made
    assert not repair(store.path).needed
    assert contents(store.path.parent) == expected


def test_a_dry_run_changes_nothing_and_needs_no_lock(
    made: tuple[Example, dict[str, bytes]],
) -> None:
    store, _ = made
    store_format = "zarr" if store.path.suffix == ".zarr" else "hdf5"
    flip(store.path / SHARD_1[store_format][0])
    flip(store.path / SKELETON[store_format][-1])
    before = contents(store.path.parent)
    with sole_writer(store.path):
        planned = repair(store.path, dry_run=True)
    assert contents(store.path.parent) == before
    done = repair(store.path)
    assert (
        (planned.shards, planned.files)
        == (done.shards, done.files)
        == (
            [1],
            [SKELETON[store_format][-1]],
        )
    )


def test_a_store_that_is_being_written_is_left_alone(
    made: tuple[Example, dict[str, bytes]],
) -> None:
    store, _ = made
    with sole_writer(store.path), pytest.raises(TcaError, match="written by another process"):
        repair(store.path)


def test_what_cannot_be_read_is_no_damage(
    made: tuple[Example, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root reads everything, so the system is made to refuse.
    store, expected = made
    store_format = "zarr" if store.path.suffix == ".zarr" else "hdf5"
    refused = str(store.path / SHARD_1[store_format][0])
    real = os.open

    def refusing(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path) == refused:
            raise PermissionError(13, "Permission denied", refused)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refusing)
    done = repair(store.path)
    assert not done.needed
    assert {problem.file for problem in done.unreadable} == {refused}
    monkeypatch.undo()
    assert contents(store.path.parent) == expected


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    import zarr

    with pytest.raises(TcaError, match="not on a disk of this machine"):
        repair("memory://bucket/train.zarr")
    with pytest.raises(TcaError, match="there is no store at"):
        repair(tmp_path / "nothing")
    (tmp_path / "folder/notes").mkdir(parents=True)
    with pytest.raises(TcaError, match="is not a store"):
        repair(tmp_path / "folder")
    zarr.create_group(tmp_path / "other.zarr").create_array("x", shape=(3,), dtype="i4")
    with pytest.raises(TcaError, match="not a store of tca"):
        repair(tmp_path / "other.zarr")
    # Not even a lock is left beside what is not ours.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "other.zarr"]


def test_a_foreign_store_is_refused(tmp_path: Path) -> None:
    import zarr

    store = Example(tmp_path / "train.zarr")
    store.write()
    group = zarr.open_group(store.path)
    foreign = zarr.create_group(tmp_path / "foreign.zarr", attributes=dict(group.attrs))
    for name, array in group.arrays():
        # Compressed, as zarr-python does it if it is not told otherwise.
        data = np.asarray(array[:])
        foreign.create_array(name, data=data, chunks=(5, *data.shape[1:]), fill_value=0)
    with pytest.raises(TcaError, match="was not written by tca"):
        repair(tmp_path / "foreign.zarr")
    (tmp_path / "foreign.zarr/label/c/0").write_bytes(b"x")
    before = contents(tmp_path / "foreign.zarr")
    with pytest.raises(TcaError, match="label cannot be read"):
        repair(tmp_path / "foreign.zarr")
    assert contents(tmp_path / "foreign.zarr") == before


def test_a_killed_repair_takes_nothing_damaged_for_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A damaged file next to lost sums: without its own line it would look like one that lost it.
    store = Example(tmp_path / "train.zarr")
    store.write()
    expected = contents(store.path)
    sums = sums_path(store.path)
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if "/label/zarr.json" not in line))
    file = store.path / "motion/zarr.json"
    file.write_bytes(file.read_bytes().replace(b"crc32c", b"crc32x"))

    class KilledError(Exception):
        pass

    def killed(*arguments: Any) -> None:
        raise KilledError

    for name in ("remove", "write_sums", "_set_aside"):
        with monkeypatch.context() as patch:
            patch.setattr(repair_module, name, killed)
            with suppress(KilledError):
                repair(store.path)
    mended(store)
    assert contents(store.path) == expected


def test_a_converted_store_is_mended_by_converting_again(
    made: tuple[Example, dict[str, bytes]], tmp_path: Path
) -> None:
    store, _ = made
    ending = "h5" if store.path.suffix == ".zarr" else "zarr"
    target = tmp_path / f"converted/small.{ending}"
    changes = Changes(type="int8", rows_per_shard=4)
    convert(store.path, target, changes)
    expected = contents(target)
    metadata = target / ("label/c/0" if ending == "zarr" else "index.h5")
    shard = target / ("motion_scale/c/2/0" if ending == "zarr" else "shards/000002.h5")
    for file in (metadata, shard):
        flip(file)
    done = repair(target)
    assert (done.shards, done.files) == ([2], [metadata.relative_to(target).as_posix()])
    convert(store.path, target, changes)
    assert contents(target) == expected


@pytest.mark.parametrize("known_by", ["sums", "identity"])
@pytest.mark.parametrize("lost", ["semantic", "motion"])
@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_the_loss_of_a_whole_stream_is_noticed(
    tmp_path: Path, lost: str, kind: str, known_by: str
) -> None:
    store = Example(
        tmp_path / "cache/train.zarr",
        types={"semantic": kind, "motion": kind},
        identity={"semantic": {"model": "a"}, "motion": {"model": "b"}},
    )
    with sole_writer(store.path):
        store.write()
    expected = contents(store.path.parent)
    if known_by == "identity":
        sums_path(store.path).unlink()
    shutil.rmtree(store.path / lost)
    shutil.rmtree(store.path / f"{lost}_scale", ignore_errors=True)
    with pytest.raises(TcaError, match=rf"cannot read .+/{lost}/zarr\.json"):
        convert(store.path, tmp_path / "converted.zarr")
    found = verify(store.path).problems
    assert f"{store.path}/{lost}/zarr.json" in {problem.file for problem in found}
    done = repair(store.path)
    # All shards: each lacks the features of that stream.
    assert done.shards == [0, 1, 2]
    assert f"{lost}/zarr.json" in done.files
    # There was nothing to set aside.
    assert not done.aside.exists()
    with sole_writer(store.path):
        store.write()
    assert not verify(store.path).problems
    assert files_now(store) == expected


@pytest.mark.parametrize("column", ["label", "video", "view", "id"])
def test_a_column_that_somebody_wrote_anew_is_noticed(tmp_path: Path, column: str) -> None:
    import zarr

    store = Example(tmp_path / "cache/train.zarr")
    with sole_writer(store.path):
        store.write()
    expected = contents(store.path.parent)
    array = zarr.open_array(store.path / column, mode="r+")
    values = np.asarray(array[:])
    values.flat[0] += 1
    # Its checksum is sound.
    array[:] = values
    file = "id/c/0/0" if column == "id" else f"{column}/c/0"
    with pytest.raises(TcaError, match=rf"{file} has changed since the store was made"):
        Store.open(store.path)
    (problem,) = verify(store.path).problems
    assert problem.file == str(store.path / file)
    assert mended(store).files == [file]
    assert files_now(store) == expected


def test_sums_made_before_columns_had_any(tmp_path: Path) -> None:
    store = Example(tmp_path / "cache/train.zarr")
    with sole_writer(store.path):
        store.write()
    expected = contents(store.path.parent)
    sums = sums_path(store.path)
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if line.endswith("zarr.json\n")))
    with pytest.raises(TcaError, match=r"has lost the sha256 of .+tca cache repair"):
        Store.open(store.path)
    done = repair(store.path)
    assert (done.files, done.shards) == ([], [])
    assert set(done.sums) == {"label/c/0", "id/c/0/0", "video/c/0", "view/c/0"}
    assert contents(store.path.parent) == expected


def test_other_labels_do_not_take_the_place_of_lost_ones(tmp_path: Path) -> None:
    store = Example(tmp_path / "train.zarr")
    store.write()
    (store.path / "label/c/0").unlink()
    before = contents(tmp_path)
    other = Example(store.path)
    other.table.label[0] = 2
    with pytest.raises(TcaError, match=r"does not go with these settings: label was otherwise"):
        other.writer()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("store_format", "name"),
    [("zarr", "label/c/0"), ("zarr", "motion/zarr.json"), ("hdf5", "index.h5")],
)
def test_what_may_not_be_read_is_to_be_made_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_format: str, name: str
) -> None:
    store = example(tmp_path, store_format)
    store.write()
    refused = store.path / name
    real = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(TcaError, match=r"Permission denied; make it readable\.") as error:
        Store.open(store.path)
    assert "repair" not in str(error.value)


def test_a_link_to_a_store_has_its_folders(tmp_path: Path) -> None:
    store = Example(tmp_path / "disk/train.zarr")
    store.write()
    link = tmp_path / "cache.zarr"
    link.symlink_to(store.path)
    write_failures(link, 0, [Failure(3, "a.mp4", "broken")])
    assert read_failures(store.path, [0])[3].reason == "broken"
    flip(store.path / "label/c/0")
    assert repair(link).aside == store.path.with_name("train.zarr.damaged")
    assert (store.path.with_name("train.zarr.damaged") / "label/c/0").exists()
