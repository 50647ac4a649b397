"""Lists of checksums against the program `sha256sum`."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tca.errors import TcaError
from tca.extract.checksums import checksum_lines, read_list, sha256, verify_list

NAMES = [
    b"plain.webm",
    b"two words.webm",
    b"back\\slash.webm",
    b"new\nline.webm",
    b"carriage\rreturn.webm",
    b"all \\n of\n them\\\r.webm",
    b"latin-\xe9.webm",
    "Schöne Münze 硬币.webm".encode(),
    b"-c",
    b"#comment",
    b"*star",
    b" space first",
]


def fill(folder: Path) -> list[Path]:
    """Make a file of each name, each with bytes of its own."""
    (folder / "sub").mkdir(parents=True)
    files = [folder / "sub" / os.fsdecode(name) for name in NAMES]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1000 * number)
    return files


def write(path: Path, files: Iterable[Path]) -> Path:
    path.write_bytes(checksum_lines(path, [(file, sha256(file)) for file in files]))
    return path


def sha256sum(*arguments: str | bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sha256sum", *arguments], cwd=cwd, capture_output=True)


def test_the_program_writes_the_same_lines(tmp_path: Path) -> None:
    files = fill(tmp_path)
    path = write(tmp_path / "sums", reversed(files))
    names = [os.fsencode(file.relative_to(tmp_path)) for file in files]
    made = sha256sum("--", *sorted(names), cwd=tmp_path)
    assert made.returncode == 0
    assert path.read_bytes() == made.stdout
    assert path.read_bytes().count(b"\n") == len(NAMES)


def test_the_program_verifies_a_list_and_sees_a_change(tmp_path: Path) -> None:
    files = fill(tmp_path / "data")
    path = write(tmp_path / "sums", files)
    good = sha256sum("-c", "--strict", "sums", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert good.stdout.count(b": OK") == len(NAMES)
    files[3].write_bytes(b"other")
    bad = sha256sum("-c", "--strict", str(path), cwd=tmp_path)
    assert bad.returncode == 1
    assert bad.stdout.count(b": FAILED") == 1


@pytest.mark.parametrize("mode", ["--text", "--binary"])
def test_a_list_that_the_program_wrote_is_read(tmp_path: Path, mode: str) -> None:
    files = fill(tmp_path)
    names = [os.fsencode(file.relative_to(tmp_path)) for file in files]
    (tmp_path / "sums").write_bytes(sha256sum(mode, "--", *names, cwd=tmp_path).stdout)
    assert read_list(tmp_path / "sums") == {
        os.fsencode(file.relative_to(tmp_path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    verified = verify_list(tmp_path / "sums", files, threads=3)
    assert verified.sound
    assert verified.files == len(files)
    assert verified.bytes == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("threads", [1, 5])
def test_whatever_is_not_as_it_was_is_named(tmp_path: Path, threads: int) -> None:
    files = fill(tmp_path)
    path = write(tmp_path / "sums", files)
    # One bit, at the same size.
    content = bytearray(files[1].read_bytes())
    content[500] ^= 1
    files[1].write_bytes(content)
    files[3].unlink()
    files[6].unlink()
    files[6].mkdir()
    added = tmp_path / "sub" / "ne\nw.webm"
    added.write_bytes(b"x")
    seen: list[tuple[int, int]] = []
    verified = verify_list(
        path, [*files, added], threads=threads, report=lambda *at: seen.append(at)
    )
    assert not verified.sound
    assert verified.changed == ["sub/two words.webm"]
    assert verified.missing == ["sub/new\nline.webm"]
    assert verified.unreadable == {"sub/latin-\ufffd.webm": "Is a directory"}
    assert verified.new == ["sub/ne\nw.webm"]
    assert verified.files == len(files) - 2
    assert seen[-1] == (len(files), len(files))
    document = verified.to_json()
    assert document["sound"] is False


def test_a_list_moves_with_its_files(tmp_path: Path) -> None:
    files = fill(tmp_path / "old" / "videos")
    write(tmp_path / "old" / "sums", files)
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = [tmp_path / "new" / file.relative_to(tmp_path / "old") for file in files]
    assert verify_list(tmp_path / "new" / "sums", moved, threads=2).sound


def test_links_lead_where_the_system_leads(tmp_path: Path) -> None:
    files = fill(tmp_path / "disk" / "videos")
    (tmp_path / "lists" / "deep").mkdir(parents=True)
    # `..` out of the linked folder is `lists`, not `home`.
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "sums").symlink_to(tmp_path / "lists" / "deep")
    path = write(tmp_path / "home" / "sums" / "list", files)
    assert sha256sum("-c", "list", cwd=tmp_path / "home" / "sums").returncode == 0
    assert verify_list(path, files, threads=1).sound


def test_a_relative_list_beside_relative_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "videos")
    monkeypatch.chdir(tmp_path)
    files = sorted(Path("videos/sub").iterdir())
    path = write(Path("sums"), files)
    assert read_list(path).keys() >= {b"videos/sub/plain.webm"}
    assert verify_list(path, files, threads=1).sound


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "lists no checksum"),
        (b"# nothing\n", "lists no checksum"),
        (b"a,b\n1,2\n", "line 1 of .* is no checksum"),
        (b"0" * 64 + b"  a\n" + b"0" * 63 + b"  b\n", "line 2 of"),
        (b"0" * 64 + b"  \n", "line 1 of"),
        (b"\x00\xff\x1f", "line 1 of"),
    ],
)
def test_what_is_no_list_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "sums").write_bytes(content)
    with pytest.raises(TcaError, match=says):
        verify_list(tmp_path / "sums", [], threads=1)


def test_a_list_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TcaError, match="No such file"):
        read_list(tmp_path / "sums")
    with pytest.raises(TcaError, match="Is a directory"):
        read_list(tmp_path)
