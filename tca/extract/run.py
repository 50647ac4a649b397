"""One split from annotations to a store: plan, make what is missing, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from tca.cache.failures import report_failures
from tca.cache.files import sole_writer
from tca.cache.format import Array
from tca.cache.formats import named_format
from tca.cache.layout import Status, StoreSpec, status_words
from tca.cache.skeleton import missing_files
from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.console import note, warn
from tca.errors import TcaError, UsageError
from tca.extract.annotations import Annotations, read_annotations, require_videos
from tca.extract.backbones.registry import spoken
from tca.extract.batch_size import settle_batch_size
from tca.extract.config import ExtractConfig, Stage1Config
from tca.extract.engine import run_local
from tca.extract.plan import (
    Part,
    Plan,
    free_bytes,
    require_room_for,
    require_writable,
    todo_bytes,
)
from tca.extract.rows import Rows
from tca.extract.store_spec import bare_spec, store_spec, tell_other_record
from tca.extract.torchcodec_sampling import torchcodec_device
from tca.extract.watch import Watch
from tca.extract.worker import Job, Report

Engine = Callable[[Job, list[int], list[str], Report], None]
"""Makes and commits shards on devices: `engine.run_local`, or `run` of a `RayCluster`."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class ExtractSummary:
    """What one `extract` came to.

    Attributes:
        store: path of the store.
        split: name of the split.
        part: which part of the split, "3/16"; None: all of it.
        rows: N, or those of the part.
        views: how many of them a video has.
        status: how many rows have each status, by its name.
        done: rows made by this call; 0 if all were there.
        seconds: time that took, from when a worker was ready.
        busy: seconds that each step worked.
        failures: the report beside the store, None if no row failed.
    """

    store: Path
    split: str
    part: str | None
    rows: int
    views: int
    status: dict[str, int]
    done: int
    seconds: float
    busy: dict[str, float] = field(default_factory=dict)
    failures: Path | None = None

    @property
    def videos_per_second(self) -> float:
        """Rate of this call."""
        return self.done / self.views / self.seconds if self.done else 0.0

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
    engine: Engine = run_local,
    part: Part | None = None,
    store_format: str | None = None,
    folder: Path = Path(),
    allow_missing: bool = False,
) -> ExtractSummary:
    """Extract the features of one split into `store`, going on where an earlier call stopped.

    Args:
        split: train, validation or test.
        store: where; made if nothing is there.
        config: data set, backbones and how videos become rows.
        devices: names of devices, one worker each.
        engine: what makes shards on them.
        part: make only this part of the shards, in a store of its own beside `store`.
        store_format: "zarr" or "hdf5"; None: as `store` ends, or zarr.
        folder: where relative paths of weights start.
        allow_missing: go on if videos are missing; their rows get that status.

    Raises:
        TcaError: annotations, weights or videos that are not there, a store made with other
            settings or being written by another process, no room on the disk, workers that die
            again and again, or not one video that could be read.
        KeyboardInterrupt: Ctrl-C; what was committed stays.
    """
    annotations = read_annotations(config.data, split)
    require_videos(annotations, allow_missing)
    rows = Rows.of(annotations, config.data, config.extract.views)
    if part is not None:
        store = part.path(store)
    _require_decoder(config.extract, devices)
    note(f"loading {spoken(config.semantic)} and {spoken(config.motion)}")
    config = settle_batch_size(config, store, devices[0], folder)
    spec = store_spec(annotations, rows, config, folder, devices, part)
    begun = _intact(store, spec, store_format)
    mine = _shards(spec if begun is None else begun.spec, part)
    views = rows.views.per_video
    watch = Watch(f"extract {split}", "videos" if views == 1 else "rows", len(devices))
    done = 0
    if begun is None or not begun.committed().issuperset(mine):
        made = _plan(annotations, rows, config, store, store_format, devices, part, begun, spec)
        for what, words in made.lines():
            note(f"{what}: {words}")
        assert made.needed is not None
        require_room_for(store, made.needed)
        with sole_writer(store):
            writer = StoreWriter.open_or_create(store, spec, store_format)
            mine = _shards(writer.spec, part)
            committed = writer.committed()
            if committed:
                tell_other_record(store, writer.spec.record, spec.record)
            todo = [shard for shard in mine if shard not in committed]
            done = _rows(writer.spec, todo)
            total = _rows(writer.spec, mine)
            if todo:
                job = Job(store, rows.files, rows.views, folder, config)
                try:
                    with watch.over(total, total - done):
                        engine(job, todo, devices, watch.report)
                except KeyboardInterrupt:
                    left = set(todo) - writer.committed()
                    note(f"{store} has {total - _rows(writer.spec, left):,} of {total:,} rows.")
                    raise
    finished = Store.open(store)
    failures = report_failures(finished)
    numbers = [row for shard in mine for row in finished.spec.shard_rows(shard)]
    status = finished.status[numbers]
    summary = ExtractSummary(
        store=store,
        split=split,
        part=None if part is None else str(part),
        rows=len(status),
        views=views,
        status=count_statuses(status),
        done=done,
        seconds=watch.seconds,
        busy=watch.busy,
        failures=failures,
    )
    videos = finished.video[numbers]
    failed = len(np.unique(videos[status != Status.OK]))
    if failed and (status != Status.OK).all() and not (status == Status.MISSING).all():
        raise TcaError(
            f"none of the {failed:,} videos could be read; see why in {failures}, and try one with "
            "`ffprobe`."
        )
    if failed:
        of = f"{failed:,} of {len(np.unique(videos)):,}"
        warn(f"{of} videos have no features; see why in {failures}.")
    return summary


