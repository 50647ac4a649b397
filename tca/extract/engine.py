"""The local engine: one process a device, always.

What kills a process (the system out of memory, a driver, a library) then kills a worker, which is
replaced, and never the run. Which worker makes a shard changes none of its bytes.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from tca.cache.writer import StoreWriter
from tca.extract.crew import Worker, lead
from tca.extract.handout import Handout, exit_words
from tca.extract.serve import STOP, Answer, Ask, Lost, Message, Stopped, Work, serve
from tca.extract.server import server_context, without_ctrl_c
from tca.extract.worker import Job, Report, decoding_threads, work
from tca.lifeline import die_with


def run_local(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
    """Make and commit `shards` on `devices`, calling `report` here after every batch.

    Args:
        job: what to make.
        shards: the shards to do.
        devices: torch device names, a worker each; a name may repeat.
        report: called with what was done since the last call, on any device, and with nothing done
            when a worker is ready.

    Raises:
        TcaError: a store that cannot be written, or a worker that died once too often; committed
            shards stay.
        KeyboardInterrupt: Ctrl-C, after the current batch.
    """
    # As many threads as ever, however little is left to do: sums depend on their number.
    job = shared_out(job, len(devices))
    threads = max(1, torch.get_num_threads() // len(devices))

    def hire(number: int) -> Worker:
        return _Process(job, devices[number], threads if devices[number] == "cpu" else None)

    handout = Handout(StoreWriter(job.store), shards)
    lead(handout, min(len(devices), len(shards)), hire, _wait, report)


def shared_out(job: Job, workers: int) -> Job:
    """Return `job` with the cores shared out among the decoding threads of all workers."""
    extract = job.config.extract
    if extract.threads or workers == 1:
        return job
    shared = extract.model_copy(update={"threads": max(1, decoding_threads() // workers)})
    return replace(job, config=job.config.model_copy(update={"extract": shared}))


class _Process:
    """A worker in a process of this machine."""

    def __init__(self, job: Job, device: str, threads: int | None) -> None:
        context = server_context()
        self.name = device
        self.pipe, theirs = context.Pipe()
        arguments = (work, job, device, threads, theirs, os.getcwd())
        # No daemon: it has processes of its own.
        self.process = context.Process(target=_run, args=arguments, name=f"tca-{device}")
        with without_ctrl_c():
            self.process.start()
        theirs.close()
        self._stopped = False

    def messages(self) -> list[Message]:
        found: list[Message] = []
        # It may have died, perhaps in the middle of a message.
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                found.append(self.pipe.recv())
        return found

    def tell(self, answer: Answer) -> None:
        self._stopped = self._stopped or answer in (None, STOP)
        # If it died, `ended` will say so.
        with suppress(OSError):
            self.pipe.send(answer)

    def ended(self) -> str | None:
        if self.process.is_alive():
            return None
        code = self.process.exitcode
        return "" if code == 0 and self._stopped else exit_words(code)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _wait(workers: Collection[Any], seconds: float) -> None:
    pipes = [worker.pipe for worker in workers]
    sentinels = [worker.process.sentinel for worker in workers]
    multiprocessing.connection.wait([*pipes, *sentinels], seconds)


def _run(work: Work, job: Job, device: str, threads: int | None, pipe: Any, folder: str) -> None:
    """Be a worker: its process starts here."""
    _die_with_the_parent()
    # The folder in which relative paths start; a process begins in that of its first ancestor.
    os.chdir(folder)
    sending = threading.Lock()
    lost = False

    def send(message: Message) -> None:
        nonlocal lost
        lost = lost or isinstance(message, Lost)
        with sending:
            pipe.send(message)

    def answer() -> Answer:
        found: Answer = pipe.recv()
        if found == STOP:
            raise Stopped
        return found

    def asked(idle: bool) -> Answer:
        send(Ask(idle))
        return answer()

    def check() -> None:
        if pipe.poll():
            answer()

    serve(work, job, device, threads, send, asked, check)
    if lost:
        # A lost device cannot be tidied up, and trying to may hang.
        os._exit(1)


def _die_with_the_parent() -> None:
    """End this process when its parent or the server that forked it dies, whatever it does then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(os.getppid())
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="tca-parent", daemon=True).start()
