"""Which videos a split has, what they show and where their files are.

Everything that could train a model on the wrong thing without a word is an error here: a class
nobody listed, a label out of range, a video that could be two files, one that is listed twice.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tca.errors import TcaError, UsageError
from tca.extract.annotation_files import Listing, read_listing
from tca.extract.class_list import ClassList, classes_from, read_class_list
from tca.extract.config import SPLITS, DataConfig
from tca.extract.documents import kind_of, parse_json, quoted, read_text
from tca.extract.video_files import VIDEO_SUFFIXES, VideoFiles, clean_path, cut_suffix

UNKNOWN = -1
"""Label of a video without one."""


@dataclass(frozen=True)
class Video:
    """One annotated video.

    Attributes:
        id: the stem of its file; with folders where a stem repeats in the split.
        label: index into the classes, −1 if unknown.
        path: its file, None if there is none.
    """

    id: str
    label: int
    path: Path | None


@dataclass(frozen=True)
class Annotations:
    """One split.

    Attributes:
        split: train, validation or test.
        classes: class names, by label.
        videos: in the order of the annotations.
        sources: sha256 of every file that was read, by name, for the store's record.
        folder: where the videos were looked for.
    """

    split: str
    classes: list[str]
    videos: list[Video]
    sources: dict[str, str]
    folder: Path = Path()

    @property
    def missing(self) -> list[Video]:
        """The videos without a file."""
        return [video for video in self.videos if video.path is None]


def read_annotations(config: DataConfig, split: str) -> Annotations:
    """Read a split's annotations and find its files.

    Raises:
        UsageError: the split, or the class list it needs, is not configured.
        TcaError: a file that cannot be read, a class that is not listed, a video that is listed
            twice or could be two files.
    """
    listing = _listing(config, split)
    classes, sources = _class_list(config, listing if split == "train" else None)
    _record(sources, listing)
    names = _names(listing)
    ids = names.ids
    labels = _labels(listing, ids, classes)
    if config.answers is not None and UNKNOWN in labels:
        answers = _answers(config.answers, classes, sources)
        pairs = zip(ids, labels, strict=True)
        labels = [answers.get(name, label) if label < 0 else label for name, label in pairs]

    if listing.folders is None:
        folder = config.videos
        found = VideoFiles(folder)
        files = [
            found.find(*row) for row in zip(names.paths, names.bare, names.told_apart, strict=True)
        ]
    else:
        folder = listing.source
        files = [folder / entry.video for entry in listing.entries]
    videos = [Video(*row) for row in zip(ids, labels, files, strict=True)]
    _refuse_shared_files(listing, videos)
    return Annotations(split, classes.names, videos, sources, folder)


def read_classes(config: DataConfig) -> list[str]:
    """Return the class names, by label: those of the class list, else those of train.

    Raises:
        UsageError: neither is configured.
        TcaError: a file that cannot be read or is no class list.
    """
    return _class_list(config)[0].names


def require_videos(annotations: Annotations, allow_missing: bool) -> None:
    """Stop before any work is done if videos are missing.

    Raises:
        TcaError: all are missing, or some are and `allow_missing` is not set.
    """
    missing, total = annotations.missing, len(annotations.videos)
    if not missing or (allow_missing and len(missing) < total):
        return
    first = ", ".join(video.id for video in missing[:3])
    place = f"of the {total:,} videos of split {annotations.split}"
    if len(missing) == total:
        raise TcaError(
            f"none {place} is in {annotations.folder} (first: {first}); correct data.videos in "
            "tca.yaml, or put them there."
        )
    raise TcaError(
        f"{len(missing):,} of {total:,} videos of split {annotations.split} are not in "
        f"{annotations.folder} (first: {first}); put them there, or go on without them with "
        "--allow-missing."
    )


def read_flip_table(file: Path, classes: Sequence[str]) -> list[int]:
    """Return the label of every class after a horizontal flip.

    Only the table `left/right` is one; SSv2's file has others, which turn time around.

    Returns:
        (classes,) labels; a class that looks the same in a mirror keeps its own.

    Raises:
        TcaError: no such table, a class that is not in the class list, or a table under which
            flipping twice does not give the class back.
    """
    document = parse_json(file, read_text(file, "data.flip")[0])
    table = document.get("left/right") if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise TcaError(f'{file} has no table of classes {{"left/right": {{"name": "name"}}}}.')
    known = ClassList(list(classes), "the class list")
    flipped = list(range(len(classes)))
    for name, mirrored in table.items():
        if not isinstance(mirrored, str):
            raise TcaError(f"{file} flips {quoted(name)} to {kind_of(mirrored)}, not to a class.")
        who = f"the table left/right of {file}"
        flipped[known.label(name, who)] = known.label(mirrored, who)
    for label, mirrored_label in enumerate(flipped):
        if flipped[mirrored_label] != label:
            raise TcaError(
                f"{file} flips {quoted(classes[label])} to {quoted(classes[mirrored_label])}, but "
                f"that to {quoted(classes[flipped[mirrored_label]])}; list each pair both ways."
            )
    return flipped


def _listing(config: DataConfig, split: str) -> Listing:
    source = next((path for name, path in config.annotations.items() if name == split), None)
    if source is None:
        if split not in SPLITS:
            raise UsageError(f"there is no split {quoted(split)}; it is {', '.join(SPLITS)}.")
        have = ", ".join(config.annotations) or "none"
        raise UsageError(
            f"the split {split} is not configured (configured: {have}); name its file as "
            f"data.annotations.{split} in tca.yaml."
        )
    return read_listing(source, f"data.annotations.{split}")


def _class_list(
    config: DataConfig, train: Listing | None = None
) -> tuple[ClassList, dict[str, str]]:
    """Return the classes and the sha256 of the file they come from; `train` if already read."""
    if config.labels is not None:
        names, sha256 = read_class_list(config.labels)
        return ClassList(names, config.labels), {config.labels.name: sha256}
    if "train" not in config.annotations:
        raise UsageError(
            "the classes are not known; name the class list as data.labels in tca.yaml, or the "
            "train annotations as data.annotations.train."
        )
    train = train or _listing(config, "train")
    labels = [entry.label for entry in train.entries if entry.label is not None]
    names = train.folders or classes_from(labels, train.source)
    sources: dict[str, str] = {}
    _record(sources, train)
    return ClassList(names, train.source), sources


def _record(sources: dict[str, str], listing: Listing) -> None:
    """Note the sha256 of a file under its name, with its folder where two have the same name."""
    name = listing.source.name
    if sources.get(name, listing.sha256) != listing.sha256:
        name = f"{listing.source.parent.name}/{name}"
    sources[name] = listing.sha256


@dataclass(frozen=True)
class _Names:
    """What the videos of a listing are called: see `VideoFiles.find`."""

    paths: list[str]
    bare: list[str]
    ids: list[str]
    told_apart: list[bool]


def _names(listing: Listing) -> _Names:
    """Return the names of a listing's videos, each of which must be there once."""
    paths = []
    for entry in listing.entries:
        try:
            paths.append(clean_path(entry.video))
        except ValueError as error:
            raise TcaError(
                f"the video {quoted(entry.video)} in {listing.source} {entry.where} {error}; "
                "correct it."
            ) from None
    suffixes = _suffixes(paths)
    bare = [cut_suffix(path, suffixes) for path in paths]
    stems = [name.rpartition("/")[2] for name in bare]
    by_stem: defaultdict[str, set[str]] = defaultdict(set)
    for stem, name in zip(stems, bare, strict=True):
        by_stem[stem].add(name)
    apart = [len(by_stem[stem]) > 1 for stem in stems]
    ids = [
        name if folders else stem for stem, name, folders in zip(stems, bare, apart, strict=True)
    ]
    _refuse_repeats(listing, ids)
    return _Names(paths, bare, ids, apart)


