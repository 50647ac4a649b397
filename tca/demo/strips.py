"""Film strips for the report: the frames of a clip side by side, as one JPEG in a data URI."""

from __future__ import annotations

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tca.extract.decoding import decode

HEIGHT = 80
GAP = 4


def film_strip(video: Path) -> str:
    """Return the 8 frames that the semantic stream sees, in order, as a data URI.

    Raises:
        VideoError: the video cannot be decoded.
    """
    frames = decode(video).frames[::2]
    width = round(HEIGHT * frames[0].shape[1] / frames[0].shape[0])
    small = [
        av.VideoFrame.from_ndarray(frame, format="rgb24")
        .reformat(width=width, height=HEIGHT)
        .to_ndarray(format="rgb24")
        for frame in frames
    ]
    white = np.full((HEIGHT, GAP, 3), 255, dtype=np.uint8)
    parts = [part for frame in small for part in (frame, white)][:-1]
    jpeg = _jpeg(np.concatenate(parts, axis=1))
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _jpeg(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    # The chroma planes of an odd width would be ambiguous.
    picture = np.ascontiguousarray(picture[:, : picture.shape[1] // 2 * 2])
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 12)
    encoder.options = {"qscale": "4"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode()))
