"""What a store holds and how far it is, for `tca cache info`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.failures import failed_rows
from tca.cache.layout import Status, status_words
from tca.cache.store import Store


def describe(store: Store) -> dict[str, Any]:
    """Return what `tca cache info` shows, ready for JSON.

    Counts are those at the moment the store was opened; bytes are those on disk now.

    Returns:
        path, format, split, rows, rows_per_shard; status: rows by status, those that occur;
        reasons: failed rows by reason, the most frequent first, as far as the reasons are beside
        the store; shards: committed and total; streams: shape, type, bytes of one row and of all
        that have features; bytes: of the whole store on disk, None behind a URL; classes: their
        number; labels: rows by class name, every class; unlabelled: rows; identity and record as
        they are stored.
    """
    values, counts = np.unique(store.status, return_counts=True)
    labels = np.bincount(store.label[store.label >= 0], minlength=len(store.classes))
    good = len(store.ready())
    return {
        "path": str(store.path),
        "format": store.format.name,
        "split": store.split,
        "rows": store.rows,
        "rows_per_shard": store.rows_per_shard,
        "status": {
            status_words(value): count
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        },
        "reasons": dict(_reasons(store)),
        "shards": {"committed": _committed(store), "total": store.shards},
        "streams": {
            name: {
                "shape": list(stream.shape),
                "type": stream.type,
                "row_bytes": stream.row_bytes,
                "bytes": good * stream.row_bytes,
            }
            for name, stream in store.streams.items()
        },
        "bytes": sum(_sizes(store.path)) if isinstance(store.path, Path) else None,
        "classes": len(store.classes),
        "labels": dict(zip(store.classes, labels.tolist(), strict=True)),
        "unlabelled": int((store.label < 0).sum()),
        "identity": dict(store.identity),
        "record": dict(store.record),
    }


def _committed(store: Store) -> int:
    first_rows = store.status[:: store.rows_per_shard]
    return int((first_rows != Status.NOT_EXTRACTED).sum())


def _reasons(store: Store) -> list[tuple[str, int]]:
    _, known = failed_rows(store)
    # A missing file has no reason but that.
    return Counter(failure.reason for failure in known.values() if failure.reason).most_common()


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, files in os.walk(folder):
        for name in files:
            # A running extraction renames its temporary files away.
            try:
                yield os.stat(Path(place, name)).st_size
            except FileNotFoundError:
                continue
