"""Fair timing: contenders and the limit take turns, with files that are cold or warm on purpose.

Machines that run these are rarely idle, so nothing is timed alone: the ratio of the two that ran
side by side is what counts, its median over all rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 1 << 20
"""Bytes that reading a file alone asks for at once: they stay in the processor's cache."""

Measured = Callable[[], float]
"""Does the work once and returns how much of it a second."""


def take_turns(
    limit: Measured, contenders: Mapping[str, Measured], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Let every contender and, next to each, the limit work `rounds` times.

    Returns:
        By name the medians of speed, of the limit's speed beside it, and of the ratio of the two.
    """
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, contender in contenders.items():
            # Whoever goes second finds the processor's caches in another state.
            if turn % 2:
                ours = contender()
                speeds[name].append((ours, limit()))
            else:
                theirs = limit()
                speeds[name].append((contender(), theirs))
    return {
        name: (
            statistics.median(ours for ours, _ in pairs),
            statistics.median(theirs for _, theirs in pairs),
            statistics.median(ours / theirs for ours, theirs in pairs),
        )
        for name, pairs in speeds.items()
    }


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def use_cores(count: int) -> int:
    """Let this process and all that it starts use `count` cores; return how many it got.

    So everybody has the same threads, whatever settings they have for that.
    """
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def files_under(folder: Path) -> list[Path]:
    """Return all files of a folder (or the file itself), in order."""
    if folder.is_file():
        return [folder]
    return sorted(file for file in folder.rglob("*") if file.is_file())


def read_files(folder: Path, threads: int = 1) -> int:
    """Read all files of a folder from front to back, as `cat` would; return their bytes.

    Args:
        folder: which.
        threads: how many files at the same time.
    """
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_read_file, files_under(folder)))


def _read_file(file: Path) -> int:
    room = memoryview(bytearray(CHUNK))
    total = 0
    with open(file, "rb", buffering=0) as opened:
        while got := opened.readinto(room):
            total += got
    return total


def forget_files(folder: Path) -> None:
    """Let the system's file cache forget the files of a folder; names of files stay known."""
    for file in files_under(folder):
        descriptor = os.open(file, os.O_RDONLY)
        # What is not on the disk yet cannot be forgotten.
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def drop_file_cache(folder: Path) -> str:
    """Empty the whole file cache, names of files too, or where that takes root, `forget_files`.

    Returns:
        Which of the two it was, for the reader of a table.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    except OSError:
        forget_files(folder)
        return "the files were dropped from the file cache before each turn, not their names"
    return "the whole file cache was emptied before each turn"
