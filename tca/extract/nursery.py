"""Processes for decoders, forked in milliseconds from one that has imported everything.

The process that extracts can never fork: it has threads, and CUDA. So it starts a small one, the
nursery, that imports PyAV and torch, starts no thread, touches no GPU, and forks when told to. Its
children die with it, and it ends with its parent, however that ends.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tca.lifeline import die_with

MESSAGE_BYTES = 2**16
FORK, REAP = b"F", b"R"

PATIENCE_S = 5.0
"""Seconds that a killed process may take to end."""


_shared: Nursery | None = None


def shared_nursery() -> Nursery:
    """Return this process's nursery; importing takes seconds, so one is kept until the end."""
    global _shared
    if _shared is None or not _shared.alive:
        _shared = Nursery()
        atexit.register(_shared.close)
    return _shared


class Nursery:
    """The parent's handle on a nursery."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._gone = False
        self._asking = threading.Lock()
        # Every message arrives whole.
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Modules are found where this process finds them, and never in the working directory.
            start = (
                f"import sys; sys.path[:] = {sys.path!r}; from tca.extract.nursery import main; "
                f"main({theirs.fileno()})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", start],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def fork(self, target: Callable[..., None], fds: Sequence[int], *arguments: Any) -> int:
        """Run `target(copies of fds, *arguments)` in a new process and return its number.

        Args:
            target: a function that can be imported by name.
            fds: open files that the process gets, as numbers of its own.
            arguments: anything that can be pickled.

        Raises:
            OSError: the nursery is gone.
        """
        return int(self._ask(FORK + pickle.dumps((target, arguments)), fds))

    def exit_code(self, process: int) -> int | None:
        """Wait until a forked process that was killed or died has ended.

        Returns:
            Its code, minus the signal if it died of one; None if the kernel does not let it go, as
            where a file server does not answer: it never runs again.

        Raises:
            OSError: the nursery is gone.
        """
        answer = self._ask(REAP + str(process).encode(), [])
        return None if answer is None else int(answer)

    @property
    def alive(self) -> bool:
        """Whether it can be asked, by this process: one that was forked off has no part in it."""
        return not self._gone and self._owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """End the nursery, and with it what it forked."""
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._control.close()

    def _ask(self, request: bytes, fds: Sequence[int]) -> Any:
        with self._asking:
            try:
                socket.send_fds(self._control, [request], fds)
                answer = self._control.recv(MESSAGE_BYTES)
            except OSError:
                self._gone = True
                raise
        if not answer:
            self._gone = True
            raise ConnectionResetError("it ended")
        return json.loads(answer)


def main(control_fd: int) -> None:
    """Fork and reap as told, until the parent is gone."""
    # Ctrl-C reaches the whole process group; the parent ends its processes itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import tca.extract.decoder  # noqa: F401

    control = socket.socket(fileno=control_fd)
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 8)
        if not message:
            return
        what, request = message[:1], message[1:]
        answer = _forked(control, fds, request) if what == FORK else _exit_code(int(request))
        control.send(json.dumps(answer).encode())


def _exit_code(process: int) -> int | None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def _forked(control: socket.socket, fds: list[int], request: bytes) -> int:
    nursery = os.getpid()
    process = os.fork()
    if process:
        for fd in fds:
            os.close(fd)
        return process
    code = 1
    try:
        die_with(nursery)
        control.close()
        target, arguments = pickle.loads(request)
        target(fds, *arguments)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # No clean-up: what there is to clean up belongs to the nursery.
        os._exit(code)
