"""The progress of all workers: how far they are, how fast each step is, and the slowest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tca.console import ProgressLine
from tca.extract.worker import STEPS, Progress


class Watch:
    """Shows what workers report and adds it up, from when the first of them is ready.

    Args:
        what: the beginning of the line.
        unit: what is counted, in the plural.
        workers: how many share the work.

    Attributes:
        busy: seconds that each step worked, of all workers together.
    """

    def __init__(self, what: str, unit: str, workers: int) -> None:
        self.busy = dict.fromkeys(STEPS, 0.0)
        self._what, self._unit, self._workers = what, unit, workers
        self._line: ProgressLine | None = None
        self._rows = 0
        self._warm = False
        self._started = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """How long shards were made."""
        return self._ended - self._started

    @property
    def slowest(self) -> str:
        """The step that the others wait for."""
        return max(self.busy, key=lambda step: self.busy[step])

    @contextmanager
    def over(self, total: int, before: int) -> Iterator[None]:
        """Show progress within the block, on rows of which some are there `before`."""
        with ExitStack() as self._shown:
            self._bounds = total, before
            try:
                yield
            finally:
                if self._line is not None:
                    self._ended = time.monotonic()

    def report(self, progress: Progress) -> None:
        """Add what a worker did."""
        if self._line is None:
            total, before = self._bounds
            self._started = time.monotonic()
            line = ProgressLine(self._what, total, self._unit, before)
            self._line = self._shown.enter_context(line)
        self._rows += progress.rows
        for step, seconds in progress.busy.items():
            self.busy[step] += seconds
        count = progress.rows
        if count > 0 and not self._warm and self._line.done + count < self._line.total:
            self._warm = True
            self._line.warmed_up(count)
            count = 0
        self._line.advance(count, self._steps())

    def _steps(self) -> str:
        """Return how fast each step is while it works: `decode 40/s, map 12/s (slowest)`.

        On a CPU they share the cores, and none of them gets there.
        """
        speeds = [
            f"{step} {self._rows * self._workers / seconds:.3g}/s"
            + (" (slowest)" if step == self.slowest else "")
            for step, seconds in self.busy.items()
            if seconds
        ]
        return ", ".join(speeds)
