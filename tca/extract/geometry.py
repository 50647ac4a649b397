"""From pictures of any size to the squares that the backbones see, as uint8.

Squares are made where the video was decoded, by the decoding process: resizing uint8 costs a sixth
of resizing float32 on a CPU, and 1.8 MB a video cross the bus instead of up to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tca.extract.pictures import Picture
from tca.extract.views import WHOLE, Crop, View, pixels

Geometry = Literal["full", "centre"]


def squares(
    pictures: Sequence[Picture],
    size: int,
    geometry: Geometry,
    pixel_aspect: float = 1.0,
    view: View = WHOLE,
) -> Tensor:
    """Cut a view out of pictures and resize it to squares, bilinear, antialiased.

    Args:
        pictures: (H, W, 3) uint8 each; sizes may differ.
        size: side of the squares in pixels.
        geometry: of what the view cuts out, "full" takes all; "centre" brings the short side to
            `size` and cuts the centre.
        pixel_aspect: width of a pixel over its height, as shown.
        view: its crop is cut out before resizing, its flip done after; its offset is not looked at.

    Returns:
        (len(pictures), 3, size, size) uint8, the channels innermost in memory.
    """
    cut = [_cut(picture, view.crop, pixel_aspect) for picture in pictures]
    if len({picture.shape for picture in cut}) == 1:
        made = _resized(np.stack(cut), size, geometry, pixel_aspect)
    else:
        made = torch.cat([_resized(p[None], size, geometry, pixel_aspect) for p in cut])
    return made.flip(-1) if view.flip else made


def _cut(picture: Picture, crop: Crop, pixel_aspect: float) -> Picture:
    height, width = picture.shape[:2]
    top, left, bottom, right = pixels(crop, height, width, pixel_aspect)
    return picture[top:bottom, left:right]


def _resized(pictures: Picture, size: int, geometry: Geometry, pixel_aspect: float) -> Tensor:
    height, width = pictures.shape[1:3]
    rows, columns = size, size
    if geometry == "centre":
        shown = width * pixel_aspect
        scale = size / min(height, shown)
        rows, columns = max(size, round(height * scale)), max(size, round(shown * scale))
    # (B, 3, H, W) with the channels innermost in memory, which the uint8 kernel is made for.
    frames = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    if (height, width) != (rows, columns):
        frames = F.interpolate(frames, (rows, columns), mode="bilinear", antialias=True)
    top, left = (rows - size) // 2, (columns - size) // 2
    return frames[:, :, top : top + size, left : left + size]
