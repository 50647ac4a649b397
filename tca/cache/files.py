"""Writing so that a file is whole or not there, and one writer a store."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from tca.cache.place import require_place
from tca.errors import TcaError

Buffer = bytes | bytearray | memoryview

BATCH_BYTES = 8 << 20
BATCH_PARTS = 512
"""Written by one call; the system takes 1,024 parts at most."""


def write_atomic(path: Path, parts: Iterable[Buffer]) -> None:
    """Write `parts` one after the other under a temporary name, flush, rename to `path`.

    Raises:
        TcaError: disk full, read-only or otherwise not writable; nothing is left behind.
    """
    with replacing(path) as file:
        for some in _batches(parts):
            write_fully(file.fileno(), some)


def _batches(parts: Iterable[Buffer]) -> Iterator[list[memoryview]]:
    """Yield parts together: what is written by large calls is also read faster later.

    The system then keeps it in larger pieces of its file cache.
    """
    batch: list[memoryview] = []
    size = 0
    for part in parts:
        batch.append(memoryview(part).cast("B"))
        size += len(batch[-1])
        if size >= BATCH_BYTES or len(batch) == BATCH_PARTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_fully(descriptor: int, views: list[memoryview]) -> None:
    """Write all bytes of `views`, where a file stands."""
    done = os.writev(descriptor, views)
    for view in views:
        skip = min(done, len(view))
        done -= skip
        rest = view[skip:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


@contextmanager
def replacing(path: Path) -> Iterator[FileIO]:
    """Give a new file under a temporary name; at the end of the block flush, rename to `path`.

    Raises:
        TcaError: disk full, read-only or otherwise not writable; nothing is left behind.
    """
    temporary = temporary_path(path)
    try:
        _make_folder(path.parent)
        with open(temporary, "w+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise writing_failed(path, error) from None
    finally:
        # Gone by now, unless something failed or Ctrl-C came.
        with suppress(OSError):
            temporary.unlink()


def remove(path: Path) -> None:
    """Remove a file and what a killed `write_atomic` of it left; neither need be there.

    Raises:
        TcaError: the folder cannot be written.
    """
    for file in (path, temporary_path(path)):
        try:
            file.unlink()
            sync_folder(file.parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise writing_failed(file, error) from None


def temporary_path(path: Path) -> Path:
    """Return the name under which `path` is made; a later attempt takes it over."""
    return path.with_name(f".{path.name}.tmp")


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
    except OSError as error:
        # Some network file systems know no such thing and flush names by themselves.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def writing_failed(path: Path, error: OSError) -> TcaError:
    """Turn the system's reason into one sentence with the remedy."""
    writable = "choose a folder that can be written"
    again = (
        "run the command again (a store or a sweep goes on where it stopped, a run with --resume)"
    )
    remedy = {
        errno.ENOSPC: f"free some space and {again}",
        errno.EDQUOT: f"raise the quota and {again}",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the command again",
        errno.EROFS: writable,
        errno.EACCES: writable,
        errno.EPERM: writable,
        errno.ENOTDIR: writable,
        errno.EEXIST: writable,
    }.get(error.errno or 0, "look at the disk and run the command again")
    return TcaError(f"cannot write {path}: {error.strerror or error}; {remedy}.")


@contextmanager
def sole_writer(store: Path) -> Iterator[None]:
    """Hold the lock beside `store`; the system drops it when the process dies.

    Raises:
        TcaError: someone is writing this store already, no store can be there, the folder is
            read-only, or its file system knows no locks.
    """
    # Before the lock, which would be left beside what is no store.
    require_place(store)
    # Resolved, so that two names of one store have one lock.
    store = store.resolve()
    with locked(store.with_name(store.name + ".lock"), wait=False) as ours:
        if not ours:
            raise TcaError(
                f"{store} is being written by another process; wait for it to end or write "
                "elsewhere."
            )
        yield


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Lock the file `path`, made for this alone, and yield True; False if it is locked already.

    Raises:
        TcaError: the folder is read-only, or its file system knows no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise writing_failed(path, error) from None
    try:
        yield _lock(path, descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise TcaError(
            f"cannot lock {path}: {error.strerror or error}; write to a file system that has "
            "locks (Lustre: mount it with -o flock)."
        ) from None
    return True
