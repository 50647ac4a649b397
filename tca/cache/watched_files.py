"""The files that zarr-python reads, watched.

To it a chunk that is not there is one of fill values, and a range that a server cut short is an
absent row: lost features would read as zeros.
"""

from __future__ import annotations

from typing_extensions import override
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.abc.store import Store as Files
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from tca.cache.format import DamageError
from tca.cache.remote import RemoteError, as_remote_error


class WatchedFiles(WrapperStore[Files]):
    """The files of a group.

    Where one is not there, or less of it than was asked for, reading raises `DamageError`; where
    the disk or the server is to blame, OSError.
    """

    def __init__(self, store: Files, lenient: set[str]) -> None:
        """Wrap `store`; chunks of the arrays `lenient` need not be there."""
        super().__init__(store)
        self._lenient = lenient

    @override
    def _with_store(self, store: Files) -> WatchedFiles:
        return WatchedFiles(store, self._lenient)

    @override
    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            found = await self._store.get(key, prototype, byte_range)
        except Exception as error:
            if isinstance(error, OSError) and isinstance(self._store, LocalStore):
                raise
            # Drivers have exceptions of their own.
            raise as_remote_error(error) from error
        if found is None:
            array, _, rest = key.partition("/")
            if rest != "zarr.json" and array not in self._lenient:
                # Whoever leaves out chunks of zeros makes them look like lost ones. Within a shard
                # it is the index that says a row was left out: such a row is one of zeros.
                raise DamageError(
                    f"{rest or key} is missing (if it was left out for being zeros, write it with "
                    "zarr's write_empty_chunks)"
                )
        elif isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
            if len(found) < wanted:
                raise DamageError(f"{key} is too short for what its index says")
            if len(found) > wanted:
                raise RemoteError("the server does not answer requests for a part of a file")
        elif isinstance(byte_range, SuffixByteRequest) and len(found) > byte_range.suffix:
            raise RemoteError("the server does not answer requests for a part of a file")
        return found
