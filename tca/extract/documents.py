"""Text and JSON that somebody else wrote: read with care, shown in messages with care."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from tca.errors import TcaError

_JSON_START = re.compile(r"\s*(\{|\[\s*([\[\]{\"]|$))")


def read_text(file: Path, key: str) -> tuple[str, str]:
    """Return the text of a file, without byte order mark, and its sha256.

    Args:
        file: what to read.
        key: the configuration key that named it, for messages.

    Raises:
        TcaError: missing, not a file, not readable, or not UTF-8 text.
    """
    try:
        if file.exists() and not file.is_file():
            raise TcaError(f"{file} is not a file; correct {key} in tca.yaml.")
        content = file.read_bytes()
    except OSError as error:
        raise TcaError(
            f"cannot read {file}: {error.strerror}; correct {key} in tca.yaml."
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise TcaError(f"{file} is not UTF-8 text; save it as UTF-8, or correct {key}.")
    return text, hashlib.sha256(content).hexdigest()


def is_json(file: Path, text: str) -> bool:
    """Return whether `text` is meant as JSON: `[2020] trip.mp4,3` is not, `["trip"` is."""
    return file.suffix.lower() == ".json" or _JSON_START.match(text) is not None


def parse_json(file: Path, text: str, *, unique_keys: bool = False) -> Any:
    """Return the JSON document in `text`.

    Args:
        file: where it is from, for messages.
        text: the document.
        unique_keys: a key that appears twice in an object is an error; else the last one counts.

    Raises:
        TcaError: not JSON, or a repeated key.
    """

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise TcaError(f"{file} has the key {quoted(twice)} twice; remove one.")
        return found

    try:
        return json.loads(text, object_pairs_hook=no_repeats if unique_keys else None)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        problem = error.msg[0].lower() + error.msg[1:]
        raise TcaError(f"{file} is not valid JSON: {problem} at {place}.") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or brackets nested a thousand deep.
        raise TcaError(f"{file} is not a JSON document that tca can read.") from None


def lines_of(text: str) -> list[str]:
    """Return the lines of `text` with any line ending."""
    # Not splitlines(), which also breaks at characters that can be part of a name.
    return re.split(r"\r\n|\n|\r", text)


def complain_about_text(text: str) -> None:
    """Check that `text` can be stored as UTF-8 and shown on one line.

    Raises:
        ValueError: it cannot; the message says what is in it.
    """
    if text.isascii() and text.isprintable():
        return
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"holds the control character {character!r}")


def quoted(text: object) -> str:
    """Return `text` for an error message: in quotes, escaped, not longer than a line."""
    whole = str(text)
    return repr(whole) if len(whole) <= 100 else repr(whole[:80] + "…")


def printable(text: object) -> str:
    """Return `text` for a table: what would steer a terminal, or break the line, is escaped."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in str(text)
    )


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for an error message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return quoted(value) if isinstance(value, str) else json.dumps(value)[:40]
