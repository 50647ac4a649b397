"""Bounds on a process that decodes what strangers made."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


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
