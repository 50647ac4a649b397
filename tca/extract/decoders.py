"""Batches of decoded videos in order, whatever the videos do to those who decode them.

Decoders are processes. A video that hangs one, or takes it down, costs that video: the decoder is
killed and replaced, and the row says why. Threads would not be faster (docs/extract.md has the
numbers): pixels go straight into memory that both sides share.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType

from torch import Tensor

from tca.cache.layout import Status
from tca.errors import TcaError
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.decoder import Draw, Settings, Task, draw, serve
from tca.extract.nursery import shared_nursery
from tca.extract.video_error import VideoError

SLOTS = 3
"""Batches in memory: one is mapped while two are decoded."""

TASKS = 2
"""Tasks that a decoder has: the one it does, and the next."""

TICK_S = 1.0
"""Seconds after which we look at the clock, whether or not anything happened."""

START_S = 300.0
"""Seconds that a decoder may take to start; only torchcodec takes more than a moment."""

ATTEMPTS = 2
"""A decoder that dies may be the victim of another process's hunger for memory: it tries again."""


@dataclass(frozen=True)
class Wanted:
    """A batch to decode.

    Attributes:
        shard: number of the shard.
        rows: row numbers, at most `batch_size`.
        last: whether they are the last of the shard.
        tasks: the videos; a place is a row's number in the batch.
        failed: rows without a task, by place.
    """

    shard: int
    rows: range
    last: bool
    tasks: list[Task]
    failed: dict[int, VideoError]


@dataclass
class Batch:
    """Decoded videos of neighbouring rows.

    Attributes:
        shard, rows, last: as wanted.
        frames: (batch_size, 8, 3, S, S) uint8; zero where a video failed and past the rows.
        clips: (batch_size, 16, 3, s, s) uint8, likewise.
        outcomes: one a row, None where the video is decoded.
        seconds: of the processors, for decoding.
    """

    shard: int
    rows: range
    last: bool
    frames: Tensor
    clips: Tensor
    outcomes: list[VideoError | None]
    seconds: float
    _slot: int
    _open: int


@dataclass
class _Assignment:
    task: Task
    batch: Batch
    deaths: int = 0


@dataclass
class _Process:
    """A decoder, the tasks it has, and since when it does the first of them."""

    number: int
    connection: Connection
    assignments: deque[_Assignment] = field(default_factory=deque)
    since: float = 0.0
    ready: bool = False


