"""Video ids as stores hold them: UTF-8 in a table of bytes, padded with zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from tca.cache.format import Array
from tca.errors import TcaError


class IdTable(Sequence[str]):
    """The ids of a store, decoded when they are asked for: 220,847 texts take a while."""

    def __init__(self, table: Array) -> None:
        """Take a (N, L) uint8 table."""
        # A text of fixed width is what numpy calls zero-padded.
        self._texts = np.ascontiguousarray(table).view(f"S{table.shape[1]}").ravel()

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [text.decode() for text in self._texts[row].tolist()]
        return bytes(self._texts[row]).decode()


def encode_ids(ids: Sequence[str]) -> Array:
    """Return (N, L) uint8, UTF-8, zero-padded.

    Raises:
        TcaError: an id that no such table can hold.
    """
    encoded = []
    for text in ids:
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:
            raise TcaError(
                f"the video id {text!r} is not valid UTF-8 and cannot be stored; rename that video."
            ) from None
        if "\0" in text:
            raise TcaError(f"the video id {text!r} has a zero character; rename that video.")
    width = max(1, *map(len, encoded))
    return np.array(encoded, dtype=f"S{width}").view(np.uint8).reshape(len(ids), width)
