"""The local engine: one process a device, or this process alone where there is one device.

Shards are handed out one at a time, so a slow device does fewer of them. Which worker makes a shard
changes none of its bytes.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from tca.errors import TcaError
from tca.extract.backbones.pair import Backbones
from tca.extract.worker import Job, Progress, Report, work

POLL_S = 0.5
"""Seconds between looks at whether all workers are alive."""


def run_local(
    job: Job, backbones: Backbones, shards: list[int], devices: list[str], report: Report
) -> None:
    """Make and commit `shards` on `devices`, calling `report` here after every batch.

    Args:
        job: what to make.
        backbones: loaded already; used where one device makes a second process needless.
        shards: the shards to do.
        devices: torch device names; a name may repeat.
        report: called with what was done since the last call, on any device.

    Raises:
        TcaError: a store that cannot be written, or a worker that died; committed shards stay.
    """
    if len(devices) == 1:
        work(job, backbones.to(torch.device(devices[0])), shards, report)
        return
    # Spawned, for CUDA does not survive a fork.
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue()
    for shard in shards:
        tasks.put(shard)
    for _ in devices:
        tasks.put(None)
    messages: Any = context.Queue()
    processes = [
        context.Process(
            target=_work_in_process, args=(job, device, tasks, messages, len(devices)), daemon=True
        )
        for device in devices
    ]
    try:
        for process in processes:
            process.start()
        _listen(processes, devices, messages, report)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()
        # Nothing waits for tasks that nobody will take.
        tasks.cancel_join_thread()


def _listen(
    processes: Sequence[BaseProcess], devices: list[str], messages: Any, report: Report
) -> None:
    working = set(range(len(processes)))
    while working:
        try:
            message = messages.get(timeout=POLL_S)
        except queue.Empty:
            for number in working:
                if not processes[number].is_alive() and messages.empty():
                    raise TcaError(
                        f"the worker on {devices[number]} died (exit code "
                        f"{processes[number].exitcode}); run the command again: it goes on with "
                        "the shards that are left."
                    ) from None
            continue
        if isinstance(message, Progress):
            report(message)
        elif isinstance(message, BaseException):
            raise message
        else:
            ended = next(n for n in working if processes[n].pid == message)
            working.remove(ended)


def _work_in_process(job: Job, device: str, tasks: Any, messages: Any, share: int) -> None:
    """Run one worker and send its progress, then its process number or its error."""
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if device == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // share))
        backbones = Backbones.load(job.config.semantic, job.config.motion, job.folder)
        work(job, backbones.to(torch.device(device)), _taken(tasks), messages.put)
        messages.put(multiprocessing.current_process().pid)
    except Exception as error:
        messages.put(_portable(error))


def _taken(tasks: Any) -> Iterator[int]:
    while (shard := tasks.get()) is not None:
        yield shard


def _portable(error: Exception) -> Exception:
    """Return an error that survives the way to the parent."""
    if isinstance(error, TcaError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
