"""One device's pipeline: decode, batch, map, write; each step runs while the others do.

Videos are decoded by a pool of threads (PyAV and the resizing release the interpreter lock), the
device's own thread batches and maps, one more thread writes whole shards. What is decoded ahead and
what waits to be written is bounded, so the slowest step sets the speed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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
from tca.extract.backbones.pair import Backbones
from tca.extract.config import ExtractConfig, Stage1Config
from tca.extract.decoding import VideoError, decode
from tca.extract.geometry import squares

STEPS = ("decode", "map", "write")


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make the shards of one store; travels to other processes.

    Attributes:
        store: path of the store, which exists.
        files: (N,) the file of every row, None where it is missing.
        folder: where relative paths of weights start.
        config: the settings of stage 1.
    """

    store: Path
    files: list[Path | None]
    folder: Path
    config: Stage1Config


@dataclass
class Progress:
    """What a worker did since its last report.

    Attributes:
        rows: rows finished, failed ones included.
        failed: rows that failed.
        busy: seconds that each step worked; of the decoding threads, the average.
    """

    rows: int = 0
    failed: int = 0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))


Report = Callable[[Progress], None]
Decoded = tuple[Tensor, Tensor] | VideoError


def work(job: Job, backbones: Backbones, shards: Iterable[int], report: Report) -> None:
    """Make and commit `shards`, calling `report` after every batch.

    Raises:
        TcaError: the store cannot be written; shards committed before stay.
    """
    writer = StoreWriter(job.store)
    config = job.config.extract
    threads = config.threads or decoding_threads()
    with (
        # Resizing inside a decoding thread must not start threads of its own.
        ThreadPoolExecutor(
            threads, "tca-decode", initializer=torch.set_num_threads, initargs=(1,)
        ) as decoders,
        ThreadPoolExecutor(1, "tca-write") as writing,
    ):
        batches = _batches(writer, shards, config.batch_size)
        ahead = _Ahead(job, decoders, batches, 2 * config.batch_size)
        pending: Future[float] | None = None
        arrays = list(feature_arrays(writer.spec.streams))
        shard = _Shard(arrays)
        try:
            for number, rows, last, decoded in ahead:
                started = time.perf_counter()
                try:
                    features = _mapped(backbones, decoded, config)
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    raise TcaError(
                        f"not enough memory for {config.batch_size} videos at once; free some, or "
                        "lower extract.batch_size (a store keeps the one that it was begun with)."
                    ) from None
                progress = Progress(rows=len(rows), failed=shard.add(job, rows, decoded, features))
                progress.busy["map"] = time.perf_counter() - started
                progress.busy["decode"] = ahead.take_busy() / threads
                if last:
                    # One shard waits at most: more would pile up in memory behind a slow disk.
                    progress.busy["write"] = pending.result() if pending else 0.0
                    pending = writing.submit(_commit, writer, number, shard)
                    shard = _Shard(arrays)
                report(progress)
            if pending is not None:
                report(Progress(busy=dict.fromkeys(STEPS, 0.0) | {"write": pending.result()}))
        finally:
            ahead.cancel()


def decoding_threads() -> int:
    """Return one thread a core that this process may use, 16 at most."""
    return min(16, len(os.sched_getaffinity(0)))


Batch = tuple[int, range, bool]


def _batches(writer: StoreWriter, shards: Iterable[int], size: int) -> Iterator[Batch]:
    """Yield (shard, rows, whether they are its last) for fixed ranges of each shard."""
    for shard in shards:
        rows = writer.shard_rows(shard)
        for start in range(rows.start, rows.stop, size):
            stop = min(start + size, rows.stop)
            yield shard, range(start, stop), stop == rows.stop


