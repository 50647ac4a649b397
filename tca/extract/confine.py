"""Bounds on a process that decodes what strangers made."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

HIDDEN = 0.75
"""Share of the memory from which on it is taken to have run out.

Decoders that are refused memory may leave a frame out and say nothing, and what they deliver is no
longer the video. What they ask for at once is less than the rest.
"""


class MemoryWatch:
    """Whether a piece of work came near the bound of `confine`; made before anything is done.

    Args:
        megabytes: as for `confine`.
    """

    def __init__(self, megabytes: float) -> None:
        self._most = _peak() + HIDDEN * megabytes * 2**20

    def begin(self) -> None:
        """Forget the peak of what was done before."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def check(self) -> None:
        """Raise MemoryError if the peak since `begin` came near the bound."""
        if _peak() > self._most:
            raise MemoryError


def _peak() -> int:
    """Return the most bytes of its own that this process had in memory, 0 if nobody counts."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    most, shared = (status.get(name, "0 kB").split()[0] for name in ("VmHWM", "RssShmem"))
    return 1024 * (int(most) - int(shared))


def confine(megabytes: int) -> None:
    """Bound the memory of this process, and let it be the first to go where memory runs out.

    Args:
        megabytes: that it may take beyond what it has now.
    """
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmData:")[1].split()[0])
    most = kilobytes * 1024 + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    # A decoder that dies leaves no core file for every bad video.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
