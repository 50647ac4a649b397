"""What a store looks like: arrays, attributes, statuses, identity.

Both sides of the contract import these names, and nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

LAYOUT_VERSION = 1
"""Raised when a store written before can no longer be read by the same code."""

STREAMS = ("semantic", "motion")

TYPES = ("float16", "bfloat16", "float32", "int8")
"""Stored types of features; int8 has one float16 scale a patch or segment."""

SCALE = "_scale"
"""Ends the name of the array of scales that belongs to an int8 stream."""

COLUMNS: dict[str, np.dtype[Any]] = {
    "label": np.dtype("i4"),
    "video": np.dtype("i4"),
    "view": np.dtype("u1"),
}
"""Arrays of one number a row, written at creation."""

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
class FeatureArray:
    """One array of features, or of their scales, as it lies on disk.

    Attributes:
        row_shape: shape of one row.
        dtype: numpy type of the stored numbers.
    """

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row without its checksum."""
        return int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Stream:
    """The features of one stream.

    Attributes:
        shape: shape with the rows, (N, …, width).
        type: what the numbers mean, one of `TYPES`.
    """

    shape: tuple[int, ...]
    type: str

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers: bfloat16 lies on disk as uint16."""
        return np.dtype("uint16" if self.type == "bfloat16" else self.type)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row with its scales, without checksums."""
        return sum(array.row_bytes for array in self.arrays("").values())

    def arrays(self, name: str) -> dict[str, FeatureArray]:
        """Return the arrays that hold the stream `name`: itself, and for int8 its scales."""
        found = {name: FeatureArray(self.row_shape, self.dtype)}
        if self.type == "int8":
            found[name + SCALE] = FeatureArray(self.row_shape[:-1], np.dtype("float16"))
        return found


def feature_arrays(streams: Mapping[str, Stream]) -> dict[str, FeatureArray]:
    """Return every array that holds features or their scales, by name."""
    return {
        array: what
        for name, stream in streams.items()
        for array, what in stream.arrays(name).items()
    }


@dataclass(frozen=True)
class FeatureShapes:
    """The numbers a fusion model is built from; 0 for what a stream that is not stored would say.

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

    ids: Sequence[str]
    label: np.ndarray[Any, np.dtype[np.int32]]
    video: np.ndarray[Any, np.dtype[np.int32]]
    view: np.ndarray[Any, np.dtype[np.uint8]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class StoreSpec:
    """All that a store is made with; what is missing then is only its features.

    Attributes:
        split: train, validation or test.
        rows: ids, labels, videos and views.
        streams: shape and type of "semantic", "motion" or both.
        rows_per_shard: rows in one shard, fixed from now on.
        classes: class names, by label.
        identity: what makes the features; compared by training and evaluation.
        record: versions and sources, shown only; no times or host names.
        grid: patches (vertically, horizontally) of the semantic stream.
    """

    split: str
    rows: RowTable
    streams: Mapping[str, Stream]
    rows_per_shard: int
    classes: Sequence[str]
    identity: Mapping[str, Any]
    record: Mapping[str, Any]
    grid: tuple[int, int]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.rows) // self.rows_per_shard)

    def shard_rows(self, shard: int) -> range:
        """Return the row numbers of one shard; the last one may be shorter."""
        first = shard * self.rows_per_shard
        return range(first, min(first + self.rows_per_shard, len(self.rows)))

    def attributes(self) -> dict[str, Any]:
        """Return what the group's attributes hold, ready for JSON."""
        return {
            "tca_layout": LAYOUT_VERSION,
            "split": self.split,
            "classes": list(self.classes),
            "grid": list(self.grid),
            "identity": dict(self.identity),
            "record": dict(self.record),
        }

    def differences(self, found: StoreSpec) -> list[str]:
        """Say how `found` differs in anything but `rows_per_shard` and `record`."""
        ours, theirs = self._compared(), found._compared()
        if ours["rows"] != theirs["rows"]:
            # Their number says it all.
            ours["row"] = theirs["row"] = None
        return differences(ours, theirs)

    def _compared(self) -> Any:
        """Return all that must be equal for a store to be continued, as JSON spells it."""
        return json.loads(
            json.dumps(
                {
                    "split": self.split,
                    "classes": list(self.classes),
                    "grid": self.grid,
                    "identity": self.identity,
                    "streams": {
                        name: f"{stream.type} {stream.row_shape} a row"
                        for name, stream in self.streams.items()
                    },
                    "rows": len(self.rows),
                    "row": {
                        "id": list(self.rows.ids),
                        **{name: getattr(self.rows, name).tolist() for name in COLUMNS},
                    },
                }
            )
        )


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
