"""Kill an extraction whenever you like and run it again: the bytes are those of one left alone."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from in_process import in_process
from tiny_project import committed_files, outlived, store_files, write_project

from tca.cache.store import Store
from tca.errors import TcaError
from tca.extract.run import Engine, extract
from tca.project import load_project

ROWS = 168
SHARDS = 21
LAID_OUT_FOR = 3
"""Workers for which a store of so many rows gets shards of 8."""

DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), ROWS)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def made(config: Path, store: Path, engine: Engine = in_process) -> None:
    """Make a store in this process, or let `engine` end it before."""
    project, _ = load_project(config, ())
    devices = ["cpu"] * LAID_OUT_FOR
    extract("train", store, project, devices=devices, engine=engine, allow_missing=True)


def created(config: Path, store: Path) -> None:
    """Make a store without any shard."""

    def nothing(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(config, store, nothing)


def start(config: Path, store: Path, workers: int = 1) -> subprocess.Popen[str]:
    """Start the command in a session of its own: all it starts can be killed at one moment."""
    command = [sys.executable, "-m", "tca", "extract", "--config", str(config), "--allow-missing"]
    command += ["--device", "cpu", "--workers", str(workers)]
    return subprocess.Popen(
        [*command, f"stores={store.parent}/{{split}}{store.suffix}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Jobs in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end, which must be a good one, and return what was said."""
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    return said


def committed(store: Path) -> int:
    opened = Store.open(store)
    return sum(opened.shard_status(shard) is not None for shard in range(opened.shards))


def wait_for(process: subprocess.Popen[str], store: Path, shards: int) -> None:
    """Wait until so many shards are committed."""
    end = time.monotonic() + DEADLINE_S
    while process.poll() is None and not (store.exists() and committed(store) >= shards):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module", params=["zarr", pytest.param("h5", marks=pytest.mark.long)])
def expected(
    request: pytest.FixtureRequest, config: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    """The name of a store that nobody disturbed, and its files."""
    store = tmp_path_factory.mktemp("undisturbed") / f"train.{request.param}"
    made(config, store)
    assert committed(store) == SHARDS
    return store.name, store_files(store)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_killed_again_and_again(
    config: Path, expected: tuple[str, dict[str, bytes]], tmp_path: Path, kills: int
) -> None:
    name, files = expected
    store = tmp_path / name
    created(config, store)
    chance = random.Random(kills)
    workers = 1 if kills < 20 else 2
    for number in range(kills):
        before = committed_files(store)
        process = start(config, store, workers)
        if number % 4 == 1:
            # While it starts, while workers start, while it looks what is there.
            time.sleep(chance.uniform(0, 12))
        else:
            # Not so far that there would be nothing left to kill.
            there = committed(store)
            wait_for(process, store, min(there + 1 + chance.randrange(2), SHARDS - 1))
            time.sleep(chance.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        after = committed_files(store)
        assert {file: after[file] for file in before} == before
    before = committed_files(store)
    if kills < 20:
        made(config, store)
    else:
        finish(start(config, store))
    after = committed_files(store)
    assert {file: after[file] for file in before} == before
    assert store_files(store) == files
    assert not [path for path in store.parent.rglob("*") if ".tmp" in path.name]


def test_ctrl_c_ends_after_the_current_batch_and_says_how_to_go_on(
    config: Path, expected: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    name, files = expected
    store = tmp_path / name
    created(config, store)
    process = start(config, store, 2)
    wait_for(process, store, 1)
    # As a terminal does it: to every process at once.
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 130
    for words in (
        "stopping after the current batch; Ctrl-C again stops at once",
        f" of {ROWS} rows.",
        "run the same command again",
    ):
        assert words in said
    assert "Traceback" not in said
    assert outlived(process.pid) == []
    before = committed_files(store)
    assert before
    made(config, store)
    after = committed_files(store)
    assert {file: after[file] for file in before} == before
    assert store_files(store) == files


def test_a_complete_store_needs_no_disk_that_can_be_written(
    config: Path, mount: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = mount("size=8m") / "cache/train.zarr"
    made(config, store)
    # Copies on read-only disks come without what only writers need.
    store.with_name("train.zarr.lock").unlink()
    mount("remount,ro")
    made(config, store)
    mount("remount,rw")
    Path(f"{store}.failures.csv").unlink()
    mount("remount,ro")
    with pytest.raises(TcaError, match=r"cannot write .*failures\.csv: Read-only file system"):
        made(config, store)


def test_a_disk_that_fills_up_costs_what_is_not_committed(
    config: Path, expected: tuple[str, dict[str, bytes]], mount: Callable[[str], Path]
) -> None:
    place = mount("size=8m")
    store = place / expected[0]
    created(config, store)
    process = start(config, store)
    wait_for(process, store, 1)
    # Somebody else fills it.
    with pytest.raises(OSError, match="No space left"):
        (place / "other").write_bytes(bytes(8 << 20))
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 1
    assert "No space left on device; free some space and run the command again" in said
    assert "Traceback" not in said
    before = committed_files(store)
    assert before
    # It is seen before anything is begun.
    with pytest.raises(TcaError, match=r"needs .* more and .* are free; free some space, or keep"):
        made(config, store)
    (place / "other").unlink()
    made(config, store)
    after = committed_files(store)
    assert {file: after[file] for file in before} == before
    assert store_files(store) == expected[1]


@pytest.mark.long
def test_a_store_that_is_deleted_meanwhile(config: Path, tmp_path: Path) -> None:
    store = tmp_path / "train.zarr"
    created(config, store)
    process = start(config, store)
    wait_for(process, store, 1)
    shutil.move(store, tmp_path / "gone")
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 1
    assert "was moved or deleted while it was written" in said
    assert "Traceback" not in said
