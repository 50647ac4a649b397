"""Processes that inspect files, and who watches them: no file can end the check of all others.

A file that hangs its decoder, takes it down or wants all memory costs that file: the process is
killed and replaced, and the file's reason says what happened. Processes are as fast as threads on
two cores, and on many they do not share one interpreter lock.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from tca.errors import TcaError
from tca.extract.bounded_map import bounded_map
from tca.extract.confine import MemoryWatch, confine
from tca.extract.decoding import Limits
from tca.extract.inspection import Inspected, inspect
from tca.extract.nursery import Nursery, shared_nursery
from tca.extract.probe import Probe

ATTEMPTS = 2
"""A process that dies may be the victim of another one's hunger for memory: it tries again."""


@dataclass(frozen=True)
class Bounds:
    """What the inspection of a file may take, and how far it goes.

    Attributes:
        limits: on the video; None: the header is believed and nothing is decoded.
        seconds: for a file.
        megabytes: memory, beyond what a process starts with.
    """

    limits: Limits | None
    seconds: float
    megabytes: int


def inspect_all(paths: Sequence[Path], bounds: Bounds, *, processes: int) -> Generator[Inspected]:
    """Yield what is found of each file, in the order of `paths`; close it to stop early.

    Args:
        paths: the files.
        bounds: for each of them.
        processes: how many inspect at once; one a file at most is started.

    Raises:
        TcaError: the processes do not start.
    """
    count = min(processes, len(paths))
    if not count:
        return
    nursery = shared_nursery()
    inspectors = [_Inspector(bounds, nursery) for _ in range(count)]
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
    """One process, begun when it is needed, and again after its death."""

    def __init__(self, bounds: Bounds, nursery: Nursery) -> None:
        self._bounds, self._nursery = bounds, nursery
        self._pipe: Connection | None = None
        self._process: int | None = None
        self._changing = threading.Lock()
        self._stopped = False

    def __call__(self, path: Path) -> Inspected:
        """Inspect a file; once more if the process dies of it."""
        reason = "the check was stopped"
        for _ in range(ATTEMPTS):
            pipe = self._started()
            if pipe is None:
                break
            try:
                pipe.send(path)
                if pipe.poll(self._bounds.seconds):
                    return Inspected.from_json(pipe.recv_bytes())
            except (EOFError, OSError):
                code = self._end()
                cause = f"of {signal.Signals(-code).name}" if code and code < 0 else f"with {code}"
                reason = f"its decoder died {cause}, and so did another one"
            else:
                self._end()
                seconds = f"{self._bounds.seconds:g} seconds"
                reason = f"decoding it takes over {seconds} (extract.max_seconds)"
                break
        return Inspected(Probe(reason=reason))

    def stop(self) -> None:
        """End the process, whatever it does, and start none again."""
        self._stopped = True
        self._end()

    def _started(self) -> Connection | None:
        """Return the pipe to the process; None if there is to be none any more."""
        with self._changing:
            if self._stopped:
                return None
            if self._pipe is None or self._process is None:
                ours, theirs = socket.socketpair()
                with theirs:
                    self._pipe = Connection(ours.detach())
                    try:
                        fds = [theirs.fileno()]
                        self._process = self._nursery.fork(serve, fds, self._bounds, os.getcwd())
                    except OSError as error:
                        raise _no_start(str(error)) from None
                try:
                    self._pipe.recv_bytes()
                except (EOFError, OSError):
                    raise _no_start("one died") from None
            return self._pipe

    def _end(self) -> int | None:
        """Kill the process, unless it is dead, and return its exit code."""
        with self._changing:
            process, self._process = self._process, None
            if process is None:
                return None
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
                return self._nursery.exit_code(process)
            return None


def _no_start(why: str) -> TcaError:
    return TcaError(f"the processes that inspect files do not start ({why}); run it again.")


def serve(fds: Sequence[int], bounds: Bounds, folder: str) -> None:
    """Inspect the files that come over `fds[0]`, as seen from `folder`, until it is closed."""
    # The nursery stays where this program was when it was started.
    os.chdir(folder)
    watch = MemoryWatch(bounds.megabytes)
    confine(bounds.megabytes)
    with Connection(fds[0]) as pipe, suppress(EOFError, OSError):
        pipe.send_bytes(b"ready")
        while True:
            path: Path = pipe.recv()
            watch.begin()
            found = inspect(path, bounds.limits)
            try:
                watch.check()
            except MemoryError:
                reason = f"decoding it takes over {bounds.megabytes:,} MB (extract.max_megabytes)"
                found = replace(found, probe=Probe(reason=reason))
            # Not pickled: what a hostile file made of this process could run code in its parent.
            pipe.send_bytes(found.to_json())
