"""Kill the process anywhere, run it again: the bytes are those of an undisturbed run."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import committing
import numpy as np
import pytest
from example_store import FORMATS, contents

from tca.cache.store import Store


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start writing in a process of its own and wait until all is imported."""
    command = [sys.executable, committing.__file__, str(path), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@dataclass
class Undisturbed:
    """A run that nobody killed: the store's name, every file, seconds, flushes and renames."""

    name: str
    files: dict[str, bytes]
    seconds: float
    calls: int


@pytest.fixture(scope="module", params=FORMATS)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    name = f"train.{request.param}"
    path = tmp_path_factory.mktemp("undisturbed") / "cache" / name
    process = start(path)
    begin = time.monotonic()
    calls = int(process.communicate()[0])
    return Undisturbed(name, contents(path.parent), time.monotonic() - begin, calls)


def committed_files(store: Store) -> dict[str, tuple[int, int]]:
    """(inode, time of writing) of every file of a committed shard."""
    found = {}
    for shard in range(store.shards):
        if store.shard_status(shard) is not None:
            for file in store.format.shard_files(shard):
                if file.exists():
                    found[str(file)] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return found


def continue_and_compare(path: Path, expected: dict[str, bytes]) -> None:
    before = {}
    if path.exists():
        # What is there can be used as it is.
        store = Store.open(path)
        before = committed_files(store)
        example = committing.example(path)
        for stream in store.streams:
            found = store.read(stream, store.ready())
            assert np.array_equal(found, example.features[stream][store.ready()])
    committing.run(path)
    assert contents(path.parent) == expected
    after = committed_files(Store.open(path))
    assert {file: after[file] for file in before} == before


def moments(quick: int, full: int) -> list[object]:
    return [
        pytest.param(number, marks=() if number < quick else pytest.mark.long)
        for number in range(full)
    ]


@pytest.mark.parametrize("seed", moments(2, 20))
def test_killed_at_a_random_moment(tmp_path: Path, undisturbed: Undisturbed, seed: int) -> None:
    path = tmp_path / "cache" / undisturbed.name
    process = start(path)
    time.sleep(undisturbed.seconds * np.random.default_rng(seed).random())
    process.send_signal(signal.SIGKILL)
    process.wait()
    continue_and_compare(path, undisturbed.files)


@pytest.mark.parametrize("step", [0.02, 0.3, 0.6, 0.9])
def test_killed_between_two_steps(tmp_path: Path, undisturbed: Undisturbed, step: float) -> None:
    path = tmp_path / "cache" / undisturbed.name
    assert start(path, 1 + int(step * undisturbed.calls)).wait() == -signal.SIGKILL
    continue_and_compare(path, undisturbed.files)


@pytest.mark.long
def test_killed_between_any_two_steps(tmp_path: Path, undisturbed: Undisturbed) -> None:
    for number in range(1, undisturbed.calls + 1):
        path = tmp_path / str(number) / undisturbed.name
        assert start(path, number).wait() == -signal.SIGKILL
        continue_and_compare(path, undisturbed.files)


@pytest.mark.long
def test_killed_again_and_again(tmp_path: Path, undisturbed: Undisturbed) -> None:
    path = tmp_path / "cache" / undisturbed.name
    # Each time a little further, as long as more than making the store fits in.
    for _ in range(10):
        if start(path, undisturbed.calls // 2).wait() == 0:
            break
    else:
        pytest.fail("no progress from one attempt to the next")
    continue_and_compare(path, undisturbed.files)
