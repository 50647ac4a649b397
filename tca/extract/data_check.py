"""What is wrong with a data set, before hours go into extracting it.

Every video that is there is decoded to its end, since headers lie about frame counts and a file
that breaks off looks whole from outside. Colours are not converted, so this is about twice as fast
as extraction's decoding; missing videos cost nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tca.console import ProgressLine
from tca.extract.annotations import (
    Annotations,
    Video,
    read_annotations,
    read_classes,
    read_flip_table,
)
from tca.extract.config import DataConfig
from tca.extract.distribution import Distribution, describe
from tca.extract.probe import Probe, probe


@dataclass(frozen=True)
class ClassCount:
    """Videos of one class: annotated, with a file, and with a file that gives features."""

    annotated: int
    found: int
    usable: int


@dataclass(frozen=True)
class Problem:
    """A video that is not as it should be."""

    id: str
    file: str
    reason: str


@dataclass(frozen=True)
class SplitReport:
    """The state of one split. Every annotated video is missing, empty, unreadable or usable.

    Attributes:
        split: train, validation or test.
        annotated, found, usable, unlabelled: numbers of videos.
        missing: ids without a file.
        empty: files of 0 bytes or without a frame.
        unreadable: files that cannot be decoded, or break off before `min_frames` frames.
        broken_off: files that break off later; extraction uses what comes before.
        too_short: whole files of fewer than `min_frames` frames; extraction repeats frames.
        frames, fps, seconds, width, height: over the files with a frame, as shown; None without.
        resolutions: files by `WIDTHxHEIGHT`, most frequent first.
        per_class: counts by class name, in the order of the labels.
        classes_without_video: classes of which the split has no usable video.
    """

    split: str
    annotated: int
    found: int
    usable: int
    unlabelled: int
    missing: list[str]
    empty: list[Problem]
    unreadable: list[Problem]
    broken_off: list[Problem]
    too_short: list[Problem]
    frames: Distribution | None
    fps: Distribution | None
    seconds: Distribution | None
    width: Distribution | None
    height: Distribution | None
    resolutions: dict[str, int]
    per_class: dict[str, ClassCount]
    classes_without_video: list[str]


@dataclass(frozen=True)
class DataReport:
    """The state of a data set.

    Attributes:
        min_frames: frames that a video needs, as the configuration has it.
        splits: one report a split.
        shared: ids that two splits have in common, by `SPLIT+SPLIT`.
        flips: the class that each class becomes under a horizontal flip, where it is another;
            None without a table.
    """

    min_frames: int
    splits: list[SplitReport]
    shared: dict[str, list[str]] = field(default_factory=dict)
    flips: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


def check_data(
    config: DataConfig, splits: Sequence[str], *, min_frames: int, threads: int
) -> DataReport:
    """Read the annotations of `splits` and decode every video of theirs that is there.

    Args:
        config: where annotations and videos are.
        splits: which splits.
        min_frames: as `extract.min_frames`.
        threads: decoding threads; 0: one a core.

    Raises:
        UsageError: a split is not configured.
        TcaError: annotations that cannot be read or are in doubt.
    """
    annotations = [read_annotations(config, split) for split in splits]
    reports = [_check_split(split, min_frames, threads) for split in annotations]
    ids = {split.split: {video.id for video in split.videos} for split in annotations}
    shared = {f"{a}+{b}": sorted(ids[a] & ids[b]) for a, b in combinations(ids, 2)}
    return DataReport(
        min_frames,
        reports,
        {pair: both for pair, both in shared.items() if both},
        _flips(config),
    )


def _flips(config: DataConfig) -> dict[str, str] | None:
    if config.flip is None:
        return None
    classes = read_classes(config)
    flipped = read_flip_table(config.flip, classes)
    return {classes[a]: classes[b] for a, b in enumerate(flipped) if a != b}


def _check_split(annotations: Annotations, min_frames: int, threads: int) -> SplitReport:
    here = [video for video in annotations.videos if video.path is not None]
    seen = list(zip(here, _probe_all(annotations.split, here, threads), strict=True))
    empty, unreadable, broken_off, too_short = [], [], [], []
    usable, shown = [], []
    for video, found in seen:
        if found.frames:
            shown.append(found)
        if found.empty:
            empty.append(_problem(video, found.reason))
        elif found.reason and found.frames < min_frames:
            words = f"{_frames(found)}, then: {found.reason}" if found.frames else found.reason
            unreadable.append(_problem(video, words))
        else:
            usable.append(video)
            if found.reason:
                broken_off.append(_problem(video, f"{_frames(found)}, then: {found.reason}"))
            elif found.frames < min_frames:
                too_short.append(_problem(video, _frames(found)))
    per_class = _count_classes(annotations, here, usable)
    resolutions = Counter(f"{found.width}x{found.height}" for found in shown)
    return SplitReport(
        split=annotations.split,
        annotated=len(annotations.videos),
        found=len(here),
        usable=len(usable),
        unlabelled=sum(video.label < 0 for video in annotations.videos),
        missing=[video.id for video in annotations.missing],
        empty=empty,
        unreadable=unreadable,
        broken_off=broken_off,
        too_short=too_short,
        frames=describe(found.frames for found in shown),
        fps=describe(found.fps for found in shown if found.fps is not None),
        seconds=describe(found.seconds for found in shown if found.seconds is not None),
        width=describe(found.width for found in shown),
        height=describe(found.height for found in shown),
        resolutions=dict(sorted(resolutions.items(), key=lambda item: (-item[1], item[0]))),
        per_class=per_class,
        classes_without_video=[name for name, count in per_class.items() if not count.usable],
    )


def _probe_all(split: str, videos: Sequence[Video], threads: int) -> Iterator[Probe]:
    paths = [video.path for video in videos if video.path is not None]
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        with ProgressLine(f"check {split}", len(paths), "videos") as line:
            for found in pool.map(probe, paths):
                line.advance()
                yield found
    finally:
        # After Ctrl-C, wait for the videos being decoded and for no other.
        pool.shutdown(cancel_futures=True)


def _count_classes(
    annotations: Annotations, found: Sequence[Video], usable: Sequence[Video]
) -> dict[str, ClassCount]:
    counts = [
        Counter(video.label for video in some) for some in (annotations.videos, found, usable)
    ]
    return {
        name: ClassCount(*(count[label] for count in counts))
        for label, name in enumerate(annotations.classes)
    }


def _frames(found: Probe) -> str:
    return f"{found.frames} frame" + ("" if found.frames == 1 else "s")


def _problem(video: Video, reason: str) -> Problem:
    # A file name need not be UTF-8, a JSON document must be.
    file = Path(video.path or "")
    return Problem(video.id, os.fsencode(file).decode("utf-8", "replace"), reason)
