"""Which of the processes of one training this is; alone unless `torchrun` started it."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from tca.device import choose_device
from tca.errors import TcaError, UsageError
from tca.lifeline import die_with

PATIENCE = timedelta(minutes=10)
"""How long processes wait for one of them before they give up."""

TOGETHER = timedelta(seconds=5)
"""How far apart processes meet an error that all of them meet."""

Some = TypeVar("Some")


@dataclass(frozen=True)
class World:
    """One process among those of a training.

    Attributes:
        rank: its number.
        size: how many there are.
        device: what it computes on.
        again: whether `torchrun` started the processes anew after one of them had died.
        job: what one call of `torchrun` is known by, also after it has started its processes anew;
            None without `torchrun`.
    """

    rank: int
    size: int
    device: torch.device
    again: bool = False
    job: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of every process's numbers, the same in all of them."""
        if self.size == 1:
            return list(numbers)
        # GPUs of Apple apart, every backend adds float64.
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def mean(self, numbers: Tensor) -> Tensor:
        """Return the mean over processes, elementwise."""
        if self.size > 1:
            numbers = numbers.clone()
            dist.all_reduce(numbers)
            numbers /= self.size
        return numbers

    def gathered(self, some: list[Some]) -> list[Some]:
        """Return what all processes have, by rank; the same in all of them."""
        if self.size == 1:
            return some
        lists: list[list[Some]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, some)
        return [one for part in lists for one in part]

    def told(self, something: Some) -> Some:
        """Return what the leading process passes; the others' argument does not matter."""
        if self.size == 1:
            return something
        box = [something]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def launched() -> bool:
    """Tell whether `torchrun` started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, for as long as the block lasts.

    Args:
        device: as `train.device`; each process takes the GPU of its local rank.

    Raises:
        UsageError: a device that is not here, or fewer GPUs than processes.
        TcaError: another process has ended.
    """
    if not launched():
        yield World(0, 1, choose_device(device))
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Nothing would tell it that torchrun was killed: it would train on, unseen.
        die_with(os.getppid())
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = choose_device(device)
    if place.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; start as many processes as GPUs "
                "(torchrun --nproc-per-node)."
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    store, rank, size = next(rendezvous("env://", rank, size, timeout=PATIENCE))
    generation = _meet(store, rank, size)
    ours = PrefixStore(f"generation {generation}", store)
    dist.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        store=ours,
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    try:
        world = World(rank, size, place)
        # Neither tells of every restart: torchrun counts on the machine of the dead process alone,
        # and another machine's store begins anew.
        again = generation > 1 or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        again = world.sums([float(again)])[0] > 0
        with _told_once(ours, rank):
            yield replace(world, again=again, job=world.told(_job()))
    finally:
        dist.destroy_process_group()


def _job() -> str:
    """Return what tells this call of `torchrun` from others."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    # What torchrun says where it was given no name.
    return f"{socket.gethostname()} {os.getppid()}" if name == "none" else name


@contextmanager
def _told_once(store: Store, rank: int) -> Iterator[None]:
    """Keep quiet about an error that the leading process tells.

    Raises:
        TcaError: what is to be told; that another process has ended, for one.
        SystemExit: the leading process tells it.
    """
    try:
        try:
            yield
        except RuntimeError as error:
            if not _is_alone(error):
                raise
            if rank > 0 and _told_by_the_leading(store) is not None:
                raise SystemExit(1) from None
            raise TcaError(
                f"process {rank} ends, as another one has; what that one said tells why."
            ) from None
    except TcaError as error:
        if rank == 0:
            with suppress(RuntimeError):
                store.set("error", str(error))
        elif _told_by_the_leading(store) == str(error):
            raise SystemExit(error.exit_code) from None
        raise


def _told_by_the_leading(store: Store) -> str | None:
    """Return the error that the leading process meets at about this time; None if it meets none."""
    try:
        store.wait(["error"], TOGETHER)
        return store.get("error").decode()
    except RuntimeError:
        return None


def _is_alone(error: RuntimeError) -> bool:
    """Tell whether a process waited for another one in vain."""
    # NCCL's errors have a class of their own, those of gloo a place in its source.
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _meet(store: Store, rank: int, size: int) -> int:
    """Wait until all processes are here; return which start of theirs this is, from 1.

    torchrun's store outlives a restart: what a process that is back first finds in it may be of
    processes that are dead. So each brings a word of its own, and a list without it is an old one.

    Raises:
        DistError: one of them does not come.
    """
    if rank == 0:
        generation = store.add("generation", 1)
        words = [store.get(f"{generation} word {other}").decode() for other in range(1, size)]
        store.set(f"{generation} words", " ".join(words))
        return generation
    mine = uuid.uuid4().hex
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        generation = int(store.get("generation"))
        # One that this process did not take part in keeps its words.
        if not store.check([words_of := f"{generation} words"]):
            store.set(f"{generation} word {rank}", mine)
        elif mine in store.get(words_of).decode().split():
            return generation
        time.sleep(0.05)
    raise dist.DistError(f"process 0 of {size} did not come in {PATIENCE}")
