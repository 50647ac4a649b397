"""HDF5 stores: rows lie in the shards' files as they are and are read without HDF5.

Where they lie HDF5 says, once a shard. Shards that somebody rewrote in another way (compressed,
say) are read through h5py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from typing_extensions import override

from tca.cache.format import Array, Extents, Format, reading_failed
from tca.cache.hdf5_creation import held_types, shard_name
from tca.cache.hdf5_index import read_index
from tca.cache.hdf5_prologue import Prologue
from tca.cache.hdf5_shard import read_extents, read_rows, read_status, write_shard
from tca.cache.layout import Status, StoreSpec
from tca.cache.place import SHARDS


class Hdf5Format(Format):
    """A folder of HDF5 files on a local disk, laid out as docs/cache.md says."""

    name: ClassVar[str] = "hdf5"
    path: Path

    def __init__(self, path: Path, spec: StoreSpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def open(cls, path: Path) -> Hdf5Format:
        """Open the store at `path`.

        Raises:
            TcaError: not one of tca's stores, a newer layout, or a missing or changed index.
        """
        return cls(path, read_index(path))

    @override
    def shard_status(self, shard: int) -> Array | None:
        try:
            status = read_status(self.record_file(shard), len(self.spec.shard_rows(shard)))
        except FileNotFoundError:
            return None
        if not (status == Status.OK).any():
            # Nobody will read its rows, and yet the rest of the file shall be sound.
            for array in self.arrays:
                self.extents(array, shard)
        return status

    @override
    def all_status(self) -> Array:
        status = np.full(len(self.spec.rows), Status.NOT_EXTRACTED, dtype=np.uint8)
        there = self._committed()
        alike = self._prologue(there)
        for shard in there:
            rows = self.spec.shard_rows(shard)
            found = alike.status(f"{self.path}/{shard_name(shard)}") if alike else None
            if found is None or len(found) != len(rows):
                found = self.checked_status(shard)
            if found is not None:
                status[rows.start : rows.stop] = found
        return status

    @override
    def extents(self, array: str, shard: int) -> Extents | None:
        rows = len(self.spec.shard_rows(shard))
        return read_extents(self.record_file(shard), array, self.arrays[array], rows)

    @override
    def read_through_library(self, array: str, rows: Array, out: Array) -> None:
        shard = int(rows[0]) // self.spec.rows_per_shard
        inside = self.spec.shard_rows(shard)
        what = self.arrays[array]
        file = self.record_file(shard)
        read_rows(file, array, what, len(inside), rows - inside.start, out)

    @override
    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        held = held_types(self.spec)
        write_shard(self.record_file(shard), self.arrays, held, features, status)

    @override
    def shard_file(self, array: str, shard: int) -> Path:
        return self.record_file(shard)

    @override
    def record_file(self, shard: int) -> Path:
        return self.path / shard_name(shard)

    def _committed(self) -> list[int]:
        """Return the shards whose files are there, ascending: one look at the folder."""
        folder = self.path / SHARDS
        try:
            names = set(os.listdir(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise reading_failed(folder, error) from None
        return [s for s in range(self.spec.shards) if Path(shard_name(s)).name in names]

    def _prologue(self, there: Sequence[int]) -> Prologue | None:
        """Return what full shards begin with, as the first of them has it."""
        rows = self.spec.rows_per_shard
        for shard in there:
            if len(self.spec.shard_rows(shard)) == rows:
                return Prologue.of(self.record_file(shard), rows)
        return None
