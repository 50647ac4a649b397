"""Whether a WebM or Matroska file was cut short, which FFmpeg only mutters about.

FFmpeg reads such a file to where it ends and reports a shorter video. Its second element, the
Segment, says how long it is (RFC 8794, section 6; RFC 9559, section 4.5).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

EBML_ID = 0x1A45DFA3
SEGMENT_ID = 0x18538067


def missing_bytes(path: Path) -> int:
    """Return how many bytes lack at the end of a WebM file.

    0 for a whole file, for one that does not tell its length (live recordings), and for any other
    format: MP4, AVI and the like fail to decode when they are cut.
    """
    with open(path, "rb") as file:
        if _number(file, keep_marker=True) != EBML_ID:
            return 0
        header = _number(file)
        if header is None:
            return 0
        file.seek(header, 1)
        if _number(file, keep_marker=True) != SEGMENT_ID:
            return 0
        length = _number(file)
        if length is None:
            return 0
        return max(0, file.tell() + length - path.stat().st_size)


def _number(file: BinaryIO, keep_marker: bool = False) -> int | None:
    """Read a number of variable length; None at the end of the file or if it means "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    value = int.from_bytes(first + rest, "big")
    if len(rest) < extra or keep_marker:
        return value if len(rest) == extra else None
    bits = 7 * (extra + 1)
    value &= (1 << bits) - 1
    return None if value == (1 << bits) - 1 else value
