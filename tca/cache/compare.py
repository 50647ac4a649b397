"""Two stores of the same rows held against each other, whatever their formats and types.

The same extraction on another kind of device gives the same numbers but for rounding. How far
apart a row is, is told relative to its largest magnitude: that is what a small number next to a
large one is rounded against on its way through a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tca.cache.format import Array
from tca.cache.layout import SCALE, Stream, differences, status_words
from tca.cache.store import Store
from tca.cache.types import decode, from_numpy
from tca.errors import TcaError

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-20, "int8": 2.0**-8}
"""How far a number may be from what was computed, relative to the largest of its row.

Half a unit in the last place, for int8 half a step of the largest patch. Of float32 it is not
storing that rounds most but computing: sums of a thousand products.
"""

TOLERANCE = 8
"""Roundings of the coarser type that rows may differ by: a few units in the last place."""

NAMED = 10
"""Rows named of each kind of difference."""

BLOCK_BYTES = 32 << 20
"""Features compared at once, as float32."""


@dataclass
class StreamComparison:
    """How the values of one stream differ.

    Attributes:
        types: stored type in the one store and in the other.
        tolerance: largest difference allowed, relative to the row's largest magnitude.
        rows: rows that were compared: those with features in both.
        different: rows that differ at all.
        beyond: rows that differ by more than the tolerance.
        absolute: largest difference.
        relative: largest difference relative to the largest magnitude of its row.
        first: numbers of the first rows beyond the tolerance, each with that difference.
    """

    types: tuple[str, str]
    tolerance: float
    rows: int = 0
    different: int = 0
    beyond: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    first: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Comparison:
    """How two stores differ.

    Attributes:
        settings: differences of split, classes, identity and streams, as sentences. Shown only.
        rows: number of rows that are not the same: ids, views, labels and statuses; by name.
        problems: sentences on what is not equal and should be, one for each kind.
        streams: the values, by stream.
    """

    settings: list[str]
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    streams: dict[str, StreamComparison] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether the stores hold the same, to within the tolerance."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"agrees": self.agrees}


def compare(
    one: Store,
    other: Store,
    tolerance: float | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare two stores row by row.

    Args:
        one: a store.
        other: a store of the same rows in the same order.
        tolerance: largest difference of a row, relative to its largest magnitude; None: 8
            roundings of the coarser of the two stored types, see `ROUNDING`.
        report: told (rows compared, rows in all), streams one after the other.

    Raises:
        TcaError: no such rows, or one that is damaged or cannot be read.
    """
    if one.rows != other.rows:
        raise TcaError(
            f"{one.path} has {one.rows} rows and {other.path} has {other.rows}; compare stores of "
            "the same rows."
        )
    found = Comparison(_settings(one, other))
    _compare_columns(one, other, found)
    both = np.intersect1d(one.ready(), other.ready())
    shared = [name for name in one.streams if name in other.streams]
    if not shared:
        found.problems.append("they have no stream in common")
    done = 0
    report(0, len(both) * len(shared))
    for name in shared:
        mine, its = one.streams[name], other.streams[name]
        if mine.row_shape != its.row_shape:
            found.problems.append(
                f"{name}: rows of {mine.row_shape} and {its.row_shape} cannot be compared"
            )
            continue
        allowed = tolerance
        if allowed is None:
            allowed = TOLERANCE * max(ROUNDING[mine.type], ROUNDING[its.type])
        result = StreamComparison((mine.type, its.type), allowed, rows=len(both))
        found.streams[name] = result
        for rows in _blocks(both, mine):
            _compare_block(one, other, name, rows, result)
            done += len(rows)
            report(done, len(both) * len(shared))
        if result.beyond:
            named = (f"row {r} (id {one.table.ids[r]}) by {d:.3g}" for r, d in result.first)
            found.problems.append(
                f"{name}: {result.beyond} rows differ by more than {allowed:.3g} of their largest "
                f"magnitude: {_listed(named, result.beyond)}"
            )
    return found


def _settings(one: Store, other: Store) -> list[str]:
    def of(store: Store) -> dict[str, Any]:
        spec = store.spec
        return {
            "split": spec.split,
            "classes": list(spec.classes),
            "grid": list(spec.grid),
            "identity": dict(spec.identity),
            "streams": {n: f"{s.type} {s.row_shape} a row" for n, s in spec.streams.items()},
        }

    return differences(of(one), of(other))


def _compare_columns(one: Store, other: Store, found: Comparison) -> None:
    columns: dict[str, tuple[Array, Array, Callable[[Any], object]]] = {
        "id": (np.array(one.ids, object), np.array(other.ids, object), repr),
        "view": (one.view, other.view, int),
        "label": (one.label, other.label, int),
        "status": (one.status, other.status, status_words),
    }
    for name, (ours, its, shown) in columns.items():
        different = np.flatnonzero(ours != its)
        found.rows[name] = len(different)
        if len(different):
            named = (f"row {r} {shown(ours[r])} and {shown(its[r])}" for r in different.tolist())
            found.problems.append(
                f"{name}: {len(different)} rows differ: {_listed(named, len(different))}"
            )


def _listed(named: Iterator[str], count: int) -> str:
    shown = [text for text, _ in zip(named, range(NAMED), strict=False)]
    more = [f"and {count - len(shown)} more"] if count > len(shown) else []
    return ", ".join(shown + more)


def _blocks(rows: Array, stream: Stream) -> Iterator[Array]:
    step = max(1, BLOCK_BYTES // (4 * int(np.prod(stream.row_shape))))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _compare_block(
    one: Store, other: Store, name: str, rows: Array, result: StreamComparison
) -> None:
    stored = [_read(store, name, rows) for store in (one, other)]
    if result.types[0] == result.types[1] and all(
        np.array_equal(stored[0][array], stored[1][array]) for array in stored[0]
    ):
        # The usual case, and then there is nothing to compute.
        return
    ours, its = (_values(n, kind, name) for n, kind in zip(stored, result.types, strict=True))
    # What is not a number is equal to nothing.
    apart = (ours - its).abs().nan_to_num(torch.inf, torch.inf).amax(1)
    largest = torch.maximum(ours.abs().amax(1), its.abs().amax(1))
    relative = torch.where(apart > 0, apart / largest, 0.0).nan_to_num(torch.inf)
    beyond = (relative > result.tolerance).nonzero().flatten().tolist()
    result.different += int((apart > 0).sum())
    result.absolute = max(result.absolute, float(apart.max()))
    result.relative = max(result.relative, float(relative.max()))
    result.beyond += len(beyond)
    for place in beyond[: NAMED - len(result.first)]:
        result.first.append((int(rows[place]), float(relative[place])))


def _read(store: Store, name: str, rows: Array) -> dict[str, Array]:
    return {array: store.read(array, rows) for array in store.streams[name].arrays(name)}


def _values(stored: dict[str, Array], kind: str, name: str) -> Tensor:
    """Return features as (rows, numbers) float32."""
    scale = stored.get(name + SCALE)
    numbers = from_numpy(stored[name], kind)
    values = decode(numbers, None if scale is None else torch.from_numpy(scale))
    return values.float().flatten(1)
