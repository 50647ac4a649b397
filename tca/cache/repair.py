"""Taking away what is damaged, so that extraction makes just that again.

Of shards nothing is kept: their features come back. What lies outside the shards is set aside:
labels and ids come back only where the annotations are still at hand. See `restore` for how.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tca.cache.files import remove, sole_writer, sync_folder, writing_failed
from tca.cache.skeleton import check_skeleton, skeleton_files
from tca.cache.sums import write_sums
from tca.cache.verify import Problem, Verification, verify
from tca.errors import TcaError


@dataclass
class Repair:
    """What `repair` did, or would do.

    Attributes:
        shards: damaged ones that were taken away, ascending.
        rows: rows of these shards.
        files: damaged or missing files outside the shards, by their names inside the store; what
            there was of them lies in `aside` now.
        aside: the folder beside the store for such files.
        sums: files outside the shards whose sums were written anew, from the files as they are.
        unchecked: whether there are shards that could not be checked.
        unreadable: what could not be read and was left alone.
    """

    aside: Path
    shards: list[int] = field(default_factory=list)
    rows: int = 0
    files: list[str] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    unchecked: bool = False
    unreadable: list[Problem] = field(default_factory=list)

    @property
    def needed(self) -> bool:
        """Whether there was anything to repair."""
        return bool(self.shards or self.files or self.sums)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"aside": str(self.aside)}


def repair(
    path: Path | str,
    *,
    dry_run: bool = False,
    report: Callable[[int, int, int], None] = lambda done, total, size: None,
) -> Repair:
    """Verify a store and take away what is damaged; what cannot be read is left alone.

    Args:
        path: the store.
        dry_run: only say what would be done; needs no permission to write.
        report: see `verify`.

    Raises:
        TcaError: no store, one that tca does not write, one that another process writes, or a
            file or folder that cannot be read or written.
    """
    if isinstance(path, str):
        raise TcaError(
            f"{path} is not on a disk of this machine; repair it where it lies, or bring it here "
            "with `tca cache convert`."
        )
    if not path.exists():
        raise TcaError(f"there is no store at {path}; give the path of a store.")
    store = check_skeleton(path).format
    if store is not None and not store.writable:
        raise TcaError(f"{path} was not written by tca, which only reads it; {store.repair_first}.")
    with nullcontext() if dry_run else sole_writer(path):
        found = verify(path, report)
        planned = _plan(path, found)
        if not dry_run:
            _carry_out(path, found, planned)
    return planned


def aside(store: Path) -> Path:
    """Return the folder beside `store` that keeps its damaged metadata and columns."""
    store = store.resolve()
    return store.with_name(store.name + ".damaged")


def _plan(path: Path, found: Verification) -> Repair:
    skeleton = found.skeleton
    damaged = {p.shard for p in found.problems if p.damage and p.shard is not None}
    plan = Repair(aside(path), sorted(damaged), files=list(skeleton.damage))
    if not skeleton.summed:
        plan.sums = [name for name in skeleton_files(path) if name not in skeleton.damage]
    else:
        plan.sums = list(skeleton.lost_sums)
    plan.unchecked = skeleton.format is None or bool(skeleton.unchecked)
    plan.unreadable = [problem for problem in found.problems if not problem.damage]
    if skeleton.format is not None:
        plan.rows = sum(len(skeleton.format.spec.shard_rows(shard)) for shard in plan.shards)
    return plan


def _carry_out(path: Path, found: Verification, plan: Repair) -> None:
    store = found.skeleton.format
    for shard in plan.shards:
        assert store is not None
        # The commit record comes first: what a kill leaves is a shard that does not exist.
        for file in store.shard_files(shard):
            remove(file)
    for name in plan.files:
        _set_aside(path, name)
    # After that: a damaged file whose line is gone would pass for one that lost its line.
    if plan.sums:
        sound = [name for name in skeleton_files(path) if name not in found.skeleton.damage]
        write_sums(path, path, sound)


def _set_aside(path: Path, name: str) -> None:
    kept = aside(path) / name
    if not os.path.lexists(path / name):
        # It was missing already.
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path / name, kept)
        sync_folder(kept.parent)
        sync_folder((path / name).parent)
    except OSError as error:
        raise writing_failed(kept, error) from None
