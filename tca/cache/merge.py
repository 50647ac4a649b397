"""One store out of parts: stores of the same rows and settings, each with some of the shards.

Shards are copied byte for byte and committed as extraction commits them, so a merge that was killed
goes on where it was, and the result is the store that one machine would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tca.cache.creation import create_store
from tca.cache.failures import failures_file
from tca.cache.files import remove, sole_writer, write_atomic
from tca.cache.format import Format, reading_failed
from tca.cache.formats import named_format, open_format
from tca.cache.layout import differences
from tca.cache.room import require_room
from tca.cache.row_reader import RowReader
from tca.cache.verify import check_shard
from tca.console import warn
from tca.errors import TcaError, UsageError

PIECE_BYTES = 8 << 20
"""Read and written by one call."""

Report = Callable[[int, int], None]


@dataclass
class MergeSummary:
    """What one `merge` came to.

    Attributes:
        out: the store.
        shards: shards in all.
        copied: how many shards came from each part in this call.
        missing: shards that are still not extracted, ascending.
        rows: N.
        missing_rows: rows of the missing shards.
    """

    out: Path
    shards: int
    rows: int
    copied: dict[str, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    missing_rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"out": str(self.out)}


def merge(
    out: Path, parts: Sequence[Path], report: Report = lambda done, total: None
) -> MergeSummary:
    """Copy the committed shards of `parts` into `out`, going on where an earlier call stopped.

    Every row is held against its checksum before its shard is copied.

    Args:
        out: where; made if nothing is there. May be one of the parts.
        parts: stores on disks of this machine. They are only read.
        report: told (bytes copied or compared, bytes in all).

    Raises:
        UsageError: no part but `out` itself, or a new `out` whose name ends as another format.
        TcaError: parts that do not go together, or have the same shard with different bytes; a
            damaged shard; a store that is being written; no room.
    """
    parts = [part for part in dict.fromkeys(parts) if part.resolve() != out.resolve()]
    if not parts:
        raise UsageError(f"there is nothing to merge into {out}; name the parts behind it.")
    stores = [_opened(part) for part in parts]
    with sole_writer(out):
        there = _opened(out) if out.exists() else None
        first, *others = stores if there is None else [there, *stores]
        if there is None:
            _require_name(out, first)
        for other in others:
            _require_same(first, other)
        plan = _Plan.of(stores, there)
        require_room(out, plan.bytes, "or merge into one of the parts")
        if there is None:
            # What one machine would have made, but for the record of what made it.
            create_store(out, first.spec, first.name)
            there = _opened(out)
        plan.carry_out(there, report)
        missing = [shard for shard in range(there.spec.shards) if not _committed(there, shard)]
    return MergeSummary(
        out=out,
        shards=there.spec.shards,
        rows=len(there.spec.rows),
        copied={
            str(part): len(plan.copies_of(store)) for part, store in zip(parts, stores, strict=True)
        },
        missing=missing,
        missing_rows=sum(len(there.spec.shard_rows(shard)) for shard in missing),
    )


@dataclass
class _Plan:
    """Which shards to copy from where, and which are there twice.

    Attributes:
        copies: (shard, the store to copy it from), by shard.
        twice: (shard, one store, another), both with that shard.
    """

    copies: list[tuple[int, Format]]
    twice: list[tuple[int, Format, Format]]

    @classmethod
    def of(cls, stores: Sequence[Format], there: Format | None) -> _Plan:
        """Take each shard from the first store that has it."""
        plan = cls([], [])
        for shard in range(stores[0].spec.shards):
            holders = [store for store in stores if _committed(store, shard)]
            if there is not None and _committed(there, shard):
                plan.twice += [(shard, there, holder) for holder in holders]
            elif holders:
                plan.copies.append((shard, holders[0]))
                plan.twice += [(shard, holders[0], other) for other in holders[1:]]
        return plan

    def copies_of(self, store: Format) -> list[int]:
        """Return the shards to copy from `store`."""
        return [shard for shard, source in self.copies if source is store]

    @property
    def bytes(self) -> int:
        """Bytes to write."""
        return sum(_size(file) for shard, store in self.copies for file in store.shard_files(shard))

    def carry_out(self, out: Format, report: Report) -> None:
        """Compare what is there twice, then copy the rest."""
        compared = sum(_size(file) for s, store, _ in self.twice for file in store.shard_files(s))
        total = self.bytes + compared
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            report(done, total)

        count(0)
        for shard, one, other in self.twice:
            _require_equal(shard, one, other, count)
        readers: dict[int, RowReader] = {}
        for shard, source in self.copies:
            reader = readers.setdefault(id(source), RowReader(source))
            _require_sound(source, reader, shard)
            _copy_shard(source, out, shard, count)


def _opened(path: Path) -> Format:
    store = open_format(path)
    if not store.writable:
        raise TcaError(
            f"{path} was not written by tca, so its shards cannot be taken over; turn it into a "
            "store with `tca cache convert` first."
        )
    return store


def _require_same(first: Format, other: Format) -> None:
    what = {"format": first.name, "rows_per_shard": first.spec.rows_per_shard}
    found = {"format": other.name, "rows_per_shard": other.spec.rows_per_shard}
    different = differences(what, found) + first.spec.differences(other.spec)
    if different:
        raise TcaError(
            f"{other.path} does not go together with {first.path}: {'; '.join(different)}; merge "
            "parts of one extraction only, or bring them to one form with `tca cache convert`."
        )
    record = differences(first.spec.record, other.spec.record)
    if record:
        warn(
            f"{other.path} was made in another way than {first.path}, whose record is kept: "
            f"{'; '.join(record)}."
        )


def _require_name(out: Path, first: Format) -> None:
    if named_format(out) not in (None, first.name):
        raise UsageError(
            f"{out} is named like {named_format(out)} and the parts are {first.name}; give an OUT "
            "that ends accordingly."
        )


def _committed(store: Format, shard: int) -> bool:
    return store.checked_status(shard) is not None


def _require_equal(shard: int, one: Format, other: Format, count: Callable[[int], None]) -> None:
    for ours, theirs in zip(one.shard_files(shard), other.shard_files(shard), strict=True):
        pieces = zip_longest(_pieces(ours), _pieces(theirs), fillvalue=b"")
        for piece, its in pieces:
            if piece != its:
                raise TcaError(
                    f"shard {shard} is in {one.path} and in {other.path} with different bytes "
                    f"({ours.relative_to(one.path)}); look at both with `tca cache verify "
                    f"{one.path} --against {other.path}`, and repair or leave out one of them."
                )
            count(len(piece))


def _require_sound(store: Format, reader: RowReader, shard: int) -> None:
    check = check_shard(store, reader, shard)
    if check is not None and check.problems:
        problem = check.problems[0]
        remedy = (
            f"run `tca cache repair {store.path}` and merge again"
            if problem.damage
            else "make it readable and merge again"
        )
        raise TcaError(f"{problem}; {remedy}.")


def _copy_shard(source: Format, out: Format, shard: int, count: Callable[[int], None]) -> None:
    """Copy a shard as it is committed: why rows failed, features, and the commit record last."""
    assert isinstance(source.path, Path)
    assert isinstance(out.path, Path)
    pairs = [*zip(source.shard_files(shard), out.shard_files(shard), strict=True)]
    pairs.append((failures_file(source.path, shard), failures_file(out.path, shard)))
    for file, target in reversed(pairs):
        if file.exists():
            write_atomic(target, _counted(_pieces(file), count))
        else:
            # No good row, or none that failed; a killed run may have left something.
            remove(target)


def _counted(pieces: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        count(len(piece))


def _pieces(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file; none if it is not there."""
    try:
        with suppress(FileNotFoundError), open(file, "rb") as opened:
            while piece := opened.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise reading_failed(file, error) from None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
