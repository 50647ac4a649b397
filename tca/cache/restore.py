"""Giving a store back what it lost outside its shards: metadata, labels, ids, videos and views.

`tca cache repair` takes damaged files away. They are functions of what the store was made with,
so whoever goes on writing it makes them again, and the committed shards stay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from tca.cache.files import temporary_path, write_atomic, writing_failed
from tca.cache.format import DamageError, Format, reading_failed
from tca.cache.formats import open_local, write_skeleton
from tca.cache.layout import SCALE, Status, StoreSpec
from tca.cache.place import INDEX
from tca.cache.repair import aside
from tca.cache.skeleton import (
    check_skeleton,
    format_there,
    is_hdf5,
    missing_files,
    skeleton_files,
    sum_line_damaged,
)
from tca.cache.sums import digest, sums_of, sums_path, write_sums
from tca.cache.zarr_metadata import COLUMN_FILES
from tca.console import note, warn
from tca.errors import TcaError


def restore_missing(path: Path, spec: StoreSpec) -> None:
    """Make the files that the store at `path` lacks outside its shards; the others stay.

    The bytes are those that the store was made with, unless its record is lost too: then it gets
    that of `spec`. The caller holds `files.sole_writer`.

    Args:
        path: the store; nothing is done if it lacks nothing.
        spec: what it was made with, but for `rows_per_shard` and `record`.

    Raises:
        TcaError: what is left of the store is damaged, or does not go with `spec`.
    """
    missing = missing_files(path)
    if not missing:
        return
    damaged = {n: why for n, why in check_skeleton(path).damage.items() if n not in missing}
    for name, reason in damaged.items():
        raise TcaError(f"{path}/{name} is damaged: {reason}; run `tca cache repair {path}` first.")
    temporary = temporary_path(path)
    try:
        spec = replace(spec, rows_per_shard=_rows_per_shard(path, spec))
        names = _make(temporary, path, spec, missing)
        # Without sums, only the lost metadata of a stream would tell that it has scales.
        missing += [name for name in names if name not in missing and _of_stream(name) in missing]
        for name in set(skeleton_files(path)) - set(missing):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / name, temporary / name)
        _check_fits(path, temporary, spec, missing)
        # First: after a kill the same files are missing still, and are made again.
        sums = sums_of(path)
        made = {name: digest((temporary / name).read_bytes()) for name in names}
        if made != sums:
            write_sums(path, temporary, names)
        for name in missing:
            write_atomic(path / name, [(temporary / name).read_bytes()])
    except OSError as error:
        raise writing_failed(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    note(f"{path}: made {', '.join(missing)} again.")
    if any(name in missing and made[name] != sums.get(name) for name in ("zarr.json", INDEX)):
        warn(f"{path}: its record of versions and devices was lost and is that of this run now.")


def _make(temporary: Path, path: Path, spec: StoreSpec, missing: Sequence[str]) -> list[str]:
    """Write the store without features to `temporary`, if possible with the record that it had.

    A record is right where the sum of the file that holds it says so.
    """
    sums, store_format = sums_of(path), format_there(path)
    assert store_format is not None
    keeper = INDEX if store_format == "hdf5" else "zarr.json"
    damaged = _damaged_record(path)
    records = [spec.record] if damaged is None else [damaged, spec.record]
    for record in records:
        shutil.rmtree(temporary, ignore_errors=True)
        names = write_skeleton(temporary, replace(spec, record=record), store_format)
        if keeper not in missing or digest((temporary / keeper).read_bytes()) == sums.get(keeper):
            break
    return names


def _of_stream(name: str) -> str:
    """Return the file of a stream that goes with a file of its scales; others as they are."""
    return name.replace(f"{SCALE}/", "/")


def _damaged_record(path: Path) -> Mapping[str, Any] | None:
    """Return the record as the damaged file that was set aside has it, which may be wrong."""
    try:
        if is_hdf5(path):
            import h5py

            with h5py.File(BytesIO((aside(path) / INDEX).read_bytes()), "r") as group:
                record = json.loads(group.attrs["record"])
        else:
            found = json.loads((aside(path) / "zarr.json").read_bytes())
            record = found["attributes"]["record"]
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _rows_per_shard(path: Path, spec: StoreSpec) -> int:
    """Return the rows of a shard, as what is there of the store says it.

    Raises:
        TcaError: the shards do not tell, or are of another number of rows.
    """
    if not is_hdf5(path):
        return check_skeleton(path).rows_per_shard or spec.rows_per_shard
    from tca.cache.hdf5_skeleton import shard_lengths

    lengths = shard_lengths(path)

    def fits(per_shard: int) -> bool:
        rows = replace(spec, rows_per_shard=per_shard).shard_rows
        return all(len(rows(shard)) == length for shard, length in lengths.items())

    if fits(spec.rows_per_shard):
        return spec.rows_per_shard
    # A shard is full or, being the last, ends with the rows.
    count = len(spec.rows)
    full = {length for length in lengths.values() if length}
    last = {(count - length) // shard for shard, length in lengths.items() if shard}
    candidates = [found for found in full | last if found > 0 and fits(found)]
    if len(candidates) != 1:
        raise TcaError(
            f"the shards of {path} do not tell how many rows a shard has; delete the store and "
            "extract it again."
        )
    return candidates[0]


def _check_fits(path: Path, temporary: Path, spec: StoreSpec, missing: Sequence[str]) -> None:
    """Hold what is left of a store, in `temporary` with what was made, against `spec`."""
    try:
        unknown = [name for name in missing if not (temporary / name).exists()]
        if unknown:
            raise TcaError(f"nothing is made with them that has {unknown[0]}")
        store = open_local(temporary)
        different = spec.differences(store.spec)
        if different:
            raise TcaError("; ".join(different))
        if store.spec.rows_per_shard != spec.rows_per_shard:
            raise TcaError(f"shards of {store.spec.rows_per_shard} and {spec.rows_per_shard} rows")
        _check_columns(path, temporary, missing)
        # Its columns are in memory; the shards are at their place.
        store.path = path
        for shard in range(spec.shards):
            _check_shard(store, shard)
    except TcaError as error:
        raise TcaError(
            f"what is left of {path} does not go with these settings: "
            f"{str(error).replace(str(temporary), str(path)).rstrip('.')}; if that is damage, run "
            f"`tca cache repair {path}`, or else name another path in `stores` or delete that "
            "store."
        ) from None


def _check_columns(path: Path, temporary: Path, missing: Sequence[str]) -> None:
    """Hold columns that were made, in `temporary`, against the sums of those that were lost."""
    sums = sums_of(path)
    for column, name in COLUMN_FILES.items():
        if name in missing and name in sums:
            data = (temporary / name).read_bytes()
            if digest(data) != sums[name] and not sum_line_damaged(data, sums[name]):
                raise TcaError(f"{column} was otherwise (its sha256 in {sums_path(path)} says so)")


def _check_shard(store: Format, shard: int) -> None:
    """Say whether a committed shard has the rows that the metadata describe."""
    file = str(store.record_file(shard))
    try:
        status = store.shard_status(shard)
        if status is None or not (status == Status.OK).any():
            return
        for array in store.arrays:
            file = store.shard_name(array, shard)
            store.extents(array, shard)
    except DamageError as error:
        raise TcaError(f"{file}: {error}") from None
    except OSError as error:
        raise reading_failed(file, error) from None
