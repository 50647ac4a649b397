"""What an extraction is about to do, told before it begins; and which part of it is ours."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tca.cache.layout import StoreSpec, feature_arrays
from tca.cache.room import require_room, size_words
from tca.errors import TcaError, UsageError

INDEX_BYTES = 20
"""Bytes of a row and array beside its numbers: where it lies, and its checksum."""


@dataclass(frozen=True)
class Part:
    """One of `count` static slices of the shards, for machines that know nothing of each other.

    Attributes:
        number: from 1.
        count: how many parts there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that I/N names.

        Raises:
            UsageError: it names none.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"--part {text!r} must be I/N with I from 1 to N, as 3/16 (in Slurm: #SBATCH "
                "--array=1-16)."
            )
        return cls(int(match[1]), int(match[2]))

    def path(self, store: Path) -> Path:
        """Return where this part of `store` lies: beside it, `train.part-3-of-16.zarr`."""
        return store.with_name(f"{store.stem}.part-{self.number}-of-{self.count}{store.suffix}")

    def shards(self, total: int) -> list[int]:
        """Return its shards of `total`, spread over the store: parts then take equally long."""
        return list(range(self.number - 1, total, self.count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Plan:
    """One split, before anything is written.

    Attributes:
        split: its name.
        store: path of the store, or of the part.
        store_format: "zarr" or "hdf5".
        part: which part of the split, "3/16"; None: all of it.
        videos: annotated videos of the whole split.
        missing: how many of them have no file.
        rows: rows of the store, or of the part.
        rows_done: how many of them are there.
        rows_per_shard, shards, shards_done: likewise of shards.
        row_bytes: bytes of a row; None where the weights cannot be had, which say how large it is.
        needed: bytes that the rest takes on disk; None likewise.
        free: bytes free where the store lies.
        devices: a worker each.
        batch_size: videos that a worker maps at once; 0 if that cannot be settled.
        problem: why the run would not start; None if it would.
    """

    split: str
    store: Path
    store_format: str
    part: str | None
    videos: int
    missing: int
    rows: int
    rows_done: int
    rows_per_shard: int
    shards: int
    shards_done: int
    row_bytes: int | None
    needed: int | None
    free: int
    devices: list[str]
    batch_size: int
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"store": str(self.store)}

    def lines(self) -> list[tuple[str, str]]:
        """Return it as a person reads it: what, and how much."""
        found = self.videos - self.missing
        workers = [f"{self.devices.count(d)} x {d}" for d in dict.fromkeys(self.devices)]
        todo = (
            f"{self.rows - self.rows_done:,} of {self.rows:,}, in "
            f"{self.shards - self.shards_done:,} of {self.shards:,} shards"
        )
        if self.part is not None:
            todo += f" (part {self.part})"
        needed = "unknown" if self.needed is None else size_words(self.needed)
        batches = f"batches of {self.batch_size or 'unknown size'}"
        return [
            ("videos", f"{self.videos:,}: {found:,} found, {self.missing:,} missing"),
            ("rows to do", todo),
            ("disk", f"{needed} needed, {size_words(self.free)} free"),
            ("workers", f"{', '.join(workers)}; {batches}"),
            ("store", f"{self.store} ({self.store_format})"),
        ]


def todo_bytes(spec: StoreSpec, shards: Sequence[int], files: Sequence[Path | None]) -> int:
    """Return the bytes that `shards` of a store will take; a row without a file takes none.

    Args:
        spec: the store's.
        shards: which are to be made.
        files: (N,) the file of every row.
    """
    found = sum(files[row] is not None for shard in shards for row in spec.shard_rows(shard))
    arrays = feature_arrays(spec.streams).values()
    return found * sum(array.row_bytes + INDEX_BYTES for array in arrays)


def free_bytes(store: Path) -> int:
    """Return what is free on the disk where `store` lies or will lie."""
    return shutil.disk_usage(_there(store)).free


def require_room_for(store: Path, needed: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        TcaError: fewer bytes are free.
    """
    require_room(store, needed, "or keep less with semantic.keep=mean or semantic.pool")


def require_writable(store: Path) -> None:
    """Refuse to begin where nothing can be written.

    Raises:
        TcaError: the folder is read-only, or a file is where a folder must be.
    """
    folder = _there(store)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TcaError(
            f"cannot write to {folder}; choose a folder that can be written in `stores`."
        )


def _there(store: Path) -> Path:
    """Return `store`, or the nearest folder above it that exists."""
    return next(place for place in (store, *store.absolute().parents) if place.exists())
