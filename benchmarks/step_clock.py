"""What the steps of a training say of themselves, added up: the numbers of `log.jsonl`."""

from __future__ import annotations

import time
from pathlib import Path

from typing_extensions import override

from tca.fusion.model.variant import Variant
from tca.fusion.train.hooks import EpochReport, Hook, StepReport


class StepClock(Hook):
    """Looks on at one run.

    Attributes:
        began: when the first step could begin: the model is built, its statistics are measured.
        done: when the steps of the last epoch so far were done, those of all runs of the pass.
        seconds, waited: of all steps, those of all runs of the pass.
        first_wait: of `waited`, for the first batch, which nothing is read ahead of.
        losses: of every step of this run.
    """

    def __init__(self) -> None:
        self.began = self.done = 0.0
        self.seconds = self.waited = self.first_wait = 0.0
        self.losses: list[float] = []

    @property
    def clock(self) -> float:
        """Seconds on the clock from the first step to the end of the last epoch."""
        return self.done - self.began

    @override
    def begin(self, run: Path, model: Variant, step: int) -> None:
        self.began = time.perf_counter()

    @override
    def step(self, report: StepReport) -> None:
        self.seconds += report.seconds
        self.waited += report.waited
        if not self.losses:
            self.first_wait = report.waited
        self.losses.append(report.loss)

    @override
    def epoch(self, report: EpochReport, model: Variant) -> None:
        self.done = time.perf_counter()
