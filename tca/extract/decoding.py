"""From a video file to its 16 sampled frames, whatever the file claims about itself.

Headers lie about frame counts and WebM holds none, so frames are counted by decoding. Colour
conversion, a fifth of the work, is done for the sampled frames alone: decoded frames are held until
the count is known, and where they would take too much memory the video is decoded a second time
instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from tca.cache.layout import Status
from tca.extract.pictures import Picture, turned, upright
from tca.extract.sampling import Indices, frame_indices
from tca.extract.truncation import missing_bytes
from tca.extract.video_error import VideoError

HELD_BYTES = 256 * 2**20
"""Decoded frames of one video that are held in memory; a longer video is decoded twice."""


@dataclass(frozen=True)
class Limits:
    """What a video may not exceed; see `ExtractConfig`.

    Attributes:
        frames: frames of the whole video.
        pixels: pixels of one frame.
    """

    frames: int
    pixels: int


@dataclass(frozen=True)
class Sample:
    """Decoded frames of a video.

    Attributes:
        frames: by number in order of presentation, all that were asked for; of PyAV, not converted
            to RGB yet.
        indices: (16,) each, the frames of every offset that was asked for.
        count: N, the frames that the decoder delivered.
        broken: why the video ended early, None if it did not.
        pixel_aspect: width of a pixel over its height, as shown.
    """

    frames: Mapping[int, av.VideoFrame | Picture]
    indices: list[Indices]
    count: int
    broken: str | None
    pixel_aspect: float


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
    found = sample(path, [offset], min_frames=min_frames)
    reformatter = VideoReformatter()
    pictures = {number: upright(frame, reformatter) for number, frame in found.frames.items()}
    return Clip(
        frames=[pictures[number] for number in found.indices[0].tolist()],
        pixel_aspect=found.pixel_aspect,
        count=found.count,
        broken=found.broken,
    )


def sample(
    path: Path, offsets: Sequence[float], *, min_frames: int, limits: Limits | None = None
) -> Sample:
    """Decode a video once and return the frames of all `offsets`.

    Args:
        path: any file that FFmpeg reads; its name is not trusted.
        offsets: temporal offsets of the views.
        min_frames: a file that breaks off counts if this many frames came before the break.
        limits: None: there are none.

    Raises:
        VideoError: missing, empty, unreadable, no video in it, broken off too early, or over a
            limit.
    """
    with opened(path) as (container, stream):
        if limits is not None:
            require_within(limits, stream.width, stream.height)
        held, count, broken = _decode_all(container, stream, limits)
        aspect = float(stream.sample_aspect_ratio or 1)
    if count == 0 and broken is None:
        raise VideoError(Status.EMPTY, "the video stream has no frame")
    if broken is not None and count < min_frames:
        after = f"after {count} frames, {min_frames} are needed"
        raise VideoError(Status.UNREADABLE, f"it breaks off {after}: {broken}")
    indices = [frame_indices(count, offset) for offset in offsets]
    wanted = sorted({number for numbers in indices for number in numbers.tolist()})
    if held is None:
        with opened(path) as (container, stream), suppress(av.FFmpegError):
            frames = islice(in_order(container, stream), wanted[-1] + 1)
            found = {number: frame for number, frame in enumerate(frames) if number in wanted}
    else:
        found = {number: held[number] for number in wanted}
    if turned(found[wanted[0]]):
        aspect = 1 / aspect
    return Sample(found, indices, count, broken, aspect)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream; the cover of a song is none.

    Raises:
        VideoError: the file cannot be opened or holds no video.
    """
    try:
        if path.stat().st_size == 0 and path.is_file():
            raise VideoError(Status.EMPTY, "the file has 0 bytes")
        # `file:`, or a colon in the name chooses a protocol; the white list, or a playlist in
        # disguise reads from the network.
        container = av.open(
            f"file:{path}",
            metadata_errors="ignore",
            container_options={"protocol_whitelist": "file"},
        )
    except MemoryError:
        raise
    except FileNotFoundError:
        raise VideoError(Status.MISSING, "no such file") from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError(Status.UNREADABLE, error.strerror or str(error)) from None
    with container:
        streams = container.streams.video
        stream = next((s for s in streams if not s.disposition & Disposition.attached_pic), None)
        if stream is None:
            raise VideoError(Status.UNREADABLE, "the file has no video stream")
        # One thread a video: many are decoded at once, and with several a broken video would lose
        # a number of frames that depends on the machine.
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
    container: InputContainer, stream: VideoStream, limits: Limits | None
) -> tuple[list[av.VideoFrame] | None, int, str | None]:
    """Return the frames (None if they take too much memory), their count, why they broke off."""
    held: list[av.VideoFrame] | None = []
    size = count = 0
    try:
        for frame in in_order(container, stream):
            count += 1
            if limits is not None:
                require_within(limits, frame.width, frame.height, count)
            if held is not None:
                held.append(frame)
                size += sum(plane.buffer_size for plane in frame.planes)
                if size > HELD_BYTES:
                    held = None
    except MemoryError:
        # PyAV's is an FFmpegError too; the video breaks off nowhere.
        raise
    except av.FFmpegError as error:
        return held, count, error.strerror or str(error)
    return held, count, None


def require_within(limits: Limits, width: int, height: int, count: int = 0) -> None:
    """Check the size of a frame, and how many there were so far.

    Raises:
        VideoError: one of them is over its limit.
    """
    if width * height > limits.pixels:
        reason = f"its frames of {width}x{height} pixels are over {limits.pixels:,}"
        raise VideoError(Status.UNREADABLE, f"{reason} (extract.max_pixels)")
    if count > limits.frames:
        reason = f"it has more than {limits.frames:,} frames (extract.max_frames)"
        raise VideoError(Status.UNREADABLE, reason)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return how often the display matrix turns the frame by 90 degrees counter-clockwise."""
    return round(frame.rotation / 90)
