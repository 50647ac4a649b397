"""What comes when: across ranks, after stopping half-way, and in windows of blocks."""

import threading
from pathlib import Path

import numpy as np
import pytest
from example_store import Example

import tca.cache.loader as loader_module
from tca.cache.config import LoaderConfig
from tca.cache.loader import Loader
from tca.cache.order import plan, shuffled_blocks, shuffled_rows
from tca.cache.store import Store
from tca.errors import TcaError

ROWS = LoaderConfig()
BLOCKS = LoaderConfig(shuffle="blocks", block_rows=5, buffer_blocks=3)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    example = Example(tmp_path_factory.mktemp("order") / "train.zarr", rows=61)
    example.write()
    return example


@pytest.fixture(scope="module")
def store(example: Example) -> Store:
    return Store.open(example.path)


def steps(
    store: Store, config: LoaderConfig, batch_size: int, world_size: int, start: int = 0
) -> list[list]:
    """Return, for every step, the batches of all ranks."""
    ranks = [
        Loader(
            store,
            store.ready(),
            batch_size,
            seed=2,
            config=config,
            rank=rank,
            world_size=world_size,
        ).epoch(3, start)
        for rank in range(world_size)
    ]
    return list(zip(*ranks, strict=True))


@pytest.mark.parametrize("config", [ROWS, BLOCKS], ids=["rows", "blocks"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 60])
def test_slices_of_all_ranks_are_the_global_batch(
    store: Store, example: Example, config: LoaderConfig, world_size: int
) -> None:
    whole = [batch for (batch,) in steps(store, config, 9, 1)]
    for batch, parts in zip(whole, steps(store, config, 9, world_size), strict=True):
        assert np.concatenate([part.rows for part in parts]).tolist() == batch.rows.tolist()
        cut = np.array_split(batch.rows, world_size)
        assert [part.rows.tolist() for part in parts] == [rows.tolist() for rows in cut]
        assert {part.position for part in parts} == {batch.position}
        for part in parts:
            for name, tensor in part.arrays.items():
                assert np.array_equal(tensor, example.features[name][part.rows])
                assert tensor.shape[1:] == batch.arrays[name].shape[1:]
            assert np.array_equal(part.label, example.table.label[part.rows])


@pytest.mark.parametrize("config", [ROWS, BLOCKS], ids=["rows", "blocks"])
def test_stopped_anywhere_and_resumed_with_other_ranks_and_batches_the_order_goes_on(
    store: Store, config: LoaderConfig
) -> None:
    whole = [int(row) for (batch,) in steps(store, config, 7, 1) for row in batch.rows]
    assert sorted(whole) == store.ready().tolist()
    before = steps(store, config, 7, 3)
    for done in range(len(before) + 1):
        seen = [int(row) for parts in before[:done] for part in parts for row in part.rows]
        start = before[done - 1][0].position if done else 0
        assert start == len(seen)
        for world_size, batch_size in ((1, 7), (2, 4), (5, 16)):
            after = steps(store, config, batch_size, world_size, start)
            rest = [int(row) for parts in after for part in parts for row in part.rows]
            assert seen + rest == whole
    assert steps(store, config, 7, 2, len(whole)) == []
    with pytest.raises(ValueError, match="start 59"):
        steps(store, config, 7, 2, len(whole) + 1)


@pytest.mark.parametrize("world_size", [1, 4])
def test_plans_are_those_of_a_slow_reference(world_size: int) -> None:
    order = shuffled_blocks(np.arange(3, 100), 1, 2, 8, 2)
    for rank in range(world_size):
        for start in (0, 10, 96):
            found = plan(order, 13, rank, world_size, start)
            rows, ends, used = [], [], []
            for first in range(start, 97, 13):
                batch = order.rows[first : first + 13]
                rows += np.array_split(batch, world_size)[rank].tolist()
                ends.append(len(rows))
                used.append(first + len(batch))
            assert found.rows.tolist() == rows
            assert found.batches == ends
            assert found.positions == used
            # Rows of one window, and no other, lie between two ends of windows.
            window = np.searchsorted(order.windows, np.arange(97), side="right")
            of_row = dict(zip(order.rows.tolist(), window.tolist(), strict=True))
            parts = np.split(found.rows, found.windows[:-1])
            kinds = [{of_row[row] for row in part.tolist()} for part in parts if len(part)]
            assert all(len(kind) == 1 for kind in kinds)
            assert len(kinds) == len(set.union(set(), *kinds))


