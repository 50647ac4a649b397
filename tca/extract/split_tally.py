"""A split's report as it grows, video by video, in little memory: numbers, and words on faults."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tca.extract.annotations import Annotations, Video
from tca.extract.balance import balance
from tca.extract.data_state import ClassCount, Problem, SplitReport
from tca.extract.distribution import Distribution, describe
from tca.extract.duplicates import Marks
from tca.extract.inspection import Inspected
from tca.extract.oddities import oddities, usual_size
from tca.extract.probe import Probe

_NUMBERS = ("frames", "fps", "seconds", "width", "height", "bytes")

_UNMARKED = Marks("", "")


class SplitTally:
    """Counts the videos of one split that have a file.

    Args:
        annotations: of the split.
        min_frames: frames that a video needs.
        decoded: False if headers were believed.

    Attributes:
        found: the videos with a file, in which order they are added.
        paths: their files.
        contents: sha256 of each file that was added, empty where it could not be read.
        marks: by what each is known again; of one that is of no use, nothing.
    """

    def __init__(self, annotations: Annotations, min_frames: int, decoded: bool) -> None:
        self.annotations = annotations
        self.found = [video for video in annotations.videos if video.path is not None]
        self.paths = [video.path for video in self.found if video.path is not None]
        self.contents: list[str] = []
        self.marks: list[Marks] = []
        self._min_frames, self._decoded = min_frames, decoded
        self._usable: list[Video] = []
        self._shown: list[tuple[Video, str]] = []
        self._sizes: dict[str, str] = {}
        self._codecs: Counter[str] = Counter()
        self._bytes = 0
        self._empty: list[Problem] = []
        self._unreadable: list[Problem] = []
        self._broken_off: list[Problem] = []
        self._too_short: list[Problem] = []
        self._odd: dict[str, list[Problem]] = {}
        self._numbers = {name: array("d") for name in _NUMBERS}

    def add(self, one: Inspected) -> None:
        """Count the next of the videos that were found."""
        video, probe = self.found[len(self.contents)], one.probe
        self.contents.append(one.sha256)
        self._bytes += one.size
        if probe.width:
            self._add_numbers(video, one)
        usable = self._sort(video, probe)
        self.marks.append(Marks(one.sha256, probe.pictures) if usable else _UNMARKED)
        if usable:
            self._usable.append(video)
            for kind, what in oddities(probe).items():
                self._odd.setdefault(kind, []).append(_problem(video, what))

    def _add_numbers(self, video: Video, one: Inspected) -> None:
        probe = one.probe
        size = f"{probe.width}x{probe.height}"
        # One text a size, not one a video.
        self._shown.append((video, self._sizes.setdefault(size, size)))
        self._codecs[probe.codec] += 1
        values = (
            probe.frames or None,
            probe.fps,
            probe.seconds,
            probe.width,
            probe.height,
            one.size,
        )
        for name, value in zip(_NUMBERS, values, strict=True):
            if value is not None:
                self._numbers[name].append(value)

    def _sort(self, video: Video, probe: Probe) -> bool:
        """Note what is wrong with a video and return whether it can be used."""
        frames = f"{probe.frames} frame" + ("" if probe.frames == 1 else "s")
        broken = f"{frames}, then: {probe.reason}" if probe.frames else probe.reason
        if probe.empty:
            self._empty.append(_problem(video, probe.reason))
            return False
        if probe.reason and (probe.frames < self._min_frames or not self._decoded):
            self._unreadable.append(_problem(video, broken))
            return False
        if probe.reason:
            self._broken_off.append(_problem(video, broken))
        # A header that was believed may claim no number at all.
        elif 0 < probe.frames < self._min_frames:
            self._too_short.append(_problem(video, frames))
        return True

    def report(self) -> SplitReport:
        """Return what was counted."""
        videos = self.annotations.videos
        counts = self._count_classes()
        resolutions = Counter(size for _, size in self._shown)
        return SplitReport(
            split=self.annotations.split,
            annotated=len(videos),
            found=len(self.found),
            usable=len(self._usable),
            unlabelled=sum(video.label < 0 for video in videos),
            bytes=self._bytes,
            missing=[video.id for video in self.annotations.missing],
            empty=self._empty,
            unreadable=self._unreadable,
            broken_off=self._broken_off,
            too_short=self._too_short,
            odd=self._odd | self._of_other_size(),
            frames=self._describe("frames"),
            fps=self._describe("fps"),
            seconds=self._describe("seconds"),
            width=self._describe("width"),
            height=self._describe("height"),
            file_bytes=self._describe("bytes"),
            resolutions=_most_first(resolutions),
            codecs=_most_first(self._codecs),
            per_class=counts,
            classes_without_video=[name for name, count in counts.items() if not count.usable],
            annotated_balance=balance({name: count.annotated for name, count in counts.items()}),
            usable_balance=balance({name: count.usable for name, count in counts.items()}),
        )

    def _describe(self, name: str) -> Distribution | None:
        return describe(self._numbers[name])

    def _of_other_size(self) -> dict[str, list[Problem]]:
        """Return the videos that do not have the size of most, if there is such a size."""
        usual = usual_size([size for _, size in self._shown])
        others = [(video, size) for video, size in self._shown if size != usual]
        if usual is None or not others:
            return {}
        kind = f"not {usual} as most"
        return {kind: [_problem(video, size) for video, size in others]}

    def _count_classes(self) -> dict[str, ClassCount]:
        def by_label(videos: Iterable[Video]) -> Counter[int]:
            return Counter(video.label for video in videos)

        counts = [by_label(some) for some in (self.annotations.videos, self.found, self._usable)]
        return {
            name: ClassCount(*(count[label] for count in counts))
            for label, name in enumerate(self.annotations.classes)
        }


def readable(path: Path | None) -> str:
    """Return a file name as text: it need not be UTF-8, a JSON document must be."""
    return os.fsencode(path or "").decode("utf-8", "replace")


def _problem(video: Video, reason: str) -> Problem:
    return Problem(video.id, readable(video.path), reason)


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
