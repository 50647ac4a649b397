"""Leading workers, whatever engine they run on: answers them, replaces the dead, adds up progress.

Ctrl-C lets every worker end after its current batch; a second one ends them at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from tca.console import note, warn
from tca.extract.handout import Handout
from tca.extract.serve import STOP, Answer, Ask, Failed, Lost, Message, Ready
from tca.extract.worker import Progress, Report

POLL_S = 0.5
"""Seconds between looks at what no message tells."""


class Worker(Protocol):
    """A worker in a process of its own."""

    name: str
    """Where it works, for messages."""

    def messages(self) -> list[Message]:
        """Return what it has sent since the last call."""

    def tell(self, answer: Answer) -> None:
        """Answer its `Ask`; `STOP` may be told at any time."""

    def ended(self) -> str | None:
        """Return how it ended: "" as it should, None if it has not."""

    def kill(self) -> None:
        """End it at once if it has not ended, and wait until it is gone."""


def lead(
    handout: Handout,
    count: int,
    hire: Callable[[int], Worker],
    wait: Callable[[Collection[Worker], float], None],
    report: Report,
) -> None:
    """Let `count` workers make all that `handout` has.

    Args:
        handout: the shards.
        count: how many at once.
        hire: starts the worker of a number.
        wait: returns when one of some workers has sent something or ended, or after seconds.
        report: called here after every batch, with the rows of a dead worker taken back.

    Raises:
        TcaError: a worker that failed, or died once too often; committed shards stay.
        KeyboardInterrupt: Ctrl-C, when all have ended.
    """
    crew: dict[int, Worker] = {}
    ready: set[int] = set()
    how: dict[int, str] = {}
    told = False

    def hear(number: int, message: Message) -> None:
        if isinstance(message, Progress):
            handout.reported(number, message.rows)
            report(message)
        elif isinstance(message, Ready):
            ready.add(number)
            report(Progress())
        elif isinstance(message, Ask):
            crew[number].tell(STOP if told else handout.ask(number, idle=message.idle))
        elif isinstance(message, Lost):
            how[number] = message.how
        elif isinstance(message, Failed):
            raise message.error

    try:
        with _ctrl_c() as asked_to_stop:
            for number in range(count):
                crew[number] = hire(number)
            while crew:
                wait(crew.values(), POLL_S)
                if asked_to_stop() and not told:
                    told = True
                    note("stopping after the current batch; Ctrl-C again stops at once.")
                    for number, worker in crew.items():
                        # One that loads its backbones has nothing to finish.
                        if number in ready:
                            worker.tell(STOP)
                        else:
                            worker.kill()
                for number, worker in list(crew.items()):
                    # Asked first, so that what it sent before it ended is heard.
                    ended = worker.ended()
                    for message in worker.messages():
                        hear(number, message)
                    if ended is None:
                        continue
                    del crew[number]
                    ready.discard(number)
                    worker.kill()
                    ended = how.pop(number, ended)
                    if ended and not told:
                        lost = handout.died(number, worker.name, ended)
                        report(Progress(rows=-lost))
                        if handout.left:
                            warn(f"the worker on {worker.name} {ended}; another takes its place.")
                            crew[number] = hire(number)
            if told:
                raise KeyboardInterrupt
    finally:
        for worker in crew.values():
            worker.kill()


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C came; a second one raises KeyboardInterrupt."""
    came = False

    def note_it(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        # Somebody else's, or ignored, as for jobs in the background.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note_it)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, usual)
