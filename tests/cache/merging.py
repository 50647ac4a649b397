"""Merges stores, and may be killed at it.

    python merging.py FATAL OUT PART...

FATAL counts flushes, renames and removals; the process kills itself in front of that one.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tca.cache.merge import merge


def main() -> None:
    """Say how many steps it took."""
    calls = 0
    fatal = int(sys.argv[1])

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
    merge(Path(sys.argv[2]), [Path(part) for part in sys.argv[3:]])
    print(calls)


if __name__ == "__main__":
    main()
