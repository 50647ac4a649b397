"""Parts put together are the store that one machine would have made, byte for byte."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import merging
import pytest
from example_store import Example, contents, read_all

from tca.cache.failures import Failure, failures_file, write_failures
from tca.cache.files import sole_writer
from tca.cache.layout import Status
from tca.cache.merge import merge
from tca.cache.verify import verify
from tca.errors import TcaError, UsageError

ENDING = {"zarr": "zarr", "hdf5": "h5"}
FAILED = {3: Status.UNREADABLE, 17: Status.TIMED_OUT, **{r: Status.MISSING for r in range(8, 16)}}


@pytest.fixture(params=["zarr", "hdf5"])
def ending(request: pytest.FixtureRequest) -> str:
    return ENDING[request.param]


def part(folder: Path, ending: str, *shards: int, **changes: Any) -> Path:
    """A store of 37 rows in 5 shards, one of them without a good row, with these shards."""
    settings = {"rows": 37, "failed": FAILED} | changes
    store = Example(folder / f"train.{ending}", **settings)
    with sole_writer(store.path):
        writer = store.writer()
        for shard in shards:
            rows = writer.shard_rows(shard)
            failed = [Failure(r, "x", f"r{r}") for r in FAILED if r in rows]
            write_failures(store.path, shard, failed)
            store.commit(writer, shard)
    return store.path


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)


def test_two_parts_are_what_one_machine_makes(tmp_path: Path, ending: str) -> None:
    whole = part(tmp_path / "whole", ending, *range(5))
    parts = [
        part(tmp_path / "a", ending, 0, 3),
        part(tmp_path / "b", ending, 1, 2, 4),
    ]
    before = [contents(path.parent) for path in parts]
    out = tmp_path / f"out/train.{ending}"
    done = merge(out, parts)
    assert contents(out.parent) == contents(whole.parent)
    assert done.copied == {str(parts[0]): 2, str(parts[1]): 3}
    assert (done.missing, done.shards, done.rows) == ([], 5, 37)
    assert [contents(path.parent) for path in parts] == before
    read_all(out)
    assert not verify(out).problems


def test_a_part_takes_in_the_others(tmp_path: Path, ending: str) -> None:
    whole = part(tmp_path / "whole", ending, *range(5))
    a, b, c = (
        part(tmp_path / name, ending, *shards)
        for name, shards in {"a": (0, 1), "b": (3,), "c": (2, 4)}.items()
    )
    done = merge(a, [a, b])
    assert (done.copied, done.missing, done.missing_rows) == ({str(b): 1}, [2, 4], 13)
    merge(a, [c])
    assert contents(a.parent) == contents(whole.parent)


def test_shards_that_are_there_twice_are_left_alone(tmp_path: Path, ending: str) -> None:
    whole = part(tmp_path / "whole", ending, *range(5))
    a, b = part(tmp_path / "a", ending, 0, 1, 2), part(tmp_path / "b", ending, 1, 2, 3, 4)
    out = tmp_path / f"out/train.{ending}"
    merge(out, [a, b])
    before = {file: os.stat(file).st_mtime_ns for file in out.rglob("*") if file.is_file()}
    assert merge(out, [b, a]).copied == {str(b): 0, str(a): 0}
    assert before == {file: os.stat(file).st_mtime_ns for file in before}
    assert contents(out.parent) == contents(whole.parent)


def test_the_same_shard_with_other_bytes_is_refused(tmp_path: Path, ending: str) -> None:
    a = part(tmp_path / "a", ending, 0, 1)
    # The same videos, one of which could be read on the other machine.
    b = part(tmp_path / "b", ending, 0, 2, failed={})
    before = contents(a.parent)
    with pytest.raises(TcaError, match=r"shard 0 is in .+ with different bytes .+--against"):
        merge(a, [b])
    assert contents(a.parent) == before
    out = tmp_path / f"out/train.{ending}"
    with pytest.raises(TcaError, match="shard 0 is in"):
        merge(out, [a, b])
    # Nothing was copied before that was known.
    assert not list(out.rglob("status/c/*")) + list(out.rglob("shards/*.h5"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"identity": {"keep": "frames", "size": [224, 224]}}, "identity.keep: expected 'mean'"),
        ({"rows": 36}, "rows: expected 37, found 36"),
        ({"rows_per_shard": 16}, "rows_per_shard: expected 8, found 16"),
        ({"classes": ("push", "pull", "x")}, "classes: entry 2"),
        ({"types": {"semantic": "bfloat16", "motion": "float32"}}, "streams.semantic"),
    ],
)
def test_parts_of_other_settings_are_refused(
    tmp_path: Path, ending: str, changes: dict[str, Any], words: str
) -> None:
    a, b = part(tmp_path / "a", ending, 0), part(tmp_path / "b", ending, 1, **changes)
    out = tmp_path / f"out/train.{ending}"
    with pytest.raises(TcaError, match="does not go together") as error:
        merge(out, [a, b])
    assert words in str(error.value)
    assert str(b) in str(error.value)
    assert not out.exists()


def test_parts_of_another_format_are_refused(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", "zarr", 0), part(tmp_path / "b", "h5", 1)
    with pytest.raises(TcaError, match="format: expected 'zarr', found 'hdf5'"):
        merge(a, [b])


def test_another_record_is_told(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = part(tmp_path / "a", ending, 0)
    b = part(tmp_path / "b", ending, 1, record={"tca": "0.2.0"})
    merge(a, [b])
    assert "tca: expected '0.1.0', found '0.2.0'" in capsys.readouterr().err


def test_a_damaged_shard_is_not_taken_over(tmp_path: Path, ending: str) -> None:
    a, b = part(tmp_path / "a", ending, 0, 3), part(tmp_path / "b", ending, 2, 4)
    file = b / ("semantic/c/4/0/0" if ending == "zarr" else "shards/000004.h5")
    row = Example(b, rows=37, failed=FAILED).features["semantic"][33].tobytes()
    flip(file, file.read_bytes().index(row) + 7)
    out = tmp_path / f"out/train.{ending}"
    with pytest.raises(TcaError, match=rf"row 33 \(id .+tca cache repair {b}"):
        merge(out, [a, b])
    assert {p.shard for p in verify(out).problems} == set()
    # After the repair the shard is missing, and the rest is there.
    from tca.cache.repair import repair

    repair(b)
    assert merge(out, [a, b]).missing == [1, 4]


def test_why_rows_failed_comes_along(tmp_path: Path, ending: str) -> None:
    a, b = part(tmp_path / "a", ending, 0), part(tmp_path / "b", ending, 1, 2)
    # What was left by a run that had other failures.
    write_failures(a, 2, [Failure(20, "", "old")])
    failures_file(b, 2).unlink()
    merge(a, [b])
    assert [entry["row"] for entry in json.loads(failures_file(a, 1).read_text())] == [
        *range(8, 16)
    ]
    assert not failures_file(a, 2).exists()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, merging.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "at", [0.1, 0.5, 0.8, *(pytest.param(i / 40, marks=pytest.mark.long) for i in range(40))]
)
def test_a_killed_merge_goes_on(tmp_path: Path, ending: str, at: float) -> None:
    whole = part(tmp_path / "whole", ending, *range(5))
    parts = [part(tmp_path / "a", ending, 0, 3), part(tmp_path / "b", ending, 1, 2, 4)]
    calls = int(run(-1, tmp_path / f"counted/train.{ending}", *parts).stdout)
    out = tmp_path / f"out/train.{ending}"
    assert run(1 + int(at * calls), out, *parts).returncode == -signal.SIGKILL
    if out.exists():
        assert not verify(out).problems
        read_all(out)
    merge(out, parts)
    assert contents(out.parent) == contents(whole.parent)


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = part(tmp_path / "a", ending, 0), part(tmp_path / "b", ending, 1, 2)
    out = tmp_path / f"out/train.{ending}"
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(100))
        with pytest.raises(TcaError, match=r"needs \d\.\d\d kB more and 100 B are free"):
            merge(out, [a, b])
    assert not out.exists()


def test_a_new_store_is_not_named_like_the_other_format(tmp_path: Path, ending: str) -> None:
    a = part(tmp_path / "a", ending, 0)
    out = tmp_path / ("out.h5" if ending == "zarr" else "out.zarr")
    with pytest.raises(UsageError, match=r"is named like .+ and the parts are"):
        merge(out, [a])
    assert not out.exists()
    merge(tmp_path / "out", [a])
    # One that is there is what it is.
    (tmp_path / "out").rename(out)
    merge(out, [part(tmp_path / "b", ending, 1)])


def test_a_disk_that_fills_up_costs_nothing_committed(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = part(tmp_path / "whole", ending, 0, 1, 2)
    a, b = part(tmp_path / "a", ending, 0), part(tmp_path / "b", ending, 1, 2)
    real, calls = os.replace, []

    def full(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(TcaError, match="free some space"):
            merge(a, [b])
    assert not verify(a).problems
    merge(a, [b])
    assert contents(a.parent) == contents(whole.parent)


def test_a_store_that_is_being_written_is_not_merged_into(tmp_path: Path, ending: str) -> None:
    a, b = part(tmp_path / "a", ending, 0), part(tmp_path / "b", ending, 1)
    with sole_writer(a), pytest.raises(TcaError, match="written by another process"):
        merge(a, [b])
    # Reading from one that is, does no harm.
    with sole_writer(b):
        assert merge(a, [b]).copied == {str(b): 1}


def test_nothing_to_merge(tmp_path: Path, ending: str) -> None:
    a = part(tmp_path / "a", ending, 0)
    with pytest.raises(UsageError, match="nothing to merge"):
        merge(a, [a])
    with pytest.raises(TcaError, match="there is no store at"):
        merge(a, [tmp_path / "nowhere"])
