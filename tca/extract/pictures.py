"""From a decoded frame to an upright RGB picture."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from tca.cache.layout import Status
from tca.extract.video_error import VideoError

Picture = np.ndarray[Any, np.dtype[np.uint8]]

NOT_TURNED = np.array([[1, 0], [0, 1]])


def upright(frame: av.VideoFrame | Picture, reformatter: VideoReformatter) -> Picture:
    """Return the frame in RGB, turned and mirrored as its file says.

    Args:
        frame: as PyAV delivered it, of any size and pixel format; what is a picture stays it.
        reformatter: shared by the frames of a video, so that its tables are made once.

    Returns:
        (H, W, 3) uint8, contiguous.

    Raises:
        VideoError: the pixel format cannot be read.
    """
    if isinstance(frame, np.ndarray):
        return frame
    try:
        # One thread: PyAV would start one a core for every frame, and the pool keeps all busy.
        rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(Status.UNREADABLE, f"its colours cannot be read ({error})") from None
    (a, b), (c, d) = display_matrix(frame)
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb = rgb.transpose(1, 0, 2)
        a, d = c, b
    rgb = rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(rgb)


def turned(frame: av.VideoFrame) -> bool:
    """Return whether width and height change places in the upright picture."""
    (a, b), (c, d) = display_matrix(frame)
    return bool(abs(b) + abs(c) > abs(a) + abs(d))


def mirrored(frame: av.VideoFrame) -> bool:
    """Return whether the upright picture is a mirror image of the frame."""
    (a, b), (c, d) = display_matrix(frame)
    return bool(a * d < b * c)


def display_matrix(frame: av.VideoFrame) -> np.ndarray[Any, np.dtype[Any]]:
    """Return ((a, b), (c, d)): pixel (x, y) of the frame is shown at (ax + cy, bx + dy)."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return NOT_TURNED
    return np.frombuffer(data, "i4").reshape(3, 3)[:2, :2].astype(np.int64)