class _Ahead:
    """Batches in order with their decoded videos; some `room` videos are decoded ahead of use."""

    def __init__(
        self,
        job: Job,
        pool: ThreadPoolExecutor,
        batches: Iterator[Batch],
        room: int,
    ) -> None:
        self._job, self._pool, self._room = job, pool, room
        self._batches = batches
        self._queue: deque[tuple[Batch, list[Future[tuple[Decoded, float]]]]] = deque()
        self._busy = 0.0

    def __iter__(self) -> Iterator[tuple[int, range, bool, list[Decoded]]]:
        self._fill()
        while self._queue:
            (shard, rows, last), futures = self._queue.popleft()
            results = [future.result() for future in futures]
            self._busy += sum(seconds for _, seconds in results)
            self._fill()
            yield shard, rows, last, [decoded for decoded, _ in results]

    def take_busy(self) -> float:
        """Return the seconds spent decoding since the last call, over all threads."""
        busy, self._busy = self._busy, 0.0
        return busy

    def cancel(self) -> None:
        """Drop what was not begun."""
        for _, futures in self._queue:
            for future in futures:
                future.cancel()

    def _fill(self) -> None:
        while sum(len(futures) for _, futures in self._queue) < self._room:
            batch = next(self._batches, None)
            if batch is None:
                return
            futures = [self._pool.submit(self._decode, row) for row in batch[1]]
            self._queue.append((batch, futures))

    def _decode(self, row: int) -> tuple[Decoded, float]:
        started = time.perf_counter()
        config = self._job.config
        try:
            path = self._job.files[row]
            if path is None:
                raise VideoError(Status.MISSING, "no file of this id")
            clip = decode(path, min_frames=config.extract.min_frames)
            shape = config.extract.geometry, clip.pixel_aspect
            frames = squares(clip.frames[::2], config.semantic.size, *shape)
            pictures = squares(clip.frames, config.motion.size, *shape)
            return (frames, pictures), time.perf_counter() - started
        except VideoError as error:
            return error, time.perf_counter() - started
        except Exception as error:
            # Whatever else a file brings the decoder to belongs to the video, not to the run.
            reason = f"{type(error).__name__}: {error}"
            return VideoError(Status.UNREADABLE, reason), time.perf_counter() - started


class _Shard:
    """The rows of one shard as they are made, for every array of features."""

    def __init__(self, arrays: Iterable[str]) -> None:
        self.features: dict[str, list[Array | None]] = {name: [] for name in arrays}
        self.status: list[int] = []
        self.failures: list[Failure] = []

    def add(self, job: Job, rows: range, decoded: list[Decoded], features: dict[str, Array]) -> int:
        """Add a batch and return how many of its rows failed."""
        before = len(self.failures)
        for place, (row, result) in enumerate(zip(rows, decoded, strict=True)):
            failed = isinstance(result, VideoError)
            for name, values in self.features.items():
                values.append(None if failed else features[name][place])
            self.status.append(result.status if isinstance(result, VideoError) else Status.OK)
            if isinstance(result, VideoError):
                self.failures.append(Failure(row, str(job.files[row] or ""), result.reason))
        return len(self.failures) - before


def _mapped(
    backbones: Backbones, decoded: list[Decoded], config: ExtractConfig
) -> dict[str, Array]:
    """Return the features of one batch; a failed video leaves its place empty.

    A video whose features the stored type cannot hold becomes a failed one in `decoded`.

    Every batch has `batch_size` places, so that a row is computed by the same kernels wherever it
    lies.
    """
    good = [(place, d) for place, d in enumerate(decoded) if not isinstance(d, VideoError)]
    if not good:
        return {}
    size = (config.batch_size,)
    frames, clips = (torch.zeros(size + t.shape, dtype=torch.uint8) for t in good[0][1])
    for place, (frame, clip) in good:
        frames[place], clips[place] = frame, clip
    if torch.cuda.is_available():
        frames, clips = frames.pin_memory(), clips.pin_memory()
    features: dict[str, Tensor] = {}
    for name, tensor in backbones(frames, clips, config.precision).items():
        features |= encode(name, tensor, config.dtype)
    reason = f"its features are no finite numbers in {config.dtype}"
    sound = finite(features)[[place for place, _ in good]].tolist()
    for (place, _), fine in zip(good, sound, strict=True):
        if not fine:
            decoded[place] = VideoError(Status.UNREADABLE, reason)
    return {name: to_numpy(tensor.cpu()) for name, tensor in features.items()}


def _commit(writer: StoreWriter, number: int, shard: _Shard) -> float:
    started = time.perf_counter()
    write_failures(writer.path, number, shard.failures)
    writer.commit(number, shard.features, np.array(shard.status, dtype=np.uint8))
    return time.perf_counter() - started
