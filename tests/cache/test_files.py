import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tca.cache.files import locked, remove, sole_writer, temporary_path, write_atomic
from tca.errors import TcaError


def test_parts_follow_each_other_in_new_folders(tmp_path: Path) -> None:
    file = tmp_path / "a/b/c"
    write_atomic(file, [b"one", bytearray(b""), memoryview(b"two")])
    assert file.read_bytes() == b"onetwo"
    write_atomic(file, iter([b"3"]))
    assert file.read_bytes() == b"3"
    assert os.listdir(file.parent) == ["c"]


def test_a_file_is_flushed_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rename that reaches the disk before the bytes do leaves an empty file after a power cut.
    done: list[str] = []
    replace = os.replace

    def fsync(descriptor: int) -> None:
        done.append(f"flush {os.readlink(f'/proc/self/fd/{descriptor}')}")

    def renaming(source: Path, target: Path) -> None:
        done.append(f"rename {source} {target}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renaming)
    file = tmp_path / "new/file"
    write_atomic(file, [b"x"])
    temporary = temporary_path(file)
    assert done == [
        f"flush {tmp_path}",
        f"flush {temporary}",
        f"rename {temporary} {file}",
        f"flush {file.parent}",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_breaks_off_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise error

    write_atomic(tmp_path / "file", [b"old"])
    with pytest.raises(error):
        write_atomic(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TcaError, match=r"cannot write .+file/below/new.+ choose a folder"):
        write_atomic(tmp_path / "file/below/new", [b"x"])


def test_removing_takes_the_temporary_along(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    temporary_path(file).touch()
    remove(file)
    remove(file)
    remove(tmp_path / "no folder/file")
    assert os.listdir(tmp_path) == []


HOLDER = """
import sys
from pathlib import Path
from tca.cache.files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_a_second_process_is_locked_out_until_the_first_ends(tmp_path: Path, end: str) -> None:
    store = tmp_path / "cache/train.zarr"
    command = [sys.executable, "-c", HOLDER, str(store)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        locked_out = pytest.raises(TcaError, match=r"train\.zarr is being written by another")
        with locked_out, sole_writer(store):
            pytest.fail("two writers")
        with sole_writer(store.with_name("validation.zarr")):
            pass
        if end == "is killed":
            holder.kill()
        else:
            holder.stdin.close()
        holder.wait()
    with sole_writer(store):
        pass


def test_the_lock_is_held_once_and_free_again_after_an_error(tmp_path: Path) -> None:
    store = tmp_path / "train.zarr"
    (tmp_path / "link.zarr").symlink_to(store)
    with sole_writer(store):
        for name in (store, tmp_path / "link.zarr"):
            with pytest.raises(TcaError, match="being written"), sole_writer(name):
                pytest.fail("two writers")
    with pytest.raises(RuntimeError), sole_writer(store):
        raise RuntimeError
    with sole_writer(store):
        pass


def test_a_file_system_without_locks_is_no_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    refused = pytest.raises(TcaError, match=r"cannot lock .+lock: Function not implemented; .+")
    with refused, sole_writer(tmp_path / "train.zarr"):
        pytest.fail("no lock")


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", wait=True) as first, locked(tmp_path / "lock", wait=False) as no:
        assert (first, no) == (True, False)
