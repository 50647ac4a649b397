"""Which shard is whose: hands out what is left, and redoes what a dead worker held.

A shard that takes its worker down would do so for ever. So the shards that a worker held when it
died are made again alone, one at a time, until it is clear which one it was.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from tca.cache.writer import StoreWriter
from tca.errors import TcaError

ATTEMPTS = 3
"""Deaths of a worker over one shard, or before it began one, that end the run."""


class Handout:
    """The shards that are left, for workers by number; a replaced worker keeps its number.

    The store says which shards are done: it alone survives whatever happens.
    """

    def __init__(self, writer: StoreWriter, shards: Iterable[int]) -> None:
        self._writer = writer
        self._place = _inode(writer)
        self._left = deque(shards)
        self._suspects: deque[int] = deque()
        self._held: defaultdict[int, list[int]] = defaultdict(list)
        self._alone: set[int] = set()
        self._reported: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._fruitless: Counter[int] = Counter()

    @property
    def left(self) -> bool:
        """Whether there is a shard that nobody has."""
        return bool(self._left or self._suspects)

    def ask(self, worker: int, *, idle: bool) -> int | None:
        """Return a shard for `worker`; None if it shall first finish what it has, or is done.

        Args:
            worker: its number.
            idle: it has committed all that it got before.

        Raises:
            TcaError: the store is no longer there.
        """
        if _inode(self._writer) != self._place:
            raise TcaError(
                f"{self._writer.path} was moved or deleted while it was written; put it back, or "
                "run the command again for a new one."
            )
        if idle:
            self._held.pop(worker, None)
            self._alone.discard(worker)
            self._reported[worker] = 0
            if self._suspects:
                self._alone.add(worker)
                return self._held_by(worker, self._suspects.popleft())
        if worker in self._alone or not self._left:
            return None
        return self._held_by(worker, self._left.popleft())

    def reported(self, worker: int, rows: int) -> None:
        """Note that `worker` finished `rows` more rows."""
        self._reported[worker] += rows
        if rows:
            self._fruitless[worker] = 0

    def died(self, worker: int, name: str, how: str) -> int:
        """Take back what `worker` had; return how many of its reported rows are lost.

        Args:
            worker: its number.
            name: what to call it.
            how: the end of a sentence that begins with its name.

        Raises:
            TcaError: that was once too often.
        """
        held = self._held.pop(worker, [])
        done = set(self._writer.committed()) if held else set()
        lost = [shard for shard in held if shard not in done]
        kept = sum(len(self._writer.shard_rows(shard)) for shard in held if shard in done)
        rows = self._reported.pop(worker, 0) - kept
        self._alone.discard(worker)
        self._suspects.extend(lost)
        self._deaths.update(lost)
        for shard in lost:
            if self._deaths[shard] >= ATTEMPTS:
                raise TcaError(self._guilty(shard, name, how))
        if not lost:
            self._fruitless[worker] += 1
            if self._fruitless[worker] >= ATTEMPTS:
                raise TcaError(
                    f"the worker on {name} {how}, {ATTEMPTS} times before it made a single batch; "
                    "look at that device and at the memory of the machine, then run the command "
                    "again: it goes on with the shards that are left."
                )
        return rows

    def _held_by(self, worker: int, shard: int) -> int:
        self._held[worker].append(shard)
        return shard

    def _guilty(self, shard: int, name: str, how: str) -> str:
        rows, ids = self._writer.shard_rows(shard), self._writer.spec.rows.ids
        return (
            f"shard {shard} (rows {rows[0]} to {rows[-1]}, videos {ids[rows[0]]} to "
            f"{ids[rows[-1]]}) took its worker down {ATTEMPTS} times: the one on {name} {how}; "
            "look at the memory of the machine and at these videos, then run the command again: "
            "it goes on with the shards that are left."
        )


def exit_words(code: int | None) -> str:
    """Say how a process ended, as the end of a sentence that begins with its name."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (as the system does when memory runs out)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _inode(writer: StoreWriter) -> tuple[int, int] | None:
    try:
        found = writer.path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
