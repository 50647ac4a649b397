"""A shard of an HDF5 store is written whole, or not at all, wherever the disk gives up."""

import resource
import signal
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from example_store import Example, contents, open_files

from tca.cache.hdf5_prologue import Prologue
from tca.cache.layout import Status
from tca.cache.verify import verify
from tca.errors import TcaError


@pytest.mark.parametrize("stride", [331, pytest.param(7, marks=pytest.mark.long)])
def test_a_file_that_cannot_grow_at_any_byte(tmp_path: Path, stride: int) -> None:
    whole = Example(tmp_path / "whole/train.h5").write().format.record_file(1).read_bytes()
    example = Example(tmp_path / "train.h5")
    writer = example.writer()
    before = contents(example.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in range(0, len(whole), stride):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(TcaError, match=r"000001\.h5: File too large; raise the limit"):
                example.commit(writer, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert contents(example.path) == before
        assert not open_files(tmp_path)
    example.commit(writer, 1)
    assert contents(example.path) == {**before, "shards/000001.h5": whole}


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example(tmp_path / "train.h5")
    writer = example.writer()
    before = contents(example.path)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    for name in ("crc32c", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"tca.cache.hdf5_shard.{name}", interrupted)
            with pytest.raises(KeyboardInterrupt):
                example.commit(writer, 1)
        assert contents(example.path) == before
        assert not open_files(tmp_path)


def test_a_shard_of_failures_alone_has_no_features_and_is_checked(tmp_path: Path) -> None:
    failed = dict.fromkeys(range(8), Status.MISSING)
    store = Example(tmp_path / "train.h5", rows=16, failed=failed).write()
    with h5py.File(store.format.record_file(0)) as file:
        assert file["semantic"].id.get_num_chunks() == 0
        assert not file["crc32c"][:].any()
    assert store.ready().tolist() == list(range(8, 16))


@pytest.mark.parametrize("rows_per_shard", [8, 256, 2000])
def test_statuses_are_found_without_hdf5(tmp_path: Path, rows_per_shard: int) -> None:
    # What makes opening a store of hundreds of shards fast.
    shapes = {"semantic": (2, 3), "motion": (1, 2)}
    types = {"semantic": "int8", "motion": "int8"}
    example = Example(
        tmp_path / "train.h5",
        rows=3 * rows_per_shard,
        rows_per_shard=rows_per_shard,
        row_shapes=shapes,
        types=types,
    )
    store = example.write()
    alike = Prologue.of(store.format.record_file(0), rows_per_shard)
    assert alike is not None
    for shard in range(3):
        rows = slice(shard * rows_per_shard, (shard + 1) * rows_per_shard)
        found = alike.status(str(store.format.record_file(shard)))
        assert found is not None
        assert found.tolist() == example.status[rows].tolist()


# One that comes within a weakref's callback is lost: Python's way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.long)])
def test_ctrl_c_at_any_moment_leaves_no_file_behind(tmp_path: Path, times: int) -> None:
    example = Example(tmp_path / "train.h5", row_shapes={"semantic": (196, 64), "motion": (8, 5)})
    writer = example.writer()
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        example.commit(writer, 0)
        taken.append(time.perf_counter() - begin)
    generator = np.random.default_rng(0)
    ended: Counter[str] = Counter()
    # Where the tests run in the background, SIGINT is ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for _ in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-5, min(taken)))
                example.commit(writer, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
                ended["done"] += 1
            except KeyboardInterrupt:
                ended["interrupted"] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, usual)
    assert ended["interrupted"]
    example.commit(writer, 0)
    assert not list(tmp_path.rglob(".*.tmp"))
    assert not verify(example.path).problems
