"""Which views a video gets, and where on its frames each of them looks.

A random view is a function of the seed, the video's id and the view's number alone, so that it is
the same whichever process makes it and however the annotations are ordered. What the random numbers
are drawn from is a hash: numpy's generators may change from one version to the next.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tca.extract.config import EvenViewsConfig, RandomViewsConfig

Box = tuple[float, float, float, float]
Crop = Box | Literal["start", "end"] | None


@dataclass(frozen=True)
class View:
    """One look at a video.

    Attributes:
        crop: (x0, y0, x1, y1) as shares of the upright frame; "start" or "end": the square at the
            left or right end of it (above or below where it is higher than wide); None: all of it.
            The geometry is applied to what is cut out.
        offset: temporal offset in [-0.5, 0.5), see `frame_indices`.
        flip: mirrored, left for right, after the crop.
    """

    crop: Crop = None
    offset: float = 0.0
    flip: bool = False


WHOLE = View()
"""The plain view: the whole frame, no offset, no flip."""


def random_view(config: RandomViewsConfig, video: str, number: int) -> View:
    """Return one view of a training video; number 0 is the plain one.

    Args:
        config: bounds of the crops, whether flips are drawn, and the seed.
        video: the video's id.
        number: the view's.
    """
    if number == 0:
        return WHOLE
    area, shape, x, y, time, mirror = _uniform(f"{config.seed} {number} {video}", 6)
    smallest, largest = config.scale
    share = smallest + area * (largest - smallest)
    # A crop of this share fits into the frame if its shape, width over height in units of the
    # frame, lies between `share` and 1 / `share`.
    narrow, wide = (min(max(ratio, share), 1 / share) for ratio in config.aspect)
    ratio = narrow * (wide / narrow) ** shape
    width, height = min(1.0, math.sqrt(share * ratio)), min(1.0, math.sqrt(share / ratio))
    x0, y0 = x * (1 - width), y * (1 - height)
    return View((x0, y0, x0 + width, y0 + height), time - 0.5, config.flip and mirror < 0.5)


def even_views(config: EvenViewsConfig) -> list[View]:
    """Return the views of every validation and test video, the plainest first.

    Three crops are the whole frame and the squares at both ends of it; offsets are spread evenly.
    """
    crops: Sequence[Crop] = (None,) if config.crops == 1 else (None, "start", "end")
    spread = [(place + 0.5) / config.offsets - 0.5 for place in range(config.offsets)]
    offsets = sorted(spread, key=lambda offset: (abs(offset), offset))
    return [View(crop, offset) for offset in offsets for crop in crops]


def pixels(crop: Crop, height: int, width: int, pixel_aspect: float) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) of a crop in whole pixels, at least one each way.

    Args:
        crop: of a view.
        height: of the upright frame, in pixels.
        width: the same.
        pixel_aspect: width of a pixel over its height, as shown.
    """
    x0, y0, x1, y1 = _shares(crop, height / (width * pixel_aspect))
    left, top = min(round(x0 * width), width - 1), min(round(y0 * height), height - 1)
    return top, left, max(top + 1, round(y1 * height)), max(left + 1, round(x1 * width))


def _shares(crop: Crop, aspect: float) -> Box:
    """Return a crop as shares of a frame whose height over width, as shown, is `aspect`."""
    if crop is None:
        return 0.0, 0.0, 1.0, 1.0
    if isinstance(crop, tuple):
        return crop
    across, down = min(1.0, aspect), min(1.0, 1 / aspect)
    return (0.0, 0.0, across, down) if crop == "start" else (1 - across, 1 - down, 1.0, 1.0)


def _uniform(text: str, count: int) -> list[float]:
    """Return `count` numbers in [0, 1) that depend on `text` alone."""
    digest = hashlib.shake_256(text.encode(errors="surrogatepass")).digest(8 * count)
    words = (int.from_bytes(digest[8 * i : 8 * i + 8], "big") for i in range(count))
    return [(word >> 11) / 2**53 for word in words]
