"""Counts what a training reads from a store: the system does not see reads of mapped files."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from tca.cache.order import Rows
from tca.cache.residency import DiskRows


class CountedRows(DiskRows):
    """Rows from disk; every row that is copied out of the store's files comes through `read`.

    Attributes:
        bytes: of the features copied so far, without checksums and indices.
    """

    bytes = 0

    @override
    def read(self, rows: Rows, out: dict[str, Tensor]) -> None:
        super().read(rows, out)
        self.bytes += sum(tensor.nbytes for tensor in out.values())
