"""Shuffled batches of a store as tensors, read ahead of use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from threading import Event

import numpy as np
import torch
from torch import Tensor

from tca.cache.buffers import Buffers
from tca.cache.config import LoaderConfig
from tca.cache.layout import SCALE
from tca.cache.memory import available_memory
from tca.cache.order import Order, Plan, Rows, as_given, plan, shuffled_blocks, shuffled_rows
from tca.cache.read_ahead import read_ahead
from tca.cache.residency import CPU, RowSource, open_source
from tca.cache.store import Store
from tca.cache.types import decode
from tca.cache.windows import Mixer, read_window
from tca.errors import TcaError

AHEAD_BYTES = 128 << 20
"""Of rows that the system is asked for before they are read, so that a disk has a queue."""


@dataclass(frozen=True)
class Batch:
    """B rows of a store, as stored. The tensors are the consumer's for as long as it keeps them.

    Attributes:
        arrays: by name, the numbers of every stream that was asked for, (B, …), and for int8 also
            `semantic_scale` or `motion_scale`; in pinned memory where there is CUDA, on the device
            where the rows are resident there.
        label: (B,) int64, −1 unknown.
        rows: (B,) row numbers in the store.
        first: where in the order of the epoch the first of these rows stands, the others behind it.
        position: rows of the epoch that all ranks together have used after this batch.
    """

    arrays: Mapping[str, Tensor]
    label: Tensor
    rows: Rows
    first: int
    position: int

    def features(self, stream: str, device: torch.device = CPU) -> Tensor:
        """Return a stream's features on `device` as floating point; int8 is decoded there."""
        numbers = self.arrays[stream].to(device, non_blocking=True)
        scale = self.arrays.get(stream + SCALE)
        return decode(numbers, None if scale is None else scale.to(device, non_blocking=True))

    def streams(self, device: torch.device = CPU) -> dict[str, Tensor]:
        """Return the features of every stream by its name; see `features`."""
        names = (name for name in self.arrays if not name.endswith(SCALE))
        return {name: self.features(name, device) for name in names}


