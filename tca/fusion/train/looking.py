"""What steps came to: their losses lie on the device, and are looked at some steps at a time.

A look makes a GPU wait; so the screen and the hooks are told late, and a loss that is no number
stops a training some steps after it came about.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tca.cache.store import Store
from tca.fusion.rows import Rows
from tca.fusion.train.hooks import StepReport
from tca.fusion.train.member import Step
from tca.fusion.train.run import Run, TrainingError
from tca.fusion.train.screen import Screen
from tca.fusion.train.world import World

LEAST_SCALE = 2.0**-20
"""Scaling a loss by less does not help: from 2^16 it takes 36 steps in a row that overflow."""


@dataclass(frozen=True)
class Unseen:
    """A step whose numbers are still on the device.

    Attributes:
        epoch, number: of the step, both from 1.
        numbers: of this process's rows in the store. Not the batch: its memory is used again.
        rows: of the batch, in all processes.
        steps: what it came to, one a run.
        seconds: until the device had been given all of it, waiting included.
        waited: seconds of these for the batch.
    """

    epoch: int
    number: int
    numbers: Rows
    rows: int
    steps: list[Step]
    seconds: float
    waited: float


class Looks:
    """Keeps steps until they are looked at.

    Args:
        store: names the videos of a batch that went wrong.
        world: all processes look at the same time.
        screen: is told in the process that leads.
    """

    def __init__(self, store: Store, world: World, screen: Screen | None) -> None:
        self._store, self._world, self._screen = store, world, screen
        self._unseen: list[Unseen] = []
        self._began = 0.0

    def add(self, step: Unseen) -> None:
        """Keep a step."""
        if not self._unseen:
            self._began = time.perf_counter() - step.seconds
        self._unseen.append(step)

    def look(self, runs: list[Run]) -> list[Run]:
        """See what the steps since the last look came to, and tell the hooks.

        Args:
            runs: those that made the steps, in their order.

        Returns:
            Those of `runs` whose losses and gradients are all numbers; the others have failed.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return runs
        found = [self._numbers([one.steps[index] for one in unseen]) for index in range(len(runs))]
        # By now the device has done it all. How long it took for each step nobody knows; the shares
        # are those of the time for which it was given work.
        took = time.perf_counter() - self._began
        longer = took / max(sum(one.seconds for one in unseen), 1e-9)
        unseen = [replace(one, seconds=one.seconds * longer) for one in unseen]
        if self._screen is not None:
            for one in unseen:
                self._screen.timed(one.seconds, one.waited)
        for index, (run, (losses, norms)) in enumerate(zip(runs, found, strict=True)):
            rates = [one.steps[index].lr for one in unseen]
            self._tell(run, unseen, losses, norms, rates)
        return [run for run in runs if run.failure is None]

    def _numbers(self, steps: Sequence[Step]) -> tuple[list[float], list[float]]:
        """Return losses and lengths of gradients, of all processes; waits for the device."""
        losses = torch.stack([step.loss for step in steps]).double()
        norms = torch.stack([step.norm for step in steps]).double()
        return self._world.sums(losses.tolist()), self._world.mean(norms).tolist()

    def _tell(
        self,
        run: Run,
        unseen: Sequence[Unseen],
        losses: Sequence[float],
        norms: Sequence[float],
        rates: Sequence[float],
    ) -> None:
        scaler = run.member.scaler
        reports: list[StepReport] = []
        for one, loss, norm, rate in zip(unseen, losses, norms, rates, strict=True):
            what = ""
            if not math.isfinite(loss):
                what = f"the loss is {loss}"
            # With scaling, a gradient that overflows skips its step and lowers the scale.
            elif not math.isfinite(norm) and not scaler.is_enabled():
                what = f"the length of the gradient is {norm}"
            elif one is unseen[-1] and scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:
                what = f"the gradient is no number, with a loss scale of {scaler.get_scale():.0e}"
            if what:
                # The steps before it are told all the same: they show how it came about.
                run.told(reports)
                run.fail(self._broken(run, one, what))
                return
            reports.append(
                StepReport(
                    one.epoch, one.number, loss, norm, rate, one.seconds, one.waited, one.rows
                )
            )
        total, count = run.progress.losses
        run.progress.losses = total + sum(losses), count + len(losses)
        if self._screen is not None:
            self._screen.told(run.name, reports[-1])
        run.told(reports)

    def _broken(self, run: Run, one: Unseen, what: str) -> TrainingError:
        ids = self._world.gathered([self._store.ids[row] for row in one.numbers.tolist()])
        return diverged(
            run,
            f"{what} in epoch {one.epoch}, step {one.number}, of the videos {', '.join(ids)}",
        )


def diverged(run: Run, what: str) -> TrainingError:
    """Return the failure of a run of which `what` is no number."""
    good = "no weights were kept before it"
    if (run.folder.path / "best.safetensors").is_file():
        good = f"the last good weights are best.safetensors, of epoch {run.progress.best_epoch}"
    return TrainingError(
        f"{what}: training has diverged; {good}; lower train.lr (now "
        f"{run.member.config.lr:g}) or set train.precision=float32."
    )