def _suffixes(paths: Sequence[str]) -> frozenset[str]:
    """Return the endings that are no part of an id: those of videos, and one that all share."""
    endings = {os.path.splitext(path)[1].lower() for path in paths}
    if len(endings) == 1 and re.fullmatch(r"\.[0-9]*[a-z][a-z0-9]{0,7}", min(endings)):
        return VIDEO_SUFFIXES | endings
    return VIDEO_SUFFIXES


def _refuse_repeats(listing: Listing, ids: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name, entry in zip(ids, listing.entries, strict=True):
        if name in first:
            raise TcaError(
                f"{listing.source} has the video {quoted(name)} twice, {first[name]} and "
                f"{entry.where}; keep one."
            )
        first[name] = entry.where


def _refuse_shared_files(listing: Listing, videos: Sequence[Video]) -> None:
    first: dict[Path, str] = {}
    for video in videos:
        if video.path is None:
            continue
        other = first.setdefault(video.path, video.id)
        if other != video.id:
            raise TcaError(
                f"{listing.source} has the videos {quoted(other)} and {quoted(video.id)}, which "
                f"are the same file {quoted(video.path)}; keep one."
            )


def _labels(listing: Listing, ids: Sequence[str], classes: ClassList) -> list[int]:
    known: dict[str | int | None, int] = {None: UNKNOWN}
    for entry, name in zip(listing.entries, ids, strict=True):
        if entry.label is not None and entry.label not in known:
            who = f"{listing.source} {entry.where} (video {quoted(name)})"
            known[entry.label] = classes.label(entry.label, who)
    return [known[entry.label] for entry in listing.entries]


def _answers(file: Path, classes: ClassList, sources: dict[str, str]) -> dict[str, int]:
    """Return the labels in the answers file by id."""
    listing = read_listing(file, "data.answers")
    _record(sources, listing)
    ids = _names(listing).ids
    return dict(zip(ids, _labels(listing, ids, classes), strict=True))
