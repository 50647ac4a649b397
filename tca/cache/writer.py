"""Committing the shards of a store, so that a kill at any moment costs one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tca.cache.creation import create_store
from tca.cache.format import Array, Format
from tca.cache.formats import named_format, open_format
from tca.cache.layout import FeatureArray, Status, StoreSpec
from tca.cache.restore import restore_missing
from tca.errors import TcaError


class StoreWriter:
    """Commits shards into a store of any format. The caller holds `files.sole_writer`.

    Attributes:
        path: where the store lies.
        spec: what it was made with.
    """

    def __init__(self, path: Path) -> None:
        self._format = _writable(open_format(path))
        self.path = path
        self.spec = self._format.spec

    @classmethod
    def open_or_create(
        cls, path: Path, spec: StoreSpec, store_format: str | None = None
    ) -> StoreWriter:
        """Go on with the store at `path`, or make it; see `create_store`.

        A store that is there keeps its own `rows_per_shard` and `record`. What it lost outside its
        shards is made again, see `restore`.

        Args:
            path: where.
            spec: what it holds.
            store_format: "zarr" or "hdf5"; None: what is there, or as the name ends, or zarr.

        Raises:
            TcaError: the store there is for other rows or other features, or of the other format;
                says how they differ.
        """
        if not path.exists():
            create_store(path, spec, store_format or named_format(path) or "zarr")
        restore_missing(path, spec)
        writer = cls(path)
        found = writer._format.name
        if store_format not in (None, found):
            raise TcaError(
                f"{path} is there already, as {found}; name another path in `stores`, or turn it "
                f"into {store_format} with `tca cache convert`."
            )
        different = spec.differences(writer.spec)
        if different:
            raise TcaError(
                f"{path} was made with other settings: {'; '.join(different)}; name another path "
                "in `stores`, or delete that store."
            )
        return writer

    @property
    def shards(self) -> int:
        """Number of shards, committed or not."""
        return self.spec.shards

    def shard_rows(self, shard: int) -> range:
        """Return the row numbers of one shard; the last one may be shorter."""
        return self.spec.shard_rows(shard)

    def committed(self) -> set[int]:
        """Return the shards that need not be done: those with a status on disk.

        Raises:
            TcaError: a status is damaged.
        """
        return {s for s in range(self.shards) if self._format.checked_status(s) is not None}

    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        """Write one shard: first its features, then its status, which makes it exist.

        Args:
            shard: which.
            features: for every array of features or scales one array a row of the shard, None for
                a failed row.
            status: (rows of the shard,) `Status` values, none of them "not extracted".

        Raises:
            TcaError: disk full or not writable; what was committed before stays.
        """
        status = np.asarray(status)
        rows = len(self.shard_rows(shard))
        good = status == Status.OK
        if good.shape != (rows,) or (status == Status.NOT_EXTRACTED).any():
            raise ValueError(f"shard {shard} has {rows} rows, each with a status; got {status}")
        for name, what in self._format.arrays.items():
            _check(name, what, features[name], good)
        self._format.commit(shard, features, status)


def _writable(found: Format) -> Format:
    if not found.writable:
        raise TcaError(
            f"{found.path} was not written by tca, which only reads it; turn it into a store of "
            "its own with `tca cache convert`."
        )
    return found


def _check(name: str, what: FeatureArray, rows: Sequence[Array | None], good: Array) -> None:
    if [row is not None for row in rows] != good.tolist():
        raise ValueError(f"{name} must have an array for every good row and None for the others")
    for row in rows:
        if row is not None and (row.shape != what.row_shape or row.dtype != what.dtype):
            raise ValueError(f"{name} rows are {what}, got {row.dtype} {row.shape}")
