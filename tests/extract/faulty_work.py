"""Shard workers with faults, for engines: processes import them from here."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import torch

from tca.extract.backbones.pair import Backbones
from tca.extract.nursery import shared_nursery
from tca.extract.worker import Job, Progress, Report, work

BAD_SHARD = 1


def slow(job: Job, backbones: Backbones, shards: Iterable[int], report: Report) -> None:
    """Work, and leave one's process number beside the store in the middle of a shard."""

    def slowly(progress: Progress) -> None:
        job.store.with_name("pid").write_text(str(os.getpid()))
        report(progress)
        time.sleep(0.3)

    work(job, backbones, shards, slowly)


def dies_at_one_shard(
    job: Job, backbones: Backbones, shards: Iterable[int], report: Report
) -> None:
    """Kill one's process when asked for `BAD_SHARD`, as soon as it is the next to be made."""

    def until_then() -> Iterator[int]:
        for shard in shards:
            if shard == BAD_SHARD:
                os.kill(os.getpid(), signal.SIGSEGV)
            yield shard

    work(job, backbones, until_then(), report)


def loses_its_device_once(
    job: Job, backbones: Backbones, shards: Iterable[int], report: Report
) -> None:
    """Fail as a GPU does that fell off the bus, the first time."""
    mark = job.store.with_name("lost")
    if not mark.exists():
        mark.touch()
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore lines")
    work(job, backbones, shards, report)


def loses_its_nursery_once(
    job: Job, backbones: Backbones, shards: Iterable[int], report: Report
) -> None:
    """Lose, the first time, the process that decoders are forked from, in the middle of a shard."""
    mark = job.store.with_name("lost")

    def killing(progress: Progress) -> None:
        if not mark.exists():
            mark.touch()
            os.kill(shared_nursery()._process.pid, signal.SIGKILL)
        report(progress)

    work(job, backbones, shards, killing)


def has_a_bug(job: Job, backbones: Backbones, shards: Iterable[int], report: Report) -> None:
    """Fail as no user can cause."""
    raise KeyError(f"no such key for {next(iter(shards))}")


class DiesAtOnce:
    """A worker whose process ends while it starts."""

    def __reduce__(self) -> tuple[object, ...]:
        return _end, (7,)


def _end(code: int) -> NoReturn:
    os._exit(code)


def killer_of_one(store: Path, report: Report) -> Report:
    """Return a report that kills, once, a worker that is in the middle of a shard."""
    killed: list[int] = []

    def reported(progress: Progress) -> None:
        if progress.rows and not killed:
            killed.append(int(store.with_name("pid").read_text()))
            os.kill(killed[0], signal.SIGKILL)
        report(progress)

    return reported
