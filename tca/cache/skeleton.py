"""What of a store lies outside its shards (metadata, labels, ids, videos, views), checked.

A store opens only if all of it is. Who checks and repairs wants to know of every damaged file,
and to get at the shards all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tca.cache.format import Format
from tca.cache.formats import open_format
from tca.cache.sums import digest, sums_of
from tca.errors import TcaError

INDEX = "index.h5"
"""The one file of an HDF5 store outside its shards."""


@dataclass
class Skeleton:
    """What was found.

    Attributes:
        format: to reach the shards with; where something is damaged, as far as the rest tells.
            None if the rest does not tell enough.
        damage: why files are not as they were written, by their names inside the store.
        lost_sums: files that are sound as far as they can be checked, but whose line in
            `tca.sums` is lost or damaged.
        summed: whether there are any sums of this store.
        unchecked: feature arrays that cannot be checked for want of their metadata.
        ids: whether `format.spec` has the ids.
    """

    format: Format | None
    damage: dict[str, str] = field(default_factory=dict)
    lost_sums: list[str] = field(default_factory=list)
    summed: bool = True
    unchecked: list[str] = field(default_factory=list)
    ids: bool = True


def check_skeleton(path: Path | str) -> Skeleton:
    """Check all of a store but its shards.

    Raises:
        TcaError: nothing there, not a store, made by a newer tca, or a file that cannot be read.
    """
    if isinstance(path, str):
        return Skeleton(open_format(path))
    try:
        found = Skeleton(open_format(path))
    except TcaError as error:
        if is_hdf5(path):
            # All of it is one file, and the error names it.
            raise
        from tca.cache.zarr_skeleton import examine

        found = examine(path)
        if not (found.damage or found.lost_sums):
            # Not a matter of damage: a newer layout, a foreign store, no store.
            raise error from None
    found.summed = bool(sums_of(path))
    return found


def is_hdf5(path: Path) -> bool:
    """Say whether a store, perhaps without its skeleton, is HDF5."""
    return (path / INDEX).exists() or (not (path / "zarr.json").exists() and any(path.glob("*.h5")))


def sum_line_damaged(data: bytes, expected: str) -> bool:
    """Say whether a sum that does not hold is itself to blame: damage leaves most digits alone."""
    same = sum(a == b for a, b in zip(digest(data), expected, strict=False))
    return same > 48
