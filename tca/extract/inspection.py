"""All that the data check wants to know of one file, learnt in one go."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tca.extract.checksums import sha256
from tca.extract.decoding import Limits
from tca.extract.probe import Probe, probe


@dataclass(frozen=True)
class Inspected:
    """One file.

    Attributes:
        probe: what is in it as a video.
        size: in bytes, 0 if it cannot be read.
        sha256: of its bytes, in hexadecimal digits; empty if they cannot be read.
    """

    probe: Probe
    size: int = 0
    sha256: str = ""

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Inspected:
        """Return what `to_json` wrote."""
        document = json.loads(text)
        return cls(Probe(**document.pop("probe")), **document)


def inspect(path: Path, limits: Limits | None) -> Inspected:
    """Read, hash and decode a file; never raises for what is in it.

    Args:
        path: the file.
        limits: see `probe`.
    """
    try:
        size, content = path.stat().st_size, sha256(path)
    except OSError as error:
        return Inspected(Probe(reason=error.strerror or str(error)))
    # Hashed first: the decoder then reads from memory.
    return Inspected(probe(path, limits), size, content)
