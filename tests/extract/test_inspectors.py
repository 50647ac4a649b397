"""Files that hang, kill or starve what inspects them cost themselves and no other."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from drawn_video import write_video

from tca.extract.bounded_map import bounded_map
from tca.extract.inspection import Inspected, inspect
from tca.extract.inspectors import inspect_all


class Bomb:
    """Calls a function in the process that it is sent to, instead of naming a file there."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def bomb(function: Any, *arguments: Any) -> Path:
    return cast(Path, Bomb(function, *arguments))


def inspected(
    paths: list[Path], processes: int = 2, seconds: float = 60, megabytes: int = 2048
) -> list[Inspected]:
    found = inspect_all(
        paths, processes=processes, header_only=False, seconds=seconds, megabytes=megabytes
    )
    with closing(found):
        return list(found)


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.webm" for number in range(8)]
    for number, file in enumerate(files):
        write_video(file, 10 + number)
    return files


def test_a_dead_or_hanging_process_costs_its_file(good: list[Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # Waits for a writer that never comes.
    hangs = tmp_path / "pipe"
    dies = bomb(signal.raise_signal, signal.SIGSEGV)
    leaves = bomb(os._exit, 3)
    paths = [good[0], dies, good[1], hangs, good[2], leaves, *good[3:], dies]
    found = inspected(paths, seconds=2)
    reasons = [one.probe.reason for one in found]
    assert reasons[1] == reasons[-1] == "its decoder died of SIGSEGV"
    assert reasons[3] == "its decoder did not end within 2 s"
    assert reasons[5] == "its decoder died"
    whole = [one.probe.frames for one in found if not one.probe.reason]
    # In the order of the files, whichever process had them.
    assert whole == [10 + number for number in range(8)]
    assert multiprocessing.active_children() == []


def test_processes_find_what_this_one_finds(good: list[Path]) -> None:
    assert inspected(good, processes=3) == [inspect(path, False) for path in good]


def test_a_decoder_that_wants_all_memory_is_refused_it(tmp_path: Path) -> None:
    write_video(tmp_path / "big.webm", 3, size=(2048, 2048))
    (big,) = inspected([tmp_path / "big.webm"], megabytes=8)
    assert "llocate memory" in big.probe.reason or "MemoryError" in big.probe.reason
    (big,) = inspected([tmp_path / "big.webm"])
    assert (big.probe.frames, big.probe.reason) == (3, "")


def test_who_stops_early_leaves_no_process_and_begins_no_other_file(
    good: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / f"copy{number}" for number in range(200)]
    # Each is made when its turn comes, and inspected then.
    paths = [bomb(shutil.copy, good[0], copy) for copy in copies]
    with closing(
        inspect_all(paths, processes=2, header_only=False, seconds=60, megabytes=2048)
    ) as found:
        assert next(found).probe.frames == 10
    assert multiprocessing.active_children() == []
    assert 1 <= sum(copy.exists() for copy in copies) < 100


def test_without_files_no_process_is_started() -> None:
    assert inspected([]) == []
    assert multiprocessing.active_children() == []


def test_a_hanging_process_dies_with_a_killed_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = (
        "import multiprocessing, threading, time\n"
        "from pathlib import Path\n"
        "from tca.extract.inspectors import inspect_all\n"
        "def tell():\n"
        "    while not multiprocessing.active_children():\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        f"list(inspect_all([Path({str(tmp_path / 'pipe')!r})], processes=1, header_only=False, "
        "seconds=600, megabytes=2048))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or "Z" in _state(child):
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the process lives on")


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_what_is_found_goes_through_a_pipe(good: list[Path]) -> None:
    found = inspect(good[0], False)
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_map_draws_few_items_ahead_and_keeps_their_order() -> None:
    drawn = []

    def items() -> Any:
        for number in range(100):
            drawn.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        found = bounded_map(pool, lambda number: number * number, items(), 5)
        assert next(found) == 0
        assert len(drawn) == 6
        assert list(found) == [number * number for number in range(1, 100)]


def test_a_map_that_is_closed_begins_no_other_call() -> None:
    go, called = Event(), []

    def call(number: int) -> int:
        called.append(number)
        if number:
            go.wait()
        return number

    with ThreadPoolExecutor(1) as pool:
        found = bounded_map(pool, call, range(50), 10)
        assert next(found) == 0
        found.close()
        go.set()
    assert len(called) <= 2
