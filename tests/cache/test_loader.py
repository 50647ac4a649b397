import gc
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from example_store import Example

from tca.cache.config import LoaderConfig
from tca.cache.loader import Loader
from tca.cache.residency import DiskRows
from tca.cache.store import Store
from tca.errors import TcaError


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    example = Example(tmp_path_factory.mktemp("loader") / "train.zarr", rows=61)
    example.write()
    return example


@pytest.fixture(scope="module")
def store(example: Example) -> Store:
    return Store.open(example.path)


def order(loader: Loader, epoch: int) -> list[int]:
    return [int(row) for batch in loader.epoch(epoch) for row in batch.rows]


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("tca-loader")]


@pytest.mark.parametrize("batch_size", [1, 7, 58, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_comes_once_with_its_own_features(
    store: Store, example: Example, batch_size: int, shuffle: bool
) -> None:
    rows = store.ready()
    loader = Loader(store, rows, batch_size, seed=0, shuffle=shuffle)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == -(-58 // batch_size)
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    seen = np.concatenate([batch.rows for batch in batches])
    assert sorted(seen) == sorted(rows)
    assert (list(seen) == list(rows)) is not shuffle
    for batch in batches:
        assert batch.arrays["semantic"].dtype == torch.float16
        assert batch.arrays["motion"].dtype == torch.float32
        assert batch.label.dtype == torch.int64
        assert np.array_equal(batch.arrays["semantic"], example.features["semantic"][batch.rows])
        assert np.array_equal(batch.arrays["motion"], example.features["motion"][batch.rows])
        assert np.array_equal(batch.label, example.table.label[batch.rows])


def test_the_order_is_a_function_of_seed_and_epoch(store: Store) -> None:
    rows = store.ready()
    orders = {
        (seed, epoch): order(Loader(store, rows, 8, seed=seed), epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    for one, other in itertools.combinations(orders.values(), 2):
        assert one != other
    # Nothing drawn before matters: other epochs, half an epoch, numpy's and torch's own state.
    loader = Loader(store, rows, 8, seed=1)
    np.random.seed(5)
    torch.manual_seed(5)
    list(loader.epoch(7))
    next(loader.epoch(2))
    interleaved = zip(loader.epoch(1), loader.epoch(2), strict=True)
    ones, twos = zip(*((list(a.rows), list(b.rows)) for a, b in interleaved), strict=True)
    assert [int(row) for part in ones for row in part] == orders[1, 1]
    assert [int(row) for part in twos for row in part] == orders[1, 2]
    assert order(Loader(store, rows, 5, seed=1, streams=["motion"]), 1) == orders[1, 1]


def test_the_order_is_the_same_on_every_machine(store: Store) -> None:
    # Written down once: a change of the order would break trainings that are resumed.
    assert order(Loader(store, np.arange(8, 16), 3, seed=3), 4) == [11, 10, 14, 9, 12, 13, 15, 8]


def test_shuffled_rows_are_spread(store: Store) -> None:
    # Each of 58 rows comes first about equally often: a bad sort or few random bits would show.
    loader = Loader(store, store.ready(), 100, seed=0)
    first = np.array([loader.order(epoch).rows[0] for epoch in range(2000)])
    counts = np.bincount(first, minlength=61)[store.ready()]
    assert counts.min() > 10
    assert counts.max() < 65


def test_streams_that_are_not_asked_for_are_not_read(store: Store, tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr")
    path = example.write().path
    for file in path.glob("semantic/c/*/0/0"):
        file.unlink()
    store = Store.open(path)
    for batch in Loader(store, store.ready(), 4, seed=0, streams=["motion"]).epoch(0):
        assert set(batch.arrays) == {"motion"}
        assert np.array_equal(batch.arrays["motion"], example.features["motion"][batch.rows])
    with pytest.raises(TcaError, match="semantic/c/"):
        list(Loader(store, store.ready(), 4, seed=0, streams=["semantic"]).epoch(0))
    assert not readers()


def test_no_rows_no_batches(store: Store) -> None:
    loader = Loader(store, np.array([], dtype=np.int64), 4, seed=0)
    assert len(loader) == 0
    assert list(loader.epoch(0)) == []


@pytest.mark.parametrize("drawn", [0, 1, 3])
def test_an_iterator_dropped_half_way_leaves_no_thread(store: Store, drawn: int) -> None:
    batches = Loader(store, store.ready(), 4, seed=0).epoch(0)
    for _ in range(drawn):
        next(batches)
    assert len(readers()) == min(drawn, 1)
    del batches
    gc.collect()
    assert not readers()


def test_a_loop_that_is_left_leaves_no_thread(store: Store) -> None:
    loader = Loader(store, store.ready(), 4, seed=0)
    for _ in loader.epoch(0):
        break
    gc.collect()
    assert not readers()


def test_an_error_of_reading_comes_with_its_batch(tmp_path: Path) -> None:
    path = Example(tmp_path / "train.zarr").write().path
    file = path / "motion/c/1/0/0"
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    store = Store.open(path)
    batches = Loader(store, store.ready(), 3, seed=0, shuffle=False).epoch(0)
    # Rows 0 1 2, 4 5 6, then 8, which is the damaged one.
    assert [next(batches).rows[0], next(batches).rows[0]] == [0, 4]
    with pytest.raises(TcaError, match=r"row 8 \(id .+motion/c/1/0/0"):
        next(batches)
    assert not readers()
    with pytest.raises(StopIteration):
        next(batches)


def test_rows_without_features_are_an_error(store: Store) -> None:
    with pytest.raises(TcaError, match=r"row 3 .+ has no features: unreadable"):
        list(Loader(store, np.arange(8), 3, seed=0).epoch(0))


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_reading_ahead_is_bounded(store: Store, prefetch: int) -> None:
    class Counting(DiskRows):
        count = 0

        def gather(self, rows, buffers):
            self.count += 1
            return super().gather(rows, buffers)

    config = LoaderConfig(prefetch=prefetch)
    source = Counting(store, None, config)
    loader = Loader(store, store.ready(), 2, seed=0, config=config, source=source)
    for number, _ in enumerate(loader.epochs([0, 1]), start=1):
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            assert number <= source.count <= number + prefetch
        # Also over the end of an epoch.
        while source.count < min(number + prefetch, 2 * 29):
            assert time.monotonic() < until + 60
    assert source.count == number == 2 * 29


def test_batches_do_not_share_memory(store: Store, example: Example) -> None:
    loader = Loader(store, store.ready(), 8, seed=0)
    batches = list(loader.epoch(0))
    for batch in batches:
        batch.arrays["semantic"].zero_()
        batch.label.zero_()
    again = next(loader.epoch(0))
    assert np.array_equal(again.arrays["semantic"], example.features["semantic"][again.rows])
    assert np.array_equal(store.label, example.table.label)


@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_memory_is_used_again_but_never_while_anything_of_a_batch_is_left(
    store: Store, example: Example, shuffle: str
) -> None:
    config = LoaderConfig(shuffle=shuffle, buffer_blocks=2)
    loader = Loader(store, store.ready(), 8, seed=0, config=config)
    kept: list[tuple[torch.Tensor | np.ndarray, int]] = []
    places = []
    for epoch in range(4):
        for number, batch in enumerate(loader.epoch(epoch)):
            places.append(batch.arrays["semantic"].data_ptr())
            if number % 3 == 0:
                # A slice, a view of another shape, an array: all of them hold the memory.
                part = batch.arrays["semantic"][2:]
                part = [part, part.flatten(1), part.numpy()[:]][epoch % 3]
                kept.append((part, batch.rows[2:]))
    for part, rows in kept:
        expected = example.features["semantic"][rows]
        assert np.array_equal(np.asarray(part).reshape(expected.shape), expected)
    assert len(set(places)) < len(places) - len(kept)
