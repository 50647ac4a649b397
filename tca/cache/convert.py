"""Copying a store into a new one: other format, shards, type, stream or rows.

It goes on where it was stopped, like extraction: a shard of the new store is committed as soon as
the old one has all its rows, and is then left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.conversion import Changes, new_spec, require_same
from tca.cache.creation import create_store
from tca.cache.failures import Failure, read_failures, write_failures
from tca.cache.files import sole_writer
from tca.cache.format import Array
from tca.cache.formats import named_format, open_format
from tca.cache.layout import Status, StoreSpec, Stream, status_words
from tca.cache.memory import available_memory
from tca.cache.read_ahead import read_ahead
from tca.cache.remote import as_place
from tca.cache.restore import restore_missing
from tca.cache.room import require_room, size_words
from tca.cache.skeleton import format_there
from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.console import ProgressLine, note
from tca.errors import TcaError, UsageError

AT_ONCE_BYTES = 128 << 20
"""Read by one call from a server, which answers for many rows nearly as fast as for one."""

Features = Mapping[str, Sequence[Array | None]]
"""What `StoreWriter.commit` takes."""


@dataclass(frozen=True)
class ConvertSummary:
    """What one `convert` came to.

    Attributes:
        source, target: the stores.
        split: name of the split.
        format: of the new store.
        rows: N of the new store.
        status: how many of its rows have each status, by its words.
        done: rows copied by this call.
        bytes: bytes of the new store on disk.
        seconds: time that this call took.
    """

    source: str
    target: Path
    split: str
    format: str
    rows: int
    status: dict[str, int]
    done: int
    bytes: int
    seconds: float

    @property
    def missing(self) -> int:
        """Rows whose shard could not be copied, since the source has not extracted all of it."""
        return self.status.get(Status.NOT_EXTRACTED.words, 0)

    @property
    def failed(self) -> int:
        """Rows that were extracted and have no features."""
        return self.rows - self.missing - self.status.get(Status.OK.words, 0)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"target": str(self.target), "missing": self.missing}


def convert(
    source: Path | str,
    target: Path,
    changes: Changes | None = None,
    store_format: str | None = None,
) -> ConvertSummary:
    """Copy the store `source` to `target`, going on where an earlier call stopped.

    Args:
        source: a folder or a URL.
        target: where; made if nothing is there.
        changes: what to change on the way.
        store_format: "zarr" or "hdf5"; None: what is there, or as the name ends, or zarr.

    Raises:
        UsageError: rows, ids or a stream that the source does not have, or a target that is the
            source or whose name ends as the other format.
        TcaError: a source that cannot be opened or a row of it that cannot be read or held by the
            type; a target that was made otherwise or is being written; no room.
    """
    started = time.monotonic()
    changes = changes or Changes()
    _require_target(as_place(source), target, store_format)
    store = Store.open(source)
    kept, chosen = changes.kept(store), changes.selection.of(store)
    with sole_writer(target):
        there_as = format_there(target)
        made_as = store_format or there_as or named_format(target) or "zarr"
        spec = new_spec(store, kept, chosen, changes, made_as)
        if there_as == made_as:
            restore_missing(target, spec)
        there = open_format(target) if there_as is not None else None
        if there is not None:
            require_same(target, spec, there.spec, made_as, there.name)
        job = _Job(store, chosen, spec, target)
        before = StoreWriter(target).committed() if there is not None else set()
        shards = job.waiting(before)
        job.require_room(shards)
        if there is None:
            create_store(target, spec, made_as)
        done = job.run(shards, before)
    finished = Store.open(target)
    values, counts = np.unique(finished.status, return_counts=True)
    return ConvertSummary(
        source=str(store.path),
        target=target,
        split=spec.split,
        format=made_as,
        rows=len(chosen),
        status={
            status_words(value): count
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        },
        done=done,
        bytes=sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        seconds=time.monotonic() - started,
    )


class _Job:
    """Which rows of `store` become which of the one at `target`, shard by shard."""

    def __init__(self, store: Store, chosen: Array, spec: StoreSpec, target: Path) -> None:
        self._store, self._chosen, self._spec, self._target = store, chosen, spec, target
        self._status = store.status[chosen]
        self._row_bytes = sum(stream.row_bytes for stream in spec.streams.values())

    def waiting(self, before: set[int]) -> list[int]:
        """Return the shards to copy: not among `before`, and extracted in all their rows."""
        return [
            shard
            for shard in range(self._spec.shards)
            if shard not in before
            and not (self._of_shard(self._status, shard) == Status.NOT_EXTRACTED).any()
        ]

    def require_room(self, shards: Sequence[int]) -> None:
        """Say whether `shards` fit on the disk, and those held at once in memory."""
        good = sum(
            int((self._of_shard(self._status, shard) == Status.OK).sum()) for shard in shards
        )
        require_room(
            self._target, good * self._row_bytes, "write elsewhere, or choose a smaller --type"
        )
        rows = min(self._spec.rows_per_shard, len(self._chosen))
        needed, free = 2 * rows * self._row_bytes, available_memory()
        if needed > free:
            raise TcaError(
                f"two shards of {rows} rows are held at once, which is {size_words(needed)}, and "
                f"{size_words(free)} of memory are free; choose smaller ones with "
                "--rows-per-shard."
            )

    def run(self, shards: Sequence[int], before: set[int]) -> int:
        """Copy `shards`; return how many rows that were."""
        writer = StoreWriter(self._target)
        rows = [len(self._spec.shard_rows(shard)) for shard in range(self._spec.shards)]
        already = sum(rows[shard] for shard in before)
        if before and shards:
            note(f"{self._target} has {already} of {sum(rows)} rows; going on.")
        what = f"convert {self._spec.split}"
        with ProgressLine(what, sum(rows), "rows", already) as line:
            tasks = (partial(self._read, group) for group in self._groups(shards))
            # One thread reads while this one writes and waits for the disk.
            for read in read_ahead(tasks, depth=1):
                for shard, features in read.items():
                    write_failures(self._target, shard, self._failures(shard))
                    writer.commit(shard, features, self._of_shard(self._status, shard))
                    line.advance(rows[shard])
        return sum(rows[shard] for shard in shards)

    def _of_shard(self, values: Array, shard: int) -> Array:
        rows = self._spec.shard_rows(shard)
        return values[rows.start : rows.stop]

    def _groups(self, shards: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut `shards` into those that are read at once."""
        size = 1
        if self._store.format.at_once:
            size = max(1, AT_ONCE_BYTES // (self._spec.rows_per_shard * self._row_bytes))
        for first in range(0, len(shards), size):
            yield shards[first : first + size]

    def _read(self, group: Sequence[int]) -> dict[int, Features]:
        """Return the features of every shard of a group."""
        good = {shard: self._of_shard(self._status, shard) == Status.OK for shard in group}
        rows = np.concatenate([self._of_shard(self._chosen, shard)[good[shard]] for shard in group])
        features: dict[int, dict[str, list[Array | None]]] = {shard: {} for shard in group}
        for name, stream in self._spec.streams.items():
            for array, values in self._stream(name, stream, rows).items():
                given = iter(values)
                for shard in group:
                    features[shard][array] = [next(given) if ok else None for ok in good[shard]]
        return dict(features)

    def _stream(self, name: str, stream: Stream, rows: Array) -> Mapping[str, Array]:
        if stream.type == self._store.streams[name].type:
            return {array: self._store.read(array, rows) for array in stream.arrays(name)}
        # Copying bytes needs no torch, which takes seconds to load.
        from tca.cache.retype import read_as

        return read_as(self._store, name, rows, stream.type)

    def _failures(self, shard: int) -> list[Failure]:
        """Return why rows of a shard failed, where that lies beside the source."""
        place = self._store.path
        rows = self._of_shard(self._chosen, shard)
        failed = np.flatnonzero(self._of_shard(self._status, shard) != Status.OK)
        if not isinstance(place, Path):
            return []
        old_shards = np.unique(rows[failed] // self._store.rows_per_shard).tolist()
        known = read_failures(place, old_shards)
        first = self._spec.shard_rows(shard).start
        return [
            replace(known[old], row=first + inside)
            for inside, old in zip(failed.tolist(), rows[failed].tolist(), strict=True)
            if old in known
        ]


def _require_target(source: Path | str, target: Path, store_format: str | None) -> None:
    named = named_format(target)
    if store_format is not None and named not in (None, store_format):
        raise UsageError(
            f"{target} is named like {named} and --format says {store_format}; give a TARGET that "
            "ends accordingly."
        )
    if isinstance(source, Path):
        around = [target.resolve(), *target.resolve().parents]
        if source.resolve() in around or _same(source, target):
            raise UsageError(f"{target} is SOURCE itself or lies inside it; give another TARGET.")


def _same(source: Path, target: Path) -> bool:
    return source.exists() and target.exists() and os.path.samefile(source, target)
