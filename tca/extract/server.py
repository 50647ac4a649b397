"""The process from which workers of this machine are forked.

It has imported what a worker needs and touched no GPU: a worker, or the one that takes its place,
starts at once, and CUDA, which does not survive a fork of its own process, is not there yet.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext


def start_server() -> None:
    """Start it, unless it runs; it imports while the caller goes on."""
    _context().set_forkserver_preload(["tca.extract.worker"])
    with without_ctrl_c():
        pass


def server_context() -> ForkServerContext:
    """Return what makes processes forked from it."""
    start_server()
    return _context()


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Start processes that no Ctrl-C reaches: the parent ends its workers itself."""
    # It would let Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")
