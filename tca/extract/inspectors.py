"""Processes that inspect files, and who watches them: no file can end the check of all others.

A file that hangs its decoder, takes it down or wants all memory costs that file: the process is
killed and replaced, and the file's reason says what happened. Processes are as fast as threads on
two cores, and on many they do not share one interpreter lock.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tca.extract.bounded_map import bounded_map
from tca.extract.inspection import Inspected, inspect
from tca.extract.probe import Probe

# A process starts in milliseconds: it is forked from one that has imported everything.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])

# Of multiprocessing's processes, one thread at a time may start or reap any.
_STARTING = threading.Lock()

DYING_S = 0.2
"""A process that closed its pipe is dead after so many seconds, or hangs."""


def inspect_all(
    paths: Sequence[Path], *, processes: int, header_only: bool, seconds: float, megabytes: int
) -> Generator[Inspected]:
    """Yield what is found of each file, in the order of `paths`; close it to stop early.

    Args:
        paths: the files.
        processes: how many inspect at once; one a file at most is started.
        header_only: see `probe`.
        seconds: a file may take.
        megabytes: memory that a process may take beyond what it starts with.
    """
    count = min(processes, len(paths))
    if not count:
        return
    inspectors = [_Inspector(header_only, seconds, megabytes) for _ in range(count)]
    idle: queue.SimpleQueue[_Inspector] = queue.SimpleQueue()
    for inspector in inspectors:
        idle.put(inspector)

    def inspected(path: Path) -> Inspected:
        inspector = idle.get()
        try:
            return inspector(path)
        finally:
            idle.put(inspector)

    # Each thread waits for one process.
    with ThreadPoolExecutor(count, "tca-inspect") as pool:
        try:
            yield from bounded_map(pool, inspected, paths, 4 * count)
        finally:
            for inspector in inspectors:
                inspector.stop()


class _Inspector:
    """One process, begun when it is needed, and again after it had to be killed."""

    def __init__(self, header_only: bool, seconds: float, megabytes: int) -> None:
        self._arguments = header_only, megabytes
        self._seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stopped = False

    def __call__(self, path: Path) -> Inspected:
        """Inspect a file; wait for it `seconds` at most."""
        try:
            pipe = self._started()
            pipe.send(path)
            if pipe.poll(self._seconds):
                found: Inspected = pipe.recv()
                return found
            reason = f"its decoder did not end within {self._seconds:g} s"
        except (EOFError, OSError):
            reason = "its decoder died"
        return Inspected(Probe(reason=self._ended(reason)))

    def stop(self) -> None:
        """End the process, whatever it does, and start none again."""
        with _STARTING:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def _started(self) -> Connection:
        with _STARTING:
            if self._stopped:
                raise EOFError
            if self._pipe is None:
                self._pipe, theirs = _CONTEXT.Pipe()
                self._process = _CONTEXT.Process(
                    target=_serve, args=(theirs, *self._arguments), daemon=True
                )
                self._process.start()
                # With a copy here, the death of the process would not be heard.
                theirs.close()
            return self._pipe

    def _ended(self, reason: str) -> str:
        """Take the process down, dead or alive, and return `reason` with the signal it died of."""
        with _STARTING:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = None
            if pipe is not None:
                pipe.close()
            if process is None:
                return reason
            # One that died has closed its pipe before it could be waited for.
            process.join(DYING_S)
            alive = process.exitcode is None
            if alive:
                process.kill()
                process.join()
            code = process.exitcode or 0
            return f"{reason} of {signal.Signals(-code).name}" if code < 0 and not alive else reason


def _serve(pipe: Connection, header_only: bool, megabytes: int) -> None:
    """Inspect the files that come over `pipe` until it is closed."""
    # Ctrl-C reaches the whole process group; the parent ends its processes itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _confine(megabytes)
    with suppress(EOFError, OSError):
        while True:
            path: Path = pipe.recv()
            pipe.send(inspect(path, header_only))


def _leave_with_parent() -> None:
    """End this process, even one that hangs, when its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _confine(megabytes: int) -> None:
    """Bound the memory of this process."""
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmData:")[1].split()[0])
    most = kilobytes * 1024 + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    # A process that dies leaves no core file for every bad video.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
