import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tca.extract.geometry import squares


def pictures(count: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth pictures with some texture, as frames are."""
    generator = np.random.default_rng(height * width)
    coarse = generator.integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return [np.array(Image.fromarray(p).resize((width, height), Image.BICUBIC)) for p in coarse]


@pytest.mark.parametrize("shape", [(240, 427), (427, 240), (100, 60), (30, 40)])
@pytest.mark.parametrize("size", [224, 112])
def test_full_equals_torchvision_and_pillow_to_one_level(shape: tuple[int, int], size: int) -> None:
    given = pictures(2, *shape)
    ours = squares(given, size, "full").numpy().astype(int)
    for picture, square in zip(given, ours, strict=True):
        theirs = v2.functional.resize(
            torch.from_numpy(picture).permute(2, 0, 1).float(), [size, size], antialias=True
        )
        assert np.abs(square - theirs.numpy()).max() <= 1.001
        pillow = np.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR))
        assert np.abs(square - pillow.transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("shape", [(240, 427), (427, 240), (90, 91), (30, 200)])
def test_centre_equals_torchvisions_resize_and_centre_crop(shape: tuple[int, int]) -> None:
    (picture,) = pictures(1, *shape)
    frame = torch.from_numpy(picture).permute(2, 0, 1).float()
    ratio = max(shape) / min(shape)
    long = round(112 * ratio)
    target = [112, long] if shape[0] <= shape[1] else [long, 112]
    resized = v2.functional.resize(frame, target, antialias=True)
    top, left = (target[0] - 112) // 2, (target[1] - 112) // 2
    theirs = resized[:, top : top + 112, left : left + 112]
    ours = squares([picture], 112, "centre")[0]
    assert (ours.float() - theirs).abs().max() <= 1.001


def test_pixels_that_are_not_square_change_the_centre_cut_and_not_the_whole_frame() -> None:
    (picture,) = pictures(1, 120, 120)
    assert torch.equal(squares([picture], 56, "full", 2.0), squares([picture], 56, "full"))
    stretched = np.repeat(picture, 2, axis=1)
    wide = squares([picture], 56, "centre", 2.0)[0].float()
    assert (wide - squares([stretched], 56, "centre")[0].float()).abs().mean() < 2
    assert (wide - squares([picture], 56, "centre")[0].float()).abs().mean() > 5


def test_pictures_of_different_sizes_and_of_the_right_size_already() -> None:
    small, large = pictures(1, 60, 80)[0], pictures(1, 120, 160)[0]
    mixed = squares([small, large, small], 32, "full")
    assert mixed.shape == (3, 3, 32, 32)
    assert torch.equal(mixed[0], mixed[2])
    assert torch.equal(mixed[1], squares([large], 32, "full")[0])
    ready = pictures(1, 32, 32)[0]
    assert torch.equal(squares([ready], 32, "full")[0], torch.from_numpy(ready).permute(2, 0, 1))
