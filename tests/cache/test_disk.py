"""Disks that are full or cannot be written: one clear sentence, and what was committed stays."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import committing
import numpy as np
import pytest
from example_store import FORMATS, Example, contents, read_all

from tca.cache.files import sole_writer
from tca.cache.store import Store
from tca.errors import TcaError


@pytest.mark.parametrize("store_format", FORMATS)
def test_a_full_disk_while_committing(mount: Callable[[str], Path], store_format: str) -> None:
    # 6 shards of 64 kB; two do not fit.
    path = mount("size=320k") / f"cache/train.{store_format}"
    example = committing.example(path)
    with pytest.raises(TcaError) as error:
        example.write()
    for part in ("cannot write", "No space left on device", "free some space", "goes on where"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    store = Store.open(path)
    done = len(store.ready())
    assert 8 <= done < 32
    read_all(path)
    assert not [name for name in contents(path) if ".tmp" in name]

    subprocess.run(["mount", "-o", "remount,size=2m", str(path.parents[1])], check=True)
    store = committing.example(path).write()
    for name, features in example.features.items():
        assert np.array_equal(store.read(name, store.ready()), features[store.ready()])


@pytest.mark.parametrize("size", ["4k", "20k", "44k"])
@pytest.mark.parametrize("store_format", FORMATS)
def test_a_full_disk_while_creating(
    mount: Callable[[str], Path], store_format: str, size: str
) -> None:
    path = mount(f"size={size}") / f"train.{store_format}"
    example = Example(path, rows=4000, failed={})
    with pytest.raises(TcaError, match=r"cannot write .+ No space left on device; free some space"):
        example.writer()
    assert not path.exists()
    assert not [file for file in path.parent.iterdir() if ".tmp" in file.name]
    subprocess.run(["mount", "-o", "remount,size=4m", str(path.parent)], check=True)
    assert example.writer().committed() == set()


@pytest.mark.parametrize("store_format", FORMATS)
def test_a_read_only_folder(mount: Callable[[str], Path], store_format: str) -> None:
    folder = mount("size=2m")
    path = folder / f"train.{store_format}"
    example = committing.example(path)
    with sole_writer(path):
        example.write(0)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    read_all(path)
    refused = "cannot write .+ Read-only file system; choose a folder that can be written"
    writer = example.writer()
    for shard in (0, 1, 3):
        with pytest.raises(TcaError, match=refused):
            example.commit(writer, shard)
    with pytest.raises(TcaError, match=refused), sole_writer(path):
        pytest.fail("a lock in a read-only folder")
    with pytest.raises(TcaError, match=refused):
        Example(folder / f"other.{store_format}").writer()
    read_all(path)


LIMITED = """
import resource, sys
from pathlib import Path
import committing
from tca.errors import TcaError
path = Path(sys.argv[1])
committing.example(path).write(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    committing.run(path)
except TcaError as error:
    print(error)
"""


@pytest.mark.parametrize("store_format", FORMATS)
def test_a_limit_on_file_sizes(tmp_path: Path, store_format: str) -> None:
    # Needs no right to mount: every system can tell us in the middle of a file to stop.
    path = tmp_path / f"train.{store_format}"
    command = [sys.executable, "-c", LIMITED, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "File too large; raise the limit" in done.stdout
    assert Store.open(path).ready().tolist() == [0, 2, 3, 4, 5, 6, 7]
    read_all(path)
    assert not [name for name in contents(path) if ".tmp" in name]
