"""Writing so that a file is whole or not there, and one writer a store."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tca.errors import TcaError

Buffer = bytes | bytearray | memoryview


def write_atomic(path: Path, parts: Iterable[Buffer]) -> None:
    """Write `parts` one after the other under a temporary name, flush, rename to `path`.

    Raises:
        TcaError: disk full, read-only or otherwise not writable; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _make_folder(path.parent)
        with open(temporary, "wb", buffering=0) as file:
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise writing_failed(path, error) from None


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder`, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writing_failed(path: Path, error: OSError) -> TcaError:
    """Turn the system's reason into one sentence with the remedy."""
    remedy = {
        errno.ENOSPC: "free some space and run the command again: it goes on where it stopped",
        errno.EDQUOT: "raise the quota and run the command again: it goes on where it stopped",
        errno.EROFS: "choose a folder that can be written",
        errno.EACCES: "choose a folder that can be written",
        errno.EPERM: "choose a folder that can be written",
    }.get(error.errno or 0, "look at the disk and run the command again")
    return TcaError(f"cannot write {path}: {error.strerror or error}; {remedy}.")


@contextmanager
def sole_writer(store: Path) -> Iterator[None]:
    """Hold the lock beside `store`; the system drops it when the process dies.

    Raises:
        TcaError: another process is writing this store, or the folder is read-only.
    """
    path = store.with_name(store.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        raise writing_failed(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TcaError(
                f"another process is writing {store}; wait for it to end or write elsewhere."
            ) from None
        yield
