"""All that the data check wants to know of one file, learnt in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tca.extract.checksums import sha256
from tca.extract.probe import Probe, probe


@dataclass(frozen=True)
class Inspected:
    """One file.

    Attributes:
        probe: what is in it as a video.
        size: in bytes, 0 if it cannot be read.
        content: sha256 of its bytes, empty if they cannot be read.
    """

    probe: Probe
    size: int = 0
    content: bytes = b""


def inspect(path: Path, header_only: bool) -> Inspected:
    """Read, hash and decode a file; never raises for what is in it.

    Args:
        path: the file.
        header_only: see `probe`.
    """
    try:
        size, content = path.stat().st_size, sha256(path)
    except OSError as error:
        return Inspected(Probe(reason=error.strerror or str(error)))
    # Hashed first: the decoder then reads from memory.
    return Inspected(probe(path, header_only=header_only), size, content)
