from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from tca.extract.config import EvenViewsConfig, RandomViewsConfig
from tca.extract.geometry import squares
from tca.extract.views import WHOLE, View, even_views, pixels, random_view

RANDOM = RandomViewsConfig(count=3, scale=(0.3, 0.9), aspect=(0.5, 1.6), flip=True, seed=7)


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture with some texture, as frames are."""
    generator = np.random.default_rng(height * width)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float()


def test_random_views_stay_inside_their_bounds_and_fill_them() -> None:
    views = [random_view(RANDOM, f"video {n}", 1 + n % 2) for n in range(4000)]
    boxes = np.array([view.crop for view in views])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, shape = width * height, width / height
    assert 0.3 - 1e-9 <= share.min() < 0.31
    assert 0.89 < share.max() <= 0.9 + 1e-9
    assert np.histogram(share, 6, (0.3, 0.9))[0] == pytest.approx(4000 / 6, rel=0.15)
    assert 0.5 - 1e-9 <= shape.min() < 0.52
    assert 1.55 < shape.max() <= 1.6 + 1e-9
    # Crops lie anywhere: both ends of the room that each leaves are reached.
    for low, size in ((boxes[:, 0], width), (boxes[:, 1], height)):
        room = 1 - size
        place = low[room > 0.01] / room[room > 0.01]
        assert np.histogram(place, 5, (0, 1))[0] == pytest.approx(len(place) / 5, rel=0.15)
    offsets = np.array([view.offset for view in views])
    assert np.histogram(offsets, 5, (-0.5, 0.5))[0] == pytest.approx(4000 / 5, rel=0.15)
    assert offsets.min() >= -0.5
    assert offsets.max() < 0.5
    assert np.mean([view.flip for view in views]) == pytest.approx(0.5, abs=0.03)


def test_a_random_view_depends_on_seed_video_and_number_alone() -> None:
    assert random_view(RANDOM, "動画", 0) == WHOLE
    made = {
        random_view(RANDOM.model_copy(update={"seed": seed}), video, number)
        for seed in (0, 1)
        for video in ("1", "11", "動画")
        for number in (1, 2, 11)
    }
    assert len(made) == 18
    # Written down: a store that a later version continues must get the same views from it.
    view = random_view(RANDOM, "74225", 3)
    crop = (0.1281735375017663, 0.17667882135438048, 0.6175399606946735, 0.8610826366746283)
    assert view.crop == pytest.approx(crop, abs=1e-12)
    assert view.offset == pytest.approx(-0.0179742635269, abs=1e-12)
    assert view.flip
    unflipped = RANDOM.model_copy(update={"flip": False})
    assert random_view(unflipped, "74225", 3) == View(view.crop, view.offset, False)


def test_a_crop_of_nearly_all_takes_the_frames_shape() -> None:
    config = RandomViewsConfig(count=2, scale=(1.0, 1.0), aspect=(0.5, 2.0))
    assert random_view(config, "a", 1).crop == (0.0, 0.0, 1.0, 1.0)
    wide = RandomViewsConfig(count=2, scale=(0.8, 0.8), aspect=(5.0, 9.0))
    x0, y0, x1, y1 = random_view(wide, "a", 1).crop
    assert (x1 - x0, y1 - y0) == (pytest.approx(1.0), pytest.approx(0.8))


@pytest.mark.parametrize(
    ("crops", "offsets", "expected"),
    [
        (1, 1, [WHOLE]),
        (3, 1, [WHOLE, View("start"), View("end")]),
        (1, 2, [View(offset=-0.25), View(offset=0.25)]),
        (1, 3, [WHOLE, View(offset=-1 / 3), View(offset=1 / 3)]),
    ],
)
def test_even_views(crops: int, offsets: int, expected: list[View]) -> None:
    made = even_views(EvenViewsConfig(crops=crops, offsets=offsets))
    assert [(view.crop, view.flip) for view in made] == [(v.crop, v.flip) for v in expected]
    assert [view.offset for view in made] == pytest.approx([view.offset for view in expected])


def test_every_crop_at_every_offset() -> None:
    made = even_views(EvenViewsConfig(crops=3, offsets=85))
    assert len(set(made)) == 255
    assert all(-0.5 <= view.offset < 0.5 for view in made)
    assert set(Counter(view.crop for view in made).values()) == {85}
    with pytest.raises(ValidationError, match="3 crops x 86 offsets are 258 views"):
        EvenViewsConfig(crops=3, offsets=86)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": (0.9, 0.5)}, "0 < least <= most <= 1"),
        ({"scale": (0.0, 1.0)}, "0 < least"),
        ({"aspect": (2.0, 1.0)}, "0.1 <= least <= most"),
        ({"count": 256}, "less than or equal to 255"),
        ({"count": 1, "flip": True}, "flip needs a count of 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RandomViewsConfig(**({"count": 3} | settings))


@pytest.mark.parametrize("shape", [(240, 427), (427, 240), (100, 60), (31, 43)])
@pytest.mark.parametrize("size", [224, 112])
def test_a_view_is_torchvisions_crop_resized_and_mirrored(
    shape: tuple[int, int], size: int
) -> None:
    frame = picture(*shape)
    for number in range(1, 4):
        view = random_view(RANDOM, str(shape), number)
        top, left, bottom, right = pixels(view.crop, *shape, 1.0)
        found = np.array([left / shape[1], top / shape[0], right / shape[1], bottom / shape[0]])
        assert np.abs(found - view.crop).max() <= 0.51 / min(shape)
        theirs = v2.functional.resized_crop(
            as_tensor(frame), top, left, bottom - top, right - left, [size, size], antialias=True
        )
        if view.flip:
            theirs = v2.functional.horizontal_flip(theirs)
        ours = squares([frame, frame], size, "full", view=view).float()
        assert (ours - theirs.round()).abs().max() <= 1


@pytest.mark.parametrize("geometry", ["full", "centre"])
def test_squares_at_the_ends_are_not_distorted(geometry: str) -> None:
    wide, high = picture(90, 160), picture(160, 90)
    cases = [
        (wide, "start", (0, 0, 90, 90)),
        (wide, "end", (0, 70, 90, 160)),
        (high, "start", (0, 0, 90, 90)),
        (high, "end", (70, 0, 160, 90)),
    ]
    for frame, crop, (top, left, bottom, right) in cases:
        expected = squares([frame[top:bottom, left:right]], 56, "full")
        assert torch.equal(squares([frame], 56, geometry, view=View(crop)), expected)
    # Pixels twice as wide as high: the square is 90 high and 45 wide.
    expected = squares([wide[:, :45]], 56, "full")
    assert torch.equal(squares([wide], 56, geometry, 2.0, View("start")), expected)


def test_the_geometry_is_applied_to_what_is_cut_out() -> None:
    frame, view = picture(240, 427), View((0.25, 0.5, 1.0, 1.0))
    top, left, bottom, right = pixels(view.crop, 240, 427, 1.0)
    inside = frame[top:bottom, left:right]
    assert torch.equal(squares([frame], 112, "centre", view=view), squares([inside], 112, "centre"))
    narrow = View((0.5, 0.5, 0.5, 0.5))
    assert squares([frame], 16, "full", view=narrow).shape == (1, 3, 16, 16)
    assert squares([frame], 16, "centre", view=View((1.0, 1.0, 1.0, 1.0))).shape == (1, 3, 16, 16)
