"""Files that hang, kill or starve what inspects them cost themselves and no other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from drawn_video import write_video

from tca.extract.bounded_map import bounded_map
from tca.extract.decoding import Limits
from tca.extract.inspection import Inspected, inspect
from tca.extract.inspectors import Bounds, inspect_all

LIMITS = Limits(frames=1000, pixels=2**25)


class Bomb:
    """Calls a function in the process that it is sent to, instead of naming a file there."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def bomb(function: Any, *arguments: Any) -> Path:
    return cast(Path, Bomb(function, *arguments))


def bounds(seconds: float = 60, megabytes: int = 2048) -> Bounds:
    return Bounds(LIMITS, seconds, megabytes)


def inspected(
    paths: list[Path], processes: int = 2, seconds: float = 60, megabytes: int = 2048
) -> list[Inspected]:
    with closing(inspect_all(paths, bounds(seconds, megabytes), processes=processes)) as found:
        return list(found)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def inspecting(process: int) -> list[int]:
    """Return the processes that inspect files: the children of the nursery of `process`."""
    return [below for child in children(process) for below in children(child)]


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1500):
        if holds():
            return
        time.sleep(0.02)
    pytest.fail("it never came to that")


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
    assert reasons[1] == reasons[-1] == "its decoder died of SIGSEGV, and so did another one"
    assert reasons[3] == "decoding it takes over 2 seconds (extract.max_seconds)"
    assert reasons[5] == "its decoder died with 3, and so did another one"
    whole = [one.probe.frames for one in found if not one.probe.reason]
    # In the order of the files, whichever process had them.
    assert whole == [10 + number for number in range(8)]
    assert inspecting(os.getpid()) == []


def test_processes_find_what_this_one_finds(good: list[Path]) -> None:
    assert inspected(good, processes=3) == [inspect(path, LIMITS) for path in good]


def test_a_decoder_that_wants_all_memory_is_refused_it(tmp_path: Path) -> None:
    write_video(tmp_path / "big.webm", 3, size=(2048, 2048))
    (big,) = inspected([tmp_path / "big.webm"], megabytes=8)
    assert big.probe.reason == "decoding it takes over 8 MB (extract.max_megabytes)"
    (big,) = inspected([tmp_path / "big.webm"])
    assert (big.probe.frames, big.probe.reason) == (3, "")


def test_a_decoder_that_comes_near_the_bound_is_not_believed(tmp_path: Path) -> None:
    # As in extraction: refused memory, it may leave frames out and say nothing.
    write_video(tmp_path / "big.webm", 3, size=(2048, 2048))
    reasons = []
    for megabytes in range(16, 256, 8):
        (big,) = inspected([tmp_path / "big.webm"], megabytes=megabytes)
        if not big.probe.reason:
            break
        reasons.append((megabytes, big.probe.reason))
    assert big.probe.frames == 3
    megabytes, reason = reasons[-1]
    assert reason == f"decoding it takes over {megabytes} MB (extract.max_megabytes)"


def test_who_stops_early_leaves_no_process_and_begins_no_other_file(
    good: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / f"copy{number}" for number in range(200)]
    # Each is made when its turn comes, and inspected then.
    paths = [bomb(shutil.copy, good[0], copy) for copy in copies]
    with closing(inspect_all(paths, bounds(), processes=2)) as found:
        assert next(found).probe.frames == 10
    assert inspecting(os.getpid()) == []
    assert 1 <= sum(copy.exists() for copy in copies) < 100


def test_without_files_no_process_is_started() -> None:
    assert inspected([]) == []
    assert inspecting(os.getpid()) == []


def test_a_hanging_process_dies_with_a_killed_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = (
        "from pathlib import Path\n"
        "from tca.extract.decoding import Limits\n"
        "from tca.extract.inspectors import Bounds, inspect_all\n"
        "bounds = Bounds(Limits(1000, 2**25), 600, 2048)\n"
        f"list(inspect_all([Path({str(tmp_path / 'pipe')!r})], bounds, processes=1))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        eventually(lambda: bool(inspecting(parent.pid)))
        family = children(parent.pid) + inspecting(parent.pid)
        parent.kill()
    eventually(lambda: not any(Path(f"/proc/{process}").exists() for process in family))


def test_what_is_found_goes_through_a_pipe(good: list[Path]) -> None:
    found = inspect(good[0], LIMITS)
    assert found.size == good[0].stat().st_size
    assert Inspected.from_json(found.to_json()) == found


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
