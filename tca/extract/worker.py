"""One device's pipeline: decode, batch, map, write; each step runs while the others do.

Videos are decoded by processes that write into memory shared with this one, the device's own thread
maps batch after batch, one more thread writes whole shards. What is decoded ahead and what waits to
be written is bounded, so the slowest step sets the speed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tca.cache.failures import Failure, write_failures
from tca.cache.format import Array
from tca.cache.layout import Status, feature_arrays
from tca.cache.types import encode, finite, to_numpy
from tca.cache.writer import StoreWriter
from tca.device import out_of_memory
from tca.errors import TcaError
from tca.extract import decoder
from tca.extract.backbones.pair import Backbones
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.config import ExtractConfig, Stage1Config
from tca.extract.decoder import Settings, Task
from tca.extract.decoders import SLOTS, Batch, Decoders, Wanted
from tca.extract.decoding import Limits
from tca.extract.video_error import VideoError
from tca.extract.views import View

STEPS = ("decode", "map", "write")


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make the shards of one store; travels to other processes.

    Attributes:
        store: path of the store, which exists.
        files: (N,) the file of every row, None where it is missing.
        views: (N,) what each row shows of its file.
        folder: where relative paths of weights start.
        config: the settings of stage 1.
    """

    store: Path
    files: list[Path | None]
    views: Sequence[View]
    folder: Path
    config: Stage1Config


@dataclass
class Progress:
    """What a worker did since its last report.

    Attributes:
        rows: rows finished, failed ones included.
        failed: rows that failed.
        busy: seconds that each step worked; of the decoders, the average.
    """

    rows: int = 0
    failed: int = 0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))


Report = Callable[[Progress], None]


def work(job: Job, backbones: Backbones, shards: Iterable[int], report: Report) -> None:
    """Make and commit `shards`, calling `report` after every batch.

    Raises:
        TcaError: the store cannot be written; shards committed before stay.
    """
    writer = StoreWriter(job.store)
    config = job.config.extract
    with (
        _decoders(job, backbones, writer, shards) as decoders,
        ThreadPoolExecutor(1, "tca-write") as writing,
    ):
        pending: Future[float] | None = None
        arrays = list(feature_arrays(writer.spec.streams))
        shard = _Shard(arrays)
        for batch in decoders:
            started = time.perf_counter()
            try:
                features = _mapped(backbones, batch, config)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                raise TcaError(
                    f"not enough memory for {config.batch_size} videos at once; free some, or "
                    "lower extract.batch_size (a store keeps the one that it was begun with)."
                ) from None
            decoders.give_back(batch)
            failed = shard.add(job, batch, features)
            progress = Progress(rows=len(batch.rows), failed=failed)
            progress.busy["map"] = time.perf_counter() - started
            progress.busy["decode"] = batch.seconds / decoders.processes
            if batch.last:
                # One shard waits at most: more would pile up in memory behind a slow disk.
                progress.busy["write"] = pending.result() if pending else 0.0
                pending = writing.submit(_commit, writer, batch.shard, shard)
                shard = _Shard(arrays)
            report(progress)
        if pending is not None:
            report(Progress(busy=dict.fromkeys(STEPS, 0.0) | {"write": pending.result()}))


def decoding_threads() -> int:
    """Return one a core that this process may use, 16 at most."""
    return min(16, len(os.sched_getaffinity(0)))


def _decoders(
    job: Job, backbones: Backbones, writer: StoreWriter, shards: Iterable[int]
) -> Decoders:
    extract = job.config.extract
    sizes = backbones.semantic.size, backbones.motion.size
    return Decoders(
        _wanted(job, writer, shards),
        BatchBuffers(SLOTS, extract.batch_size, *sizes),
        Settings(
            geometry=extract.geometry,
            min_frames=extract.min_frames,
            limits=Limits(extract.max_frames, extract.max_pixels),
            megabytes=extract.max_megabytes,
        ),
        processes=extract.threads or decoding_threads(),
        seconds=extract.max_seconds,
        draw=decoder.draw,
    )


def _wanted(job: Job, writer: StoreWriter, shards: Iterable[int]) -> Iterator[Wanted]:
    """Yield fixed ranges of each shard's rows; views of one video that meet there are one task."""
    size = job.config.extract.batch_size
    for shard in shards:
        rows = writer.shard_rows(shard)
        for start in range(rows.start, rows.stop, size):
            some = range(start, min(start + size, rows.stop))
            tasks: list[Task] = []
            failed: dict[int, VideoError] = {}
            for path, same in groupby(some, job.files.__getitem__):
                places = [row - start for row in same]
                if path is None:
                    missing = VideoError(Status.MISSING, "no file of this id")
                    failed |= dict.fromkeys(places, missing)
                else:
                    tasks.append(Task(path, tuple((n, job.views[start + n]) for n in places)))
            yield Wanted(shard, some, some.stop == rows.stop, tasks, failed)


class _Shard:
    """The rows of one shard as they are made, for every array of features."""

    def __init__(self, arrays: Iterable[str]) -> None:
        self.features: dict[str, list[Array | None]] = {name: [] for name in arrays}
        self.status: list[int] = []
        self.failures: list[Failure] = []

    def add(self, job: Job, batch: Batch, features: dict[str, Array]) -> int:
        """Add a batch and return how many of its rows failed."""
        before = len(self.failures)
        for place, (row, error) in enumerate(zip(batch.rows, batch.outcomes, strict=True)):
            for name, values in self.features.items():
                values.append(None if error else features[name][place])
            self.status.append(error.status if error else Status.OK)
            if error:
                self.failures.append(Failure(row, str(job.files[row] or ""), error.reason))
        return len(self.failures) - before


def _mapped(backbones: Backbones, batch: Batch, config: ExtractConfig) -> dict[str, Array]:
    """Return the features of one batch; a failed video leaves its place empty.

    A video whose features the stored type cannot hold becomes a failed one in the batch.

    Every batch has `batch_size` places, so that a row is computed by the same kernels wherever it
    lies.
    """
    good = [place for place, error in enumerate(batch.outcomes) if error is None]
    if not good:
        return {}
    frames, clips = batch.frames, batch.clips
    if torch.cuda.is_available():
        frames, clips = frames.pin_memory(), clips.pin_memory()
    features: dict[str, Tensor] = {}
    for name, tensor in backbones(frames, clips, config.precision).items():
        features |= encode(name, tensor, config.dtype)
    reason = f"its features are no finite numbers in {config.dtype}"
    for place, fine in zip(good, finite(features)[good].tolist(), strict=True):
        if not fine:
            batch.outcomes[place] = VideoError(Status.UNREADABLE, reason)
    return {name: to_numpy(tensor.cpu()) for name, tensor in features.items()}


def _commit(writer: StoreWriter, number: int, shard: _Shard) -> float:
    started = time.perf_counter()
    write_failures(writer.path, number, shard.failures)
    writer.commit(number, shard.features, np.array(shard.status, dtype=np.uint8))
    return time.perf_counter() - started
