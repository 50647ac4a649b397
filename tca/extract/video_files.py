"""Which file belongs to an annotated video: one scan of a folder, then look-ups by stem.

Annotations say `38483`, `38483.mp4` or `/old/disk/train/38483.avi` for a file that is now
`38483.webm` three folders down, so a video is found by its stem, and by its folders only where
stems repeat. What could mean two files is an error: a wrong video would train silently.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tca.errors import TcaError
from tca.extract.documents import complain_about_text, quoted

VIDEO_SUFFIXES = frozenset(
    [
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogg",
        ".ogv",
        ".rm",
        ".rmvb",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
"""Endings that are taken for a video without looking inside."""

LONGEST_ID = 1000
"""Bytes of an id; every row of a store has room for the longest."""


def cut_suffix(path: str, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> str:
    """Return `path` without its ending if that is one of `suffixes`: `v_1.2` keeps its dot."""
    root, suffix = os.path.splitext(path)
    return root if suffix.lower() in suffixes else path


def clean_path(text: str) -> str:
    """Return the video that an annotation names as a relative path with `/`.

    A path that climbs with `..` keeps only its last part, so nothing leads out of the folder.

    Raises:
        ValueError: why `text` cannot name a video; the message continues "the video id X ...".
    """
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = parts[-1:]
    path = "/".join(parts)
    if not path or path == "..":
        raise ValueError("names no file")
    if len(path) <= LONGEST_ID:
        complain_about_text(path)
    if len(path) > LONGEST_ID or len(path.encode()) > LONGEST_ID:
        raise ValueError(f"is longer than {LONGEST_ID} bytes")
    return path


def walk(folder: Path) -> Iterator[str]:
    """Yield every file under `folder` as a relative path with `/`, in a fixed order.

    Links are followed, each folder once; hidden files and folders, broken links and what is not a
    file are left out.

    Raises:
        TcaError: `folder`, or one under it, does not exist or cannot be read.
    """
    seen: set[tuple[int, int]] = set()

    def visit(path: str, prefix: str) -> Iterator[str]:
        state = os.stat(path)
        if (state.st_dev, state.st_ino) in seen:
            return
        seen.add((state.st_dev, state.st_ino))
        folders = []
        with os.scandir(path) as entries:
            files = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_dir():
                        folders.append((entry.is_symlink(), entry.name))
                    elif entry.is_file():
                        files.append(entry.name)
                except OSError as error:
                    # A link to itself leads nowhere, as a broken one does.
                    if error.errno != errno.ELOOP:
                        raise
        for name in sorted(files):
            yield prefix + name
        # Real folders first: a link to one of them must not decide under which name it is found.
        for _, name in sorted(folders):
            yield from visit(os.path.join(path, name), f"{prefix}{name}/")

    try:
        yield from visit(os.fspath(folder), "")
    except OSError as error:
        place = quoted(error.filename or folder)
        raise TcaError(
            f"cannot read the folder {place}: {error.strerror}; correct data.videos or "
            "data.annotations, or the folder's permissions."
        ) from None


class VideoFiles:
    """Every file under a folder, by stem. 220,847 files take about a second.

    Args:
        folder: searched through all its subfolders.

    Raises:
        TcaError: the folder does not exist or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in walk(folder):
            self._by_stem[_key(os.path.splitext(path)[0])].append(path)

    def find(self, path: str, name: str, told_apart: bool) -> Path | None:
        """Return the file of an annotated video, None if there is none.

        Args:
            path: as `clean_path` returns it.
            name: `path` without what is thought to be its ending.
            told_apart: other annotated videos have the same stem, so the folders must fit too.

        Raises:
            TcaError: several files fit.
        """
        here = self._by_stem.get(_key(name)) or self._by_stem.get(_key(path))
        here = here or self._by_stem.get(_key(os.path.splitext(path)[0])) or []
        if path in here:
            return self.folder / path
        fits = here
        if "/" in name:
            # The annotation may start above the folder, or the file lie below what it says.
            above = [file for file in here if _ends_with(name, os.path.splitext(file)[0])]
            longest = max((file.count("/") for file in above), default=0)
            fits = (
                [file for file in above if file.count("/") == longest]
                or [file for file in here if _ends_with(os.path.splitext(file)[0], name)]
                or ([] if told_apart else here)
            )
        if len(fits) > 1:
            fits = [file for file in fits if cut_suffix(file) != file] or fits
        if len(fits) > 1:
            raise TcaError(
                f"the video {quoted(path)} could be {quoted(fits[0])} or {quoted(fits[1])} in "
                f"{self.folder}; remove one, or write its path in the annotations."
            )
        return self.folder / fits[0] if fits else None


def _key(path: str) -> str:
    """Return the last part of a path as it is compared: file systems differ in how é is coded."""
    return unicodedata.normalize("NFC", path.rpartition("/")[2])


def _ends_with(path: str, tail: str) -> bool:
    return f"/{path}".endswith(f"/{tail}")