class Loader:
    """Batches of chosen rows; every row once an epoch, the last batch may be smaller.

    Attributes:
        epoch_rows: rows in an epoch.
    """

    def __init__(
        self,
        store: Store,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        streams: Sequence[str] | None = None,
        config: LoaderConfig | None = None,
        device: torch.device = CPU,
        rank: int = 0,
        world_size: int = 1,
        source: RowSource | None = None,
        rows_of: Callable[[int], Rows] | None = None,
    ) -> None:
        """Choose what to load.

        Args:
            store: where the rows are.
            rows: row numbers, all with features and each once; may be empty.
            batch_size: rows of a global batch, which is what all ranks together take in one step.
            seed: with the number of the epoch it decides the order.
            shuffle: whether to, as `config.shuffle` says; False gives the order of `rows`.
            streams: which features to read; None for all that the store has.
            config: how to read; the defaults if not given.
            device: where batches will be used.
            rank: which slice of every global batch to yield.
            world_size: into how many slices global batches are cut.
            source: `open_source` of this store that several loaders share, instead of one of this
                loader's own; `streams` and `device` are then those of the source.
            rows_of: gives the rows of an epoch by its number, instead of all of them once: some of
                `rows`, perhaps several times, equally many in every epoch. A pure function.

        Raises:
            TcaError: not enough memory for the residency asked for, or a row that cannot be read
                into it.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.config = config or LoaderConfig()
        self.store = store
        self.rows: Rows = np.asarray(rows, dtype=np.int64)
        # Nothing in it leads back to the loader, which keeps a store's files open.
        every = self.rows
        self._rows_of = rows_of or (lambda epoch: every)
        self.epoch_rows = len(self._rows_of(0))
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.source = source or open_source(store, self.rows, streams, self.config, device)
        self._pin = torch.cuda.is_available()
        share = min(-(-batch_size // world_size), self.epoch_rows)
        keep = self.config.prefetch + 2
        self._buffers = Buffers(self.source.streams, share, keep, self._pin)
        self._window_buffers = Buffers(self.source.streams, 0, 2, pin=False)

    def __len__(self) -> int:
        return -(-self.epoch_rows // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch; see `epochs`."""
        return self.epochs([epoch], start)

    def epochs(self, epochs: Sequence[int], start: int = 0) -> Generator[Batch, None, None]:
        """Yield this rank's batches of one epoch after the other, without a pause between them.

        The first batches of an epoch are read while the last ones of the epoch before it are used.
        An epoch ends with the batch whose `position` is `epoch_rows`. The global order is a
        function of seed, epoch, the rows of the epoch and, for `shuffle: blocks`, `block_rows` and
        `buffer_blocks`. Every rank yields equally many batches, of which the last of an epoch may
        be empty.

        Args:
            epochs: their numbers.
            start: rows of the first epoch that have been used already, the `position` of the last
                batch; batch size and world size may have been others then.

        Raises:
            TcaError: a row cannot be read; see `Store.read`. Or windows of blocks need more memory
                than there is.
        """
        if not 0 <= start <= self.epoch_rows:
            raise ValueError(f"start {start} in an epoch of {self.epoch_rows} rows")
        if self.source.instant:
            yield from (self._batch(*step) for step in self._steps(epochs, start))
        elif self.shuffle and self.config.shuffle == "blocks" and not self.source.resident:
            yield from self._from_windows(epochs, start)
        else:
            tasks = (partial(self._batch, *step) for step in self._steps(epochs, start))
            yield from read_ahead(tasks, self.config.prefetch)

    def _plans(self, epochs: Sequence[int], start: int) -> Iterator[Plan]:
        """Yield what this rank reads in each epoch."""
        for number, epoch in enumerate(epochs):
            begin = 0 if number else start
            yield plan(self.order(epoch), self.batch_size, self.rank, self.world_size, begin)

    def _steps(self, epochs: Sequence[int], start: int) -> Iterator[tuple[Plan, int]]:
        """Yield every batch as the plan of its epoch and its number in it."""
        for steps in self._plans(epochs, start):
            yield from ((steps, number) for number in range(len(steps.batches)))

    def order(self, epoch: int) -> Order:
        """Return the global order of an epoch."""
        rows = self._rows_of(epoch)
        if not self.shuffle:
            return as_given(rows)
        if self.config.shuffle == "rows":
            return shuffled_rows(rows, self.seed, epoch)
        block_rows = self.config.block_rows or self.store.rows_per_shard
        return shuffled_blocks(rows, self.seed, epoch, block_rows, self.config.buffer_blocks)

    def _batch(self, steps: Plan, number: int) -> Batch:
        first, end = _bounds(steps, number)
        if not self.source.resident:
            ahead = max(1, AHEAD_BYTES // self.source.row_bytes)
            self.source.prefetch(steps.rows[first + ahead if number else 0 : end + ahead])
        arrays = self.source.gather(steps.rows[first:end], self._buffers)
        return self._finished(steps, number, arrays)

    def _finished(self, steps: Plan, number: int, arrays: dict[str, Tensor]) -> Batch:
        first, end = _bounds(steps, number)
        rows = steps.rows[first:end]
        label = torch.from_numpy(self.store.label[rows].astype(np.int64))
        return Batch(
            arrays,
            label.pin_memory() if self._pin else label,
            rows,
            steps.firsts[number],
            steps.positions[number],
        )

    def _from_windows(self, epochs: Sequence[int], start: int) -> Iterator[Batch]:
        """Yield batches put together from windows, of which the next is read meanwhile."""
        # The whole of it: what is left of the first epoch may be little.
        for epoch in self._plans(epochs[:1], 0):
            self._refuse_large(epoch)
        stopping = Event()
        buffers = self._window_buffers
        reads = (
            partial(read_window, self.source, steps.rows[first:end], buffers, stopping)
            for steps in self._plans(epochs, start)
            for first, end in pairwise([0, *steps.windows])
        )
        windows = read_ahead(reads, 1, stopping)
        mixer = Mixer(windows)
        tasks = (partial(self._mixed, *step, mixer) for step in self._steps(epochs, start))
        try:
            yield from read_ahead(tasks, self.config.prefetch, stopping)
        finally:
            windows.close()

    def _mixed(self, steps: Plan, number: int, mixer: Mixer) -> Batch:
        first, end = _bounds(steps, number)
        arrays = self._buffers.lend(end - first)
        mixer.fill(arrays, end - first)
        return self._finished(steps, number, arrays)

    def _refuse_large(self, steps: Plan) -> None:
        rows = max((end - first for first, end in pairwise([0, *steps.windows])), default=0)
        wanted, free = 2 * rows * self.source.row_bytes, available_memory()
        if wanted > free:
            raise TcaError(
                f"loader.shuffle=blocks would hold two windows of {rows} rows, "
                f"{wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; lower "
                "loader.buffer_blocks or loader.block_rows."
            )


def _bounds(steps: Plan, number: int) -> tuple[int, int]:
    return (steps.batches[number - 1] if number else 0), steps.batches[number]
