from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
from example_store import FORMATS, Example, open_files

import tca.cache.row_files as row_files_module
from tca.cache.layout import FeatureShapes, Status
from tca.cache.store import Store
from tca.errors import TcaError


@pytest.fixture(params=FORMATS)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    return Example(tmp_path / f"train.{request.param}", rows=61)


def test_what_was_written_is_read(example: Example) -> None:
    store = example.write()
    assert (store.rows, store.shards, store.rows_per_shard) == (61, 8, 8)
    assert (store.split, store.classes) == ("train", list(example.classes))
    assert (store.identity, store.record) == (example.identity, {"tca": "0.1.0"})
    assert store.streams == example.streams
    assert store.shapes == FeatureShapes(None, (2, 2), 6, 8, 5)
    assert store.ids == example.table.ids
    for name in ("label", "video", "view"):
        assert np.array_equal(getattr(store, name), getattr(example.table, name))
        assert getattr(store, name).dtype == getattr(example.table, name).dtype
    assert np.array_equal(store.status, example.status)
    assert np.array_equal(store.ready(), np.flatnonzero(example.status == 0))
    for name, features in example.features.items():
        found = store.read(name, store.ready())
        assert found.dtype == features.dtype
        assert np.array_equal(found, features[store.ready()])


@pytest.mark.parametrize("store_format", FORMATS)
def test_frames_kept_have_their_own_shape(tmp_path: Path, store_format: str) -> None:
    shapes = {"semantic": (8, 4, 6), "motion": (8, 5)}
    example = Example(tmp_path / f"train.{store_format}", row_shapes=shapes)
    store = example.write()
    assert store.shapes == FeatureShapes(8, (2, 2), 6, 8, 5)
    assert np.array_equal(store.read("semantic", [4, 2]), example.features["semantic"][[4, 2]])


def test_any_order_with_repeats(example: Example) -> None:
    store = example.write()
    generator = np.random.default_rng(0)
    for count in (0, 1, 5, 200):
        rows = generator.choice(store.ready(), count)
        for name, features in example.features.items():
            assert np.array_equal(store.read(name, rows), features[rows])


def test_rows_are_read_into_the_array_given(example: Example) -> None:
    store = example.write()
    rows = np.array([40, 0, 40])
    out = np.full((5, 8, 5), -1, dtype="f4")
    assert store.read("motion", rows, out[1:4]) is not None
    assert np.array_equal(out[1:4], example.features["motion"][rows])
    assert (out[[0, 4]] == -1).all()
    backwards = np.empty((5, 8, 3), dtype="f4").T
    assert store.read("motion", rows, backwards) is backwards
    assert np.array_equal(backwards, example.features["motion"][rows].reshape(3, 8, 5))


@pytest.mark.parametrize(
    "out", [np.empty((2, 8, 5), "f4"), np.empty((1, 8, 5), "f2"), np.empty((1, 40), "f4")]
)
def test_an_array_that_does_not_fit_is_refused(example: Example, out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="motion rows are"):
        example.write().read("motion", [0], out)


@pytest.mark.parametrize("rows", [[61], [-1], [0, 100]])
def test_a_row_that_is_not_there_is_refused(example: Example, rows: list[int]) -> None:
    with pytest.raises(IndexError, match="store of 61"):
        example.write().read("motion", rows)


@pytest.mark.parametrize(
    ("row", "words"), [(3, "unreadable"), (7, "missing"), (17, "timed out"), (30, "not extracted")]
)
def test_a_row_without_features_is_never_read(example: Example, row: int, words: str) -> None:
    store = example.write(0, 1, 2)
    with pytest.raises(TcaError, match=rf"row {row} \(id .+\) of .+train\..+: {words};"):
        store.read("semantic", [0, row])


def test_a_status_of_a_later_version_is_a_failure_with_a_number(example: Example) -> None:
    example.failed[5] = 9
    example.__post_init__()
    store = example.write()
    assert 5 not in store.ready()
    with pytest.raises(TcaError, match="status 9"):
        store.read("motion", [5])


def test_an_incomplete_store_is_read_as_far_as_it_was_at_opening(example: Example) -> None:
    before = example.write(0, 5)
    assert np.array_equal(before.ready(), [0, 1, 2, 4, 5, 6, *range(40, 48)])
    example.write()
    assert len(before.ready()) == 14
    assert np.array_equal(before.read("motion", [41, 1]), example.features["motion"][[41, 1]])
    assert before.shard_status(4) is not None
    assert len(Store.open(example.path).ready()) == 58


def test_features_without_their_status_do_not_exist(example: Example) -> None:
    store = example.write()
    store.format.record_file(2).unlink()
    store = Store.open(example.path)
    assert (store.status[16:24] == Status.NOT_EXTRACTED).all()
    with pytest.raises(TcaError, match="not extracted"):
        store.read("motion", [16])


def test_several_threads_read_alike(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files_module, "open_files_allowed", lambda: 3)
    store = example.write()

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(20):
            rows = generator.choice(store.ready(), 30)
            for name, features in example.features.items():
                assert np.array_equal(store.read(name, rows), features[rows])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_open_files_are_bounded_and_go_with_the_store(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound is for the whole process; stores that other tests have left take no part.
    monkeypatch.setattr(row_files_module.OpenFiles, "_stores", WeakSet())
    monkeypatch.setattr(row_files_module, "open_files_allowed", lambda: 5)
    store = example.write()
    for name in store.streams:
        store.read(name, store.ready())
    assert len(open_files(example.path)) == 5
    del store
    assert open_files(example.path) == []


def test_a_store_is_found_from_anywhere(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = example.write().ready()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to(example.path)
    monkeypatch.chdir(example.path)
    for name in (".", f"../{example.path.name}", str(tmp_path / "elsewhere/link")):
        store = Store.open(name)
        assert np.array_equal(store.read("motion", rows), example.features["motion"][rows])
