"""Rows of several views: how they lie in a store, their labels, and what their features are."""

import json
from pathlib import Path

import numpy as np
import pytest

from tca.errors import TcaError, UsageError
from tca.extract.annotations import Annotations, Video
from tca.extract.config import DataConfig, EvenViewsConfig, RandomViewsConfig, ViewsConfig
from tca.extract.rows import Rows
from tca.extract.views import WHOLE, even_views, random_view

CLASSES = ["still", "to the left", "to the right"]
THREE = ViewsConfig(
    train=RandomViewsConfig(count=3, flip=True, seed=5), test=EvenViewsConfig(crops=3, offsets=2)
)


def annotations(split: str = "train", count: int = 40, reverse: bool = False) -> Annotations:
    """Labels are unknown, still, left, right, unknown, …; every fifth video is missing."""
    videos = [
        Video(f"v{n}", n % 4 - 1, None if n % 5 == 4 else Path(f"{n}.webm")) for n in range(count)
    ]
    return Annotations(split, CLASSES, videos[::-1] if reverse else videos, {})


@pytest.fixture
def mirrors(tmp_path: Path) -> DataConfig:
    pair = {"to the left": "to the right", "to the right": "to the left"}
    (tmp_path / "flip.json").write_text(json.dumps({"left/right": pair}))
    return DataConfig(flip=tmp_path / "flip.json")


def test_views_of_a_video_are_neighbours_and_a_flip_swaps_their_label(mirrors: DataConfig) -> None:
    rows = Rows.of(annotations(), mirrors, THREE)
    assert len(rows.table) == len(rows.files) == len(rows.views) == 120
    assert rows.table.ids == [f"v{n}" for n in range(40) for _ in range(3)]
    assert rows.table.video.tolist() == [n for n in range(40) for _ in range(3)]
    assert rows.table.view.tolist() == [0, 1, 2] * 40
    assert (rows.table.label.dtype, rows.table.video.dtype) == (np.int32, np.int32)
    assert rows.table.view.dtype == np.uint8
    mirrored = {-1: -1, 0: 0, 1: 2, 2: 1}
    flips = 0
    for row, label in enumerate(rows.table.label.tolist()):
        view, own = rows.views[row], row // 3 % 4 - 1
        assert view == random_view(THREE.train, f"v{row // 3}", row % 3)
        assert label == (mirrored[own] if view.flip else own)
        assert rows.files[row] == annotations().videos[row // 3].path
        flips += view.flip
    assert all(rows.views[row] == WHOLE for row in range(0, 120, 3))
    assert 25 <= flips <= 55
    assert rows.identity == {
        "count": 3,
        "scale": [0.5, 1.0],
        "aspect": [0.75, 1.3333],
        "flip": [[1, 2]],
        "seed": 5,
    }


def test_the_order_of_the_annotations_changes_no_view(mirrors: DataConfig) -> None:
    one = Rows.of(annotations(), mirrors, THREE)
    other = Rows.of(annotations(reverse=True), mirrors, THREE)
    for video in range(40):
        for view in range(3):
            ours, theirs = 3 * video + view, 3 * (39 - video) + view
            assert one.views[ours] == other.views[theirs]
            assert one.table.label[ours] == other.table.label[theirs]
            assert one.table.ids[ours] == other.table.ids[theirs]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_have_even_views_and_are_never_mirrored(
    split: str, mirrors: DataConfig
) -> None:
    rows = Rows.of(annotations(split), mirrors, THREE)
    expected = even_views(THREE.test)
    assert len(rows.views) == 240
    assert rows.views[6:18] == 2 * expected
    assert list(rows.views) == 40 * expected
    assert rows.table.label.tolist() == [n % 4 - 1 for n in range(40) for _ in range(6)]
    assert rows.identity == {"crops": ["whole", "start", "end"], "offsets": [-0.25, 0.25]}


def test_one_view_is_the_plain_one_whatever_the_split() -> None:
    plain = [{"crop": "whole", "offset": 0.0, "flip": False}]
    for split in ("train", "validation"):
        rows = Rows.of(annotations(split), DataConfig(), ViewsConfig())
        assert rows.identity == plain
        assert list(rows.views) == [WHOLE] * 40


def test_flips_need_a_sound_table(mirrors: DataConfig) -> None:
    with pytest.raises(UsageError, match=r"name SSv2's flip\.json .* as data\.flip, or set"):
        Rows.of(annotations(), DataConfig(), THREE)
    mirrors.flip.write_text(json.dumps({"left/right": {"to the left": "up"}}))
    with pytest.raises(TcaError, match="'up', which is not in the class list"):
        Rows.of(annotations(), mirrors, THREE)
    # No split but train is mirrored, so no table is asked for.
    assert len(Rows.of(annotations("test"), DataConfig(), THREE).views) == 240
