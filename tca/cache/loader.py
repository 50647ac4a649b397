"""Shuffled batches of a store as tensors, read ahead of use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tca.cache.layout import STREAMS, Stream
from tca.cache.store import Store

PREFETCH = 2
"""Batches read ahead of the one in use."""

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Batch:
    """B rows of a store; a stream that was not asked for is None.

    Attributes:
        semantic: (B, [8,] P, D), stored type.
        motion: (B, T, D), stored type.
        label: (B,) int64, −1 unknown.
        rows: (B,) row numbers in the store.
    """

    semantic: Tensor | None
    motion: Tensor | None
    label: Tensor
    rows: Rows


class Loader:
    """Batches of chosen rows; every row once an epoch, the last batch may be smaller."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        streams: Sequence[str] = STREAMS,
    ) -> None:
        """Choose what to load.

        Args:
            store: where the rows are.
            rows: row numbers, all with features; may be empty.
            batch_size: rows a batch.
            seed: with the number of the epoch it decides the order.
            shuffle: False gives the order of `rows`.
            streams: which features to read.
        """
        self.store = store
        self.rows: Rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.streams = tuple(streams)
        self._pin = torch.cuda.is_available()

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; the order is a function of (seed, epoch) only.

        Raises:
            TcaError: a row cannot be read; see `Store.read`.
        """
        order = self._order(epoch)
        starts = range(0, len(order), self.batch_size)
        ahead: deque[Future[Batch]] = deque()
        reader = ThreadPoolExecutor(1, thread_name_prefix="tca-loader")
        try:
            for start in starts:
                ahead.append(reader.submit(self._read, order[start : start + self.batch_size]))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            # Also reached when the iterator is dropped half-way.
            reader.shutdown(cancel_futures=True)

    def _order(self, epoch: int) -> Rows:
        if not self.shuffle:
            return self.rows
        # Raw bits: numpy promises their stream for good, that of permutation() it does not.
        keys = np.random.PCG64([self.seed, epoch]).random_raw(len(self.rows))
        return self.rows[np.argsort(keys, kind="stable")]

    def _read(self, rows: Rows) -> Batch:
        label = torch.from_numpy(self.store.label[rows].astype(np.int64))
        return Batch(
            semantic=self._features("semantic", rows),
            motion=self._features("motion", rows),
            label=label.pin_memory() if self._pin else label,
            rows=rows,
        )

    def _features(self, name: str, rows: Rows) -> Tensor | None:
        if name not in self.streams:
            return None
        stream = self.store.streams[name]
        shape = (len(rows), *stream.row_shape)
        tensor = torch.empty(shape, dtype=_torch_type(stream), pin_memory=self._pin)
        self.store.read(name, rows, tensor.numpy())
        return tensor


def _torch_type(stream: Stream) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype=stream.dtype)).dtype
