"""What HDF5 writes a shard to: it writes piece by piece, and errors are not for its ears."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import FileIO, RawIOBase
from typing import Any

from typing_extensions import override

from tca.cache.files import write_fully

HELD_BYTES = 2 << 20
"""Of a file that is being written; see `files.write_atomic` for why."""


class Sink(RawIOBase):
    """The file that HDF5 writes, piece by piece, into larger pieces for the system.

    An error is kept until HDF5 has closed it, and no more is written then: HDF5 cannot give up a
    file whose last bytes it could not write. It would stay open and be tried again when the process
    ends.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.error: Exception | None = None
        # Used again and again, since memory new from the system costs more than the copying.
        self._room = memoryview(bytearray(HELD_BYTES))
        self._held = 0
        self._at = 0

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset != self._at:
            self.hand_over()
            self._at = self._file.seek(offset, whence)
        return self._at

    @override
    def readinto(self, buffer: Any) -> int | None:
        self.hand_over()
        count = self._file.readinto(buffer)
        self._at = self._file.tell()
        return count

    @override
    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while view:
            if self._held == HELD_BYTES:
                self.hand_over()
            taken = view[: HELD_BYTES - self._held]
            self._room[self._held : self._held + len(taken)] = taken
            self._held += len(taken)
            view = view[len(taken) :]
        self._at += size
        return size

    @override
    def truncate(self, size: int | None = None) -> int:
        self.hand_over()
        self._keep_error(lambda: self._file.truncate(size))
        return size or 0

    def hand_over(self) -> None:
        """Write what is held."""
        held, self._held = self._room[: self._held], 0
        self._keep_error(lambda: write_fully(self._file.fileno(), [held]))

    def _keep_error(self, work: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            work()
        except Exception as error:
            self.error = error
