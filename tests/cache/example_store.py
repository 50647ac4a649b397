"""A small store with every kind of row, and the features it was made of."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.store import Store
from tca.cache.types import encode, to_numpy
from tca.cache.writer import StoreWriter

FORMATS = ("zarr", "hdf5")
"""Names of the formats, which are endings of stores' names as well."""

IDS = ["röw", "動画", "a b", "x" * 40, "", "🎬"]


@dataclass
class Example:
    """Fix the settings, then `write` shards; row `i` has the same features in every example."""

    path: Path
    rows: int = 21
    rows_per_shard: int = 8
    failed: dict[int, Status] = field(
        default_factory=lambda: {3: Status.UNREADABLE, 7: Status.MISSING, 17: Status.TIMED_OUT}
    )
    row_shapes: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"semantic": (4, 6), "motion": (8, 5)}
    )
    types: dict[str, str] = field(
        default_factory=lambda: {"semantic": "float16", "motion": "float32"}
    )
    store_format: str | None = None
    classes: tuple[str, ...] = ("push", "pull", "schütteln")
    identity: dict[str, Any] = field(default_factory=lambda: {"keep": "mean", "size": [224, 224]})
    record: dict[str, Any] = field(default_factory=lambda: {"tca": "0.1.0"})

    def __post_init__(self) -> None:
        rows = np.arange(self.rows)
        ids = [f"{IDS[row // 2 % len(IDS)]}{row // 2}" for row in rows]
        self.table = RowTable(
            ids,
            (rows // 2 % 4 - 1).astype(np.int32),
            (rows // 2).astype(np.int32),
            (rows % 2).astype(np.uint8),
        )
        self.status = np.full(self.rows, Status.OK, dtype=np.uint8)
        for row, status in self.failed.items():
            self.status[row] = status
        self.streams: dict[str, Stream] = {}
        self.features: dict[str, np.ndarray] = {}
        for number, (name, shape) in enumerate(self.row_shapes.items()):
            self.streams[name] = Stream((self.rows, *shape), self.types[name])
            made = [np.random.default_rng([number, row]).normal(size=shape) for row in rows]
            exact = torch.from_numpy(np.stack(made))
            for array, stored in encode(name, exact, self.types[name]).items():
                self.features[array] = to_numpy(stored)
                self.features[array][self.status != Status.OK] = 0

    @property
    def spec(self) -> StoreSpec:
        return StoreSpec(
            split="train",
            rows=self.table,
            streams=self.streams,
            rows_per_shard=self.rows_per_shard,
            classes=self.classes,
            identity=self.identity,
            record=self.record,
            grid=(2, 2),
        )

    def changed(self, **changes: Any) -> StoreSpec:
        """What this example holds with some fields of the dataclass changed."""
        return replace(self, **changes).spec

    def writer(self) -> StoreWriter:
        return StoreWriter.open_or_create(self.path, self.spec, self.store_format)

    def commit(self, writer: StoreWriter, shard: int) -> None:
        rows = writer.shard_rows(shard)
        good = self.status[rows.start : rows.stop] == Status.OK
        features = {
            name: [array[row] if ok else None for row, ok in zip(rows, good, strict=True)]
            for name, array in self.features.items()
        }
        writer.commit(shard, features, self.status[rows.start : rows.stop])

    def write(self, *shards: int) -> Store:
        """Commit these shards, or all that are missing, and open the store."""
        writer = self.writer()
        for shard in shards or sorted(set(range(writer.shards)) - writer.committed()):
            self.commit(writer, shard)
        return Store.open(self.path)


def read_all(path: Path) -> None:
    """Open a store and read everything there is."""
    store = Store.open(path)
    for array in store.format.arrays:
        store.read(array, store.ready())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` by name."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def open_files(folder: Path) -> list[str]:
    """Files under `folder` that this process has open, once a descriptor."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    return [name for name in found if name.startswith(str(folder))]