def plan(
    split: str,
    store: Path,
    config: Stage1Config,
    *,
    devices: list[str],
    part: Part | None = None,
    store_format: str | None = None,
    folder: Path = Path(),
    allow_missing: bool = False,
) -> Plan:
    """Return what `extract` with the same arguments would do, and write nothing.

    What would keep it from starting is the plan's `problem`.

    Raises:
        TcaError: annotations that cannot be read.
        UsageError: settings that do not go together.
    """
    annotations = read_annotations(config.data, split)
    rows = Rows.of(annotations, config.data, config.extract.views)
    if part is not None:
        store = part.path(store)
    _require_decoder(config.extract, devices)
    problems: list[str] = []

    def tried(step: Callable[[], Found]) -> Found | None:
        try:
            return step()
        except UsageError:
            raise
        except TcaError as error:
            problems.append(str(error))
            return None

    tried(lambda: require_videos(annotations, allow_missing))
    config = tried(lambda: settle_batch_size(config, store, devices[0], folder)) or config
    spec = tried(lambda: store_spec(annotations, rows, config, folder, devices, part))
    begun = None
    if spec is not None:
        begun = tried(lambda: _intact(store, spec, store_format))
    elif store.exists():
        # Its settings cannot be compared, but how far it is can be told.
        begun = tried(lambda: StoreWriter(store))
    made = _plan(annotations, rows, config, store, store_format, devices, part, begun, spec)
    needed = made.needed
    if needed is not None:
        tried(lambda: require_room_for(store, needed))
    if made.shards_done < made.shards:
        tried(lambda: require_writable(store))
    return replace(made, problem=problems[0] if problems else None)


def count_statuses(status: Array) -> dict[str, int]:
    """Return how many rows have each status that occurs, by its words."""
    values, counts = np.unique(status, return_counts=True)
    return {
        status_words(value): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def _plan(
    annotations: Annotations,
    rows: Rows,
    config: Stage1Config,
    store: Path,
    store_format: str | None,
    devices: list[str],
    part: Part | None,
    begun: StoreWriter | None,
    spec: StoreSpec | None,
) -> Plan:
    """Return the plan for a store that is perhaps begun; without weights, with gaps."""
    if begun is not None:
        spec = begun.spec
    if spec is None:
        spec = bare_spec(annotations, rows, len(devices) if part is None else part.count)
    mine = _shards(spec, part)
    committed = set() if begun is None else begun.committed()
    todo = [shard for shard in mine if shard not in committed]
    row_bytes = sum(stream.row_bytes for stream in spec.streams.values()) or None
    return Plan(
        split=annotations.split,
        store=store,
        store_format=store_format or named_format(store) or "zarr",
        part=None if part is None else str(part),
        videos=len(annotations.videos),
        missing=len(annotations.missing),
        rows=_rows(spec, mine),
        rows_done=_rows(spec, mine) - _rows(spec, todo),
        rows_per_shard=spec.rows_per_shard,
        shards=len(mine),
        shards_done=len(mine) - len(todo),
        row_bytes=row_bytes,
        needed=None if row_bytes is None else todo_bytes(spec, todo, rows.files),
        free=free_bytes(store),
        devices=devices,
        batch_size=config.extract.batch_size,
        problem=None,
    )


def _intact(store: Path, spec: StoreSpec, store_format: str | None) -> StoreWriter | None:
    """Return the store if it is there and lacks nothing outside its shards.

    Raises:
        TcaError: it was made with other settings.
    """
    if not store.exists() or missing_files(store):
        return None
    return StoreWriter.open_or_create(store, spec, store_format)


def _require_decoder(config: ExtractConfig, devices: list[str]) -> None:
    """Refuse a decoder that is not here before a store is made; Ray calls GPUs by their names.

    Raises:
        UsageError: it is not installed, or decodes on GPUs and the backbones do not run there.
    """
    torchcodec_device(config.decoder, torch.device("cpu" if "cpu" in devices else "cuda"))


def _shards(spec: StoreSpec, part: Part | None) -> list[int]:
    return list(range(spec.shards)) if part is None else part.shards(spec.shards)


def _rows(spec: StoreSpec, shards: Iterable[int]) -> int:
    return sum(len(spec.shard_rows(shard)) for shard in shards)
