"""What one decoding process does: video after video, each into its places of a shared batch."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from tca.cache.layout import Status
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.confine import MemoryWatch, confine
from tca.extract.decoding import Limits, Sample, sample
from tca.extract.geometry import Geometry, squares
from tca.extract.pictures import Picture, upright
from tca.extract.torchcodec_sampling import sample_by_torchcodec, video_decoder
from tca.extract.video_error import VideoError
from tca.extract.views import View

PICTURE_BYTES = 64 * 2**20
"""RGB pictures of one video that are in memory at once; at least two."""

NICENESS = 10
"""Of decoders that yield: a tenth of the time of whom they compete with, and all that is left."""


@dataclass(frozen=True)
class Settings:
    """How every video is decoded.

    Attributes:
        geometry: see `squares`.
        min_frames: see `sample`.
        limits: on the video.
        megabytes: memory that a decoder may take beyond what it starts with.
        torchcodec: torch device on which torchcodec decodes; None: PyAV decodes.
        yielding: let the networks go first, which run on the same cores.
    """

    geometry: Geometry
    min_frames: int
    limits: Limits
    megabytes: int
    torchcodec: str | None = None
    yielding: bool = False


@dataclass(frozen=True)
class Task:
    """One video and where its views go.

    Attributes:
        path: the file.
        views: (place in the batch, view) each.
        slot: the buffer of the batch.
    """

    path: Path
    views: tuple[tuple[int, View], ...]
    slot: int = 0


Draw = Callable[[Task, BatchBuffers, Settings], None]


def serve(fds: Sequence[int], buffers: BatchBuffers, settings: Settings, draw: Draw) -> None:
    """Do the tasks that come over `fds[0]`, in the memory behind `fds[1]`, until they end."""
    # CUDA asks for more memory than it ever uses.
    megabytes = settings.megabytes if settings.torchcodec in (None, "cpu") else math.inf
    watch = MemoryWatch(megabytes)
    if megabytes < math.inf:
        confine(settings.megabytes)
    torch.set_num_threads(1)
    if settings.yielding:
        # The threads of a network wait for each other, so one that a decoder keeps off its core
        # keeps all of them waiting.
        os.nice(NICENESS)
    if settings.torchcodec is not None:
        # Importing it takes seconds, which are no video's.
        video_decoder()
    buffers = buffers.mapped(fds[1])
    with Connection(fds[0]) as connection, suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            task: Task = connection.recv()
            started = time.process_time()
            watch.begin()
            error = _attempt(task, buffers, settings, draw, watch)
            seconds = time.process_time() - started
            status, reason = (error.status, error.reason) if error else (Status.OK, "")
            # Not pickled: what a hostile video made of this process could run code in its parent.
            connection.send_bytes(json.dumps([seconds, status, reason]).encode())


def draw(task: Task, buffers: BatchBuffers, settings: Settings) -> None:
    """Decode a video once and fill the places of its views.

    Raises:
        VideoError: the video gives no features; its places hold anything.
    """
    found = _sampled(task, settings)
    pictures = _Pictures(found)
    for (place, view), numbers in zip(task.views, found.indices, strict=True):
        frames, clips = buffers.place(task.slot, place)
        shape = settings.geometry, found.pixel_aspect, view
        for start in range(0, len(numbers), pictures.together):
            some = slice(start, start + pictures.together)
            given = pictures.take(numbers[some].tolist())
            clips[some] = squares(given, clips.shape[-1], *shape)
            halves = slice(some.start // 2, some.stop // 2)
            frames[halves] = squares(given[::2], frames.shape[-1], *shape)


def _sampled(task: Task, settings: Settings) -> Sample:
    offsets = [view.offset for _, view in task.views]
    least, limits = settings.min_frames, settings.limits
    if settings.torchcodec is None:
        return sample(task.path, offsets, min_frames=least, limits=limits)
    device = settings.torchcodec
    return sample_by_torchcodec(task.path, offsets, min_frames=least, limits=limits, device=device)


class _Pictures:
    """The RGB pictures of a video, a bounded number of them at once."""

    def __init__(self, found: Sample) -> None:
        self._frames = found.frames
        self._reformatter = VideoReformatter()
        self._made: dict[int, Picture] = {}
        largest = max(map(_rgb_bytes, found.frames.values()))
        # Even, for two sampled frames are a segment.
        self.together = 2 * max(1, PICTURE_BYTES // largest // 2)

    def take(self, numbers: Sequence[int]) -> list[Picture]:
        """Return the pictures of these frames."""
        if len(self._made) + len(numbers) > self.together:
            self._made = {n: made for n, made in self._made.items() if n in numbers}
        for number in numbers:
            if number not in self._made:
                self._made[number] = upright(self._frames[number], self._reformatter)
        return [self._made[number] for number in numbers]


def _rgb_bytes(frame: av.VideoFrame | Picture) -> int:
    return frame.nbytes if isinstance(frame, np.ndarray) else 3 * frame.width * frame.height


def _attempt(
    task: Task, buffers: BatchBuffers, settings: Settings, draw: Draw, watch: MemoryWatch
) -> VideoError | None:
    try:
        try:
            draw(task, buffers, settings)
        finally:
            watch.check()
    except VideoError as error:
        return error
    except Exception as error:
        # Whatever else a file brings the decoder to belongs to the video, not to the run.
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            reason = f"decoding it takes over {settings.megabytes:,} MB (extract.max_megabytes)"
        else:
            reason = f"{type(error).__name__}: {error}"
        return VideoError(Status.UNREADABLE, reason)
    return None
