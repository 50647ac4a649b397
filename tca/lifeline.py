"""Processes that are of no use without the one that started them, and end when it does."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
"""Of prctl(2), as Linux' prctl.h has it."""


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, however that dies.

    Linux' kernel does so; elsewhere nothing happens.

    Args:
        parent: the process that started this one, as that one's own number says. To the kernel its
            parent is the thread that did, so that has to stay.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
