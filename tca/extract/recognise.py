"""Finding videos and annotations in a data set's folder, so that `tca init` can name them.

Files are known by the names under which Something-Something-V2 and Kinetics are handed out; what
is in them is looked at when they are read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tca.errors import UsageError
from tca.extract.config import SPLITS, DataConfig
from tca.extract.video_files import VIDEO_SUFFIXES

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
OFFICIAL_PREFIX = "something-something-v2-"
LABEL_FOLDERS = ("labels", "annotations")
VIDEO_FOLDERS = ("videos", "20bn-something-something-v2")

# The official JSON first: a CSV beside it is somebody's conversion.
_ANNOTATION_ENDINGS = (".json", ".csv", ".txt")
_CLASS_LISTS = ("labels.json", "classes.json", "labels.txt", "classes.txt")
_DEPTH = 2


def recognise(folder: Path) -> DataConfig:
    """Return where a data set's videos and annotations are, with paths that start with `folder`.

    Known are SSv2's layout (class list, annotations by split, answers and flip table, in the
    folder, in its `labels` or in those of one subfolder) and a folder by split with a subfolder a
    class.

    Raises:
        UsageError: no such folder, nothing in it is known, or it holds several data sets.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name the one that holds the data set.")
    home, annotations = folder, _annotations(folder)
    if not annotations:
        below = {place: _annotations(place) for place in _subfolders(folder)}
        known = [place for place, found in below.items() if found]
        if len(known) > 1:
            names = ", ".join(place.name for place in known)
            raise UsageError(f"{folder} holds several data sets ({names}); name one of them.")
        if not known:
            raise UsageError(
                f"no data set was recognised in {folder}: looked for train, validation (or val) "
                f"and test as .json, .csv or .txt, with or without {OFFICIAL_PREFIX} in front, "
                "there, in labels and one folder below, and for train/CLASS/VIDEO; write a "
                "tca.yaml that names data.annotations."
            )
        home, annotations = known[0], below[known[0]]
    places = _places(home)
    return DataConfig.model_validate(
        {
            "videos": (home != folder and _videos(home)) or _videos(folder) or folder / "videos",
            "annotations": annotations,
            "labels": _first_file(places, _CLASS_LISTS),
            "answers": _first_file(places, ["test-answers.csv"]),
            "flip": _first_file(places, ["flip.json"]),
        }
    )


def _annotations(folder: Path) -> dict[str, Path]:
    """Return the annotations by split of one data set."""
    annotations = {}
    for split in SPLITS:
        listed = [name + end for end in _ANNOTATION_ENDINGS for name in SPLIT_NAMES[split]]
        found = _first_file(_places(folder), listed) or _class_folders(folder, SPLIT_NAMES[split])
        if found is not None:
            annotations[split] = found
    return annotations


def _places(folder: Path) -> list[Path]:
    return [*(folder / name for name in LABEL_FOLDERS), folder]


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    except OSError:
        # Not there, or somebody else's folder beside the data: nothing of ours.
        return []
    return [folder / name for name in sorted(names)]


def _first_file(places: list[Path], names: Sequence[str]) -> Path | None:
    """Return the first of `names` that is a file in one of `places`; names count more."""
    for name in names:
        for place in places:
            for candidate in (place / f"{OFFICIAL_PREFIX}{name}", place / name):
                if candidate.is_file():
                    return candidate
    return None


def _class_folders(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of one of `names` all of whose videos lie in class subfolders."""
    for name in names:
        place = folder / name
        if _holds_videos(place, depth=0):
            continue
        if any(_holds_videos(inner, depth=_DEPTH) for inner in _subfolders(place)):
            return place
    return None


def _videos(folder: Path) -> Path | None:
    """Return the folder that all videos are under, None without videos."""
    for name in VIDEO_FOLDERS:
        if _holds_videos(folder / name, depth=_DEPTH):
            return folder / name
    inside = [place for place in _subfolders(folder) if _holds_videos(place, depth=_DEPTH)]
    if _holds_videos(folder, depth=0) or len(inside) > 1:
        return folder
    return inside[0] if inside else None


def _holds_videos(folder: Path, depth: int) -> bool:
    """Return whether a video lies in `folder` or up to `depth` folders below."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix in VIDEO_SUFFIXES and entry.name[0] != "." and entry.is_file():
                    return True
    except OSError:
        return False
    return depth > 0 and any(_holds_videos(inner, depth - 1) for inner in _subfolders(folder))
