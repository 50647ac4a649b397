"""Room on a disk, seen before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from tca.errors import TcaError


def require_room(store: Path, needed: int, remedy: str) -> None:
    """Refuse to begin what cannot end.

    Args:
        store: what is written, perhaps not there yet.
        needed: bytes that it will take in addition.
        remedy: what to do besides freeing space, the end of a sentence.

    Raises:
        TcaError: fewer bytes are free.
    """
    folder = next(place for place in (store, *store.absolute().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TcaError(
            f"{store} needs {size_words(needed)} more and {size_words(free)} are free; free some "
            f"space, {remedy}."
        )


def size_words(size: float) -> str:
    """Return bytes to three digits, for example `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:.0f} TB"
