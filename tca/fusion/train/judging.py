"""The end of an epoch: a model is scored, its better weights kept, and told whether to go on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tca.cache.loader import Loader
from tca.console import note
from tca.fusion.train.checkpoints import keep_epoch
from tca.fusion.train.hooks import EpochReport
from tca.fusion.train.looking import diverged
from tca.fusion.train.member import Member
from tca.fusion.train.run import Run
from tca.fusion.train.screen import Screen
from tca.fusion.train.world import World

Score = tuple[float, float]
"""Top-1, a share, and mean cross-entropy."""


class Judge:
    """Judges models by the rows that were held out of training.

    Args:
        loader: of the held-out rows; without any, the last weights are the best.
        world: this process among those of the training.
        screen: is told in the process that leads.
    """

    def __init__(self, loader: Loader, world: World, screen: Screen | None) -> None:
        self._loader, self._world, self._screen = loader, world, screen
        self._rows = loader.epoch_rows

    def end_epoch(self, runs: Sequence[Run]) -> None:
        """Score `runs` after an epoch, tell their hooks, and finish those that had their last one.

        The `failure` of a run is set if what is scored is no number.
        """
        scores: Sequence[Score | None] = [None] * len(runs)
        if self._rows and runs:
            scores = self.score([run.member for run in runs])
        for run, score in zip(runs, scores, strict=True):
            self._end_epoch(run, score)

    def score(self, members: Sequence[Member]) -> list[Score]:
        """Return top-1 and cross-entropy of each on the held-out rows, which are read once."""
        device = self._world.device
        totals = torch.zeros(len(members), 2, dtype=torch.float64, device=device)
        for batch in self._loader.epoch(0):
            if len(batch.rows):
                features, label = batch.streams(device), batch.label.to(device)
                for total, member in zip(totals, members, strict=True):
                    total += member.score(member.reads(features), label)
        numbers = self._world.sums(totals.flatten().tolist())
        return [
            (right / self._rows, loss / self._rows)
            for right, loss in zip(numbers[::2], numbers[1::2], strict=True)
        ]

    def _end_epoch(self, run: Run, score: Score | None) -> None:
        progress, config = run.progress, run.member.config
        top1: float | None = None
        loss: float | None = None
        better = True
        if score is not None:
            top1, loss = score
            if not math.isfinite(loss):
                what = f"the loss on the holdout is {loss} after epoch {progress.epoch}"
                run.fail(diverged(run, what))
                return
            best = -1.0 if progress.best_top1 is None else progress.best_top1
            worst = math.inf if progress.best_loss is None else progress.best_loss
            # Equal shares are common on small holdouts; the loss tells them apart.
            better = (top1, -loss) > (best, -worst)
            if better:
                progress.best_top1, progress.best_loss = top1, loss
            if config.schedule == "plateau" and run.member.plateau.saw(loss):
                note(f"{run.name}: the holdout's loss no longer falls; lr lowered.")
        elif not all(bool(weights.isfinite().all()) for weights in run.member.scored.parameters()):
            run.fail(diverged(run, f"weights are no numbers after epoch {progress.epoch}"))
            return
        if better:
            progress.best_epoch = progress.epoch
        if self._world.leads:
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
            note(f"{run.name}: a hook asked for the end after epoch {progress.epoch}.")
        elif progress.epoch - progress.best_epoch >= config.patience:
            note(
                f"{run.name}: no better epoch than {progress.best_epoch} in the last "
                f"{config.patience}; stopped early."
            )
        elif progress.epoch < config.epochs:
            return
        run.finish(held=bool(self._rows))

    def _keep(self, run: Run, top1: float | None, loss: float | None, better: bool) -> None:
        progress = run.progress
        weights = run.member.scored.state_dict()
        if better and self._rows:
            run.folder.save("best", weights)
        if run.member.config.keep > 1:
            # Without a holdout the latest are the best.
            judged = (0.0, -float(progress.epoch)) if top1 is None or loss is None else (top1, loss)
            progress.kept.append([*judged, float(progress.epoch)])
            keep_epoch(run.folder.path, progress, weights, run.member.config.keep)
