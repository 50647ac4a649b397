"""Which classes there are, and which of them a label means."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tca.errors import TcaError
from tca.extract.documents import (
    complain_about_text,
    is_json,
    lines_of,
    parse_json,
    quoted,
    read_text,
)

MOST_CLASSES = 100_000
"""Classes that are made up from the highest label where no class list says how many there are."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


class ClassList:
    """Class names by label, and where they come from.

    Args:
        names: class names; their places are the labels.
        source: what they come from, for messages.
    """

    def __init__(self, names: list[str], source: Path | str) -> None:
        self.names, self.source = names, source
        self._labels = {name: label for label, name in enumerate(names)}
        for label, name in enumerate(names):
            self._labels.setdefault(without_brackets(name), label)

    def label(self, given: str | int, who: str) -> int:
        """Return the label that a name, an SSv2 template or an index means.

        A name counts before an index where a class is called by a number.

        Args:
            given: as in the annotations.
            who: file, place and video, for messages.

        Raises:
            TcaError: no such class.
        """
        if isinstance(given, str):
            found = self._labels.get(given, self._labels.get(without_brackets(given)))
            if found is not None:
                return found
        number = as_index(given)
        if number is not None and 0 <= number < len(self.names):
            return number
        if number is not None:
            raise TcaError(
                f"{who} has the label {quoted(given)}, but the {len(self.names)} classes of "
                f"{self.source} allow 0 to {len(self.names) - 1}; correct it, or leave it empty "
                "if it is unknown."
            )
        name = without_brackets(str(given))
        close = difflib.get_close_matches(name, self.names, n=1) if len(name) < 200 else []
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise TcaError(
            f"{who} has the class {quoted(given)}, which is not in {self.source}{hint}; correct "
            "the one or the other."
        )


def without_brackets(template: str) -> str:
    """Return the class name of an SSv2 template: its placeholders stand in square brackets."""
    return template.replace("[", "").replace("]", "").strip()


def as_index(label: str | int) -> int | None:
    """Return the number that a label is, None for a name."""
    if isinstance(label, int):
        return label
    if not _WHOLE_NUMBER.fullmatch(label):
        return None
    # A number of thousands of digits is refused by int(); it is out of every range anyway.
    return int(label) if len(label) <= 18 else 10**18


def classes_from(labels: Iterable[str | int], source: Path) -> list[str]:
    """Return the classes that a split's own labels imply: sorted names, or "0" to the highest.

    Raises:
        TcaError: a name that cannot be stored, or indices that no class list could have.
    """
    found = set(labels)
    numbers = [as_index(label) for label in found]
    if found and None not in numbers:
        known = [number for number in numbers if number is not None]
        for number in (min(known), max(known)):
            if not 0 <= number < MOST_CLASSES:
                raise TcaError(
                    f"{source} has the label {number}, which is no index of a class; correct it, "
                    "or name the class list as data.labels in tca.yaml."
                )
        return [str(number) for number in range(max(known) + 1)]
    names = sorted({without_brackets(str(label)) for label in found})
    for name in names:
        check_class_name(name, str(source))
    return names


def read_class_list(file: Path) -> tuple[list[str], str]:
    """Return the class names, by label, and the sha256 of a class list.

    It is a JSON object of name to label, a JSON list, or text with one name a line.

    Raises:
        TcaError: missing, unreadable, empty, a repeated name, or labels that are not 0 to n - 1.
    """
    text, sha256 = read_text(file, "data.labels")
    if is_json(file, text):
        found = parse_json(file, text, unique_keys=True)
    else:
        found = [line for line in lines_of(text) if line.strip()]
    if isinstance(found, dict):
        found = _by_label(file, found)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TcaError(
            f'{file} is no class list; write {{"name": label, …}}, ["name", …] or one name a line.'
        )
    names = [name.strip() for name in found]
    if not names:
        raise TcaError(f"{file} lists no class; correct data.labels in tca.yaml.")
    for name in names:
        check_class_name(name, str(file))
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise TcaError(f"{file} has the class {quoted(twice)} {times} times; keep one.")
    return names, sha256


def check_class_name(name: str, source: str) -> None:
    """Check that a class name can be stored and shown.

    Raises:
        TcaError: it is empty or holds control characters.
    """
    try:
        complain_about_text(name)
        if not name:
            raise ValueError("is empty")
    except ValueError as error:
        raise TcaError(f"the class name {quoted(name)} in {source} {error}; rename it.") from None


def _by_label(file: Path, labels: dict[str, Any]) -> list[str]:
    names: dict[int, str] = {}
    for name, label in labels.items():
        number = as_index(label.strip()) if isinstance(label, str) else label
        if not isinstance(number, int) or isinstance(number, bool):
            raise TcaError(
                f"{file} gives the class {quoted(name)} the label {quoted(label)}; labels are "
                f"whole numbers from 0 to {len(labels) - 1}."
            )
        if number in names or not 0 <= number < len(labels):
            found = ", which another has" if number in names else ""
            raise TcaError(
                f"{file} gives the class {quoted(name)} the label {quoted(label)}{found}; its "
                f"{len(labels)} classes need each of 0 to {len(labels) - 1} once."
            )
        names[number] = name
    return [names[number] for number in range(len(names))]
