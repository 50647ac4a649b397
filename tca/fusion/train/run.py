"""One model in training together with its run folder: what is kept of it, and who looks on."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from torch import Tensor

from tca.console import warn
from tca.errors import TcaError
from tca.fusion.run_folder import RunFolder
from tca.fusion.run_report import write_run_report
from tca.fusion.train.checkpoints import Progress, save_state
from tca.fusion.train.hooks import EpochReport, Hook, StepReport
from tca.fusion.train.member import Member
from tca.fusion.train.run_log import RunLog


class TrainingError(TcaError):
    """One model could not be trained; with other settings it may be."""


class Run:
    """One model of a training, its run folder, and who looks on.

    Args:
        member: the model.
        folder: where it is written to.
        info: what `run.json` says of it.
        hooks: of the user.
    """

    def __init__(
        self, member: Member, folder: RunFolder, info: Mapping[str, Any], hooks: Sequence[Hook] = ()
    ) -> None:
        self.member, self.folder, self.info = member, folder, dict(info)
        self.progress = Progress()
        self.failure: TrainingError | None = None
        self._hooks: list[Hook] = list(hooks)
        self._begun: list[Hook] = []
        self._log: RunLog | None = None

    @property
    def name(self) -> str:
        """What it is called where people read of it."""
        return self.folder.path.name

    @property
    def stacked(self) -> bool:
        """Whether it is known to step in a stack, with others as one."""
        return bool(self.info.get("stacked"))

    def settle(self, *, stacked: bool) -> None:
        """Write down whether it steps in a stack: what goes on later keeps to it."""
        self.info["stacked"] = stacked
        self.folder.write_info(self.info)

    def begin(self) -> None:
        """Open the log, and tell the hooks."""
        if not self.member.world.leads:
            return
        self._log = RunLog(self.progress.log_bytes)
        for hook in (self._log, *self._hooks):
            with self._blamed(hook):
                hook.begin(self.folder.path, self.member.scored, self.progress.step)
            self._begun.append(hook)

    def told(self, reports: Iterable[StepReport]) -> None:
        """Tell the hooks of steps."""
        for report in reports:
            for hook in self._begun:
                with self._blamed(hook):
                    hook.step(report)

    def told_epoch(self, report: EpochReport) -> bool:
        """Tell the hooks of an epoch; return whether one of them asks for the end."""
        asked = False
        # All of them are told, also after one has asked.
        for hook in self._begun:
            with self._blamed(hook):
                asked |= bool(hook.epoch(report, self.member.scored))
        return self.member.world.told(asked)

    @contextmanager
    def _blamed(self, hook: Hook) -> Iterator[None]:
        """Say of what goes wrong in a hook that it is not ours."""
        try:
            yield
        except Exception as error:
            if hook is self._log or isinstance(error, TcaError):
                raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise TcaError(
                f"the hook {type(hook).__name__} failed ({type(error).__name__}: {error}; "
                f"{at.filename}, line {at.lineno}); correct that, or train without it."
            ) from error

    def fail(self, failure: TrainingError) -> None:
        """Take part no more, and write down why."""
        self.failure = failure
        if self.member.world.leads:
            self.folder.write_info({**self.info, "failed": str(failure)})

    def restore(
        self, progress: Progress, tensors: dict[str, Tensor], numbers: dict[str, Any]
    ) -> None:
        """Take over what `save` wrote.

        Raises:
            TcaError: it is of another model.
        """
        self.progress = progress
        if (stacked := self.folder.info().get("stacked")) is not None:
            self.info["stacked"] = stacked
        self.member.begin()
        try:
            self.member.restore(tensors, numbers)
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise TcaError(
                f"{self.folder.path} cannot go on: its state is of another model or of another tca "
                f"({str(error).splitlines()[0]}); train anew."
            ) from None

    def save(self) -> None:
        """Write all that a resume needs."""
        if self._log is not None:
            self.progress.log_bytes = self._log.size
            save_state(self.folder.path, self.progress, *self.member.state())

    def finish(self, *, held: bool) -> None:
        """Write the last weights and the outcome; there is nothing left to go on with.

        Args:
            held: whether a holdout chose the best weights.
        """
        progress = self.progress
        progress.finished = True
        if not self.member.world.leads:
            return
        weights = self.member.scored.state_dict()
        self.folder.save("last", weights)
        if not held:
            self.folder.save("best", weights)
        outcome = {
            "finished": True,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "train_loss": progress.train_loss,
            "holdout_top1": progress.best_top1,
        }
        self.folder.write_info({**self.info, **outcome})
        shutil.rmtree(self.folder.path / "state", ignore_errors=True)

    def end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the log, tell the hooks that were told of the beginning, and write the report.

        What goes wrong in one does not keep the others from their end; where an `error` has ended
        the training it is only warned of.
        """
        failures: list[Exception] = []
        for hook in self._begun:
            try:
                with self._blamed(hook):
                    hook.end(self.folder.path)
            except Exception as failure:
                failures.append(failure)
        try:
            if self._log is not None:
                write_run_report(self.folder.path)
        except Exception as failure:
            failures.append(failure)
        if failures and error is None:
            raise failures[0]
        for one in failures:
            warn(f"{self.name}: {one}")
