"""Kill the process anywhere, run it again: the bytes are those of an undisturbed run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import committing
import numpy as np
import pytest
from example_store import contents

from tca.cache.store import Store


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start writing in a process of its own and wait until all is imported."""
    command = [sys.executable, committing.__file__, str(path), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float, int]:
    """Every file of an undisturbed run, its seconds, and its flushes and renames."""
    path = tmp_path_factory.mktemp("undisturbed") / "cache/train.zarr"
    process = start(path)
    begin = time.monotonic()
    calls = int(process.communicate()[0])
    return contents(path.parent), time.monotonic() - begin, calls


def committed_files(path: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of writing) of every file of a committed shard."""
    found = {}
    for record in path.glob("status/c/*"):
        if not record.name.startswith("."):
            for file in [record, *path.glob(f"*/c/{record.name}/**/0")]:
                found[str(file)] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return found


def continue_and_compare(path: Path, expected: dict[str, bytes]) -> None:
    before = committed_files(path)
    if path.exists():
        # What is there can be used as it is.
        store = Store.open(path)
        example = committing.example(path)
        for stream in store.streams:
            found = store.read(stream, store.ready())
            assert np.array_equal(found, example.features[stream][store.ready()])
    committing.run(path)
    assert contents(path.parent) == expected
    after = committed_files(path)
    assert {file: after[file] for file in before} == before


def moments(quick: int, full: int) -> list[object]:
    return [
        pytest.param(number, marks=() if number < quick else pytest.mark.long)
        for number in range(full)
    ]


@pytest.mark.parametrize("seed", moments(3, 20))
def test_killed_at_a_random_moment(
    tmp_path: Path, undisturbed: tuple[dict[str, bytes], float, int], seed: int
) -> None:
    expected, seconds, _ = undisturbed
    path = tmp_path / "cache/train.zarr"
    process = start(path)
    time.sleep(seconds * np.random.default_rng(seed).random())
    process.send_signal(signal.SIGKILL)
    process.wait()
    continue_and_compare(path, expected)


@pytest.mark.parametrize("step", [0.02, 0.3, 0.6, 0.9])
def test_killed_between_two_steps(
    tmp_path: Path, undisturbed: tuple[dict[str, bytes], float, int], step: float
) -> None:
    expected, _, calls = undisturbed
    path = tmp_path / "cache/train.zarr"
    assert start(path, 1 + int(step * calls)).wait() == -signal.SIGKILL
    continue_and_compare(path, expected)


@pytest.mark.long
def test_killed_between_any_two_steps(
    tmp_path: Path, undisturbed: tuple[dict[str, bytes], float, int]
) -> None:
    expected, _, calls = undisturbed
    for number in range(1, calls + 1):
        path = tmp_path / f"{number}/train.zarr"
        assert start(path, number).wait() == -signal.SIGKILL
        continue_and_compare(path, expected)


@pytest.mark.long
def test_killed_again_and_again(
    tmp_path: Path, undisturbed: tuple[dict[str, bytes], float, int]
) -> None:
    expected, _, calls = undisturbed
    path = tmp_path / "cache/train.zarr"
    # Each time a little further, as long as more than making the store fits in.
    for _ in range(10):
        if start(path, calls // 2).wait() == 0:
            break
    else:
        pytest.fail("no progress from one attempt to the next")
    continue_and_compare(path, expected)
