"""How near extraction comes to the speed of its slowest part, measured on a user's own videos.

Each stage runs alone, then all run together, in turns: machines are rarely idle, and what ran side
by side can be compared. What starts and what runs out is left out.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from tca.cache.creation import create_store
from tca.cache.layout import Status, feature_arrays
from tca.cache.writer import StoreWriter
from tca.console import note
from tca.errors import TcaError
from tca.extract.annotations import read_annotations
from tca.extract.backbones.pair import Backbones
from tca.extract.batch_size import settle_batch_size
from tca.extract.config import FRAMES, SEGMENTS, Stage1Config
from tca.extract.decoders import SLOTS
from tca.extract.mapping import Mapper
from tca.extract.rows import Rows
from tca.extract.store_spec import store_spec
from tca.extract.worker import Job, Progress, decoders, work

STAGES = ("decode", "map", "write")


@dataclass(frozen=True)
class Speed:
    """A stage, or all of them, over some rows.

    Attributes:
        rows_per_second: on the clock.
        cpu_seconds: of all processors, a row.
    """

    rows_per_second: float
    cpu_seconds: float


@dataclass(frozen=True)
class ExtractBench:
    """What `bench_extract` found; every number the median of some rounds.

    Attributes:
        device: torch's name.
        rows: rows of a round; one a view of a video.
        batch_size: rows that are mapped at once.
        rounds: how many.
        cores: that this process may use.
        alone: by stage, when it runs alone.
        whole: when all run together.
        limit: rows/s of the slowest stage alone on a GPU; where everything shares the CPU, of all
            cores doing nothing but the stages' work.
        efficiency: whole ÷ limit, the median of the rounds' own.
    """

    device: str
    rows: int
    batch_size: int
    rounds: int
    cores: int
    alone: dict[str, Speed]
    whole: Speed
    limit: float
    efficiency: float

    @property
    def slowest(self) -> str:
        """The stage that the limit is due to most."""
        if self.device == "cpu":
            return max(self.alone, key=lambda stage: self.alone[stage].cpu_seconds)
        return min(self.alone, key=lambda stage: self.alone[stage].rows_per_second)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"slowest": self.slowest}


def bench_extract(
    split: str,
    config: Stage1Config,
    *,
    device: str,
    videos: int,
    rounds: int,
    folder: Path,
    scratch: Path,
) -> ExtractBench:
    """Measure extraction of the first `videos` videos of a split that are there.

    Args:
        split: train, validation or test.
        config: data set, backbones and how videos become rows.
        device: torch's name.
        videos: how many.
        rounds: how often everything is measured.
        folder: where relative paths of weights start.
        scratch: a folder on the disk that stores are written to; nothing stays there.

    Raises:
        TcaError: not enough videos, or what keeps `extract` from working.
    """
    annotations = read_annotations(config.data, split)
    here = [video for video in annotations.videos if video.path is not None][:videos]
    annotations = replace(annotations, videos=here)
    rows = Rows.of(annotations, config.data, config.extract.views)
    # Of a store that is not there.
    config = settle_batch_size(config, scratch / ".none", device, folder)
    batch = config.extract.batch_size
    least = 2 * (SLOTS + 1) * batch
    if len(rows.table) < least:
        raise TcaError(
            f"{len(rows.table)} rows of {split} are too few to measure batches of {batch}; have "
            f"{least} at least, or lower extract.batch_size."
        )
    spec = store_spec(annotations, rows, config, folder, [device], None)
    backbones = Backbones.load(config.semantic, config.motion, folder).to(torch.device(device))
    measured: dict[str, list[Speed]] = {stage: [] for stage in (*STAGES, "whole")}
    with tempfile.TemporaryDirectory(prefix=".tca-bench-", dir=scratch) as place:
        for number in range(rounds):
            store = Path(place) / f"{number}.zarr"
            create_store(store, spec, "zarr")
            job = Job(store, rows.files, rows.views, folder, config)
            bench = _Round(job, backbones, StoreWriter(store))
            for stage in measured:
                measured[stage].append(getattr(bench, stage)())
            found = {
                stage: f"{speeds[-1].rows_per_second:.1f}" for stage, speeds in measured.items()
            }
            note(f"round {number + 1}, rows/s: " + ", ".join(f"{s} {n}" for s, n in found.items()))
    cores = len(os.sched_getaffinity(0))
    limits = [
        _limit(device, cores, [measured[stage][number] for stage in STAGES])
        for number in range(rounds)
    ]
    whole = [speed.rows_per_second for speed in measured["whole"]]
    medians = {stage: _median(speeds) for stage, speeds in measured.items()}
    return ExtractBench(
        device=device,
        rows=len(rows.table),
        batch_size=batch,
        rounds=rounds,
        cores=cores,
        alone={stage: medians[stage] for stage in STAGES},
        whole=medians["whole"],
        limit=statistics.median(limits),
        efficiency=statistics.median(w / limit for w, limit in zip(whole, limits, strict=True)),
    )


class _Round:
    """Every stage alone, and all together, once."""

    def __init__(self, job: Job, backbones: Backbones, writer: StoreWriter) -> None:
        self._job, self._backbones, self._writer = job, backbones, writer
        self._rows = len(writer.spec.rows)
        self._batch = job.config.extract.batch_size
        self._ahead = SLOTS * self._batch

    def decode(self) -> Speed:
        watch = _Watch(self._rows, self._ahead)
        shards = range(self._writer.shards)
        with decoders(self._job, self._backbones, self._writer, shards) as decoded:
            for batch in decoded:
                decoded.give_back(batch)
                watch.saw(len(batch.rows))
            return watch.speed()

    def map(self) -> Speed:
        config = self._job.config.extract
        mapper = Mapper(
            self._backbones,
            batch_size=self._batch,
            precision=config.precision,
            dtype=config.dtype,
        )
        large, small = self._backbones.sizes
        generator = torch.Generator().manual_seed(0)

        def pixels(count: int, size: int) -> torch.Tensor:
            # Colours innermost in memory, as decoders leave them.
            shape = self._batch, count, size, size, 3
            made = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            return made.movedim(-1, 2)

        frames, clips = pixels(SEGMENTS, large), pixels(FRAMES, small)
        watch = _Watch(self._rows, self._ahead)
        before = None
        for _ in range(0, self._rows, self._batch):
            started = mapper.start(frames, clips)
            if before is not None:
                before.features()
                watch.saw(self._batch)
            before = started
        assert before is not None
        before.features()
        watch.saw(self._batch)
        return watch.speed()

    def write(self) -> Speed:
        generator = np.random.default_rng(0)
        arrays = feature_arrays(self._writer.spec.streams)
        made = {
            name: generator.integers(0, 100, what.row_shape, dtype=np.uint8).astype(what.dtype)
            for name, what in arrays.items()
        }
        watch = _Watch(self._rows, None)
        for shard in range(self._writer.shards):
            count = len(self._writer.shard_rows(shard))
            features = {name: [row] * count for name, row in made.items()}
            self._writer.commit(shard, features, np.full(count, Status.OK, dtype=np.uint8))
            watch.saw(count)
        return watch.speed()

    def whole(self) -> Speed:
        watch = _Watch(self._rows, self._ahead)

        def report(progress: Progress) -> None:
            if progress.rows:
                watch.saw(progress.rows)

        # Over what `write` wrote.
        work(self._job, self._backbones, range(self._writer.shards), report)
        return watch.speed()


class _Watch:
    """Times batches between the first and the last few.

    The first one is not counted, for everything has to start; nor are the last, which were decoded
    before the clock would have stopped.

    Args:
        rows: how many will be seen.
        last: how many of the last are not counted; None: all rows are, from now on.
    """

    def __init__(self, rows: int, last: int | None) -> None:
        self._left = rows - (last or 0)
        self._rows = 0
        self._begun = self._now() if last is None else None
        self._ended = self._begun

    def saw(self, rows: int) -> None:
        self._left -= rows
        if self._left < 0:
            return
        self._ended = self._now()
        if self._begun is None:
            self._begun = self._ended
        else:
            self._rows += rows

    def speed(self) -> Speed:
        assert self._begun is not None
        assert self._ended is not None
        wall, cpu = (now - then for now, then in zip(self._ended, self._begun, strict=True))
        return Speed(self._rows / wall, cpu / self._rows)

    @staticmethod
    def _now() -> tuple[float, float]:
        """Return the clock, and the CPU seconds of this process and all below it."""
        process = psutil.Process()
        total = 0.0
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
        return time.perf_counter(), total


def _limit(device: str, cores: int, alone: list[Speed]) -> float:
    if torch.device(device).type == "cpu":
        return cores / sum(speed.cpu_seconds for speed in alone)
    return min(speed.rows_per_second for speed in alone)


def _median(speeds: list[Speed]) -> Speed:
    def of(what: Callable[[Speed], float]) -> float:
        return statistics.median(what(speed) for speed in speeds)

    return Speed(of(lambda s: s.rows_per_second), of(lambda s: s.cpu_seconds))
