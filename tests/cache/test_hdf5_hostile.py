"""HDF5 files that somebody changed on purpose: no other file is read, no memory taken."""

import resource
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from example_store import Example, read_all

from tca.cache.store import Store
from tca.cache.verify import verify
from tca.errors import TcaError

Change = Callable[[h5py.File, str, h5py.Dataset], None]

HUGE = 2**40


def elsewhere(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file[name] = h5py.ExternalLink("000000.h5", name)


def dangling(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file[name] = h5py.SoftLink("/nowhere")


def soft(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    old.parent.copy(name, file, "real")
    file[name] = h5py.SoftLink("real")


def virtual(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[...] = h5py.VirtualSource("000000.h5", name, old.shape)
    file.create_virtual_dataset(name, layout)


def outside(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    where = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(name, old.shape, old.dtype, external=where)


def huge(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    shape = (HUGE, *old.shape[1:])
    file.create_dataset(name, shape, old.dtype, chunks=(2**20, *old.shape[1:]))


def huge_chunks(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    chunks = (2**28 // old[0].nbytes, *old.shape[1:])
    most = (None, *old.shape[1:])
    file.create_dataset(name, old.shape, old.dtype, chunks=chunks, maxshape=most)


def a_group(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_group(name)


def texts(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_dataset(name, old.shape, h5py.string_dtype())


def gone(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    pass


CHANGES = (
    *(elsewhere, dangling, soft, virtual, outside),
    *(huge, huge_chunks, a_group, texts, gone),
)


def rewrite(path: Path, name: str, change: Change) -> None:
    """Write a file anew, with one of its arrays as `change` makes it; checksums stay sound."""
    old = path.rename(path.with_name("old"))
    with h5py.File(old) as source, h5py.File(path, "w", libver=("v110", "v110")) as file:
        for key, value in source.attrs.items():
            file.attrs[key] = value
        for other in source:
            if other != name:
                source.copy(other, file)
        change(file, name, source[name])
        if isinstance(file.get(name), h5py.Dataset):
            for key, value in source[name].attrs.items():
                file[name].attrs[key] = value
    old.unlink()


@pytest.fixture
def example(tmp_path: Path) -> Example:
    example = Example(tmp_path / "train.h5")
    example.write()
    return example


@pytest.fixture(autouse=True)
def _little_memory():
    """Whoever believes the file gets no memory, instead of all of it."""
    most = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), most[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, most)


@pytest.mark.parametrize("name", ["status", "status_crc32c", "crc32c", "semantic"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_shard_is_damage(example: Example, name: str, change: Change) -> None:
    file = example.path / "shards/000001.h5"
    rewrite(file, name, change)
    with pytest.raises(TcaError) as error:
        read_all(example.path)
    assert f"{file}" in str(error.value)
    assert "tca cache repair" in str(error.value)
    assert str(file) in {problem.file for problem in verify(example.path).problems}


@pytest.mark.parametrize("name", ["label", "id"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_index_is_damage(example: Example, name: str, change: Change) -> None:
    # Its author would have made sums that fit.
    (example.path.parent / "tca.sums").unlink()
    rewrite(example.path / "index.h5", name, change)
    with pytest.raises(TcaError, match=r"index\.h5 is damaged: .+; put the file back"):
        Store.open(example.path)


@pytest.mark.parametrize("change", [elsewhere, dangling, soft, a_group])
def test_features_are_described_by_the_index_itself(example: Example, change: Change) -> None:
    (example.path.parent / "tca.sums").unlink()
    rewrite(example.path / "index.h5", "motion", change)
    with pytest.raises(TcaError, match="its motion is no data set of its own"):
        Store.open(example.path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", "3"),
        ("classes", "[1]"),
        ("grid", "[2]"),
        ("grid", '["2", {}]'),
        ("identity", "[]"),
        ("rows_per_shard", "0"),
        ("rows_per_shard", "1e9"),
        ("split", "[" * 100_000),
        ("split", np.zeros(3)),
        ("record", h5py.Empty("i4")),
    ],
    ids=str,
)
def test_attributes_of_another_kind_are_damage(example: Example, name: str, value: object) -> None:
    (example.path.parent / "tca.sums").unlink()
    with h5py.File(example.path / "index.h5", "r+", libver=("v110", "v110")) as file:
        file.attrs[name] = value
    with pytest.raises(TcaError, match=r"index\.h5 is damaged"):
        Store.open(example.path)


@pytest.mark.parametrize("columns", [3, "[", '"semantic"', '{"semantic": 1}', '["motion"]', "[[]]"])
def test_checksums_without_their_columns_are_damage(example: Example, columns: object) -> None:
    with h5py.File(example.path / "shards/000001.h5", "r+") as file:
        file["crc32c"].attrs["columns"] = columns
    with pytest.raises(TcaError, match=r"row 8 .+ damaged: its crc32c has no column semantic"):
        read_all(example.path)


def test_a_row_that_lost_its_chunk_is_damage(example: Example) -> None:
    def without_row_3(file: h5py.File, name: str, old: h5py.Dataset) -> None:
        new = file.create_dataset(name, old.shape, old.dtype, chunks=old.chunks)
        for row in (0, 1, 2, 4, 5, 6, 7):
            new[row] = old[row]

    rewrite(example.path / "shards/000001.h5", "motion", without_row_3)
    with pytest.raises(TcaError, match="row 3 of its motion has a checksum and no features"):
        Store.open(example.path).read("motion", [9], check=False)
