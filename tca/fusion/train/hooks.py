"""What may look on while a model is trained: hooks of tca's own, and a user's by name.

A hook is a class with the methods of `Hook`, named by `train.hooks` as `module:Class`; it is made
without arguments in the process that writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tca.errors import UsageError
from tca.fusion.model.variant import Variant


@dataclass(frozen=True)
class StepReport:
    """One step.

    Attributes:
        epoch: from 1.
        step: from 1, over all epochs.
        loss: mean over the batch.
        norm: length of the gradient before it was cut.
        lr: learning rate.
        seconds: that the step took, waiting included.
        waited: seconds of these for the batch.
        rows: of the batch.
    """

    epoch: int
    step: int
    loss: float
    norm: float
    lr: float
    seconds: float
    waited: float
    rows: int

    @property
    def rows_per_s(self) -> float:
        """Rows a second."""
        return self.rows / max(self.seconds, 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the step that was spent waiting for the batch."""
        return self.waited / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EpochReport:
    """One epoch.

    Attributes:
        epoch: from 1.
        step: the last one of it.
        train_loss: mean over its steps.
        holdout_top1, holdout_loss: None without a holdout.
        best_epoch: the best so far.
    """

    epoch: int
    step: int
    train_loss: float
    holdout_top1: float | None
    holdout_loss: float | None
    best_epoch: int


class Hook:
    """Does nothing; a hook overrides what it wants to see.

    Steps are told some at a time, so that a GPU need not stop for each.
    """

    def begin(self, run: Path, model: Variant, step: int) -> None:
        """A training begins, or goes on after `step`."""

    def step(self, report: StepReport) -> None:
        """A step was done."""

    def epoch(self, report: EpochReport, model: Variant) -> bool | None:
        """An epoch was done; `model` is what was scored.

        Returns:
            True asks for the end: the run is finished as one that stopped early.
        """
        return None

    def end(self, run: Path) -> None:
        """The training ended, also by an error."""


def make_hooks(names: Sequence[str]) -> list[Hook]:
    """Return a hook of each class named `module:Class`.

    Raises:
        UsageError: there is none, or it is no hook.
    """
    return [_made(name) for name in names]


def _made(name: str) -> Hook:
    module, _, attribute = name.partition(":")
    try:
        hook = getattr(import_module(module), attribute)()
    except Exception as error:
        raise UsageError(
            f"train.hooks: {name!r} cannot be made ({type(error).__name__}: {error}); write "
            "module:Class of a module that Python finds (PYTHONPATH=. adds this folder)."
        ) from None
    if not isinstance(hook, Hook):
        raise UsageError(f"train.hooks: {name!r} is no subclass of tca.fusion.train.hooks.Hook.")
    return hook
