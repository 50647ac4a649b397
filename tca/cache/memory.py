"""How much memory this process may still use."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return bytes: what the system has, or less where a cgroup (v1 or v2) sets a limit.

    File cache that can be dropped counts as available.
    """
    found = [
        1024 * int(line.split()[1])
        for line in _text(proc / "meminfo").splitlines()
        if line.startswith("MemAvailable:")
    ]
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _left(cgroups, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            found += _left(cgroups / "memory", path, *names)
    return max(0, min(found, default=0))


def _left(mount: Path, path: str, limit: str, used: str, droppable: str) -> list[int]:
    """Return what is left in the group at `path` and in those it is part of, where limited.

    In a container `path` may be one of the host, which is not there; the mount is then its own.
    """
    group = mount / path.lstrip("/")
    found = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(mount):
            break
        most = _text(folder / limit).strip()
        if most.isdigit():
            statistics = dict(
                line.split() for line in _text(folder / "memory.stat").splitlines() if line
            )
            now = int(_text(folder / used) or 0) - int(statistics.get(droppable, 0))
            found.append(int(most) - now)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
