"""Lines of a video and its label, with whatever stands between them.

`38483.mp4 146`, `208583;Moving something, slowly` and `"my clips/a, b.mov","Jumping"` are all in
use, so the delimiter is found by looking at the lines, and only the first in a line counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tca.errors import TcaError
from tca.extract.documents import lines_of, quoted

DELIMITERS = ";,\t "

_VIDEO_HEADER = re.compile(r"(video)?(s|ids?|name|path|clip|file(name|path)?)|video|clip")
_LABEL_HEADER = re.compile(
    r"(labels?|class(es)?|templates?|categor(y|ies)|action|target)(id|name|index)?"
)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_UP_TO_ENDING = re.compile(r"[^;,\t\"]*?\.[A-Za-z][A-Za-z0-9]{1,7}(?=[;,\t ])")


@dataclass(frozen=True)
class Entry:
    """One annotated video as its file has it; `where` is the place in the file for messages."""

    video: str
    label: str | int | None
    where: str


def csv_entries(file: Path, text: str) -> Iterator[Entry]:
    """Yield the videos of a CSV file in order; a header line is left out.

    The first column is the video; all behind the first delimiter is the label, None if that is
    nothing. Quotes around either are taken off.

    Raises:
        TcaError: a quote that does not close, or a line with another delimiter than the rest.
    """
    rows = [(number, line.strip()) for number, line in enumerate(lines_of(text), 1)]
    rows = [(number, line) for number, line in rows if line]
    delimiter = _delimiter(line for _, line in rows[:1000])
    for place, (number, line) in enumerate(rows):
        where = f"line {number}"
        quote = _QUOTED.match(line)
        if line.startswith('"') and (quote is None or line[quote.end() :][:1] not in DELIMITERS):
            raise TcaError(
                f"{file} {where} starts with a quote that does not close: {quoted(line)}."
            )
        if quote is not None:
            video, label = quote[1].replace('""', '"'), line[quote.end() :].lstrip()
            found, label = label[:1] == delimiter or not label, label.removeprefix(delimiter)
            found = found or delimiter.isspace()
        else:
            video, delimited, label = line.partition(delimiter)
            found = bool(delimited) or not any(mark in line for mark in ";,\t")
        if not found:
            raise TcaError(
                f"{file} {where} has no {delimiter!r} between video and label as the other lines "
                f"have: {quoted(line)}."
            )
        video, label = video.strip(), label.strip()
        if whole := _QUOTED.fullmatch(label):
            label = whole[1].replace('""', '"').strip()
        if place == 0 and _is_header(video, label):
            continue
        yield Entry(video, label or None, where)


def _delimiter(lines: Iterable[str]) -> str:
    """Return what ends the video in most lines.

    Names of classes hold commas and spaces, names of files hold spaces. So a line votes for what
    follows a quoted video or a file ending, or else for the first delimiter in it.
    """
    votes: Counter[str] = Counter()
    for line in lines:
        video = _QUOTED.match(line) or _UP_TO_ENDING.match(line)
        rest = line[video.end() :] if video else line
        first = next((mark for mark in rest if mark in DELIMITERS), None)
        if first is not None:
            votes[first] += 1
    return votes.most_common(1)[0][0] if votes else ","


def _is_header(video: str, label: str) -> bool:
    video, label = (re.sub(r"[\W_]", "", name.lower()) for name in (video, label))
    is_label = not label or _LABEL_HEADER.fullmatch(label)
    return bool(_VIDEO_HEADER.fullmatch(video) and is_label)