def test_blocks_come_whole_mixed_and_in_an_order_of_seed_and_epoch() -> None:
    rows = np.random.default_rng(0).choice(1000, 700, replace=False)
    orders = [shuffled_blocks(rows, seed, epoch, 20, 4) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.rows) for order in orders}) == 4
    for order in orders:
        assert sorted(order.rows) == sorted(rows)
        blocks = [set(part // 20) for part in np.split(order.rows, order.windows[:-1])]
        # No block is in two windows, and each window but the last has four.
        assert sum(map(len, blocks)) == len(set.union(*blocks)) == 50
        assert [len(found) for found in blocks] == [4] * 12 + [2]
        assert all(max(found) - min(found) > 4 for found in blocks[:12])
        for part in np.split(order.rows, order.windows[:-1]):
            assert (np.diff(part // 20) == 0).mean() < 0.7
    again = shuffled_blocks(rows[::-1], 0, 0, 20, 4)
    assert np.array_equal(again.rows, orders[0].rows)


def test_the_order_of_blocks_is_the_same_on_every_machine() -> None:
    # Written down once: a change of the order would break trainings that are resumed.
    blocks = [7, 5, 6, 4, 9, 3, 2, 8, 0, 11, 1, 10]
    assert shuffled_blocks(np.arange(12), 3, 4, 2, 2).rows.tolist() == blocks
    assert shuffled_rows(np.arange(8, 16), 3, 4).rows.tolist() == [11, 10, 14, 9, 12, 13, 15, 8]


def test_windows_are_read_in_file_order_and_two_at_most_are_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most, lock = 0, 0, threading.Lock()
    read = loader_module.read_window

    class Tracked:
        """Counts windows from the moment their reading begins until they are dropped."""

        def __init__(self, *arguments: object) -> None:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)
            window = read(*arguments)
            self.arrays, self.places = window.arrays, window.places

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    monkeypatch.setattr(loader_module, "read_window", Tracked)
    asked: list[list[int]] = []
    original = Store.read

    def reading(self: Store, array: str, rows: np.ndarray, *rest: object, **more: object) -> object:
        if array == "motion":
            asked.append(rows.tolist())
        return original(self, array, rows, *rest, **more)

    monkeypatch.setattr(Store, "read", reading)
    loader = Loader(store, store.ready(), 4, seed=0, config=BLOCKS)
    for _ in loader.epochs([0, 1]):
        pass
    assert most == 2
    assert alive == 0
    assert len(asked) == 2 * 5
    assert all(rows == sorted(rows) for rows in asked)


@pytest.mark.parametrize("residency", ["disk", "ram"])
@pytest.mark.parametrize("shuffle", [ROWS, BLOCKS], ids=["rows", "blocks"])
@pytest.mark.parametrize(("world_size", "start"), [(1, 0), (2, 14), (3, 57)])
def test_epochs_in_a_row_are_the_epochs_one_by_one(
    example: Example,
    store: Store,
    shuffle: LoaderConfig,
    residency: str,
    world_size: int,
    start: int,
) -> None:
    config = shuffle.model_copy(update={"residency": residency})
    for rank in range(world_size):
        loader = Loader(
            store, store.ready(), 7, seed=2, config=config, rank=rank, world_size=world_size
        )
        single = [*loader.epoch(4, start), *loader.epoch(5), *loader.epoch(9)]
        found = list(loader.epochs([4, 5, 9], start))
        for ours, theirs in zip(found, single, strict=True):
            assert ours.rows.tolist() == theirs.rows.tolist()
            assert (ours.first, ours.position) == (theirs.first, theirs.position)
            for name, tensor in ours.arrays.items():
                assert np.array_equal(tensor, example.features[name][ours.rows])
        assert [batch.position for batch in found].count(loader.epoch_rows) == 3


def test_leaving_a_loop_over_blocks_leaves_no_thread(store: Store) -> None:
    for _ in Loader(store, store.ready(), 4, seed=0, config=BLOCKS).epoch(0):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("tca-loader")]


def test_a_damaged_row_of_a_window_is_named(tmp_path: Path) -> None:
    path = Example(tmp_path / "train.zarr").write().path
    file = path / "motion/c/1/0/0"
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    store = Store.open(path)
    with pytest.raises(TcaError, match=r"row 8 \(id .+motion/c/1/0/0"):
        list(Loader(store, store.ready(), 3, seed=0, config=BLOCKS).epoch(0))


def test_windows_larger_than_the_memory_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "available_memory", lambda: 1000)
    with pytest.raises(TcaError, match=r"two windows of 1\d rows.*lower loader\.buffer_blocks"):
        list(Loader(store, store.ready(), 3, seed=0, config=BLOCKS).epoch(0))


def test_the_largest_counts_that_a_configuration_may_name_are_one_batch(store: Store) -> None:
    most = 2**31 - 1
    config = LoaderConfig(shuffle="blocks", block_rows=most, buffer_blocks=most, prefetch=1024)
    ((batch,),) = steps(store, config, most, 1)
    assert sorted(batch.rows.tolist()) == store.ready().tolist()


@pytest.mark.parametrize("residency", ["disk", "ram"])
@pytest.mark.parametrize("shuffle", [ROWS, BLOCKS], ids=["rows", "blocks"])
def test_an_epochs_rows_may_come_from_a_function(
    example: Example, store: Store, shuffle: LoaderConfig, residency: str
) -> None:
    config = shuffle.model_copy(update={"residency": residency})
    ready = store.ready()
    some = {epoch: np.random.default_rng(epoch).choice(ready, 40) for epoch in range(4)}

    def ranks(world_size: int, batch_size: int, epoch: int, start: int = 0) -> list[list]:
        loaders = [
            Loader(
                store,
                ready,
                batch_size,
                seed=2,
                config=config,
                rank=rank,
                world_size=world_size,
                rows_of=some.__getitem__,
            )
            for rank in range(world_size)
        ]
        assert {len(loader) for loader in loaders} == {-(-40 // batch_size)}
        assert {loader.epoch_rows for loader in loaders} == {40}
        return list(zip(*(loader.epoch(epoch, start) for loader in loaders), strict=True))

    for epoch in (0, 3):
        whole = [int(row) for (batch,) in ranks(1, 7, epoch) for row in batch.rows]
        assert sorted(whole) == np.sort(some[epoch]).tolist()
        assert whole != some[epoch].tolist()
        for world_size, batch_size, start in ((2, 7, 0), (3, 16, 14), (1, 40, 39)):
            found = ranks(world_size, batch_size, epoch, start)
            parts = [part for step in found for part in step]
            assert [int(row) for part in parts for row in part.rows] == whole[start:]
            assert parts[-1].position == 40
            for part in parts:
                end = part.first + len(part.rows)
                assert part.rows.tolist() == whole[part.first : end]
                for name, tensor in part.arrays.items():
                    assert np.array_equal(tensor, example.features[name][part.rows])
    with pytest.raises(ValueError, match="start 41 in an epoch of 40"):
        ranks(1, 7, 0, 41)
