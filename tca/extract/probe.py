"""What a video file really holds, found by decoding all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from tca.cache.layout import Status
from tca.extract.decoding import VideoError, in_order, opened, quarter_turns


@dataclass(frozen=True)
class Probe:
    """One decoded file.

    Attributes:
        frames: frames that the decoder delivered.
        reason: why there are no more, or none; empty if the file ends as it should.
        empty: 0 bytes, or a video stream without a frame.
        fps: frames a second as the frames' times have it, else as the header does; None if
            neither says.
        seconds: how long the frames are shown; None if `fps` is.
        width, height: pixels as shown, rotation applied; 0 without a frame.
    """

    frames: int = 0
    reason: str = ""
    empty: bool = False
    fps: float | None = None
    seconds: float | None = None
    width: int = 0
    height: int = 0


def probe(path: Path) -> Probe:
    """Decode a file to its end or to where it breaks off; never raises for what is in it."""
    try:
        with opened(path) as (container, stream):
            return _count(container, stream)
    except VideoError as error:
        return Probe(empty=error.status is Status.EMPTY, reason=error.reason)
    except Exception as error:
        # Whatever else a file brings the decoder to, it must not end the check of all others.
        return Probe(reason=f"{type(error).__name__}: {error}")


def _count(container: InputContainer, stream: VideoStream) -> Probe:
    frames, reason = 0, ""
    first: av.VideoFrame | None = None
    times: list[float] = []

    try:
        for frame in in_order(container, stream):
            frames += 1
            first = first or frame
            if frame.time is not None:
                times.append(frame.time)
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
    if first is None:
        return Probe(empty=not reason, reason=reason or "the video stream has no frame")
    span = max(times) - min(times) if times else 0.0
    fps = (len(times) - 1) / span if span > 0 else float(stream.average_rate or 0)
    turned = quarter_turns(first) % 2
    return Probe(
        frames=frames,
        reason=reason,
        fps=round(fps, 2) if fps else None,
        seconds=round(frames / fps, 2) if fps else None,
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
    )
