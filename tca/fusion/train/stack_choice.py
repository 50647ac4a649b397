"""Which runs of a training step as one batched model: what was asked for, or what is faster here.

Stacking pays where starting an operation costs more than the operation: with small models, and on
GPUs. Nothing but a measurement tells, and it comes before the first step: a stack's losses are
those of separate steps only up to rounding, so a training keeps to what it began with.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tca.cache.memory import available_memory
from tca.console import note
from tca.device import out_of_memory
from tca.fusion.train.member import Inputs, Member
from tca.fusion.train.run import Run
from tca.fusion.train.stacked import Stack, alike

Choice = Literal["auto", "on", "off"]

WORTH = 1.1
"""How many times as fast a stack has to be: less is not worth another rounding."""

ROUNDS = 20

ENOUGH_S = 2.0
"""Seconds of measuring after which no further round begins."""


class Trial(NamedTuple):
    """A batch to measure with.

    Attributes:
        inputs: semantic and motion, on the device.
        target: as for `fusion_loss`.
    """

    inputs: Inputs
    target: Tensor


def choose_stacks(
    runs: Sequence[Run],
    choice: Choice,
    trial: Callable[[Member], Trial],
    *,
    begun: bool,
) -> list[list[Run]]:
    """Return the runs that step as one, those of a stack together; written into their `run.json`.

    Args:
        runs: of a training, of one process; their members have begun.
        choice: `auto` measures, or keeps to what a training that goes on began with.
        trial: gives a batch for a member to be measured with; asked only if need be.
        begun: whether the training goes on after some steps.
    """
    if runs[0].member.world.size > 1:
        return []
    groups = []
    for indices in alike([(run.member.model_config, run.member.config) for run in runs]):
        group = [runs[index] for index in indices]
        members = [run.member for run in group]
        if choice == "auto" and not begun:
            stacked = _pays(members, trial(members[0]))
        else:
            stacked = choice == "on" or (choice == "auto" and all(run.stacked for run in group))
            if stacked:
                note(f"{len(group)} members step as one batched model.")
        if stacked:
            groups.append(group)
        for run in group:
            if choice != "off" or run.stacked:
                run.settle(stacked=stacked)
    return groups


def seconds_each_way(members: Sequence[Member], trial: Trial) -> list[tuple[float, float]]:
    """Return how long a step of all `members` takes one by one, and as a stack, some rounds of it.

    The members are left as they were.

    Raises:
        RuntimeError: not enough memory for it.
    """
    batch = (*trial, len(trial.target), 0, 1)
    device = members[0].device
    rounds = []
    began = time.perf_counter()
    with _left_as_they_were(members), _stacked(members) as stack:
        for _ in range(ROUNDS):
            separate = _seconds(device, lambda: [one.step(*batch) for one in members])
            rounds.append((separate, _seconds(device, lambda: stack.step(*batch))))
            if time.perf_counter() - began > ENOUGH_S:
                break
    # What is done for the first time takes longer.
    return rounds[1:] or rounds


def _pays(members: Sequence[Member], trial: Trial) -> bool:
    """Measure, and say what was found."""
    count = len(members)
    try:
        fits = _fit(members, trial)
        rounds = seconds_each_way(members, trial) if fits else []
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        fits = False
    if not fits:
        note(f"{count} members step one by one: memory is short for one batched model of them.")
        return False
    times = statistics.median(separate / together for separate, together in rounds)
    if times < WORTH:
        note(f"{count} members step one by one: one batched model is {times:.2f} times as fast.")
        return False
    note(f"{count} members step as one batched model, {times:.2f} times as fast as one by one.")
    return True


def _fit(members: Sequence[Member], trial: Trial) -> bool:
    """Tell whether what all members keep of a step at once takes at most half of the memory.

    A GPU without room says so by itself; a system without room ends the process.
    """
    first = members[0]
    if first.device.type != "cpu":
        return True
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _left_as_they_were([first]), saved_tensors_hooks(keep, lambda tensor: tensor):
        first.step(*trial, len(trial.target), 0, 1)
    return len(members) * sum(kept.values()) <= available_memory() / 2


@contextmanager
def _left_as_they_were(members: Sequence[Member]) -> Iterator[None]:
    """Put the members' states back at the end."""
    before = []
    for member in members:
        tensors, numbers = member.state()
        before.append(({name: tensor.clone() for name, tensor in tensors.items()}, numbers))
    try:
        yield
    finally:
        for member, state in zip(members, before, strict=True):
            member.restore(*state)


@contextmanager
def _stacked(members: Sequence[Member]) -> Iterator[Stack]:
    stack = Stack(members)
    try:
        yield stack
    finally:
        stack.dissolve()


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
