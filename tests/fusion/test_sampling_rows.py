"""Which rows an epoch takes: one view a video, equally many of every class."""

from collections import Counter

import numpy as np
import pytest
from memory_store import moving_dot

from tca.fusion.train.config import SeedConfig, TrainConfig
from tca.fusion.train.sampling import balanced, one_view, rows_of_epochs


def of_views() -> tuple[np.ndarray, np.ndarray]:
    """Return rows of 40 videos with one to four views each, in no order, and their videos."""
    generator = np.random.default_rng(0)
    video = np.repeat(np.arange(40) * 3, np.arange(40) % 4 + 1)
    shuffled = generator.permutation(len(video))
    return shuffled + 1000, video[shuffled]


def test_an_epoch_has_one_view_of_every_video_each_as_often() -> None:
    rows, video = of_views()
    times = Counter()
    epochs = 2000
    for epoch in range(epochs):
        chosen = one_view(rows, video, 7, epoch)
        of_row = dict(zip(rows.tolist(), video.tolist(), strict=True))
        assert [of_row[row] for row in chosen.tolist()] == np.unique(video).tolist()
        times.update(chosen.tolist())
    views = Counter(video.tolist())
    for row, name in zip(rows.tolist(), video.tolist(), strict=True):
        expected = epochs / views[name]
        # Five standard deviations of a binomial count.
        assert abs(times[row] - expected) <= 5 * np.sqrt(expected * (1 - 1 / views[name]))
    again = one_view(rows, video, 7, 3)
    assert np.array_equal(again, one_view(rows, video, 7, 3))
    assert not np.array_equal(again, one_view(rows, video, 8, 3))


def test_every_class_comes_equally_often_and_so_does_each_of_its_rows() -> None:
    label = np.repeat([2, 5, 6, 9], [100, 20, 3, 10])
    rows = np.random.default_rng(0).permutation(133) + 50
    label_of = dict(zip(rows.tolist(), label.tolist(), strict=True))
    seen = Counter()
    favoured = Counter()
    for epoch in range(300):
        drawn = balanced(rows, label, 1, epoch).tolist()
        assert len(drawn) == 133
        counts = Counter(label_of[row] for row in drawn)
        assert sorted(counts.values()) == [33, 33, 33, 34]
        favoured[max(counts, key=counts.__getitem__)] += 1
        times = Counter(drawn)
        for name, size in Counter(label.tolist()).items():
            of_class = [times[row] for row in rows.tolist() if label_of[row] == name]
            assert max(of_class) - min(of_class) <= 1
            assert max(of_class) == -(-counts[name] // size)
        seen.update(drawn)
    assert min(favoured[name] for name in (2, 5, 6, 9)) > 40
    large = [seen[row] for row in rows.tolist() if label_of[row] == 2]
    # Each of 100 rows is among the 33 or 34 of an epoch as often as the others.
    assert max(abs(count - 300 * 33.25 / 100) for count in large) < 5 * np.sqrt(300 * 0.33 * 0.67)


@pytest.mark.parametrize("balance", [False, True])
def test_epochs_are_equally_long_and_only_of_the_rows_given(balance: bool) -> None:
    store = moving_dot(60)
    store.video = np.arange(60, dtype=np.int32) // 4
    # A mirrored view shows another class.
    store.label[3::4] = 3 - store.label[3::4]
    rows = np.setdiff1d(np.arange(60), [0, 1, 2, 3, 17])
    config = TrainConfig(views="one", balanced=balance, seed=SeedConfig(data=5))
    rows_of = rows_of_epochs(store, rows, config)
    backwards = rows_of_epochs(store, rows[::-1], config)
    for epoch in range(50):
        found = rows_of(epoch)
        assert len(found) == 14
        assert np.isin(found, rows).all()
        assert np.array_equal(found, backwards(epoch))
    assert any(not np.array_equal(rows_of(0), rows_of(epoch)) for epoch in (1, 2))
    assert rows_of_epochs(store, rows, TrainConfig()) is None
