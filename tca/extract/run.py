"""One split from annotations to a store: plan, make what is missing, report."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torchvision
import transformers

import tca
from tca.cache.failures import report_failures
from tca.cache.files import sole_writer
from tca.cache.layout import Status, StoreSpec, Stream, rows_per_shard, status_words
from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.console import ProgressLine, note, warn
from tca.errors import TcaError
from tca.extract.annotations import Annotations, read_annotations, require_videos
from tca.extract.backbones.pair import Backbones
from tca.extract.config import FRAMES, SEGMENTS, ExtractConfig, Stage1Config
from tca.extract.engine import run_local
from tca.extract.rows import Rows
from tca.extract.worker import STEPS, Job, Progress


@dataclass(frozen=True)
class ExtractSummary:
    """What one `extract` came to.

    Attributes:
        store: path of the store.
        split: name of the split.
        rows: N.
        status: how many rows have each status, by its name.
        done: rows made by this call; 0 if all were there.
        seconds: time that took, loading of the backbones not included.
        busy: seconds that each step worked.
        failures: the report beside the store, None if no row failed.
    """

    store: Path
    split: str
    rows: int
    status: dict[str, int]
    done: int
    seconds: float
    busy: dict[str, float] = field(default_factory=dict)
    failures: Path | None = None

    @property
    def videos_per_second(self) -> float:
        """Rate of this call."""
        return self.done / self.seconds if self.done else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {
            "store": str(self.store),
            "failures": None if self.failures is None else str(self.failures),
            "videos_per_second": self.videos_per_second,
        }


def extract(
    split: str,
    store: Path,
    config: Stage1Config,
    *,
    devices: list[str],
    store_format: str | None = None,
    folder: Path = Path(),
    allow_missing: bool = False,
) -> ExtractSummary:
    """Extract the features of one split into `store`, going on where an earlier call stopped.

    Args:
        split: train, validation or test.
        store: where; made if nothing is there.
        config: data set, backbones and how videos become rows.
        devices: torch device names, one worker each.
        store_format: "zarr" or "hdf5"; None: as `store` ends, or zarr.
        folder: where relative paths of weights start.
        allow_missing: go on if videos are missing; their rows get that status.

    Raises:
        TcaError: annotations, weights or videos that are not there, a store made with other
            settings or being written by another process, no room on the disk.
    """
    annotations = read_annotations(config.data, split)
    require_videos(annotations, allow_missing)
    rows = Rows.of(annotations, config.data, config.extract.views)
    note(f"loading {config.semantic.weights} and R3D-18 {config.motion.weights}")
    backbones = Backbones.load(config.semantic, config.motion, folder)
    with sole_writer(store):
        writer = _writer(store, annotations, rows, backbones, config.extract, devices, store_format)
        committed = writer.committed()
        shards = [shard for shard in range(writer.shards) if shard not in committed]
        before = sum(len(writer.shard_rows(shard)) for shard in committed)
        started = time.monotonic()
        busy = dict.fromkeys(STEPS, 0.0)
        if shards:
            _require_room(store, writer, len(rows.table) - before)
            if before:
                note(f"{store} has {before} of {len(writer.spec.rows)} rows; going on.")
            job = Job(store, rows.files, folder, config)
            with ProgressLine(f"extract {split}", len(writer.spec.rows), "videos", before) as line:

                def report(progress: Progress) -> None:
                    for step, seconds in progress.busy.items():
                        busy[step] += seconds
                    slowest = max(busy, key=lambda step: busy[step])
                    line.advance(progress.rows, f"slowest: {slowest}")

                run_local(job, backbones, shards, devices, report)
        seconds = time.monotonic() - started
        finished = Store.open(store)
        failures = report_failures(finished)
    summary = ExtractSummary(
        store=store,
        split=split,
        rows=finished.rows,
        status=count_statuses(finished),
        done=finished.rows - before,
        seconds=seconds,
        busy=busy,
        failures=failures,
    )
    if failures is not None:
        failed = finished.rows - summary.status.get(Status.OK.words, 0)
        warn(f"{failed} of {finished.rows} videos have no features; reasons are in {failures}.")
    return summary


def count_statuses(store: Store) -> dict[str, int]:
    """Return how many rows have each status that occurs, by its words."""
    values, counts = np.unique(store.status, return_counts=True)
    return {
        status_words(value): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def _writer(
    store: Path,
    annotations: Annotations,
    rows: Rows,
    backbones: Backbones,
    config: ExtractConfig,
    devices: list[str],
    store_format: str | None,
) -> StoreWriter:
    count = len(rows.table)
    spec = StoreSpec(
        split=annotations.split,
        rows=rows.table,
        streams={
            name: Stream((count, *shape), config.dtype)
            for name, shape in backbones.row_shapes.items()
        },
        rows_per_shard=rows_per_shard(count, len(devices)),
        classes=annotations.classes,
        identity=_identity(backbones, rows, config),
        record=_record(annotations, config, devices),
        grid=backbones.grid,
    )
    return StoreWriter.open_or_create(store, spec, store_format)


def _identity(backbones: Backbones, rows: Rows, config: ExtractConfig) -> dict[str, Any]:
    return backbones.identity | {
        "sampling": {"frames": FRAMES, "segments": SEGMENTS, "min_frames": config.min_frames},
        "geometry": config.geometry,
        "views": rows.identity,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
    }


def _record(annotations: Annotations, config: ExtractConfig, devices: list[str]) -> dict[str, Any]:
    return {
        "versions": {
            "tca": tca.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "transformers": transformers.__version__,
            "av": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
        },
        "device": sorted({_device_name(device) for device in devices}),
        "precision": config.precision,
        "annotations": annotations.sources,
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _require_room(store: Path, writer: StoreWriter, rows: int) -> None:
    needed = rows * sum(stream.row_bytes for stream in writer.spec.streams.values())
    free = shutil.disk_usage(store).free
    if needed > free:
        raise TcaError(
            f"{store} needs {needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free; free some "
            "space, or keep less with semantic.keep=mean or semantic.pool."
        )
