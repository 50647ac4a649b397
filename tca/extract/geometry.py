"""From pictures of any size to the squares that the backbones see, as uint8.

Squares are made where the video was decoded, by the decoding thread: resizing uint8 costs a sixth
of resizing float32 on a CPU, and 1.8 MB a video cross the bus instead of up to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tca.extract.decoding import Picture

Geometry = Literal["full", "centre"]


def squares(
    pictures: Sequence[Picture], size: int, geometry: Geometry, pixel_aspect: float = 1.0
) -> Tensor:
    """Resize pictures to squares, bilinear, antialiased.

    Args:
        pictures: (H, W, 3) uint8 each; sizes may differ.
        size: side of the squares in pixels.
        geometry: "full" takes the whole picture and cuts nothing; "centre" brings the short side
            to `size` and cuts the centre.
        pixel_aspect: width of a pixel over its height, as shown.

    Returns:
        (len(pictures), 3, size, size) uint8.
    """
    if len({picture.shape for picture in pictures}) == 1:
        return _resized(np.stack(pictures), size, geometry, pixel_aspect)
    return torch.cat([_resized(p[None], size, geometry, pixel_aspect) for p in pictures])


def _resized(pictures: Picture, size: int, geometry: Geometry, pixel_aspect: float) -> Tensor:
    height, width = pictures.shape[1:3]
    rows, columns = size, size
    if geometry == "centre":
        shown = width * pixel_aspect
        scale = size / min(height, shown)
        rows, columns = max(size, round(height * scale)), max(size, round(shown * scale))
    # (B, 3, H, W) with the channels innermost in memory, which the uint8 kernel is made for.
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    if (height, width) != (rows, columns):
        frames = F.interpolate(frames, (rows, columns), mode="bilinear", antialias=True)
    top, left = (rows - size) // 2, (columns - size) // 2
    return frames[:, :, top : top + size, left : left + size].contiguous()
