"""What `tca data check` knows of a data set, and which of it must not be overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tca.extract.balance import Balance
from tca.extract.distribution import Distribution
from tca.extract.duplicates import Duplicate

RARE = 100
"""A class with this many times fewer videos than the largest is called out."""


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
        bytes: of all files.
        missing: ids without a file.
        empty: files of 0 bytes or without a frame.
        unreadable: files that cannot be decoded, or break off before `min_frames` frames.
        broken_off: files that break off later; extraction uses what comes before.
        too_short: whole files of fewer than `min_frames` frames; extraction repeats frames.
        odd: usable videos of unusual geometry or rate, by kind, see `oddities`.
        frames, fps, seconds, width, height, file_bytes: over the files with a frame, as shown;
            None without.
        resolutions, codecs: files by `WIDTHxHEIGHT` and by codec, most frequent first.
        per_class: counts by class name, in the order of the labels.
        classes_without_video: classes of which the split has no usable video.
        annotated_balance, usable_balance: how evenly these are spread over the classes; None
            without a labelled video.
    """

    split: str
    annotated: int
    found: int
    usable: int
    unlabelled: int
    bytes: int
    missing: list[str]
    empty: list[Problem]
    unreadable: list[Problem]
    broken_off: list[Problem]
    too_short: list[Problem]
    odd: dict[str, list[Problem]]
    frames: Distribution | None
    fps: Distribution | None
    seconds: Distribution | None
    width: Distribution | None
    height: Distribution | None
    file_bytes: Distribution | None
    resolutions: dict[str, int]
    codecs: dict[str, int]
    per_class: dict[str, ClassCount]
    classes_without_video: list[str]
    annotated_balance: Balance | None
    usable_balance: Balance | None


@dataclass(frozen=True)
class DataReport:
    """The state of a data set.

    Attributes:
        min_frames: frames that a video needs, as the configuration has it.
        splits: one report a split.
        decoded: False if headers were believed.
        shared: ids that two splits have in common, by `SPLIT+SPLIT`.
        duplicates: videos that are the same under several names.
        not_in_train: classes that another split has annotated and train has no usable video of;
            empty if train was not looked at.
        flips: the class that each class becomes under a horizontal flip, where it is another;
            None without a table.
    """

    min_frames: int
    splits: list[SplitReport]
    decoded: bool = True
    shared: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)
    not_in_train: list[str] = field(default_factory=list)
    flips: dict[str, str] | None = None

    def failures(self, *, allow_missing: bool = False) -> list[str]:
        """Return what stops extraction, costs it a video, or makes a score wrong."""
        return list(_failures(self, allow_missing))

    def warnings(self) -> list[str]:
        """Return what is worth a look and harms nothing by itself."""
        return list(_warnings(self))

    def to_json(self, *, allow_missing: bool = False) -> dict[str, Any]:
        """Return the report as JSON, with the verdict first."""
        failures = self.failures(allow_missing=allow_missing)
        verdict = {"sound": not failures, "failures": failures, "warnings": self.warnings()}
        return verdict | asdict(self)


def _failures(report: DataReport, allow_missing: bool) -> Iterator[str]:
    for part in report.splits:
        if part.missing and not allow_missing:
            yield f"{part.split} misses {len(part.missing):,} of {part.annotated:,} videos"
        if part.empty:
            yield f"{_videos(len(part.empty))} of {part.split} {_are(len(part.empty))} empty"
        if part.unreadable:
            yield f"{_videos(len(part.unreadable))} of {part.split} cannot be decoded"
    for pair, ids in report.shared.items():
        yield f"{_videos(len(ids))} {_are(len(ids))} listed in both {' and '.join(pair.split('+'))}"
    across = [group for group in report.duplicates if group.across_splits]
    if across:
        yield f"{_videos(len(across))} {_are(len(across))} in two splits under different names"
    differing = [group for group in report.duplicates if group.labels_differ]
    if differing:
        yield f"{_videos(len(differing))} {_are(len(differing))} there twice with different classes"


def _warnings(report: DataReport) -> Iterator[str]:
    for part in report.splits:
        if part.broken_off:
            yield (
                f"{_videos(len(part.broken_off))} of {part.split} "
                f"{'breaks' if len(part.broken_off) == 1 else 'break'} off; what comes before is "
                "extracted"
            )
        if part.too_short:
            yield (
                f"{_videos(len(part.too_short))} of {part.split} "
                f"{'has' if len(part.too_short) == 1 else 'have'} under {report.min_frames} "
                "frames; extraction repeats them"
            )
        if part.unlabelled and part.split != "test":
            yield f"{_videos(part.unlabelled)} of {part.split} {_are(part.unlabelled)} unlabelled"
        for kind, problems in part.odd.items():
            yield f"{_videos(len(problems))} of {part.split}: {kind}"
        spread = part.annotated_balance
        if spread is not None and part.split == "train" and spread.ratio >= RARE:
            yield (
                f"the class {spread.most[0]!r} has {spread.ratio:,.0f} times as many videos in "
                f"train as {spread.least[0]!r}"
            )
    if report.not_in_train:
        yield (
            f"train has no usable video of {len(report.not_in_train):,} of the classes that other "
            "splits have, so no model can learn them"
        )
    again = [group for group in report.duplicates if not group.across_splits]
    harmless = [group for group in again if not group.labels_differ]
    if harmless:
        yield f"{_videos(len(harmless))} {_are(len(harmless))} in one split under several names"


def _videos(count: int) -> str:
    return f"{count:,} video" + ("" if count == 1 else "s")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
