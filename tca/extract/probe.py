"""What a video file really holds, found by decoding all of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream


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
        if path.stat().st_size == 0:
            return Probe(empty=True, reason="the file has 0 bytes")
        # `file:`, or a colon in the name chooses a protocol; the white list, or a playlist in
        # disguise reads from the network.
        with av.open(
            f"file:{path}",
            metadata_errors="ignore",
            container_options={"protocol_whitelist": "file"},
        ) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                return Probe(reason="the file has no video stream")
            # One thread a video, since many videos are decoded at once.
            stream.thread_count = 1
            return _count(container, stream)
    except (av.FFmpegError, OSError) as error:
        return Probe(reason=error.strerror or str(error))
    except Exception as error:
        # Whatever else a file brings the decoder to, it must not end the check of all others.
        return Probe(reason=f"{type(error).__name__}: {error}")


def _count(container: InputContainer, stream: VideoStream) -> Probe:
    frames, reason = 0, ""
    first: av.VideoFrame | None = None
    times: list[float] = []

    def see(frame: av.VideoFrame) -> None:
        nonlocal frames, first
        frames += 1
        first = first or frame
        if frame.time is not None:
            times.append(frame.time)

    try:
        for frame in container.decode(stream):
            see(frame)
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
        # The decoder may still hold frames from before the break; extraction uses them, too.
        with suppress(av.FFmpegError):
            for frame in stream.decode(None):
                see(frame)
    if first is None:
        return Probe(empty=not reason, reason=reason or "the video stream has no frame")
    span = max(times) - min(times) if times else 0.0
    fps = (len(times) - 1) / span if span > 0 else float(stream.average_rate or 0)
    turned = round(first.rotation / 90) % 2
    return Probe(
        frames=frames,
        reason=reason,
        fps=round(fps, 2) if fps else None,
        seconds=round(frames / fps, 2) if fps else None,
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
    )
