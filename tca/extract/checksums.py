"""Lists of checksums of a data set's files, in the form that the program `sha256sum` reads.

Names are relative to the folder that the list lies in, so a list that moves with its data set stays
right: `cd FOLDER && sha256sum -c LIST`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tca.errors import TcaError
from tca.extract.bounded_map import bounded_map

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {b"\\": rb"\\", b"\n": rb"\n", b"\r": rb"\r"}
_ESCAPED = {escape: character for character, escape in _ESCAPES.items()}


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_lines(path: Path, sums: Iterable[tuple[Path, str]]) -> bytes:
    """Return what a list has to say of (file, sha256), each file once, by name.

    Args:
        path: where the list will be.
        sums: the files.
    """
    name_of = _Names(path)
    named = {name_of(file): content for file, content in sums}
    return b"".join(_line(name, named[name]) for name in sorted(named))


def _line(name: bytes, content: str) -> bytes:
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], name)
    mark = b"\\" if escaped != name else b""
    return mark + content.encode() + b"  " + escaped + b"\n"


def read_list(path: Path) -> dict[bytes, str]:
    """Return the sha256 of every file in a list, by its name there.

    Raises:
        TcaError: it cannot be read or is no such list.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TcaError(
            f"cannot read {path}: {error.strerror}; name a list that --checksums wrote."
        ) from None
    sums: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith(b"#"):
            continue
        found = _LINE.fullmatch(line.removesuffix(b"\r"))
        if found is None:
            raise TcaError(
                f"line {number} of {path} is no checksum as sha256sum writes it; name a list that "
                "--checksums wrote."
            )
        name = found[3]
        if found[1]:
            name = re.sub(rb"\\[\\nr]", lambda escape: _ESCAPED[escape[0]], name)
        sums[name] = found[2].decode().lower()
    if not sums:
        raise TcaError(f"{path} lists no checksum; name a list that --checksums wrote.")
    return sums


@dataclass
class Verified:
    """How files compare with a list; all names are as in the list.

    Attributes:
        files: files that were read.
        bytes: their size.
        changed: files whose bytes are others.
        missing: files that are not there.
        unreadable: the system's reason, by file.
        new: files of annotated videos that the list does not have.
    """

    files: int = 0
    bytes: int = 0
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every file is there, as it was, and no other."""
        return not (self.changed or self.missing or self.unreadable or self.new)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"sound": self.sound} | asdict(self)


def verify_list(
    path: Path,
    files: Iterable[Path],
    *,
    threads: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Compare the files in a list with what they were.

    Args:
        path: the list.
        files: those that should be in it.
        threads: that read; 0: one a core.
        report: told (files done, files in all).

    Raises:
        TcaError: the list cannot be read or is none.
    """
    sums = read_list(path)
    name_of = _Names(path)
    verified = Verified()
    verified.new = [_shown(name) for name in sorted(map(name_of, files)) if name not in sums]
    threads = threads or os.cpu_count() or 1

    def compare(name: bytes) -> tuple[int, bool] | OSError:
        """Return the size of a file and whether it is as it was."""
        file = path.parent / os.fsdecode(name)
        try:
            return file.stat().st_size, sha256(file) == sums[name]
        except OSError as error:
            return error

    with ThreadPoolExecutor(threads, "tca-verify") as pool:
        results = bounded_map(pool, compare, sums, 4 * threads)
        for done, (name, found) in enumerate(zip(sums, results, strict=True), 1):
            if isinstance(found, (FileNotFoundError, NotADirectoryError)):
                verified.missing.append(_shown(name))
            elif isinstance(found, OSError):
                verified.unreadable[_shown(name)] = found.strerror or str(found)
            else:
                verified.files += 1
                verified.bytes += found[0]
                if not found[1]:
                    verified.changed.append(_shown(name))
            report(done, len(sums))
    return verified


class _Names:
    """The name of a file as seen from the folder of a list."""

    def __init__(self, path: Path) -> None:
        # Links resolved on both sides: `..` out of a linked folder leads elsewhere than it reads.
        self._start = os.path.realpath(path.parent)
        self._folders: dict[Path, str] = {}

    def __call__(self, file: Path) -> bytes:
        folder = self._folders.get(file.parent)
        if folder is None:
            folder = os.path.relpath(os.path.realpath(file.parent), self._start)
            self._folders[file.parent] = folder
        return os.fsencode(os.path.normpath(os.path.join(folder, file.name)))


def _shown(name: bytes) -> str:
    """Return a name as text; a file name need not be UTF-8, a JSON document must be."""
    return name.decode("utf-8", "replace")
