"""What a person sees of a training: a live table, a row a run; plain lines where nobody watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

import psutil
import torch
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tca.console import ProgressLine, duration, err
from tca.fusion.train.hooks import EpochReport, StepReport

SHOWN = 12
"""Runs in the table at most: what does not fit on a screen flickers."""

STEPS = 100
"""Steps over which the share of waiting is taken."""


@dataclass
class _Seen:
    """What is known of a run by now."""

    loss: float | None = None
    lr: float | None = None
    top1: float | None = None
    best_epoch: int | None = None


class Screen(AbstractContextManager["Screen"]):
    """Shows a training; the one thing on the screen while it runs.

    Args:
        names: of the runs.
        epochs: that there will be, at most.
        total: rows in all epochs.
        done: of these, before this start.
        device: whose memory is shown.
    """

    def __init__(
        self, names: Sequence[str], epochs: int, total: int, done: int, device: torch.device
    ) -> None:
        self._epochs, self._epoch, self._device = epochs, 0, device
        self._runs = {name: _Seen() for name in names}
        self._times: deque[tuple[float, float]] = deque(maxlen=STEPS)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._line = ProgressLine(f"train {names[0]}{more}", total, "rows", done)
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if err.is_terminal:
            self._live = Live(console=err, get_renderable=self.table, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, epoch: int, rows: int) -> None:
        """A step was given to the device, of `rows` rows."""
        self._epoch = epoch
        if self._live is not None:
            self._line.done += rows
        else:
            self._line.advance(rows, self._words())

    def timed(self, seconds: float, waited: float) -> None:
        """A step took `seconds`, `waited` of them for its rows."""
        self._times.append((seconds, waited))

    def told(self, name: str, report: StepReport) -> None:
        """A run's step is known."""
        self._runs[name].loss, self._runs[name].lr = report.loss, report.lr

    def told_epoch(self, name: str, report: EpochReport) -> None:
        """A run's epoch is known."""
        seen = self._runs[name]
        seen.top1, seen.best_epoch = report.holdout_top1, report.best_epoch

    def table(self) -> Table:
        """Return what a terminal shows now."""
        line = self._line
        left = f"{duration((line.total - line.done) / line.rate)} left" if line.rate > 0 else ""
        head = [
            line.what,
            f"epoch {self._epoch}/{self._epochs}",
            f"{line.done}/{line.total} rows",
            f"{line.rate:.1f}/s",
            *self._machine(),
            left,
        ]
        title = Text(" · ".join(part for part in head if part), style="bold")
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(("run", "loss", "lr", "holdout top-1", "best epoch")):
            table.add_column(column, justify="left" if number == 0 else "right")
        for name, seen in list(self._runs.items())[:SHOWN]:
            cells = (name, *_cells(seen))
            table.add_row(*(Text(cell) for cell in cells))
        if len(self._runs) > SHOWN:
            table.add_row(f"and {len(self._runs) - SHOWN} more")
        return table

    def _words(self) -> str:
        """Return what stands in a plain line; of several runs it tells the first."""
        loss, lr, top1, _ = _cells(next(iter(self._runs.values())))
        named = (("loss", loss), ("lr", lr), ("top-1", top1))
        parts = [f"{name} {text}" for name, text in named if text != "-"]
        return " · ".join([f"epoch {self._epoch}/{self._epochs}", *parts, *self._machine()])

    def _machine(self) -> list[str]:
        seconds = sum(time for time, _ in self._times)
        waited = sum(waited for _, waited in self._times)
        waiting = [f"waiting for data {waited / seconds:.0%}"] if seconds else []
        return [*waiting, f"{_memory(self._device) / 1e9:.1f} GB"]


def _cells(seen: _Seen) -> tuple[str, str, str, str]:
    return (
        "-" if seen.loss is None else f"{seen.loss:.3f}",
        "-" if seen.lr is None else f"{seen.lr:.2g}",
        "-" if seen.top1 is None else f"{seen.top1:.3f}",
        "-" if seen.best_epoch is None else str(seen.best_epoch),
    )


def _memory(device: torch.device) -> int:
    """Return bytes: the most that tensors took on a GPU, or what the process alone holds."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = psutil.Process().memory_info()
    # Mapped pages of a store are the system's to take back; Linux tells them.
    return int(found.rss - getattr(found, "shared", 0))
