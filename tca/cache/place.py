"""Where a store may lie, and what there says that one lies there: asked before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

from tca.errors import TcaError

INDEX = "index.h5"
"""The one file of an HDF5 store outside its shards."""

SHARDS = "shards"
"""The folder of its shards."""

SUMS = "tca.sums"
"""The sha256 of files of all stores in a folder, see `sums`."""


def require_place(path: Path) -> None:
    """Say whether a store can be at `path`, or be made there.

    Raises:
        TcaError: a name that a store cannot have, a file, a folder that is no store, or a path
            inside another store.
    """
    path = path.resolve()
    if path.name in (SUMS, f"{SUMS}.lock") or "\n" in path.name:
        raise TcaError(f"a store cannot be named {path.name!r}; give it another name.")
    if path.is_file():
        raise a_file(path)
    if path.exists():
        if not _anything_of_a_store(path):
            raise no_store(path)
        return
    for folder in path.parents:
        if _is_store(folder):
            raise TcaError(f"{path} lies inside the store {folder}; give a path outside of it.")


def a_file(path: Path) -> TcaError:
    """Return the error for a file where a store is looked for."""
    return TcaError(
        f"{path} is not a store: it is a file, and every store is a folder (an HDF5 one has an "
        f"{INDEX} inside); give the path of a store."
    )


def no_store(path: Path) -> TcaError:
    """Return the error for a folder of something else."""
    return TcaError(
        f"{path} is not a store: it has neither zarr.json nor {INDEX}; give the path of a store."
    )


def says_tca(folder: Path) -> bool:
    """Say whether the `zarr.json` of a group is that of a store."""
    try:
        group = json.loads((folder / "zarr.json").read_bytes())
        return "tca_layout" in group["attributes"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _is_store(folder: Path) -> bool:
    return says_tca(folder) or ((folder / INDEX).is_file() and (folder / SHARDS).is_dir())


def _anything_of_a_store(folder: Path) -> bool:
    if any((folder / name).exists() for name in ("zarr.json", INDEX, SHARDS)):
        return True
    if any(folder.glob("*/zarr.json")):
        return True
    try:
        sums = folder.with_name(SUMS).read_bytes()
    except OSError:
        sums = b""
    return f"  {folder.name}/".encode(errors="surrogateescape") in sums
