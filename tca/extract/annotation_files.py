"""The forms in which annotations come, told apart by what is in them.

Only the form is judged here; what a label means is for `tca.extract.annotations` to say.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.errors import TcaError
from tca.extract.annotation_csv import Entry, csv_entries
from tca.extract.class_list import check_class_name
from tca.extract.documents import is_json, kind_of, parse_json, quoted, read_text
from tca.extract.video_files import VIDEO_SUFFIXES, walk


@dataclass(frozen=True)
class Listing:
    """What one annotation file, or one folder of class subfolders, holds.

    Attributes:
        source: the file or folder.
        sha256: of the file, or of the list of a folder's files.
        entries: in the order of the file.
        folders: names of the class subfolders; None for a file.
    """

    source: Path
    sha256: str
    entries: list[Entry]
    folders: list[str] | None = None


def read_listing(source: Path, key: str) -> Listing:
    """Read SSv2 JSON, a CSV of video and label, or a folder of class subfolders.

    Args:
        source: which of the three it is shows in its content.
        key: the configuration key that named it, for messages.

    Raises:
        TcaError: missing, unreadable, empty, or none of the three.
    """
    if os.path.isdir(source):
        return _class_folders(source)
    text, sha256 = read_text(source, key)
    if is_json(source, text):
        entries = _json_entries(source, parse_json(source, text))
    else:
        entries = list(csv_entries(source, text))
    if not entries:
        raise TcaError(f"{source} lists no video; correct {key} in tca.yaml.")
    return Listing(source, sha256, entries)


def _json_entries(file: Path, document: Any) -> list[Entry]:
    if not isinstance(document, list):
        raise TcaError(
            f'{file} must hold a JSON list of {{"id": …, "template": …}}, not {kind_of(document)}.'
        )
    entries = []
    for number, item in enumerate(document, 1):
        where = f"entry {number}"
        video = item.get("id") if isinstance(item, dict) else None
        if not isinstance(video, str | int) or isinstance(video, bool):
            found = "has no id" if isinstance(item, dict) else f"is {kind_of(item)}"
            raise TcaError(f'{file} {where} {found}; write {{"id": "…", "template": "…"}}.')
        # SSv2's own `label` is free text and always beside a template; alone it is the class.
        label = item.get("template", item.get("label"))
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            raise TcaError(
                f"{file} {where} gives the video {quoted(video)} {kind_of(label)} as its class; "
                "write the name of a class."
            )
        label = label.strip() if isinstance(label, str) else label
        entries.append(Entry(str(video).strip(), None if label == "" else label, where))
    return entries


def _class_folders(folder: Path) -> Listing:
    files = [path for path in walk(folder) if os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES]
    with os.scandir(folder) as found:
        classes = sorted(entry.name for entry in found if entry.is_dir() and entry.name[0] != ".")
    if not classes:
        raise TcaError(f"{folder} has no class subfolder; put the videos of each class into one.")
    for name in classes:
        check_class_name(name, str(folder))
    for path in files:
        if "/" not in path:
            raise TcaError(
                f"{quoted(path)} lies beside the class subfolders of {folder}; move it into one."
            )
    if not files:
        raise TcaError(
            f"no subfolder of {folder} holds a video; put the videos of each class into one."
        )
    entries = [Entry(path, path.partition("/")[0], quoted(path)) for path in files]
    listed = "\n".join(files).encode("utf-8", "surrogateescape")
    return Listing(folder, hashlib.sha256(listed).hexdigest(), entries, classes)
