"""Every byte of a store against its checksum, and every problem by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache import pages
from tca.cache.format import ABSENT, Array, DamageError, Format
from tca.cache.layout import FeatureArray, Status
from tca.cache.row_reader import RowError, RowReader
from tca.cache.skeleton import MISSING, Skeleton, check_skeleton
from tca.cache.sums import sums_path
from tca.cache.threads import WORTH_SHARING, reading_threads

BLOCK_BYTES = WORTH_SHARING - 1
"""Read by one call: so many rows that a call costs little beside them, and no more than the thread
of the shard reads alone.
"""

LIBRARY_BLOCK_BYTES = 32 << 20
"""The same where a library reads them, perhaps from a server that answers each call late."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written.

    Attributes:
        file: the file.
        reason: what is wrong with it.
        shard: the shard that it costs; None outside shards.
        row, id, array: the row that it costs, its video and the array; None for a whole file.
        damage: False if the file could not be read, which says nothing of its bytes.
    """

    file: str
    reason: str
    shard: int | None = None
    row: int | None = None
    id: str | None = None
    array: str | None = None
    damage: bool = True

    def __str__(self) -> str:
        where = self.file if self.shard is None else f"{self.file} (shard {self.shard})"
        if self.row is None:
            return f"{where}: {self.reason}"
        video = "unknown" if self.id is None else self.id
        return f"{where}: row {self.row} (id {video}) of {self.array}: {self.reason}"


@dataclass
class Verification:
    """What `verify` found.

    Attributes:
        skeleton: all outside the shards.
        problems: in the order of the store, sums and metadata first.
        notes: what is no damage and worth knowing.
        shards: committed shards that were looked at; damaged ones included.
        rows: rows whose checksums were looked at, each array's counted.
        bytes: bytes of these rows.
    """

    skeleton: Skeleton
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shards: int = 0
    rows: int = 0
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
            "shards": self.shards,
            "rows": self.rows,
            "bytes": self.bytes,
        }


@dataclass
class ShardCheck:
    """What `check_shard` found; rows and bytes as in `Verification`."""

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


def verify(
    path: Path | str, report: Callable[[int, int, int], None] = lambda done, total, size: None
) -> Verification:
    """Check metadata against sums, and columns, statuses, indices and rows against checksums.

    Shards that are not committed are no damage: extraction makes them.

    Args:
        path: the store.
        report: told (shards done, shards in all, bytes read since the last call).

    Raises:
        TcaError: nothing there, not a store, made by a newer tca, or a file outside the shards
            that cannot be read.
    """
    skeleton = check_skeleton(path)
    found = Verification(skeleton, _outside_shards(path, skeleton))
    store = skeleton.format
    if store is None:
        found.problems.append(
            Problem(str(path), "its shards cannot be checked before that is put right")
        )
        return found
    found.problems += [
        Problem(f"{path}/{name}", "it cannot be checked for want of its metadata", array=name)
        for name in skeleton.unchecked
    ]
    total = store.spec.shards
    report(0, total, 0)
    for shard, check in enumerate(_checks(store, skeleton.ids)):
        if check is not None:
            found.shards += 1
            found.problems += check.problems
            found.problems += _lost(path, skeleton, shard)
            found.rows += check.rows
            found.bytes += check.bytes
        report(shard + 1, total, check.bytes if check is not None else 0)
    if isinstance(path, Path):
        found.notes = _notes(path, store, found.shards)
    return found


def check_shard(
    store: Format, reader: RowReader, shard: int, *, ids: bool = True
) -> ShardCheck | None:
    """Check one shard; None if it is not committed.

    Args:
        store: its files.
        reader: of the same store.
        shard: which.
        ids: whether the store's ids are known.
    """
    check = ShardCheck()
    status: Array | None = None
    try:
        status = store.shard_status(shard)
        if status is None:
            return None
    except (DamageError, OSError) as error:
        check.problems.append(_problem(str(store.record_file(shard)), error, shard))
    first = store.spec.shard_rows(shard).start
    count = len(store.spec.shard_rows(shard))
    for array in store.arrays:
        if status is not None and not (status == Status.OK).any():
            # Such a shard has no features.
            continue
        try:
            extents = store.extents(array, shard)
        except (DamageError, OSError) as error:
            name = store.shard_name(array, shard)
            # Of HDF5, one file holds the status and all arrays.
            if all(problem.file != name or problem.row is not None for problem in check.problems):
                check.problems.append(_problem(name, error, shard, array))
            continue
        if status is not None:
            rows = first + np.flatnonzero(status == Status.OK)
        elif extents is not None:
            # Which rows should be there is lost with the status; those that are there are read.
            rows = first + np.flatnonzero(extents.offset[:count] != ABSENT)
        else:
            continue
        what = store.arrays[array]
        check.rows += len(rows)
        check.bytes += len(rows) * what.row_bytes
        block = LIBRARY_BLOCK_BYTES if store.at_once else BLOCK_BYTES
        for bad in _bad_rows(reader, array, rows, what, max(1, block // what.row_bytes)):
            check.problems.append(
                Problem(
                    file=store.shard_name(array, shard),
                    reason=_words(bad.reason),
                    shard=shard,
                    row=bad.row,
                    id=store.spec.rows.ids[bad.row] if ids else None,
                    array=array,
                    damage=isinstance(bad.reason, DamageError),
                )
            )
    return check


def _lost(path: Path | str, skeleton: Skeleton, shard: int) -> list[Problem]:
    """Return the arrays that cannot be checked, and of which a committed shard has no file."""
    store = skeleton.format
    if not skeleton.unchecked or store is None or not isinstance(path, Path):
        return []
    try:
        status = store.shard_status(shard)
    except (DamageError, OSError):
        # A problem already.
        return []
    if status is None or not (status == Status.OK).any():
        return []
    folders = {array: path / array / "c" / str(shard) for array in skeleton.unchecked}
    return [
        Problem(str(folder), MISSING, shard, array=array)
        for array, folder in folders.items()
        # How deep the file lies depends on the rows' shape, which is lost.
        if not any(p.is_file() and not p.name.startswith(".") for p in folder.rglob("*"))
    ]


def _checks(store: Format, ids: bool) -> Iterator[ShardCheck | None]:
    """Yield the check of every shard, in order; a few of them are made at the same time."""
    reader = RowReader(store)
    threads = reading_threads()
    ahead: deque[Future[ShardCheck | None]] = deque()
    pool = ThreadPoolExecutor(threads, "tca-verify")
    try:
        for shard in range(store.spec.shards):
            ahead.append(pool.submit(check_shard, store, reader, shard, ids=ids))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _bad_rows(
    reader: RowReader, array: str, rows: Array, what: FeatureArray, step: int
) -> Iterator[RowError]:
    """Yield the error of every row that cannot be read or whose checksum does not hold.

    `step` rows are read at once.
    """
    buffer = pages.empty((min(step, len(rows)), *what.row_shape), what.dtype)
    start = 0
    while start < len(rows):
        block = rows[start : start + step]
        try:
            reader.read(array, block, buffer[: len(block)], check=True)
            start += len(block)
        except RowError as error:
            # The rows before it are sound; go on behind it.
            bad = error
            if len(block) > 1 and error.row == block[0]:
                # What reads through a library names the first row of the call whatever the row.
                try:
                    reader.read(array, block[:1], buffer[:1], check=True)
                    start += 1
                    step = 1
                    continue
                except RowError as alone:
                    bad = alone
            yield bad
            start += int(np.searchsorted(block, bad.row)) + 1


def _outside_shards(path: Path | str, skeleton: Skeleton) -> list[Problem]:
    problems = []
    if isinstance(path, Path):
        sums = str(sums_path(path))
        if not skeleton.summed:
            problems.append(
                Problem(
                    sums,
                    f"it has no sums of {path}, so that its metadata cannot be checked; bring its "
                    f"lines along, or take the store as it is with `tca cache repair {path}`",
                )
            )
        problems += [
            Problem(sums, f"the sum of {path / name} is lost or damaged")
            for name in skeleton.lost_sums
        ]
    problems += [Problem(f"{path}/{name}", reason) for name, reason in skeleton.damage.items()]
    return problems


def _problem(file: str, error: Exception, shard: int, array: str | None = None) -> Problem:
    damage = isinstance(error, DamageError)
    return Problem(file, _words(error), shard, array=array, damage=damage)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror or error}"
    return str(error)


def _notes(path: Path, store: Format, committed: int) -> list[str]:
    """Say what a killed run left, and how much is missing."""
    notes = []
    left = [file for file in path.rglob(".*.tmp") if file.is_file()]
    if left:
        notes.append(f"{len(left)} temporary files of a killed run; extraction removes them")
    missing = store.spec.shards - committed
    if missing:
        notes.append(f"{missing} of {store.spec.shards} shards are not extracted yet")
    return notes
