"""What steps came to: their losses lie on the device, and are looked at some steps at a time.

A look makes a GPU wait; so the screen and the hooks are told late, and a loss that is no number
stops a training some steps after it came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tca.cache.loader import Batch
from tca.cache.store import Store
from tca.fusion.train.hooks import StepReport
from tca.fusion.train.member import Step
from tca.fusion.train.run import Run, TrainingError
from tca.fusion.train.screen import Screen
from tca.fusion.train.world import World


@dataclass(frozen=True)
class Unseen:
    """A step whose numbers are still on the device.

    Attributes:
        epoch, number: of the step, both from 1.
        batch: this process's share.
        rows: of the batch, in all processes.
        steps: what it came to, one a run.
        seconds: that it took, waiting included.
        waited: seconds of these for the batch.
    """

    epoch: int
    number: int
    batch: Batch
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

    def add(self, step: Unseen) -> None:
        """Keep a step."""
        self._unseen.append(step)

    def look(self, runs: list[Run]) -> list[Run]:
        """See what the steps since the last look came to, and tell the hooks.

        Args:
            runs: those that made the steps, in their order.

        Returns:
            Those of `runs` whose losses and gradients are all numbers; the others have failed.
        """
        unseen, self._unseen = self._unseen, []
        if unseen:
            for index, run in enumerate(runs):
                self._look_at(run, unseen, [one.steps[index] for one in unseen])
        return [run for run in runs if run.failure is None]

    def _look_at(self, run: Run, unseen: Sequence[Unseen], steps: Sequence[Step]) -> None:
        losses = torch.stack([step.loss for step in steps]).double()
        norms = torch.stack([step.norm for step in steps]).double()
        loss = self._world.sums(losses.tolist())
        norm = self._world.mean(norms).tolist()
        scaled = run.member.scaler.is_enabled()
        for one, a_loss, a_norm in zip(unseen, loss, norm, strict=True):
            # With scaling, a gradient that overflows skips its step and lowers the scale.
            if not (math.isfinite(a_loss) and (scaled or math.isfinite(a_norm))):
                what = f"the loss is {a_loss}"
                if math.isfinite(a_loss):
                    what = f"the length of the gradient is {a_norm}"
                run.fail(self._broken(run, one, what))
                return
        total, count = run.progress.losses
        run.progress.losses = total + sum(loss), count + len(loss)
        reports = [
            StepReport(
                one.epoch, one.number, a_loss, a_norm, step.lr, one.seconds, one.waited, one.rows
            )
            for one, step, a_loss, a_norm in zip(unseen, steps, loss, norm, strict=True)
        ]
        if self._screen is not None:
            self._screen.told(run.name, reports[-1])
        run.told(reports)

    def _broken(self, run: Run, one: Unseen, what: str) -> TrainingError:
        ids = [self._store.ids[row] for row in one.batch.rows[:8].tolist()]
        more = len(one.batch.rows) - len(ids)
        videos = ", ".join(ids) + (f" and {more} more" if more > 0 else "")
        return diverged(
            run, f"{what} in epoch {one.epoch}, step {one.number}, of the videos {videos}"
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
