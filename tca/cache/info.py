"""What a store holds and how far it is, for `tca cache info`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.layout import Status, status_words
from tca.cache.store import Store


def describe(store: Store) -> dict[str, Any]:
    """Return what `tca cache info` shows, ready for JSON.

    Counts are those at the moment the store was opened; bytes are those on disk now.

    Returns:
        path, split, rows, rows_per_shard; status: rows by status, those that occur; shards:
        committed and total; streams: shape, type and bytes of each; bytes of the whole store;
        classes: their number; labels: rows by class name, every class; unlabelled: rows;
        identity and record as they are stored.
    """
    values, counts = np.unique(store.status, return_counts=True)
    first_rows = store.status[:: store.rows_per_shard]
    labels = np.bincount(store.label[store.label >= 0], minlength=len(store.classes))
    return {
        "path": str(store.path),
        "split": store.split,
        "rows": store.rows,
        "rows_per_shard": store.rows_per_shard,
        "status": {
            status_words(value): count
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        },
        "shards": {
            "committed": int((first_rows != Status.NOT_EXTRACTED).sum()),
            "total": store.shards,
        },
        "streams": {
            name: {
                "shape": list(stream.shape),
                "type": stream.dtype.name,
                "bytes": sum(_sizes(store.folder / name)),
            }
            for name, stream in store.streams.items()
        },
        "bytes": sum(_sizes(store.folder)),
        "classes": len(store.classes),
        "labels": dict(zip(store.classes, labels.tolist(), strict=True)),
        "unlabelled": int((store.label < 0).sum()),
        "identity": store.identity,
        "record": store.record,
    }


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, files in os.walk(folder):
        for name in files:
            # A running extraction renames its temporary files away.
            try:
                yield os.stat(Path(place, name)).st_size
            except FileNotFoundError:
                continue
