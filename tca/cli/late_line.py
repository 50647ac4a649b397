"""A progress line for work that tells its size when it begins."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from tca.console import ProgressLine


class LateLine(AbstractContextManager["LateLine"]):
    """Does as `ProgressLine` from the first report on; without any there is no line."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._line: ProgressLine | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._line is not None:
            self._line.__exit__(kind, error, trace)

    def reach(self, done: int, total: int, detail: str = "") -> None:
        """Say that `done` of `total` units are done; `detail` is shown behind the rate."""
        if self._line is None:
            self._line = ProgressLine(self._what, total, self._unit).__enter__()
        self._line.advance(done - self._line.done, detail)
