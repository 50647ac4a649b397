"""Passes over a store that train one model, or several at once: every batch is read once.

Whatever a step depends on is a function of the settings, of the number of the step and of what was
saved, so that a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
from tca.fusion.model.variant import STREAMS, fit_statistics
from tca.fusion.rows import Rows
from tca.fusion.train.augment import Augmentation
from tca.fusion.train.checkpoints import Progress, keep_epoch, load_state, saved_steps
from tca.fusion.train.hooks import EpochReport, StepReport
from tca.fusion.train.member import Inputs, Member, Step
from tca.fusion.train.run import Run, TrainingError
from tca.fusion.train.sampling import rows_of_epochs
from tca.fusion.train.screen import Screen
from tca.fusion.train.stack_choice import Choice, Trial, choose_stacks
from tca.fusion.train.stacked import Stack
from tca.fusion.train.world import World

STATISTICS_ROWS = 4096
"""Enough rows for the mean and deviation of a feature; each has hundreds of tokens."""

LOOK_EVERY = 20
"""Steps between looks at losses: each look makes a GPU wait."""

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
        self._unseen: list[_Unseen] = []
        self._groups: list[list[Run]] = []
        self._stacks: list[Stack] = []
        self._screen: Screen | None = None
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
        for step in sorted(common, reverse=True):
            found = [load_state(run.folder.path, step) for run in self.runs]
            states = [state for state in found if state is not None]
            if len(states) == len(self.runs):
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
        whole = self.config.epochs * self.loader.epoch_rows
        done = max((self._rows_done(run.progress) for run in self.runs), default=0)
        with ExitStack() as stack:
            for run in self.runs:
                stack.callback(run.end)
                run.begin()
            if self.world.leads:
                names = [run.name for run in self.runs]
                screen = Screen(names, self.config.epochs, whole, done, self.device)
                self._screen = stack.enter_context(screen)
            while active := [run for run in self.runs if _goes_on(run)]:
                self._one_epoch(active)

    def _rows_done(self, progress: Progress) -> int:
        return max(0, progress.epoch - 1) * self.loader.epoch_rows + progress.position

    def _one_epoch(self, runs: list[Run]) -> None:
        first = runs[0].progress
        # A state in the middle of an epoch goes on in it.
        epoch = first.epoch if 0 < first.position < self.loader.epoch_rows else first.epoch + 1
        if epoch != first.epoch:
            for run in runs:
                run.progress = replace(run.progress, epoch=epoch, position=0, losses=(0.0, 0))
        number = first.step
        last = number
        self._restack(runs)
        for batch, waited in _timed(self.loader.epoch(epoch, start=runs[0].progress.position)):
            began = time.perf_counter()
            label = batch.label.to(self.device, non_blocking=True)
            inputs, target = self.augmentation(
                self._inputs(batch, self.data.source), label, epoch, batch.first
            )
            before = runs[0].progress.position
            rows = batch.position - before
            steps = self._step(runs, inputs, target, rows, number)
            number += 1
            for run in runs:
                run.progress.step, run.progress.position = number, batch.position
            seconds = time.perf_counter() - began + waited
            self._unseen.append(_Unseen(epoch, number, batch, rows, steps, seconds, waited))
            if self._screen is not None:
                self._screen.advance(epoch, rows, seconds, waited)
            saves = self.config.save_steps or math.inf
            if (
                number - last >= LOOK_EVERY or number - self._saved_step >= saves
            ) and batch.position < self.loader.epoch_rows:
                last = number
                if not (runs := self._look(runs)):
                    return
                self._restack(runs)
                self._save_if_due(runs)
        runs = self._look(runs)
        for run in runs:
            self._end_epoch(run)
        self._save_if_due([run for run in runs if _goes_on(run)])

    def _step(
        self,
        runs: list[Run],
        inputs: dict[str, Tensor],
        target: Tensor,
        rows: int,
        number: int,
    ) -> list[Step]:
        """Have all `runs` learn from a batch; return what each step came to."""
        done: dict[Member, Step] = {}
        for stack in self._stacks:
            given = _read(stack.members[0], inputs)
            found = stack.step(given, target, rows, number, self.steps)
            done.update(zip(stack.members, found, strict=True))
        for member in (run.member for run in runs):
            if member not in done:
                given = _read(member, inputs)
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
        return Trial(_read(member, inputs), target)

    def _look(self, runs: list[Run]) -> list[Run]:
        """See what the steps since the last look came to, and tell the hooks.

        Returns:
            Those of `runs` whose losses and gradients are all numbers; the others have failed.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return runs
        for index, run in enumerate(runs):
            losses = torch.stack([one.steps[index].loss for one in unseen]).double()
            norms = torch.stack([one.steps[index].norm for one in unseen]).double()
            loss = self.world.sums(losses.tolist())
            norm = self.world.mean(norms).tolist()
            scaled = run.member.scaler.is_enabled()
            for one, a_loss, a_norm in zip(unseen, loss, norm, strict=True):
                # With scaling, a gradient that overflows skips its step and lowers the scale.
                if not (math.isfinite(a_loss) and (scaled or math.isfinite(a_norm))):
                    what = f"the loss is {a_loss}"
                    if math.isfinite(a_loss):
                        what = f"the length of the gradient is {a_norm}"
                    run.fail(self._broken(run, one, what))
                    break
            if run.failure is not None:
                continue
            total, count = run.progress.losses
            run.progress.losses = total + sum(loss), count + len(loss)
            reports = [
                StepReport(
                    one.epoch,
                    one.step,
                    a_loss,
                    a_norm,
                    one.steps[index].lr,
                    one.seconds,
                    one.waited,
                    one.rows,
                )
                for one, a_loss, a_norm in zip(unseen, loss, norm, strict=True)
            ]
            if self._screen is not None:
                self._screen.told(run.name, reports[-1])
            run.told(reports)
        return [run for run in runs if run.failure is None]

    def _broken(self, run: Run, one: _Unseen, what: str) -> TrainingError:
        store = self.data.source.store
        ids = [store.ids[row] for row in one.batch.rows[:8].tolist()]
        more = len(one.batch.rows) - len(ids)
        videos = ", ".join(ids) + (f" and {more} more" if more > 0 else "")
        return self._diverged(
            run, f"{what} in epoch {one.epoch}, step {one.step}, of the videos {videos}"
        )

    def _diverged(self, run: Run, what: str) -> TrainingError:
        progress = run.progress
        good = "no weights were kept before it"
        if (run.folder.path / "best.safetensors").is_file():
            good = f"the last good weights are best.safetensors, of epoch {progress.best_epoch}"
        return TrainingError(
            f"{what}: training has diverged; {good}; lower train.lr (now "
            f"{run.member.config.lr:g}) or set train.precision=float32."
        )

    def _end_epoch(self, run: Run) -> None:
        progress, config = run.progress, run.member.config
        top1: float | None = None
        loss: float | None = None
        better = True
        if len(self.data.held):
            top1, loss = self.score(run.member)
            if not math.isfinite(loss):
                run.fail(
                    self._diverged(
                        run, f"the loss on the holdout is {loss} after epoch {progress.epoch}"
                    )
                )
                return
            best = -1.0 if progress.best_top1 is None else progress.best_top1
            worst = math.inf if progress.best_loss is None else progress.best_loss
            # Equal shares are common on small holdouts; the loss tells them apart.
            better = (top1, -loss) > (best, -worst)
            if better:
                progress.best_top1, progress.best_loss = top1, loss
            if config.schedule == "plateau" and run.member.plateau.saw(loss):
                note(f"{run.folder.path.name}: the holdout's loss no longer falls; lr lowered.")
        elif not all(bool(weights.isfinite().all()) for weights in run.member.scored.parameters()):
            run.fail(self._diverged(run, f"weights are no numbers after epoch {progress.epoch}"))
            return
        if better:
            progress.best_epoch = progress.epoch
        if self.world.leads:
            self._keep(run, top1, loss, better)
        report = EpochReport(
            epoch=progress.epoch,
            step=progress.step,
            train_loss=progress.train_loss,
            holdout_top1=top1,
            holdout_loss=loss,
            best_epoch=progress.best_epoch,
        )
        if self._screen is not None:
            self._screen.told_epoch(run.name, report)
        if run.told_epoch(report):
            note(f"{run.folder.path.name}: a hook asked for the end after epoch {progress.epoch}.")
            run.finish(held=bool(len(self.data.held)))
        elif progress.epoch - progress.best_epoch >= config.patience:
            note(
                f"{run.folder.path.name}: no better epoch than {progress.best_epoch} in the last "
                f"{config.patience}; stopped early."
            )
            run.finish(held=bool(len(self.data.held)))
        elif progress.epoch >= config.epochs:
            run.finish(held=bool(len(self.data.held)))

    def _keep(self, run: Run, top1: float | None, loss: float | None, better: bool) -> None:
        progress = run.progress
        weights = run.member.scored.state_dict()
        if better and len(self.data.held):
            run.folder.save("best", weights)
        if run.member.config.keep > 1:
            # Without a holdout the latest are the best.
            judged = (0.0, -float(progress.epoch)) if top1 is None or loss is None else (top1, loss)
            progress.kept.append([*judged, float(progress.epoch)])
            keep_epoch(run.folder.path, progress, weights, run.member.config.keep)

    def _save_if_due(self, runs: list[Run]) -> None:
        now = time.monotonic()
        if self.config.save_steps is not None:
            due = any(
                run.progress.step - self._saved_step >= self.config.save_steps for run in runs
            )
        else:
            due = now - self._saved >= SAVE_EVERY_S
        if not due:
            return
        self._saved = now
        for run in runs:
            self._saved_step = run.progress.step
            run.save()

    def score(self, member: Member) -> tuple[float, float]:
        """Return top-1 and cross-entropy on the held-out rows."""
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in self.held_loader.epoch(0):
            if len(batch.rows):
                inputs = _read(member, self._inputs(batch, self.data.held_source))
                totals += member.score(inputs, batch.label.to(self.device))
        right, loss = self.world.sums(totals.tolist())
        return right / len(self.data.held), loss / len(self.data.held)

    def _inputs(self, batch: Batch, source: RowSource) -> dict[str, Tensor]:
        return {name: batch.features(name, self.device) for name in source.streams}

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
            yield self._inputs(batch, source)


@dataclass(frozen=True)
class _Unseen:
    """A step whose numbers are still on the device; `steps` holds one a run."""

    epoch: int
    step: int
    batch: Batch
    rows: int
    steps: list[Step]
    seconds: float
    waited: float


def _goes_on(run: Run) -> bool:
    return not run.progress.finished and run.failure is None


def _read(member: Member, inputs: dict[str, Tensor]) -> Inputs:
    streams = member.model.streams
    semantic, motion = (inputs[name] if name in streams else None for name in STREAMS)
    return semantic, motion


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield every batch with the seconds that were waited for it."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began