class NoDecodersError(TcaError):
    """No decoder can be started; another process may have more luck.

    Attributes:
        why: a sentence without its full stop.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; run the command again.")
        self.why = why


class Decoders:
    """Decoding processes; a context manager, and an iterator over `Batch` in the order wanted.

    Every batch has to be given back: decoding stops when all buffers are in use.

    Attributes:
        processes: how many videos are decoded at once.
    """

    def __init__(
        self,
        wanted: Iterable[Wanted],
        buffers: BatchBuffers,
        settings: Settings,
        *,
        processes: int,
        seconds: float,
        draw: Draw = draw,
    ) -> None:
        """Start the process that decoders are forked from.

        Args:
            wanted: read ahead of use, by the thread that iterates.
            buffers: not created yet.
            settings: how videos are decoded.
            processes: how many videos are decoded at once.
            seconds: a video that takes longer times out.
            draw: decodes one video, in a decoder; importable by name.
        """
        self.processes = processes
        self._wanted, self._seconds = iter(wanted), seconds
        self._arguments = buffers, settings, draw
        self._memory, self._buffers = buffers.create()
        # The caller's: buffers that are free, and batches that are on their way.
        self._free = list(range(buffers.slots))
        self._coming = 0
        self._asked_for_all = False
        # Between the caller and the thread.
        self._posted: queue.SimpleQueue[tuple[Batch, list[Task]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._woken, self._wake = (Connection(s.detach()) for s in socket.socketpair())
        self._closing = False
        # The thread's.
        self._begun: deque[Batch] = deque()
        self._waiting: deque[_Assignment] = deque()
        self._alive: list[_Process] = []
        self._nursery = shared_nursery()
        self._thread = threading.Thread(target=self._run, name="tca-decoders", daemon=True)

    def __enter__(self) -> Decoders:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self._wake.send_bytes(b"")
        self._thread.join()
        self._wake.close()
        self._woken.close()
        os.close(self._memory)

    def __iter__(self) -> Iterator[Batch]:
        self._fill()
        while self._coming:
            batch = self._done.get()
            if isinstance(batch, BaseException):
                raise batch
            self._coming -= 1
            yield batch
            self._fill()
        if not self._asked_for_all:
            raise RuntimeError("all buffers are in use, and none was given back")

    def give_back(self, batch: Batch) -> None:
        """Let the buffers of a batch be filled with another one."""
        self._free.append(batch._slot)

    def _fill(self) -> None:
        """Ask for a batch for every buffer that is free."""
        while self._free and not self._asked_for_all:
            wanted = next(self._wanted, None)
            if wanted is None:
                self._asked_for_all = True
                return
            slot = self._free.pop()
            outcomes = [wanted.failed.get(place) for place in range(len(wanted.rows))]
            which = wanted.shard, wanted.rows, wanted.last
            pixels = self._buffers.batch(slot)
            batch = Batch(*which, *pixels, outcomes, 0.0, slot, len(wanted.tasks))
            filled = {place for task in wanted.tasks for place, _ in task.views}
            for place in set(range(self._buffers.batch_size)) - filled:
                self._buffers.clear(slot, place)
            self._coming += 1
            self._posted.put((batch, [replace(task, slot=slot) for task in wanted.tasks]))
            self._wake.send_bytes(b"")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._begin()
                self._hand_out()
                self._listen()
        except OSError as error:
            self._done.put(NoDecodersError(f"the process that starts decoders died ({error})"))
        except BaseException as error:
            self._done.put(error)
        finally:
            for process in list(self._alive):
                # A nursery that is gone took them along.
                with suppress(OSError):
                    self._kill(process)

    def _begin(self) -> None:
        while True:
            try:
                batch, tasks = self._posted.get_nowait()
            except queue.Empty:
                break
            self._waiting.extend(_Assignment(task, batch) for task in tasks)
            self._begun.append(batch)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._begun and not self._begun[0]._open:
            self._done.put(self._begun.popleft())

    def _hand_out(self) -> None:
        while self._waiting:
            least = min(self._alive, key=lambda p: len(p.assignments), default=None)
            if (least is None or least.assignments) and len(self._alive) < self.processes:
                least = self._start()
            if least is None or len(least.assignments) >= TASKS:
                return
            if not least.assignments:
                least.since = time.monotonic()
            least.assignments.append(self._waiting.popleft())
            # Of one that is dead we hear soon.
            with suppress(OSError):
                least.connection.send(least.assignments[-1].task)

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = theirs.fileno(), self._memory
            number = self._nursery.fork(serve, fds, *self._arguments)
        process = _Process(number, Connection(ours.detach()))
        self._alive.append(process)
        return process

    def _listen(self) -> None:
        """Wait for an answer, a death, a video that is late, or a buffer given back."""
        before = time.monotonic()
        busy = [process for process in self._alive if process.assignments]
        due = [self._due(process) - before for process in busy]
        timeout = max(0.0, min([TICK_S, *due])) if busy else None
        ready = wait([self._woken, *(p.connection for p in self._alive)], timeout)
        asleep = time.monotonic() - before - TICK_S
        if asleep > TICK_S:
            # All of us were stopped, by Ctrl-Z for instance; that is no video's fault.
            for process in busy:
                process.since += asleep
        if self._woken in ready:
            self._woken.recv_bytes()
        for process in [p for p in self._alive if p.connection in ready]:
            try:
                message = process.connection.recv_bytes()
            except (EOFError, OSError):
                self._bury(process)
            else:
                self._heard(process, message)
        for process in list(self._alive):
            if process.assignments and time.monotonic() >= self._due(process):
                self._end(process)

    def _due(self, process: _Process) -> float:
        return process.since + (self._seconds if process.ready else START_S)

    def _heard(self, process: _Process, message: bytes) -> None:
        process.since = time.monotonic()
        if not process.ready:
            process.ready = True
            return
        seconds, status, reason = json.loads(message)
        error = None if status == Status.OK else VideoError(Status(status), reason)
        self._settle(process.assignments.popleft(), error, seconds)

    def _end(self, process: _Process) -> None:
        """Kill a decoder whose video is late."""
        self._kill(process)
        if not process.ready:
            raise NoDecodersError(f"the decoding processes do not start within {START_S:g} seconds")
        late = process.assignments.popleft()
        self._waiting.extendleft(reversed(process.assignments))
        reason = f"decoding it takes over {self._seconds:g} seconds (extract.max_seconds)"
        self._settle(late, VideoError(Status.TIMED_OUT, reason), self._seconds)

    def _kill(self, process: _Process) -> None:
        os.kill(process.number, signal.SIGKILL)
        self._take_off(process)

    def _bury(self, process: _Process) -> None:
        """Replace a decoder that died, and try its video once more."""
        code = self._take_off(process)
        cause = f"of {signal.Signals(-code).name}" if code and code < 0 else f"with code {code}"
        if not process.ready:
            raise NoDecodersError(f"the decoding processes do not start: one died {cause}")
        if process.assignments:
            first = process.assignments[0]
            first.deaths += 1
            if first.deaths == ATTEMPTS:
                process.assignments.popleft()
                reason = f"its decoder died {cause}, and so did another one"
                self._settle(first, VideoError(Status.UNREADABLE, reason), 0.0)
        self._waiting.extendleft(reversed(process.assignments))

    def _take_off(self, process: _Process) -> int | None:
        self._alive.remove(process)
        process.connection.close()
        return self._nursery.exit_code(process.number)

    def _settle(self, assignment: _Assignment, error: VideoError | None, seconds: float) -> None:
        batch = assignment.batch
        batch.seconds += seconds
        batch._open -= 1
        if error is not None:
            for place, _ in assignment.task.views:
                batch.outcomes[place] = error
                # Whatever the decoder wrote there before.
                self._buffers.clear(batch._slot, place)
        self._pass_on()
