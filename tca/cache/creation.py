"""Making a store without features: it is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

from tca.cache.files import sync_folder, temporary_path, writing_failed
from tca.cache.formats import write_skeleton
from tca.cache.layout import COLUMNS, StoreSpec
from tca.cache.place import require_place
from tca.cache.sums import write_sums
from tca.errors import TcaError


def create_store(path: Path, spec: StoreSpec, store_format: str) -> None:
    """Make a store without features.

    Args:
        path: where; nothing may be there.
        spec: what it holds.
        store_format: "zarr" or "hdf5".

    Raises:
        TcaError: no rows, something there already, no place for a store, an id that is not valid
            text, a class name that occurs twice, or the folder cannot be written.
    """
    _check(path, spec)
    if path.exists():
        raise TcaError(f"{path} exists already; give another path or delete it.")
    require_place(path)
    temporary = temporary_path(path)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = write_skeleton(temporary, spec, store_format)
        _sync_tree(temporary)
        write_sums(path, temporary, names)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise writing_failed(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(path: Path, spec: StoreSpec) -> None:
    rows, classes = spec.rows, len(spec.classes)
    for name in COLUMNS:
        if getattr(rows, name).shape != (len(rows),):
            raise ValueError(f"{name} has shape {getattr(rows, name).shape}, rows {len(rows)}")
    if len(rows) and not -1 <= rows.label.min() <= rows.label.max() < classes:
        raise ValueError(f"labels {rows.label.min()} to {rows.label.max()} of {classes} classes")
    twice = [name for name, count in Counter(spec.classes).items() if count > 1]
    if twice:
        raise TcaError(f"the class {twice[0]!r} is listed twice; correct the list of classes.")
    if not len(rows):
        raise TcaError(f"{path} would have no rows; look at the annotations of split {spec.split}.")


def _sync_tree(folder: Path) -> None:
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(Path(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
