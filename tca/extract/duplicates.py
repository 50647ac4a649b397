"""Videos that are the same under several names: the surest way to a score that is not earned.

Two kinds are found: files of the same bytes, and files whose decoded pictures are all the same
(the same stream in another container, or a lossless copy). A video that was encoded anew is a
different one here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Marks:
    """By what a video is known again.

    Attributes:
        content: sha256 of the file's bytes; empty if they are not known or there are none.
        pictures: fingerprint of the decoded pictures; empty if none were decoded.
    """

    content: str
    pictures: str


@dataclass(frozen=True)
class Copy:
    """One of several videos that are the same; `label` is its class, None if unknown."""

    split: str
    id: str
    label: str | None
    file: str


@dataclass(frozen=True)
class Duplicate:
    """Videos that are the same.

    Attributes:
        same: "bytes", or "pictures" where not all have the same bytes.
        copies: two or more, in the order of the splits and annotations.
        across_splits: they are not all of one split: what is tested was trained on.
        labels_differ: two of them have different classes: at most one is right.
    """

    same: Literal["bytes", "pictures"]
    copies: list[Copy]
    across_splits: bool
    labels_differ: bool


def find_duplicates(marks: Sequence[Marks], copy: Callable[[int], Copy]) -> list[Duplicate]:
    """Return the groups of videos that are the same, those that harm most first.

    One video that two splits list by the same id and file is left out: that is found without
    looking inside.

    Args:
        marks: of every video.
        copy: tells what is shown of a video by its place in `marks`; asked for few of them.
    """
    # Equal bytes give equal pictures, so pictures decide alone wherever they are known.
    keys = [mark.pictures or mark.content for mark in marks]
    repeated = {key for key, count in Counter(keys).items() if key and count > 1}
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key in repeated:
            groups[key].append(place)
    found = []
    for places in groups.values():
        copies = [copy(place) for place in places]
        if len({(one.id, one.file) for one in copies}) > 1:
            one_content = len({marks[place].content for place in places}) == 1
            found.append(_duplicate("bytes" if one_content else "pictures", copies))
    return sorted(found, key=lambda group: (not group.across_splits, not group.labels_differ))


def _duplicate(same: Literal["bytes", "pictures"], copies: list[Copy]) -> Duplicate:
    splits = {copy.split for copy in copies}
    labels = {copy.label for copy in copies if copy.label is not None}
    return Duplicate(same, copies, len(splits) > 1, len(labels) > 1)
