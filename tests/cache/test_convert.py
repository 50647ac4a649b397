"""`tca cache convert`: the same rows in another form, whatever happens in between."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import committing
import converting
import h5py
import numpy as np
import pytest
import torch
from example_store import Example, contents
from foreign_store import write_foreign
from zarr.codecs import BloscCodec

import tca
import tca.cache.convert as convert_module
from tca.cache.conversion import Changes
from tca.cache.convert import convert
from tca.cache.files import sole_writer
from tca.cache.layout import Status
from tca.cache.selection import Selection
from tca.cache.store import Store
from tca.cache.types import decode, encode, from_numpy, to_numpy
from tca.errors import TcaError, UsageError

MIXED = {"semantic": "float16", "motion": "float32"}
IDENTITY = {"semantic": {"keep": "mean"}, "motion": {"weights": "x"}, "dtype": "float16"}
STEP = {"source": "train.zarr", "tca": tca.__version__}


def without_record(path: Path) -> dict[str, Any]:
    """Every file of a Zarr store, its record and the sums apart."""
    files: dict[str, Any] = dict(contents(path))
    group = json.loads(files["zarr.json"])
    del group["attributes"]["record"]
    return files | {"zarr.json": group}


def same_rows(store: Store, example: Example, rows: np.ndarray | None = None) -> None:
    """Hold the store against (chosen rows of) an example."""
    rows = np.arange(example.rows) if rows is None else rows
    assert store.ids == [example.table.ids[row] for row in rows]
    for name in ("label", "video", "view"):
        assert np.array_equal(getattr(store, name), getattr(example.table, name)[rows])
    assert np.array_equal(store.status, example.status[rows])
    for name in store.format.arrays:
        assert np.array_equal(
            store.read(name, store.ready()), example.features[name][rows[store.ready()]]
        )


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8", None])
@pytest.mark.parametrize("written", ["zarr", "hdf5"])
def test_there_and_back_is_the_same(tmp_path: Path, stored: str | None, written: str) -> None:
    first, other = "train.zarr", "train.h5"
    if written == "hdf5":
        first, other = other, first
    types = MIXED if stored is None else dict.fromkeys(MIXED, stored)
    example = Example(tmp_path / first, rows=61, types=types)
    example.write()
    there = convert(example.path, tmp_path / other)
    assert there.format == {"zarr": "hdf5", "hdf5": "zarr"}[written]
    assert there.rows == there.done == 61
    same_rows(Store.open(tmp_path / other), example)
    back = tmp_path / "back" / first
    convert(tmp_path / other, back)
    if written == "zarr":
        assert without_record(back) == without_record(example.path)
    else:
        shards = contents(example.path / "shards")
        assert len(shards) == 8
        assert contents(back / "shards") == shards
        found, expected = (Store.open(path).spec for path in (back, example.path))
        assert found.differences(expected) == []
    steps = Store.open(back).record["converted"]
    assert [step["source"] for step in steps] == [first, other]
    assert {step["tca"] for step in steps} == {tca.__version__}


@pytest.mark.parametrize("rows", [1, 5, 13, 100])
@pytest.mark.parametrize("name", ["new.zarr", "new.h5"])
def test_other_shards_are_those_of_a_store_made_with_them(
    tmp_path: Path, rows: int, name: str
) -> None:
    example = Example(tmp_path / "train.zarr", failed={3: Status.EMPTY, 8: Status.MISSING})
    example.write()
    convert(example.path, tmp_path / name, Changes(rows_per_shard=rows))
    made = Example(tmp_path / "made" / name, failed=example.failed, rows_per_shard=rows)
    made.write()
    if name.endswith("h5"):
        assert contents(tmp_path / name / "shards") == contents(made.path / "shards")
    else:
        assert without_record(tmp_path / name) == without_record(made.path)
    assert Store.open(tmp_path / name).record == {
        "tca": "0.1.0",
        "converted": [
            STEP
            | {
                "changed": {"rows_per_shard": f"8 to {rows}"}
                | ({"format": "zarr to hdf5"} if name.endswith("h5") else {})
            }
        ],
    }


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8"])
def test_types_are_turned_as_torch_turns_them(
    tmp_path: Path, stored: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tca.cache.retype as retype_module

    # Two rows of 8 x 5 at once, so that shards are done in parts.
    monkeypatch.setattr(retype_module, "PART_BYTES", 320)
    example = Example(tmp_path / "train.zarr", types=dict.fromkeys(MIXED, stored))
    example.identity = IDENTITY
    example.write()
    convert(example.path, tmp_path / "new.zarr", Changes(type=wanted))
    store = Store.open(tmp_path / "new.zarr")
    assert {stream.type for stream in store.streams.values()} == {wanted}
    changed = {} if stored == wanted else {"dtype": wanted}
    assert store.identity == IDENTITY | changed
    rows = store.ready()
    for name in store.streams:
        numbers = from_numpy(example.features[name][rows], stored)
        scale = example.features.get(f"{name}_scale")
        exact = decode(numbers, None if scale is None else torch.from_numpy(scale[rows]))
        if stored == wanted:
            expected = {a: values[rows] for a, values in example.features.items() if name in a}
        elif wanted == "int8":
            expected = {a: to_numpy(t) for a, t in encode(name, exact, wanted).items()}
        else:
            expected = {name: to_numpy(exact.to(getattr(torch, wanted)))}
        for array, values in expected.items():
            assert np.array_equal(store.read(array, rows), values)
            assert store.read(array, rows).dtype == values.dtype


def with_number(tmp_path: Path, number: float) -> Example:
    example = Example(tmp_path / "train.zarr", types=dict.fromkeys(MIXED, "float32"))
    example.features["motion"][9, 2, 1] = number
    example.write()
    return example


def test_a_number_too_large_is_named_and_what_was_done_stays(tmp_path: Path) -> None:
    example = with_number(tmp_path, 7e4)
    with pytest.raises(TcaError) as error:
        convert(example.path, tmp_path / "new.h5", Changes(type="float16"))
    for part in ("motion of row 9 (id ", example.table.ids[9], "7e+04", "float16", "bfloat16"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    store = Store.open(tmp_path / "new.h5")
    assert (store.status == Status.NOT_EXTRACTED).tolist() == [False] * 8 + [True] * 13
    for wanted in ("bfloat16", "int8"):
        convert(example.path, tmp_path / f"{wanted}.h5", Changes(type=wanted))


def test_a_number_that_is_not_finite_is_copied_but_not_turned(tmp_path: Path) -> None:
    example = with_number(tmp_path, np.inf)
    convert(example.path, tmp_path / "same.h5", Changes(type="float32"))
    assert Store.open(tmp_path / "same.h5").read("motion", [9])[0, 2, 1] == np.inf
    with pytest.raises(TcaError, match=r"motion of row 9 \(id .+ not finite; keep its type"):
        convert(example.path, tmp_path / "new.h5", Changes(type="int8"))


@pytest.fixture
def example(tmp_path: Path) -> Example:
    made = Example(tmp_path / "train.zarr", rows=61, identity=IDENTITY)
    made.write()
    return made


@pytest.mark.parametrize("name", ["new.zarr", "new.h5"])
def test_rows_are_selected_in_their_order(example: Example, tmp_path: Path, name: str) -> None:
    ids = [example.table.ids[row] for row in (40, 3, 3, 16)]
    numbers = np.arange(61)
    chosen = {
        "range": (Selection(rows=(5, 50)), numbers[5:50]),
        "end": (Selection(rows=(None, 9)), numbers[:9]),
        "start": (Selection(rows=(60, None)), numbers[60:]),
        "ids": (Selection(ids=ids), np.array([2, 3, 16, 17, 40, 41])),
        "ok": (Selection(only_ok=True), np.setdiff1d(numbers, [3, 7, 17])),
        "all": (Selection((3, 41), ids, only_ok=True), np.array([16, 40])),
    }
    for key, (selection, rows) in chosen.items():
        done = convert(example.path, tmp_path / key / name, Changes(selection=selection))
        store = Store.open(tmp_path / key / name)
        assert done.rows == store.rows == len(rows)
        same_rows(store, example, rows)
        assert store.identity == IDENTITY
    (step,) = store.record["converted"]
    told = {"rows": "2 of 61", "range": "3:41", "ids": 3, "only_ok": True}
    assert {key: step["changed"][key] for key in told} == told


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(ids=["a", "b", "c", "d"]), r"4 of 4 ids are not in .+: 'a', 'b', 'c', …; corr"),
        (Selection(rows=(5, 62)), r"rows 5:62 are not rows of .+, which has 61; give"),
        (Selection(rows=(9, 9)), "rows 9:9 are not rows"),
        (Selection(rows=(3, 4), only_ok=True), "no row of .+ is selected"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(
    example: Example, tmp_path: Path, selection: Selection, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        convert(example.path, tmp_path / "new.zarr", Changes(selection=selection))
    assert not (tmp_path / "new.zarr").exists()


def test_one_stream_is_kept_and_the_other_leaves_the_identity(
    example: Example, tmp_path: Path
) -> None:
    convert(example.path, tmp_path / "new.h5", Changes(stream="motion", type="bfloat16"))
    store = Store.open(tmp_path / "new.h5")
    assert list(store.streams) == ["motion"]
    assert store.identity == {"motion": {"weights": "x"}, "dtype": "bfloat16"}
    (step,) = store.record["converted"]
    told = {"format": "zarr to hdf5", "stream": "motion", "type": {"motion": "float32 to bfloat16"}}
    assert step == STEP | {"changed": told}
    convert(tmp_path / "new.h5", tmp_path / "again.zarr", Changes(stream="motion"))
    assert list(Store.open(tmp_path / "again.zarr").streams) == ["motion"]
    with pytest.raises(UsageError, match="has no semantic stream, only motion; leave --stream"):
        convert(tmp_path / "new.h5", tmp_path / "no.zarr", Changes(stream="semantic"))


def test_a_source_that_grows_is_followed(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr", rows=61)
    example.write(0, 2, 3)
    changes = Changes(rows_per_shard=5)
    target = tmp_path / "new.zarr"
    done = convert(example.path, target, changes)
    # Rows 0 to 7 and 16 to 31 are there.
    extracted = (Store.open(target).status != Status.NOT_EXTRACTED).nonzero()[0]
    assert extracted.tolist() == [*range(5), *range(20, 30)]
    assert (done.done, done.missing, done.failed) == (15, 46, 1)
    with pytest.raises(UsageError, match=r"37 rows of .+ not extracted yet, and --only-ok must"):
        convert(example.path, tmp_path / "no.zarr", Changes(selection=Selection(only_ok=True)))
    assert convert(example.path, target, changes).done == 0
    before = committed(target)
    example.write()
    assert convert(example.path, target, changes).done == 46
    assert {file: when for file, when in committed(target).items() if file in before} == before
    convert(example.path, tmp_path / "at_once" / "new.zarr", changes)
    assert contents(target) == contents(tmp_path / "at_once/new.zarr")


def committed(path: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of writing) of every file of a committed shard."""
    files = [file for file in path.rglob("*") if file.is_file() and ".tmp" not in file.name]
    if (path / "status").exists():
        there = {file.name for file in (path / "status/c").glob("[0-9]*")}
        files = [f for f in files if f.relative_to(path).parts[2:3] and f.parts[-3] in there]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_reasons_come_along(example: Example, tmp_path: Path) -> None:
    folder = tmp_path / "train.zarr.failures"
    folder.mkdir()
    entries = [{"row": row, "file": f"{row}.webm", "reason": f"reason {row}"} for row in (3, 7)]
    (folder / "000000.json").write_text(json.dumps(entries))
    (folder / "000002.json").write_text("damaged")
    target = tmp_path / "new.h5"
    selection = Selection(rows=(2, None))
    convert(example.path, target, Changes(rows_per_shard=4, selection=selection))
    found = {
        name: json.loads(data) for name, data in contents(tmp_path / "new.h5.failures").items()
    }
    assert found == {
        "000000.json": [{"row": 1, "file": "3.webm", "reason": "reason 3"}],
        "000001.json": [{"row": 5, "file": "7.webm", "reason": "reason 7"}],
    }


