"""One device's pipeline: decode, batch, map, write; each step runs while the others do.

Videos are decoded by processes that write into memory shared with this one, the device's own thread
maps batch after batch, one more thread writes whole shards. What is decoded ahead and what waits to
be written is bounded, so the slowest step sets the speed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from tca.cache.failures import Failure, write_failures
from tca.cache.format import Array
from tca.cache.layout import Status, feature_arrays
from tca.cache.writer import StoreWriter
from tca.extract import decoder
from tca.extract.backbones.pair import Backbones
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.config import Stage1Config
from tca.extract.decoder import Settings, Task
from tca.extract.decoders import SLOTS, Batch, Decoders, Wanted
from tca.extract.decoding import Limits
from tca.extract.mapping import Mapped, Mapper
from tca.extract.torchcodec_sampling import torchcodec_device
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
        busy: seconds that each step worked: of the decoders the average, of a GPU its own.
    """

    rows: int = 0
    failed: int = 0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))


Report = Callable[[Progress], None]


def work(job: Job, backbones: Backbones, shards: Iterable[int], report: Report) -> None:
    """Make and commit `shards`, calling `report` after every batch.

    Raises:
        TcaError: the store cannot be written, or not enough memory for a single video; shards
            committed before stay.
    """
    writer = StoreWriter(job.store)
    extract = job.config.extract
    mapper = Mapper(
        backbones,
        batch_size=extract.batch_size,
        precision=extract.precision,
        dtype=extract.dtype,
    )
    with (
        decoders(job, backbones, writer, shards) as decoded,
        ThreadPoolExecutor(1, "tca-write") as writing,
    ):
        made = _Made(job, writer, writing)
        mapping: deque[tuple[Batch, Mapped | None]] = deque()
        for batch in decoded:
            any_good = None in batch.outcomes
            mapped = mapper.start(batch.frames, batch.clips) if any_good else None
            decoded.give_back(batch)
            mapping.append((batch, mapped))
            if len(mapping) > mapper.ahead:
                report(made.add(*mapping.popleft(), decoded.processes))
        while mapping:
            report(made.add(*mapping.popleft(), decoded.processes))
        report(made.finish())


def decoding_threads() -> int:
    """Return one a core that this process may use, 16 at most."""
    return min(16, len(os.sched_getaffinity(0)))


def decoders(
    job: Job, backbones: Backbones, writer: StoreWriter, shards: Iterable[int]
) -> Decoders:
    """Return the decoders of the batches of `shards`, not started yet."""
    extract = job.config.extract
    return Decoders(
        _wanted(job, writer, shards),
        BatchBuffers(SLOTS, extract.batch_size, *backbones.sizes),
        Settings(
            geometry=extract.geometry,
            min_frames=extract.min_frames,
            limits=Limits(extract.max_frames, extract.max_pixels),
            megabytes=extract.max_megabytes,
            torchcodec=torchcodec_device(extract.decoder, backbones.device),
            yielding=backbones.device.type == "cpu",
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
                    # Decoders were forked by a process that need not be in this one's folder.
                    views = tuple((n, job.views[start + n]) for n in places)
                    tasks.append(Task(path.absolute(), views))
            yield Wanted(shard, some, some.stop == rows.stop, tasks, failed)


class _Made:
    """The rows of one shard as they are made, for every array; a whole shard is committed."""

    def __init__(self, job: Job, writer: StoreWriter, pool: ThreadPoolExecutor) -> None:
        self._job, self._writer, self._pool = job, writer, pool
        self._pending: Future[float] | None = None
        self._begin()

    def add(self, batch: Batch, mapped: Mapped | None, processes: int) -> Progress:
        """Add a batch, of which nothing was mapped if every video failed, and say what was done.

        A video whose features the stored type cannot hold becomes a failed one.
        """
        features: dict[str, Array] = {}
        progress = Progress(len(batch.rows))
        progress.busy["decode"] = batch.seconds / processes
        if mapped is not None:
            features, fine = mapped.features()
            progress.busy["map"] = mapped.seconds
            reason = f"its features are no finite numbers in {self._job.config.extract.dtype}"
            for place, error in enumerate(batch.outcomes):
                if error is None and not fine[place]:
                    batch.outcomes[place] = VideoError(Status.UNREADABLE, reason)
        for place, (row, error) in enumerate(zip(batch.rows, batch.outcomes, strict=True)):
            for name, values in self._features.items():
                values.append(None if error else features[name][place])
            self._status.append(error.status if error else Status.OK)
            if error:
                path = str(self._job.files[row] or "")
                self._failures.append(Failure(row, path, error.reason))
                progress.failed += 1
        if batch.last:
            # One shard waits at most: more would pile up in memory behind a slow disk.
            progress.busy["write"] = self._waited()
            what = self._features, self._status, self._failures
            self._pending = self._pool.submit(_commit, self._writer, batch.shard, *what)
            self._begin()
        return progress

    def finish(self) -> Progress:
        """Wait for the last commit."""
        return Progress(busy=dict.fromkeys(STEPS, 0.0) | {"write": self._waited()})

    def _begin(self) -> None:
        arrays = feature_arrays(self._writer.spec.streams)
        self._features: dict[str, list[Array | None]] = {name: [] for name in arrays}
        self._status: list[int] = []
        self._failures: list[Failure] = []

    def _waited(self) -> float:
        """Wait for the commit under way, and return the seconds that it took."""
        return 0.0 if self._pending is None else self._pending.result()


def _commit(
    writer: StoreWriter,
    shard: int,
    features: dict[str, list[Array | None]],
    status: list[int],
    failures: list[Failure],
) -> float:
    started = time.perf_counter()
    write_failures(writer.path, shard, failures)
    writer.commit(shard, features, np.array(status, dtype=np.uint8))
    return time.perf_counter() - started
