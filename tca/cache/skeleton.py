"""What of a store lies outside its shards (metadata, labels, ids, videos, views), checked.

A store opens only if all of it is. Who checks and repairs wants to know of every damaged file,
and to get at the shards all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tca.cache.format import Format
from tca.cache.formats import open_format
from tca.cache.layout import COLUMNS, SCALE, STREAMS
from tca.cache.place import INDEX, SHARDS, says_tca
from tca.cache.sums import digest, sums_of
from tca.errors import TcaError

CHANGED = "it has changed since the store was made (its sha256 is not that in tca.sums)"
MISSING = "it is missing"


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
        rows_per_shard: as what is sound says it; None if that says nothing.
    """

    format: Format | None
    damage: dict[str, str] = field(default_factory=dict)
    lost_sums: list[str] = field(default_factory=list)
    summed: bool = True
    unchecked: list[str] = field(default_factory=list)
    ids: bool = True
    rows_per_shard: int | None = None


def check_skeleton(path: Path | str) -> Skeleton:
    """Check all of a store but its shards.

    Raises:
        TcaError: nothing there, not a store, made by a newer tca, or a file that cannot be read.
    """
    if isinstance(path, str):
        return Skeleton(open_format(path))
    try:
        store = open_format(path)
        found = Skeleton(store, rows_per_shard=store.spec.rows_per_shard)
    except TcaError:
        if not _was_store(path):
            raise
        found = _examine(path)
        if not (found.damage or found.lost_sums):
            # Not a matter of damage: a newer layout, a foreign store.
            raise
    found.summed = bool(sums_of(path))
    return found


def is_hdf5(path: Path) -> bool:
    """Say whether a store, perhaps without its skeleton, is HDF5."""
    return (
        (path / INDEX).exists()
        or INDEX in sums_of(path)
        or (not (path / "zarr.json").exists() and any((path / SHARDS).glob("[0-9]" * 6 + ".h5")))
    )


def format_there(path: Path) -> str | None:
    """Return the format of the store at `path`, perhaps without its skeleton; None: nothing there.

    Raises:
        TcaError: the sums cannot be read.
    """
    if not path.exists():
        return None
    return "hdf5" if is_hdf5(path) else "zarr"


def missing_files(path: Path) -> list[str]:
    """Return the files outside the shards that the store at `path` had and has no more.

    Raises:
        TcaError: the sums cannot be read.
    """
    if not (is_hdf5(path) or sums_of(path)):
        # Without sums nothing tells a store that lost files from a folder of somebody else's.
        return []
    return [name for name in skeleton_files(path) if not (path / name).exists()]


def skeleton_files(path: Path) -> list[str]:
    """Return the files outside the shards that the store at `path` has or had: those with sums."""
    if is_hdf5(path):
        return [INDEX]
    from tca.cache import zarr_skeleton

    return zarr_skeleton.skeleton_files(path)


def sum_line_damaged(data: bytes, expected: str) -> bool:
    """Say whether a sum that does not hold is itself to blame: damage leaves most digits alone."""
    same = sum(a == b for a, b in zip(digest(data), expected, strict=False))
    return same > 48


def _was_store(path: Path) -> bool:
    """Say whether a folder that does not open is a damaged store, not somebody else's folder."""
    if not path.is_dir():
        return False
    if sums_of(path) or says_tca(path):
        return True
    if is_hdf5(path):
        return (path / SHARDS).is_dir()
    arrays = (*STREAMS, *(name + SCALE for name in STREAMS), *COLUMNS, "id", "status")
    return sum(_says_tca_dtype(path / name / "zarr.json") for name in arrays) >= 2


def _says_tca_dtype(metadata: Path) -> bool:
    """Say whether the metadata of an array, damaged perhaps, were written by tca."""
    try:
        return b"tca_dtype" in metadata.read_bytes()
    except OSError:
        return False


def _examine(path: Path) -> Skeleton:
    if is_hdf5(path):
        from tca.cache import hdf5_skeleton

        return hdf5_skeleton.examine(path)
    from tca.cache import zarr_skeleton

    return zarr_skeleton.examine(path)
