"""Passes over a store that train one model, or several at once: every batch is read once.

Whatever a step depends on is a function of the settings, of the number of the step and of what was
saved, so that a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tca.cache.config import LoaderConfig
from tca.cache.loader import Batch, Loader
from tca.cache.residency import RowSource
from tca.console import note
from tca.errors import TcaError
from tca.fusion.model.variant import fit_statistics
from tca.fusion.rows import Rows
from tca.fusion.train.augment import Augmentation
from tca.fusion.train.checkpoints import Progress, load_state, saved_steps
from tca.fusion.train.judging import Judge
from tca.fusion.train.looking import Looks, Unseen
from tca.fusion.train.member import Member, Step
from tca.fusion.train.run import Run
from tca.fusion.train.sampling import rows_of_epochs
from tca.fusion.train.screen import Screen
from tca.fusion.train.stack_choice import Choice, Trial, choose_stacks
from tca.fusion.train.stacked import Stack
from tca.fusion.train.world import World

STATISTICS_ROWS = 4096
"""Enough rows for the mean and deviation of a feature; each has hundreds of tokens."""

LOOK_EVERY = 20
"""Steps between looks at what they came to."""

SAVE_EVERY_S = 60.0
"""Seconds between saves of all that a resume needs, unless steps are counted."""


@dataclass(frozen=True)
class Data:
    """The rows of a training.

    Attributes:
        source: where training rows come from.
        fit: rows to train on.
        held_source: where rows that choose the best checkpoint come from.
        held: these rows; may be empty.
    """

    source: RowSource
    fit: Rows
    held_source: RowSource
    held: Rows


class Training:
    """A pass after a pass over the training rows, for one run or several.

    Args:
        data: the rows.
        runs: they agree in everything that concerns the rows: batch size, epochs, `seed.data`.
        loader: how rows are read, and in what order.
        world: this process among those of the training.
        stack: whether members that can be one batched model are.

    Either `start` or `resume` comes before `go`.
    """

    def __init__(
        self,
        data: Data,
        runs: Sequence[Run],
        loader: LoaderConfig,
        world: World,
        stack: Choice = "off",
    ) -> None:
        self.data, self.runs, self.world, self.stack = data, list(runs), world, stack
        config = self.config = runs[0].member.config
        self.device = world.device
        of_store = partial(
            Loader, seed=config.seed.data, config=loader, rank=world.rank, world_size=world.size
        )
        store = data.source.store
        self.loader = of_store(
            store,
            data.fit,
            config.batch_size,
            source=data.source,
            rows_of=rows_of_epochs(store, data.fit, config),
        )
        self.augmentation = Augmentation(
            config.augment, config.seed.data, data.source.streams, len(store.classes)
        )
        self.held_loader = of_store(
            data.held_source.store,
            data.held,
            config.batch_size,
            shuffle=False,
            source=data.held_source,
        )
        self.loader_config = loader
        self.steps = config.epochs * len(self.loader)
        self._groups: list[list[Run]] = []
        self._stacks: list[Stack] = []
        self._saved, self._saved_step = time.monotonic(), 0

    def start(self) -> None:
        """Begin with step 0.

        Raises:
            TcaError: features that are no finite numbers, or a row that cannot be read.
        """
        self._fit_statistics()
        for run in self.runs:
            run.member.begin()

    def resume(self) -> bool:
        """Take over the newest states that all runs have; False if there are none.

        A damaged one is told and passed over.

        Raises:
            TcaError: they are of other models.
        """
        common = set.intersection(*(set(saved_steps(run.folder.path)) for run in self.runs))
        # Network file systems may show processes different files: all go on from one step.
        for step in self.world.told(sorted(common, reverse=True)):
            found = [load_state(run.folder.path, step) for run in self.runs]
            states = [state for state in found if state is not None]
            if self.world.sums([float(len(self.runs) - len(states))]) == [0.0]:
                for run, state in zip(self.runs, states, strict=True):
                    run.restore(*state)
                self._saved_step = step
                note(f"going on after step {step} of {self.steps}.")
                return True
        return False

    def go(self) -> None:
        """Run all epochs, or stop early; writes checkpoints and logs into the run folders.

        A run that diverges holds its `failure`, and the others go on.
        """
        if self.augmentation.needs_statistics:
            # Not saved: of the same rows they come out the same.
            self.augmentation.fit(self._sample())
        begun = any(run.progress.step for run in self.runs)
        self._groups = choose_stacks(self.runs, self.stack, self._trial, begun=begun)
        if not (active := [run for run in self.runs if _goes_on(run)]):
            return
        epoch, position = self._place(active[0].progress)
        with ExitStack() as stack:
            for run in self.runs:
                stack.push(run.end)
                run.begin()
            screen = None
            if self.world.leads:
                names, epochs = [run.name for run in self.runs], self.config.epochs
                rows = self.loader.epoch_rows
                done = (epoch - 1) * rows + position
                screen = Screen(names, epochs, epochs * rows, done, self.device)
                stack.enter_context(screen)
            looks = Looks(self.data.source.store, self.world, screen)
            judge = Judge(self.held_loader, self.world, screen)
            epochs_left = range(epoch, self.config.epochs + 1)
            batches = stack.enter_context(closing(self.loader.epochs(epochs_left, position)))
            for epoch in epochs_left:
                self._one_epoch(epoch, active, _timed(batches), looks, screen)
                judge.end_epoch([run for run in active if run.failure is None])
                before = len(active)
                if not (active := [run for run in active if _goes_on(run)]):
                    return
                self._save_if_due(active, fewer=len(active) < before)
            # There is nothing left where a run was edited to have fewer epochs than it has done.
            for run in active:
                run.finish(held=bool(len(self.data.held)))

    def _place(self, progress: Progress) -> tuple[int, int]:
        """Return the epoch that comes next, and the rows of it that have been used."""
        # A state in the middle of an epoch goes on in it.
        if 0 < progress.position < self.loader.epoch_rows:
            return progress.epoch, progress.position
        return progress.epoch + 1, 0

    def _one_epoch(
        self,
        epoch: int,
        runs: list[Run],
        batches: Iterator[tuple[Batch, float]],
        looks: Looks,
        screen: Screen | None,
    ) -> None:
        """Take the `batches` of an epoch, or what is left of it."""
        if epoch != runs[0].progress.epoch:
            for run in runs:
                run.progress = replace(run.progress, epoch=epoch, position=0, losses=(0.0, 0))
        last = number = runs[0].progress.step
        self._restack(runs)
        for batch, waited in batches:
            began = time.perf_counter()
            label = batch.label.to(self.device, non_blocking=True)
            features, target = self.augmentation(
                batch.streams(self.device), label, epoch, batch.first
            )
            rows = batch.position - runs[0].progress.position
            steps = self._step(runs, features, target, rows, number)
            number += 1
            for run in runs:
                run.progress.step, run.progress.position = number, batch.position
            seconds = time.perf_counter() - began + waited
            looks.add(Unseen(epoch, number, batch.rows, rows, steps, seconds, waited))
            if screen is not None:
                screen.advance(epoch, rows)
            if batch.position == self.loader.epoch_rows:
                break
            saves = self.config.save_steps or math.inf
            if number - last >= LOOK_EVERY or number - self._saved_step >= saves:
                last, before = number, len(runs)
                if not (runs := looks.look(runs)):
                    return
                self._restack(runs)
                self._save_if_due(runs, fewer=len(runs) < before)
        looks.look(runs)

    def _step(
        self,
        runs: list[Run],
        features: dict[str, Tensor],
        target: Tensor,
        rows: int,
        number: int,
    ) -> list[Step]:
        """Have all `runs` learn from a batch; return what each step came to."""
        done: dict[Member, Step] = {}
        for stack in self._stacks:
            given = stack.members[0].reads(features)
            found = stack.step(given, target, rows, number, self.steps)
            done.update(zip(stack.members, found, strict=True))
        for member in (run.member for run in runs):
            if member not in done:
                given = member.reads(features)
                done[member] = member.step(given, target, rows, number, self.steps)
        return [done[run.member] for run in runs]

    def _restack(self, runs: list[Run]) -> None:
        """Have those of `runs` that step as one in a stack; who has ended leaves it."""
        groups = [[run.member for run in group if run in runs] for group in self._groups]
        groups = [members for members in groups if len(members) > 1]
        if groups != [stack.members for stack in self._stacks]:
            for stack in self._stacks:
                stack.dissolve()
            self._stacks = [Stack(members) for members in groups]

    def _trial(self, member: Member) -> Trial:
        """Return a batch as the member will see many."""
        inputs = next(self._sample())
        rows = len(next(iter(inputs.values())))
        label = torch.arange(rows, device=self.device) % len(self.data.source.store.classes)
        inputs, target = self.augmentation(inputs, label, epoch=1, first=0)
        return Trial(member.reads(inputs), target)

    def _save_if_due(self, runs: list[Run], *, fewer: bool) -> None:
        """Save, also where there are `fewer` runs now: a resume stacks those that it finds."""
        now = time.monotonic()
        if self.config.save_steps is not None:
            due = any(
                run.progress.step - self._saved_step >= self.config.save_steps for run in runs
            )
        else:
            due = now - self._saved >= SAVE_EVERY_S
        if not (due or fewer):
            return
        self._saved = now
        for run in runs:
            self._saved_step = run.progress.step
            run.save()

    def _fit_statistics(self) -> None:
        """Measure what each model is to standardise."""
        models = [run.member.model for run in self.runs]
        fit_statistics(models, ((i.get("semantic"), i.get("motion")) for i in self._sample()))
        numbers = (buffer for model in models for buffer in model.buffers())
        if not all(bool(torch.isfinite(buffer).all()) for buffer in numbers):
            raise TcaError(
                f"{self.data.source.store.path} holds features that are no finite numbers; "
                "extract it again, with extract.dtype=float32 if they are too large for "
                "float16."
            )

    def _sample(self) -> Iterator[dict[str, Tensor]]:
        """Yield enough of the training rows to measure features; every process sees the same."""
        generator = np.random.default_rng(self.config.seed.data)
        sample = np.sort(generator.permutation(self.data.fit)[:STATISTICS_ROWS])
        source = self.data.source
        loader = Loader(
            source.store,
            sample,
            self.config.batch_size,
            seed=0,
            shuffle=False,
            config=self.loader_config,
            source=source,
        )
        for batch in loader.epoch(0):
            yield batch.streams(self.device)


def _goes_on(run: Run) -> bool:
    return not run.progress.finished and run.failure is None


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield every batch with the seconds that were waited for it."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began
