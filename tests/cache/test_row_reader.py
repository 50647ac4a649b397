"""Rows out of files: neighbours in one call, few descriptors, and files that change underneath."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_store import Example

import tca.cache.native as native
import tca.cache.row_files as row_files
import tca.cache.row_reader as row_reader
from tca.cache.store import Store
from tca.errors import TcaError

FORMATS = ["zarr", "hdf5"]


@pytest.fixture(params=FORMATS)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    return Example(tmp_path / "train", rows=61, store_format=request.param)


@pytest.fixture(params=["by C", "by Python"], autouse=True)
def copied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with `_rows.c` and without."""
    if request.param == "by Python":
        monkeypatch.setattr(native, "AVAILABLE", False)
    elif not native.AVAILABLE:
        pytest.skip("tca.cache._rows was not built, or this processor lacks what it needs")


@pytest.fixture
def by_python(copied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_order_gives_the_same_rows(
    example: Example, monkeypatch: pytest.MonkeyPatch, check: bool, threads: int
) -> None:
    monkeypatch.setattr(row_reader, "threads_for", lambda rows: min(threads, len(rows)))
    monkeypatch.setattr(native, "reading_threads", lambda: threads)
    monkeypatch.setattr(native, "WORTH_A_THREAD", 1)
    store = example.write()
    ready = store.ready()
    generator = np.random.default_rng(0)
    orders = [ready, ready[::-1], np.repeat(ready, 2), generator.choice(ready, 300), ready[:1]]
    for rows in orders:
        for name, array in example.features.items():
            assert np.array_equal(store.read(name, rows, check=check), array[rows])


@pytest.mark.usefixtures("by_python")
def test_neighbours_are_read_by_one_call(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    store = example.write()
    calls: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(len(buffers))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    # Shards of 8 rows, none of these failed.
    store.read("semantic", np.arange(24, 40))
    # HDF5 puts its index of a shard's rows behind the first of them.
    assert len(calls) == (2 if example.store_format == "zarr" else 4)
    calls.clear()
    store.read("semantic", np.arange(24, 40, 2))
    assert len(calls) == 8


@pytest.mark.usefixtures("by_python")
def test_a_call_that_ends_early_is_continued(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = example.write()
    preadv = os.preadv

    def hesitant(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(descriptor, [buffers[0][: max(1, len(buffers[0]) // 3)]], offset)

    monkeypatch.setattr(os, "preadv", hesitant)
    for name, array in example.features.items():
        assert np.array_equal(store.read(name, store.ready()), array[store.ready()])


def test_a_file_shortened_under_an_open_store_is_an_error(example: Example) -> None:
    store = example.write()
    rows = np.arange(24, 32)
    store.read("motion", rows)
    file = store.format.shard_file("motion", 3)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(TcaError, match=r"row \d+ \(id .+ shortened to \d+ bytes") as error:
        store.read("motion", rows)
    assert str(file) in str(error.value)


def test_a_file_replaced_under_an_open_store_is_never_mixed_up(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "open_files_allowed", lambda: 1)
    store = example.write()
    rows = np.arange(24, 32)
    store.read("motion", rows)
    # The file is closed, since one may be open, and redone meanwhile.
    store.read("motion", np.arange(32, 40))
    file = store.format.shard_file("motion", 3)
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.replace(copy, file)
    with pytest.raises(TcaError, match="replaced since the store was opened"):
        store.read("motion", rows, check=False)
    assert np.array_equal(
        Store.open(store.path).read("motion", rows), example.features["motion"][rows]
    )


def test_prefetching_what_is_not_there_is_left_to_reading(example: Example) -> None:
    store = example.write()
    store.prefetch("motion", store.ready())
    store.format.shard_file("motion", 0).unlink()
    store = Store.open(store.path) if store.format.name == "zarr" else store
    store.prefetch("motion", store.ready())


FORKED = """
import os, signal, sys
import numpy as np
import tca.cache.threads as threads
from tca.cache.store import Store
threads.reading_threads = lambda: 2
threads.threads_for.__globals__["SMALL_ROW"] = threads.threads_for.__globals__["WORTH_SHARING"] = 0
store = Store.open(sys.argv[1])
expected = store.read("semantic", store.ready())
if os.fork() == 0:
    signal.alarm(60)
    other = Store.open(sys.argv[1])
    same = [np.array_equal(s.read("semantic", store.ready()), expected) for s in (store, other)]
    os._exit(0 if all(same) else 3)
_, status = os.wait()
print(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_reads_too(example: Example) -> None:
    example.write()
    command = [sys.executable, "-c", FORKED, str(example.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
