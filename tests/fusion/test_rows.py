from pathlib import Path

import numpy as np
import pytest
from memory_store import moving_dot

from tca.cache.failures import Failure, write_failures
from tca.cache.layout import Status
from tca.errors import TcaError
from tca.fusion.rows import labelled_rows, split_folds, split_holdout, video_labels


def three_views_of(videos: int):
    store = moving_dot(3 * videos, classes=4)
    store.video = np.repeat(np.arange(videos, dtype=np.int32), 3)
    store.label = (store.video % 4).astype(np.int32)
    return store


@pytest.mark.parametrize("share", [0.1, 0.25, 0.37])
def test_the_holdout_is_disjoint_by_video_and_stratified(share: float) -> None:
    store = three_views_of(200)
    fit, held = split_holdout(store, labelled_rows(store), share, seed=3)
    assert sorted([*fit, *held]) == list(range(600))
    assert not set(store.video[fit]) & set(store.video[held])
    assert len(held) == pytest.approx(600 * share, abs=3)
    per_class = np.bincount(store.label[held]) / np.bincount(store.label)
    assert np.abs(per_class - share).max() <= 1 / 50
    again = split_holdout(store, labelled_rows(store), share, seed=3)[1]
    assert np.array_equal(held, again)
    assert not np.array_equal(held, split_holdout(store, labelled_rows(store), share, seed=4)[1])


def mirrored_views_of(videos: int):
    """View 1 of every third video is mirrored: the label of classes 0 and 1 swaps."""
    store = three_views_of(videos)
    store.view = (np.arange(3 * videos) % 3).astype(np.uint8)
    mirrored = (store.view == 1) & (store.video % 3 == 0) & (store.label < 2)
    store.label = np.where(mirrored, 1 - store.label, store.label).astype(np.int32)
    # The plain view of some of them failed: the label of the mirrored one is not theirs.
    store.status[(store.view == 0) & (store.video % 6 == 0)] = Status.UNREADABLE
    return store, np.arange(videos) % 4


def test_videos_with_mirrored_views_are_parted_by_the_class_they_show() -> None:
    store, own = mirrored_views_of(120)
    usable = labelled_rows(store)
    assert len(usable) == 340
    fit, held = split_holdout(store, usable, 0.2, seed=1)
    assert not set(store.video[fit]) & set(store.video[held])
    assert np.bincount(own[np.unique(store.video[held])]).tolist() == [6, 6, 6, 6]
    for rest, fold in split_folds(store, usable, 5, seed=1):
        assert not set(store.video[rest]) & set(store.video[fold])
        assert np.bincount(own[np.unique(store.video[fold])]).tolist() == [6, 6, 6, 6]
    videos, label = video_labels(store, usable)
    assert (videos.tolist(), label.tolist()) == (list(range(120)), own.tolist())


def test_a_class_of_one_video_stays_in_training() -> None:
    store = moving_dot(60, classes=4)
    store.label = np.array([0] * 29 + [1] * 30 + [2], dtype=np.int32)
    fit, held = split_holdout(store, labelled_rows(store), 0.3, seed=0)
    assert 59 in fit
    assert len(held) == 18


def test_small_shares_of_many_small_classes_add_up() -> None:
    store = moving_dot(400)
    store.label = (np.arange(400) % 100).astype(np.int32)
    with pytest.raises(TcaError, match=r"raise it to at least 0\.26"):
        split_holdout(store, labelled_rows(store), 0.1, seed=0)
    assert len(split_holdout(store, labelled_rows(store), 0.26, seed=0)[1]) == 104


def test_folds_part_the_videos() -> None:
    store = three_views_of(40)
    folds = split_folds(store, labelled_rows(store), 5, seed=0)
    assert sorted(row for _, fold in folds for row in fold) == list(range(120))
    for rest, fold in folds:
        assert not set(store.video[rest]) & set(store.video[fold])
        assert np.bincount(store.label[fold]).tolist() == [6, 6, 6, 6]


def test_classes_smaller_than_the_folds_are_told_in_our_words(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    store = moving_dot(60, classes=4)
    store.label = np.array([0] * 29 + [1] * 29 + [2] * 2, dtype=np.int32)
    folds = split_folds(store, labelled_rows(store), 5, seed=0)
    assert sorted(row for _, fold in folds for row in fold) == list(range(60))
    assert "1 classes have fewer videos than the 5 folds" in capsys.readouterr().err
    assert not recwarn.list


def test_a_store_whose_rows_all_failed_says_why(tmp_path: Path) -> None:
    store = moving_dot(40, path=tmp_path / "train.zarr")
    store.status[:] = Status.UNREADABLE
    store.status[:7] = Status.MISSING
    with pytest.raises(TcaError, match=r"40 of 40 failed: 33 unreadable, 7 missing; put"):
        labelled_rows(store)
    write_failures(store.path, 1, [Failure(row, "x", "moov atom not found") for row in (32, 33)])
    store.status[:8] = Status.NOT_EXTRACTED
    words = r"no row has features, 32 of 40 failed: 32 unreadable \(most often: moov atom not found"
    with pytest.raises(TcaError, match=words):
        labelled_rows(store)
    store.status[:] = Status.NOT_EXTRACTED
    with pytest.raises(TcaError, match="no row has been extracted"):
        labelled_rows(store)
