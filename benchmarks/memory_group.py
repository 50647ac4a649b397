"""Running a command with less memory than the machine has: a control group of its own.

Version 1 (a child of the group that this process is in) and version 2 (a child of the nearest
group whose children may be limited). The file cache that the command fills counts as its memory,
and the group is removed at the end.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class NoGroupError(Exception):
    """No group could be made; the message says why."""


def run_limited(command: Sequence[str], limit: int) -> str:
    """Run a command that may use `limit` bytes of memory; return what it printed.

    Raises:
        NoGroupError: no group could be made.
        subprocess.CalledProcessError: the command failed, or was killed for want of memory.
    """
    with _group(limit) as group:
        procs = str(group / "cgroup.procs")

        def join() -> None:
            with open(procs, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))

        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=join
        )
        return done.stdout


@contextmanager
def _group(limit: int) -> Iterator[Path]:
    parent, setting = _parent()
    group = parent / f"tca-benchmark-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise NoGroupError(f"{group} cannot be made: {error.strerror}") from None
    try:
        try:
            (group / setting).write_text(str(limit), encoding="ascii")
        except OSError as error:
            raise NoGroupError(f"{group / setting} cannot be set: {error.strerror}") from None
        yield group
    finally:
        group.rmdir()


def _parent() -> tuple[Path, str]:
    """Return the group to make ours in, and the name of the file that sets its limit."""
    lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        group = MOUNT / "memory" / path.lstrip("/")
        if "memory" in controllers.split(",") and group.is_dir():
            return group, "memory.limit_in_bytes"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        group = MOUNT / path.lstrip("/")
        if controllers == "":
            for folder in (group, *group.parents):
                if not folder.is_relative_to(MOUNT):
                    break
                control = folder / "cgroup.subtree_control"
                if control.is_file() and "memory" in control.read_text(encoding="ascii").split():
                    return folder, "memory.max"
    raise NoGroupError(f"there is no group under {MOUNT} whose children's memory can be limited")