def test_the_source_itself_is_refused(example: Example, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(example.path)
    before = contents(tmp_path)
    for source, target in (
        ("train.zarr", "train.zarr"),
        ("link.zarr", "train.zarr"),
        ("train.zarr", "link.zarr"),
        ("train.zarr", "train.zarr/new.zarr"),
        ("train.zarr", "nowhere/../train.zarr"),
    ):
        with pytest.raises(UsageError, match="is SOURCE itself or lies inside it; give another"):
            convert(tmp_path / source, tmp_path / target)
    assert contents(tmp_path) == before


def test_a_target_made_otherwise_is_refused_with_the_difference(
    example: Example, tmp_path: Path
) -> None:
    target = tmp_path / "new.h5"
    convert(example.path, target, Changes(selection=Selection(rows=(0, 20))))
    before = contents(target)
    for changes, store_format, difference in (
        (Changes(), None, "rows: expected 61, found 20"),
        (Changes(type="int8"), None, r"identity.dtype: expected 'int8', found 'float16'"),
        (Changes(selection=Selection(rows=(1, 21))), None, "row.id: entry 1 is expected"),
        (Changes(selection=Selection(rows=(None, 20))), None, r"record.converted.1.changed.range"),
        (Changes(rows_per_shard=9, selection=Selection(rows=(0, 20))), None, "rows_per_shard: exp"),
    ):
        with pytest.raises(TcaError, match=f"there already and was made otherwise: .*{difference}"):
            convert(example.path, target, changes, store_format)
    shutil.move(target, tmp_path / "plain")
    with pytest.raises(TcaError, match="format: expected 'zarr', found 'hdf5'"):
        convert(example.path, tmp_path / "plain", store_format="zarr")
    with pytest.raises(UsageError, match=r"named like hdf5 and --format says zarr"):
        convert(example.path, tmp_path / "other.h5", store_format="zarr")
    assert contents(tmp_path / "plain") == before


def test_a_target_begun_by_another_version_is_continued(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new.zarr"
    convert(example.path, target)
    for name in ("status/c/1", "status/c/7"):
        (target / name).unlink()
    monkeypatch.setattr(tca, "__version__", "99.0")
    assert convert(example.path, target).done == 8 + 5
    assert Store.open(target).record["converted"] == [STEP | {"changed": {}}]


def test_one_writer_at_a_time(example: Example, tmp_path: Path) -> None:
    target = tmp_path / "new.zarr"
    with sole_writer(target), pytest.raises(TcaError, match="is being written by another process"):
        convert(example.path, target)
    with sole_writer(example.path):
        convert(example.path, target)


def test_a_damaged_row_is_named_and_what_was_done_stays(example: Example, tmp_path: Path) -> None:
    file = example.path / "motion/c/2/0/0"
    data = bytearray(file.read_bytes())
    # Row 18 is the third of its shard, the failed row 17 has no bytes.
    data[164 + 100] ^= 1
    file.write_bytes(data)
    target = tmp_path / "new.h5"
    with pytest.raises(TcaError) as error:
        convert(example.path, target)
    for part in (f"row 18 (id {example.table.ids[18]})", "c/2/0/0 is damaged", "tca cache repair"):
        assert part in str(error.value)
    assert (Store.open(target).status != Status.NOT_EXTRACTED).nonzero()[0].tolist() == [*range(16)]
    data[164 + 100] ^= 1
    file.write_bytes(data)
    assert convert(example.path, target).done == 45
    same_rows(Store.open(target), example)


@pytest.mark.parametrize("name", ["new.zarr", "new.h5"])
def test_a_compressed_store_of_others_is_taken_over(tmp_path: Path, name: str) -> None:
    example = Example(tmp_path / "train.zarr", rows=61, failed={3: Status.UNREADABLE})
    write_foreign(example.path, example, chunk_rows=4, compressors=[BloscCodec(cname="zstd")])
    convert(example.path, tmp_path / name, Changes(rows_per_shard=8))
    same_rows(Store.open(tmp_path / name), example)
    ours = Example(tmp_path / "ours" / name, rows=61, failed=example.failed)
    ours.write()
    assert Store.open(tmp_path / name).format.writable
    folder = "shards" if name.endswith("h5") else "semantic"
    assert contents(tmp_path / name / folder) == contents(ours.path / folder)


def test_progress_is_told(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(example.path, tmp_path / "new.zarr")
    told = capsys.readouterr().err
    assert "convert train: 61/61 rows · " in told
    assert "/s · 0 s left" in told
    (tmp_path / "new.zarr/status/c/1").unlink()
    convert(example.path, tmp_path / "new.zarr")
    assert "new.zarr has 53 of 61 rows; going on." in capsys.readouterr().err


def test_copying_needs_no_torch() -> None:
    program = "import sys, tca.cache.convert; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


Usage = namedtuple("Usage", "total used free")


def test_what_does_not_fit_is_not_begun(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: Usage(10**6, 0, 12_063))
        with pytest.raises(TcaError, match=r"needs 12\.1 kB more and .+ are free; free some"):
            convert(example.path, tmp_path / "new.zarr")
        assert not (tmp_path / "new.zarr").exists()
        # 58 rows of 24 x 2 + 40 x 4 bytes.
        patch.setattr(shutil, "disk_usage", lambda place: Usage(10**6, 0, 12_064))
        convert(example.path, tmp_path / "new.zarr")
    monkeypatch.setattr(convert_module, "available_memory", lambda: 1000)
    with pytest.raises(TcaError, match=r"two shards of 8 rows .+ with --rows-per-shard"):
        convert(example.path, tmp_path / "other.zarr")
    convert(example.path, tmp_path / "other.zarr", Changes(rows_per_shard=2))


@pytest.mark.parametrize("name", ["new.zarr", "new.h5"])
def test_a_full_disk(
    mount: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    example = committing.example(tmp_path / "train.zarr")
    example.write()
    target = mount("size=320k") / name
    with pytest.raises(TcaError, match=r"needs .+ more and .+ are free; free some space"):
        convert(example.path, target)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(2**30, 0, 2**30))
    with pytest.raises(TcaError, match=r"cannot write .+ No space left on device; free some"):
        convert(example.path, target)
    done = len(Store.open(target).ready())
    assert 8 <= done < 32
    subprocess.run(["mount", "-o", "remount,size=2m", str(target.parent)], check=True)
    convert(example.path, target)
    same_rows(Store.open(target), example)


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, converting.__file__, str(path), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def source_at(folder: Path) -> None:
    source = folder / converting.SOURCE
    committing.example(source).write()
    reasons = source.with_name(source.name + ".failures")
    reasons.mkdir()
    entry = {"row": 1, "file": "", "reason": "not there"}
    (reasons / "000000.json").write_text(json.dumps([entry]))


class Undisturbed:
    """What a conversion that nobody stops comes to, of one format."""

    def __init__(self, folder: Path, name: str) -> None:
        source_at(folder)
        self.name = name
        path = folder / "new" / name
        process = start(path)
        begin = time.monotonic()
        self.calls = int(process.communicate()[0])
        self.seconds = time.monotonic() - begin
        self.files = contents(path.parent)
        assert f"{name}.failures/000000.json" in self.files


@pytest.fixture(scope="module", params=["train.zarr", "train.h5"])
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), request.param)


def go_on_and_compare(path: Path, expected: dict[str, bytes]) -> None:
    before = committed(path) if path.exists() else {}
    converting.run(path)
    assert contents(path.parent) == expected
    after = committed(path)
    assert {file: after[file] for file in before} == before


@pytest.mark.parametrize("step", [0.02, 0.4, 0.9])
def test_killed_between_two_steps(tmp_path: Path, undisturbed: Undisturbed, step: float) -> None:
    source_at(tmp_path)
    path = tmp_path / "new" / undisturbed.name
    assert start(path, 1 + int(step * undisturbed.calls)).wait() == -signal.SIGKILL
    go_on_and_compare(path, undisturbed.files)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 5))]
)
def test_killed_at_a_random_moment(tmp_path: Path, undisturbed: Undisturbed, seed: int) -> None:
    source_at(tmp_path)
    path = tmp_path / "new" / undisturbed.name
    process = start(path)
    time.sleep(undisturbed.seconds * np.random.default_rng(seed).random())
    process.send_signal(signal.SIGKILL)
    process.wait()
    go_on_and_compare(path, undisturbed.files)


@pytest.mark.long
def test_killed_between_many_steps(tmp_path: Path, undisturbed: Undisturbed) -> None:
    source_at(tmp_path)
    # Each start loads torch; what all steps do is held by test_kill.py.
    for number in range(1, undisturbed.calls + 1, 14):
        path = tmp_path / str(number) / undisturbed.name
        assert start(path, number).wait() == -signal.SIGKILL
        go_on_and_compare(path, undisturbed.files)


def test_the_new_store_is_read_by_others(example: Example, tmp_path: Path) -> None:
    convert(example.path, tmp_path / "new.h5", Changes(stream="motion"))
    with h5py.File(tmp_path / "new.h5/index.h5") as file:
        assert np.array_equal(file["motion"][:], example.features["motion"])
        assert np.array_equal(file["status"][:], example.status)
