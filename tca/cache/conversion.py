"""What a converted store is made with: the source's description with what shall be otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tca
from tca.cache.format import Array
from tca.cache.layout import COLUMNS, RowTable, StoreSpec, Stream, differences
from tca.cache.selection import Selection
from tca.cache.store import Store
from tca.errors import TcaError, UsageError

CONVERTED = "converted"
"""Key of `record`: a list of what became of the store, the last conversion last."""


@dataclass(frozen=True)
class Changes:
    """What the new store has otherwise; None: as the old one.

    Attributes:
        type: stored type of every stream.
        rows_per_shard: rows in one shard.
        stream: the one stream to keep.
        selection: the rows to keep.
    """

    type: str | None = None
    rows_per_shard: int | None = None
    stream: str | None = None
    selection: Selection = field(default_factory=Selection)

    def kept(self, store: Store) -> list[str]:
        """Return the streams of `store` that are kept.

        Raises:
            UsageError: it has no such stream.
        """
        if self.stream is None:
            return list(store.streams)
        if self.stream not in store.streams:
            raise UsageError(
                f"{store.path} has no {self.stream} stream, only {', '.join(store.streams)}; "
                "leave --stream out."
            )
        return [self.stream]


def new_spec(
    store: Store, kept: Sequence[str], chosen: Array, changes: Changes, made_as: str
) -> StoreSpec:
    """Return what the new store is made with.

    Args:
        store: the source.
        kept: names of the streams that are kept.
        chosen: numbers of the rows that are kept, ascending.
        changes: what else is otherwise.
        made_as: format of the new store.
    """
    streams = {
        name: Stream(
            (len(chosen), *store.streams[name].row_shape), changes.type or store.streams[name].type
        )
        for name in kept
    }
    identity = {
        key: value
        for key, value in store.identity.items()
        if key in kept or key not in store.streams
    }
    if any(streams[name].type != store.streams[name].type for name in kept):
        identity["dtype"] = changes.type
    table = store.table
    spec = StoreSpec(
        split=store.split,
        rows=RowTable(
            [store.ids[row] for row in chosen.tolist()],
            **{name: getattr(table, name)[chosen] for name in COLUMNS},
        ),
        streams=streams,
        rows_per_shard=changes.rows_per_shard or store.rows_per_shard,
        classes=store.classes,
        identity=identity,
        record=store.record,
        grid=store.grid,
    )
    steps = store.record.get(CONVERTED)
    step = {
        "source": str(store.path).rstrip("/").rpartition("/")[2],
        "changed": _changed(store, spec, made_as) | changes.selection.described(store, chosen),
        "tca": tca.__version__,
    }
    converted = [*(steps if isinstance(steps, list) else []), step]
    return replace(spec, record={**store.record, CONVERTED: converted})


def _changed(store: Store, spec: StoreSpec, made_as: str) -> dict[str, Any]:
    """Return in JSON what the new store has otherwise, rows apart."""
    told: dict[str, Any] = {}
    if store.format.name != made_as:
        told["format"] = f"{store.format.name} to {made_as}"
    if store.rows_per_shard != spec.rows_per_shard:
        told["rows_per_shard"] = f"{store.rows_per_shard} to {spec.rows_per_shard}"
    if len(store.streams) != len(spec.streams):
        told["stream"] = next(iter(spec.streams))
    types = {
        name: f"{store.streams[name].type} to {stream.type}"
        for name, stream in spec.streams.items()
        if store.streams[name].type != stream.type
    }
    return told | ({"type": types} if types else {})


def require_same(
    target: Path, spec: StoreSpec, found: StoreSpec, made_as: str, found_as: str
) -> None:
    """Hold the store at `target` against the one that this conversion makes.

    Args:
        target: where it lies, for the message.
        spec: of the one that would be made.
        found: of the one that is there.
        made_as: format of the former.
        found_as: format of the latter.

    Raises:
        TcaError: they differ in more than the version of tca that made them; says how.
    """

    def made(spec: StoreSpec, store_format: str) -> dict[str, Any]:
        *steps, last = spec.record.get(CONVERTED) or [{}]
        # It may be continued by a later tca.
        last = {key: value for key, value in last.items() if key != "tca"}
        return {
            "format": store_format,
            "rows_per_shard": spec.rows_per_shard,
            # By number, so that a difference names its key.
            "record": {**spec.record, CONVERTED: dict(enumerate([*steps, last], 1))},
        }

    different = spec.differences(found) + differences(made(spec, made_as), made(found, found_as))
    if different:
        raise TcaError(
            f"{target} is there already and was made otherwise: {'; '.join(different)}; give "
            "another TARGET, or delete that store."
        )
