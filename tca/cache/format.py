"""What a format must do to hold stores. Zarr and HDF5 do it, each in files of their own.

Everything above this line of the house speaks to a store through `Format`: reading, writing,
checking, repairing, merging and converting know nothing of chunks and codecs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tca.cache.layout import FeatureArray, Status, StoreSpec, feature_arrays
from tca.errors import TcaError

Array = np.ndarray[Any, np.dtype[Any]]

CHECKSUM_BYTES = 4
"""Of a CRC32C."""

ABSENT = -1
"""Offset of a row that is not in the file: its features are all zeros."""


class DamageError(Exception):
    """A file is not as it was written. The message says how; whoever catches it names the file."""


@dataclass(frozen=True)
class Extents:
    """Where the rows of one array lie in the file of one shard.

    Attributes:
        offset: (rows of the shard, or more,) int64 bytes from the file's start, `ABSENT` for a row
            without bytes.
        checksum: (rows of the shard,) uint32 CRC32C of every row; None where `checksum_behind_row`.
    """

    offset: Array
    checksum: Array | None


class Format(ABC):
    """One store's files.

    Attributes:
        name: the format.
        path: where the store lies: a path, or of one behind a URL that text.
        spec: what it was made with.
    """

    name: ClassVar[str]
    writable: ClassVar[bool] = True
    """False for stores that tca reads through a library."""
    checksum_behind_row: ClassVar[bool] = False
    """True where the CRC32C of a row is the 4 bytes behind it, little-endian."""
    at_once: ClassVar[bool] = False
    """True where `read_through_library` takes rows of many shards: a server answers in parallel."""

    path: Path | str
    spec: StoreSpec

    @property
    def arrays(self) -> dict[str, FeatureArray]:
        """Every array of features and scales, by name."""
        return feature_arrays(self.spec.streams)

    @abstractmethod
    def shard_status(self, shard: int) -> Array | None:
        """Return the statuses of one shard's rows as they are on disk now; None: not committed.

        Raises:
            DamageError: they are not as they were written.
            OSError: they cannot be read.
        """

    @abstractmethod
    def extents(self, array: str, shard: int) -> Extents | None:
        """Return where the rows lie; None if they can be read through the library alone.

        Raises:
            DamageError: the file is missing or damaged.
            OSError: the file cannot be read.
        """

    @abstractmethod
    def read_through_library(self, array: str, rows: Array, out: Array) -> None:
        """Read rows (ascending, of one shard) that have no extents into `out`.

        Raises:
            DamageError: the library says they are damaged, or their file is missing.
            OSError: the file cannot be read.
        """

    @abstractmethod
    def commit(
        self, shard: int, features: Mapping[str, Sequence[Array | None]], status: Array
    ) -> None:
        """Write one shard; its arguments have been checked. See `StoreWriter.commit`."""

    @abstractmethod
    def shard_file(self, array: str, shard: int) -> Path:
        """Return the file that holds one shard of an array."""

    @abstractmethod
    def record_file(self, shard: int) -> Path:
        """Return the file whose presence says that the shard is committed."""

    def shard_name(self, array: str, shard: int) -> str:
        """Return what to call the file that holds one shard of an array."""
        return str(self.shard_file(array, shard))

    def shard_files(self, shard: int) -> list[Path]:
        """Return all files of a shard, its commit record first: the order of taking it away."""
        files = [self.record_file(shard)]
        files += (self.shard_file(array, shard) for array in self.arrays)
        return list(dict.fromkeys(files))

    def all_status(self) -> Array:
        """Return the statuses of all rows, (N,) uint8.

        Raises:
            TcaError: those of a shard are damaged or cannot be read.
        """
        status = np.full(len(self.spec.rows), Status.NOT_EXTRACTED, dtype=np.uint8)
        for shard in range(self.spec.shards):
            found = self.checked_status(shard)
            if found is not None:
                rows = self.spec.shard_rows(shard)
                status[rows.start : rows.stop] = found
        return status

    def checked_status(self, shard: int) -> Array | None:
        """Do as `shard_status`, with errors that name the file and the remedy.

        Raises:
            TcaError: the statuses are damaged or cannot be read.
        """
        file = self.record_file(shard)
        try:
            return self.shard_status(shard)
        except OSError as error:
            raise reading_failed(file, error) from None
        except DamageError as error:
            raise TcaError(
                f"{file}, the status of shard {shard}, is damaged: {error}; {self.repair_first}."
            ) from None

    @property
    def repair_first(self) -> str:
        """The remedy for a damaged shard."""
        return (
            f"run `tca cache repair {self.path}`, then extract again: the damaged shards alone "
            "are redone"
        )


def reading_failed(path: Path | str, error: OSError, remedy: str = "make it readable") -> TcaError:
    """Turn the system's reason into one sentence."""
    return TcaError(f"cannot read {path}: {error.strerror or error}; {remedy}.")
