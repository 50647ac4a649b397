"""What a store looks like: arrays, attributes, statuses, identity.

Both sides of the contract import these names, and nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

LAYOUT_VERSION = 1
"""Raised when a store written before can no longer be read by the same code."""

STREAMS = ("semantic", "motion")
ROWS_PER_SHARD = 256
MIN_ROWS_PER_SHARD = 8
SHARDS_PER_DEVICE = 8


class Status(IntEnum):
    """What became of a row. 255 is the fill value: its shard is not committed."""

    OK = 0
    MISSING = 1
    UNREADABLE = 2
    EMPTY = 3
    TIMED_OUT = 4
    NOT_EXTRACTED = 255

    @property
    def words(self) -> str:
        """The status as it is shown: "timed out"."""
        return self.name.lower().replace("_", " ")


def status_words(status: int) -> str:
    """Return the words for a stored status, which a later tca may have written."""
    return Status(status).words if status in set(Status) else f"status {status}"


@dataclass(frozen=True)
class Stream:
    """One feature array: `shape` includes the rows, (N, …)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row without its checksum."""
        return int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class FeatureShapes:
    """The numbers a fusion model is built from.

    Attributes:
        segments: time steps the semantic stream keeps, None for a time average.
        grid: patches (vertically, horizontally).
        semantic_width: features a patch.
        motion_segments: time steps of the motion stream.
        motion_width: features a segment.
    """

    segments: int | None
    grid: tuple[int, int]
    semantic_width: int
    motion_segments: int
    motion_width: int


@dataclass(frozen=True)
class RowTable:
    """What is known of every row before extraction; all of length N.

    Attributes:
        ids: video ids, UTF-8.
        label: class index, −1 unknown; int32.
        video: index of the row's video in the annotations; int32.
        view: index of the row's view; uint8.
    """

    ids: list[str]
    label: np.ndarray[Any, np.dtype[np.int32]]
    video: np.ndarray[Any, np.dtype[np.int32]]
    view: np.ndarray[Any, np.dtype[np.uint8]]

    def __len__(self) -> int:
        return len(self.ids)


def rows_per_shard(rows: int, devices: int = 1) -> int:
    """Return 256, lowered (not under 8) so that every device gets at least 8 shards."""
    fair = rows // (SHARDS_PER_DEVICE * max(devices, 1))
    return max(MIN_ROWS_PER_SHARD, min(ROWS_PER_SHARD, fair))


def differences(expected: Any, found: Any, key: str = "") -> list[str]:
    """List every key whose value differs, as `key: expected 1, found 2`."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        names = [*expected, *(name for name in found if name not in expected)]
        return [
            line
            for name in names
            for line in differences(
                expected.get(name, _ABSENT),
                found.get(name, _ABSENT),
                f"{key}.{name}" if key else str(name),
            )
        ]
    if expected == found:
        return []
    if isinstance(expected, list) and isinstance(found, list):
        return [f"{key}: {_list_difference(expected, found)}"]
    return [f"{key}: expected {_shown(expected)}, found {_shown(found)}"]


_ABSENT = object()


def _shown(value: Any) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _list_difference(expected: list[Any], found: list[Any]) -> str:
    if len(expected) != len(found):
        return f"expected {len(expected)} entries, found {len(found)}"
    first = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
    return f"entry {first} is expected {_shown(expected[first])}, found {_shown(found[first])}"
