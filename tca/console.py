"""What a person sees: one progress bar, plain lines in a log, tables, notes.

Everything goes to stderr except results: tables and `--json` documents are stdout's alone, so
that a command's output can be piped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

PIPED_WIDTH = 1000
"""Columns of a table at most where it is written to a file or a pipe."""

LINE_EVERY_S = 10.0
"""Seconds between progress lines where nobody watches a terminal."""


def note(message: str) -> None:
    """Print one line about what is happening."""
    err.print(message, markup=False)


def warn(message: str) -> None:
    """Print one line the user should not miss."""
    err.print(f"warning: {message}", style="yellow", markup=False)


def hush() -> None:
    """Say nothing from now on: another process of the same job speaks."""
    err.quiet = out.quiet = True


def print_json(document: Any) -> None:
    """Print `document` as the command's only output on stdout."""
    out.file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    # Text, or rich takes the brackets of a file name for markup.
    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    shown = out
    if not out.is_terminal:
        # Where nobody watches there is no edge to fold cells at.
        unbound = out.options.update(max_width=PIPED_WIDTH)
        width = out.measure(table, options=unbound).maximum
        shown = Console(file=out.file, width=width, quiet=out.quiet, highlight=False)
    shown.print(table)


class ProgressLine(AbstractContextManager["ProgressLine"]):
    """A bar with rate and time left on a terminal, a plain line every 10 s elsewhere.

    Args:
        what: the verb phrase in front, for example "extract train".
        total: how many `unit` make the whole.
        unit: what is counted, in the plural.
        done: how many were done before this run; they do not count into the rate.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._done_before = done
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressLine:
        if err.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
                TimeRemainingColumn(),
                console=err,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.what, total=self.total, completed=self.done, note=self.unit
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units a second since the start of this run."""
        return (self.done - self._done_before) / max(time.monotonic() - self._started, 1e-9)

    def warmed_up(self, count: int) -> None:
        """Count `count` more as done and take the rate from here: they paid for the start too."""
        self.done += count
        self._done_before = self.done
        self._started = self._last_line = time.monotonic()

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Count `count` more as done; `detail` is shown behind the rate."""
        self.done += count
        rate = self.rate
        parts = [self.unit, f"{rate:.1f}/s" if rate > 0 else "", detail]
        text = " · ".join(part for part in parts if part)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=text)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S or (count and self.done >= self.total):
            self._last_line = now
            left = f" · {duration((self.total - self.done) / rate)} left" if rate > 0 else ""
            note(f"{self.what}: {self.done}/{self.total} {text}{left}")


def duration(seconds: float) -> str:
    """Return seconds as `1 h 02 min`, `3 min 05 s` or `42 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
