"""What is wrong with a data set, before hours go into extracting it.

Every video that is there is decoded to its end, since headers lie about frame counts and a file
that breaks off looks whole from outside. This costs about what decoding costs in extraction;
missing videos cost nothing.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, chain, combinations
from pathlib import Path

from tca.console import ProgressLine
from tca.extract.annotations import (
    Annotations,
    read_annotations,
    read_classes,
    read_flip_table,
)
from tca.extract.config import DataConfig, ExtractConfig
from tca.extract.data_state import DataReport, SplitReport
from tca.extract.decoding import Limits
from tca.extract.duplicates import Copy, Duplicate, find_duplicates
from tca.extract.inspectors import Bounds, inspect_all
from tca.extract.split_tally import SplitTally, readable


@dataclass(frozen=True)
class Checked:
    """What a check found: a report, and the sha256 of every file that could be read."""

    report: DataReport
    sums: list[tuple[Path, str]]


def check_data(
    config: DataConfig,
    splits: Sequence[str],
    extract: ExtractConfig,
    *,
    processes: int = 0,
    decoded: bool = True,
) -> Checked:
    """Read the annotations of `splits` and inspect every video of theirs that is there.

    Args:
        config: where annotations and videos are.
        splits: which splits.
        extract: what a video needs, and what decoding it may take.
        processes: that inspect files; 0: one a core.
        decoded: False: believe the headers, see `probe`.

    Raises:
        UsageError: a split is not configured.
        TcaError: annotations that cannot be read or are in doubt, or processes that do not start.
    """
    limits = Limits(frames=extract.max_frames, pixels=extract.max_pixels)
    bounds = Bounds(limits if decoded else None, extract.max_seconds, extract.max_megabytes)
    processes = processes or len(os.sched_getaffinity(0))
    annotations = [read_annotations(config, split) for split in splits]
    flips = _flips(config)
    tallies = [SplitTally(split, extract.min_frames, decoded) for split in annotations]
    for tally in tallies:
        found = inspect_all(tally.paths, bounds, processes=processes)
        what = f"check {tally.annotations.split}"
        with closing(found), ProgressLine(what, len(tally.paths), "videos") as line:
            for one in found:
                tally.add(one)
                line.advance()
    reports = [tally.report() for tally in tallies]
    report = DataReport(
        min_frames=extract.min_frames,
        splits=reports,
        decoded=decoded,
        shared=_shared(annotations),
        duplicates=_duplicates(tallies),
        not_in_train=_not_in_train(reports),
        flips=flips,
    )
    paths = chain.from_iterable(tally.paths for tally in tallies)
    contents = chain.from_iterable(tally.contents for tally in tallies)
    return Checked(report, [pair for pair in zip(paths, contents, strict=True) if pair[1]])


def _flips(config: DataConfig) -> dict[str, str] | None:
    if config.flip is None:
        return None
    classes = read_classes(config)
    flipped = read_flip_table(config.flip, classes)
    return {classes[a]: classes[b] for a, b in enumerate(flipped) if a != b}


def _shared(annotations: Sequence[Annotations]) -> dict[str, list[str]]:
    ids = {split.split: {video.id for video in split.videos} for split in annotations}
    shared = {f"{a}+{b}": sorted(ids[a] & ids[b]) for a, b in combinations(ids, 2)}
    return {pair: both for pair, both in shared.items() if both}


def _duplicates(tallies: Sequence[SplitTally]) -> list[Duplicate]:
    starts = [0, *accumulate(len(tally.found) for tally in tallies)]

    def copy(place: int) -> Copy:
        number = bisect(starts, place) - 1
        annotations = tallies[number].annotations
        video = tallies[number].found[place - starts[number]]
        label = annotations.classes[video.label] if video.label >= 0 else None
        return Copy(annotations.split, video.id, label, readable(video.path))

    return find_duplicates([mark for tally in tallies for mark in tally.marks], copy)


def _not_in_train(reports: Sequence[SplitReport]) -> list[str]:
    """Return the classes that are asked for and cannot be learnt."""
    train = next((report for report in reports if report.split == "train"), None)
    if train is None:
        return []
    others = [report for report in reports if report is not train]
    return [
        name
        for name in train.classes_without_video
        if any(report.per_class[name].annotated for report in others)
    ]
