"""Commits the shards of an example store, one after the other, and may be killed at it.

    python committing.py STORE [FATAL]

FATAL counts flushes, renames and removals; the process kills itself in front of that one.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from example_store import Example

from tca.cache.files import sole_writer
from tca.cache.layout import Status


def example(path: Path) -> Example:
    """Return what is written: 6 shards of 64 kB, one of them without a good row."""
    failed = {1: Status.MISSING, **{row: Status.UNREADABLE for row in range(8, 16)}}
    shapes = {"semantic": (4, 1000), "motion": (8, 100)}
    return Example(path, rows=45, failed=failed, row_shapes=shapes)


def run(path: Path) -> None:
    """Write what is missing, as the extraction does."""
    with sole_writer(path):
        example(path).write()


def main() -> None:
    """Say that all is imported, then write."""
    calls = 0
    fatal = int(sys.argv[2]) if len(sys.argv) > 2 else -1

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in ("fsync", "replace", "rename", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    print("ready", flush=True)
    run(Path(sys.argv[1]))
    print(calls, flush=True)


if __name__ == "__main__":
    main()
