"""What a video file really holds, found by decoding all of it; or what its header claims."""

from __future__ import annotations

import hashlib
import math
import statistics
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from awscrt.checksums import crc64nvme

from tca.cache.layout import Status
from tca.extract.decoding import (
    Limits,
    in_order,
    opened,
    quarter_turns,
    require_within,
)
from tca.extract.truncation import missing_bytes
from tca.extract.video_error import VideoError


@dataclass(frozen=True)
class Probe:
    """One file.

    Attributes:
        frames: frames that the decoder delivered; of a header, those that it claims, 0 if none.
        reason: why there are no more, or none; empty if the file ends as it should.
        empty: 0 bytes, or a video stream without a frame.
        fps: frames a second as the frames' times have it, else as the header does; None if
            neither says.
        seconds: how long the frames are shown; None if it is not known.
        width, height: pixels as shown, rotation applied; 0 without a frame.
        codec: FFmpeg's name of the codec, and of the pixel format: `vp9 yuv420p`.
        turned: degrees counter-clockwise that the file says its pictures are to be turned by.
        pixel_aspect: width of a pixel over its height, as shown.
        variable_rate: the times between frames differ by more than rounding.
        changes_size: a later frame has another size than the first.
        pictures: a fingerprint of all decoded pictures, the same for the same stream in another
            container, in hexadecimal digits; empty without a frame.
    """

    frames: int = 0
    reason: str = ""
    empty: bool = False
    fps: float | None = None
    seconds: float | None = None
    width: int = 0
    height: int = 0
    codec: str = ""
    turned: int = 0
    pixel_aspect: float = 1.0
    variable_rate: bool = False
    changes_size: bool = False
    pictures: str = ""


def probe(path: Path, limits: Limits | None) -> Probe:
    """Decode a file to its end or to where it breaks off; never raises for what is in it.

    Args:
        path: the file.
        limits: on the video; None: decode nothing and believe the header.
    """
    try:
        with opened(path) as (container, stream):
            if limits is None:
                return _header(path, container, stream)
            require_within(limits, stream.width, stream.height)
            return _count(container, stream, limits)
    except VideoError as error:
        return Probe(empty=error.status is Status.EMPTY, reason=error.reason)
    except Exception as error:
        # Whatever else a file brings the decoder to, it must not end the check of all others.
        return Probe(reason=f"{type(error).__name__}: {error}")


def _header(path: Path, container: InputContainer, stream: VideoStream) -> Probe:
    missing = missing_bytes(path)
    seconds = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    fps = float(stream.average_rate or 0)
    return Probe(
        frames=stream.frames,
        reason=f"the file ends {missing} bytes early" if missing else "",
        fps=round(fps, 2) if fps else None,
        seconds=round(seconds, 2) if seconds else None,
        width=stream.width,
        height=stream.height,
        codec=_codec(stream),
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
    )


def _count(container: InputContainer, stream: VideoStream, limits: Limits) -> Probe:
    frames, reason = 0, ""
    first: av.VideoFrame | None = None
    changes_size = False
    times: list[float] = []
    # The sum of a frame costs a fortieth of a cryptographic one, and is of 64 bits: the sha256 of
    # all of them is as telling for videos that nobody made to collide.
    pictures = hashlib.sha256()

    try:
        for frame in in_order(container, stream):
            frames += 1
            require_within(limits, frame.width, frame.height, frames)
            first = first or frame
            changes_size |= (frame.width, frame.height) != (first.width, first.height)
            # The frames flushed after a break have no number for a time.
            if frame.time is not None and math.isfinite(frame.time):
                times.append(frame.time)
            pictures.update(struct.pack("<IIQ", frame.width, frame.height, _picture_sum(frame)))
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
    if first is None:
        return Probe(empty=not reason, reason=reason or "the video stream has no frame")
    span = max(times) - min(times) if times else 0.0
    fps = (len(times) - 1) / span if span > 0 else float(stream.average_rate or 0)
    turns = quarter_turns(first)
    aspect = float(stream.sample_aspect_ratio or 1)
    return Probe(
        frames=frames,
        reason=reason,
        fps=round(fps, 2) if fps else None,
        seconds=round(frames / fps, 2) if fps else None,
        width=first.height if turns % 2 else first.width,
        height=first.width if turns % 2 else first.height,
        codec=_codec(stream),
        turned=turns * 90 % 360,
        pixel_aspect=1 / aspect if turns % 2 else aspect,
        variable_rate=varies(sorted(times), float(first.time_base or 0)),
        changes_size=changes_size,
        pictures=pictures.hexdigest(),
    )


def varies(times: list[float], tick: float) -> bool:
    """Return whether the times of frames are further from even than rounding explains.

    Args:
        times: seconds, ascending (packed AVI gives frames in order with times that are not).
        tick: seconds that times are rounded to. One tick is forgiven, unless it is a frame.
    """
    gaps = [later - earlier for earlier, later in pairwise(times)]
    if not gaps:
        return False
    usual = statistics.median(gaps)
    rounding = 1.01 * tick if tick < usual / 2 else 0.0
    return max(gaps) - min(gaps) > max(0.1 * usual, rounding)


def _codec(stream: VideoStream) -> str:
    context = stream.codec_context
    return " ".join(name for name in (context.name, context.pix_fmt) if name)


def _picture_sum(frame: av.VideoFrame) -> int:
    try:
        pixels = frame.to_ndarray()
    except (ValueError, AssertionError):
        # PyAV knows no array of this format, or none of this size.
        pixels = frame.to_ndarray(format="rgb24")
    return int(crc64nvme(np.ascontiguousarray(pixels)))
