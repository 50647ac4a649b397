"""From a video file to its 16 sampled frames, whatever the file claims about itself.

Headers lie about frame counts and WebM holds none, so frames are counted by decoding. Colour
conversion, as dear as decoding itself, is done for the sampled frames alone: decoded frames are
held until the count is known, and where they would take too much memory the video is decoded a
second time instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from tca.cache.layout import Status
from tca.extract.sampling import frame_indices
from tca.extract.truncation import missing_bytes

HELD_BYTES = 256 * 2**20
"""Decoded frames of one video that are held in memory; a longer video is decoded twice."""

Picture = np.ndarray[Any, np.dtype[np.uint8]]


class VideoError(Exception):
    """A video that gives no features: its row gets `status`, the report `reason`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Clip:
    """What is left of a video after sampling.

    Attributes:
        frames: 16 RGB pictures (H, W, 3), rotation applied; repeats are the same array.
        pixel_aspect: width of a pixel over its height, as shown.
        count: N, the frames that the decoder delivered.
        broken: why the video ended early, None if it did not.
    """

    frames: list[Picture]
    pixel_aspect: float
    count: int
    broken: str | None


def decode(path: Path, *, min_frames: int = 8, offset: float = 0.0) -> Clip:
    """Decode a video and return its sampled frames, see `frame_indices`.

    Args:
        path: any file that FFmpeg reads; its name is not trusted.
        min_frames: a file that breaks off counts if this many frames came before the break.
        offset: temporal offset of the view.

    Raises:
        VideoError: missing, empty, unreadable, no video in it, or broken off too early.
    """
    with opened(path) as (container, stream):
        held, count, broken = _decode_all(container, stream)
        aspect = float(stream.sample_aspect_ratio or 1)
    if count == 0 and broken is None:
        raise VideoError(Status.EMPTY, "the video stream has no frame")
    if broken is not None and count < min_frames:
        after = f"after {count} frames, {min_frames} are needed"
        raise VideoError(Status.UNREADABLE, f"it breaks off {after}: {broken}")
    wanted = frame_indices(count, offset)
    if held is None:
        with opened(path) as (container, stream), suppress(av.FFmpegError):
            frames = islice(in_order(container, stream), int(wanted[-1]) + 1)
            found = {number: frame for number, frame in enumerate(frames) if number in wanted}
    else:
        found = {number: held[number] for number in set(wanted.tolist())}
    pictures = {number: _picture(frame) for number, frame in found.items()}
    turned = quarter_turns(found[int(wanted[0])]) % 2
    return Clip(
        frames=[pictures[number] for number in wanted.tolist()],
        pixel_aspect=1 / aspect if turned else aspect,
        count=count,
        broken=broken,
    )


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream.

    Raises:
        VideoError: the file cannot be opened or holds no video.
    """
    try:
        if path.stat().st_size == 0:
            raise VideoError(Status.EMPTY, "the file has 0 bytes")
        # `file:`, or a colon in the name chooses a protocol; the white list, or a playlist in
        # disguise reads from the network.
        container = av.open(
            f"file:{path}",
            metadata_errors="ignore",
            container_options={"protocol_whitelist": "file"},
        )
    except FileNotFoundError:
        raise VideoError(Status.MISSING, "no such file") from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError(Status.UNREADABLE, error.strerror or str(error)) from None
    with container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise VideoError(Status.UNREADABLE, "the file has no video stream")
        # One thread a video: the pool decodes many at once, and with several a broken video would
        # lose a number of frames that depends on the machine.
        stream.thread_count = 1
        yield container, stream


def in_order(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield every frame in order of presentation.

    Raises:
        av.FFmpegError: the video breaks off; what the decoder still held was yielded before.
    """
    try:
        yield from container.decode(stream)
    except av.FFmpegError:
        with suppress(av.FFmpegError):
            yield from stream.decode(None)
        raise
    missing = missing_bytes(Path(container.name.removeprefix("file:")))
    if missing:
        raise av.error.EOFError(0, f"the file ends {missing} bytes early")


def _decode_all(
    container: InputContainer, stream: VideoStream
) -> tuple[list[av.VideoFrame] | None, int, str | None]:
    """Return the frames (None if they take too much memory), their count, why they broke off."""
    held: list[av.VideoFrame] | None = []
    size = count = 0
    try:
        for frame in in_order(container, stream):
            count += 1
            if held is not None:
                held.append(frame)
                size += sum(plane.buffer_size for plane in frame.planes)
                if size > HELD_BYTES:
                    held = None
    except av.FFmpegError as error:
        return held, count, error.strerror or str(error)
    return held, count, None


def _picture(frame: av.VideoFrame) -> Picture:
    """Return RGB (H, W, 3) the right way up."""
    try:
        rgb = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(Status.UNREADABLE, f"its colours cannot be read ({error})") from None
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns(frame)), dtype=np.uint8)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return how often the display matrix turns the frame by 90 degrees counter-clockwise."""
    return round(frame.rotation / 90)
