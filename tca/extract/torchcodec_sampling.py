"""The same frames by torchcodec, which can decode on a GPU; and by PyAV where it would not agree.

torchcodec finds frames by their times: in AVI, MPEG and raw streams it takes others than those at
the asked numbers. It does not mirror, and of a broken video it gives no frames. Such files are
PyAV's. All frames are decoded, those not asked for too, or a break between them would go unseen.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import torch

from tca.errors import UsageError
from tca.extract.decoding import Limits, Sample, in_order, opened, require_within, sample
from tca.extract.pictures import Picture, mirrored, turned
from tca.extract.sampling import Indices, frame_indices
from tca.extract.truncation import missing_bytes

TOGETHER = 32
"""Frames that are decoded by one call."""

TRUSTED = {"matroska", "mov"}
"""Demuxers of FFmpeg whose times are as good as numbers."""


def torchcodec_device(decoder: str, device: torch.device) -> str | None:
    """Return the torch device on which torchcodec decodes; None if PyAV does.

    Args:
        decoder: pyav, torchcodec or torchcodec-cuda.
        device: of the backbones.

    Raises:
        UsageError: torchcodec is not installed, finds no FFmpeg, or there is no GPU.
    """
    if decoder == "pyav":
        return None
    try:
        video_decoder()
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(
            f"extract.decoder={decoder} needs torchcodec and the libraries of FFmpeg ({reason}); "
            "install 'tca[torchcodec]' and your system's ffmpeg, or choose pyav."
        ) from None
    if decoder == "torchcodec":
        return "cpu"
    if device.type != "cuda":
        raise UsageError(
            f"extract.decoder={decoder} decodes on the GPU of the backbones, and they run on the "
            f"{device.type.upper()}; choose torchcodec or pyav."
        )
    return str(device)


def sample_by_torchcodec(
    path: Path, offsets: Sequence[float], *, min_frames: int, limits: Limits, device: str
) -> Sample:
    """Decode a video once and return the frames of all `offsets`, as `sample` does.

    Args:
        path: any file that FFmpeg reads; its name is not trusted.
        offsets: temporal offsets of the views.
        min_frames: a file that breaks off counts if this many frames came before the break.
        limits: on the video.
        device: torch device that decodes.

    Raises:
        VideoError: as `sample`.
    """
    with opened(path) as (container, stream):
        require_within(limits, stream.width, stream.height)
        index, aspect = stream.index, float(stream.sample_aspect_ratio or 1)
        trusted = not TRUSTED.isdisjoint(container.format.name.split(","))
        first = None
        # Of one that breaks off before its first frame PyAV tells how.
        with suppress(av.FFmpegError):
            first = next(in_order(container, stream), None) if trusted else None
    if first is not None and not missing_bytes(path) and not mirrored(first):
        try:
            indices, frames, count = _decoded(path, index, offsets, limits, device)
        except RuntimeError:
            # PyAV says where it breaks off, and has the frames before.
            pass
        else:
            aspect = 1 / aspect if turned(first) else aspect
            return Sample(frames, indices, count, None, aspect)
    return sample(path, offsets, min_frames=min_frames, limits=limits)


def _decoded(
    path: Path, index: int, offsets: Sequence[float], limits: Limits, device: str
) -> tuple[list[Indices], dict[int, Picture], int]:
    video = video_decoder()(
        str(path), stream_index=index, dimension_order="NHWC", device=device, seek_mode="exact"
    )
    count, shape = len(video), (video.metadata.width or 0, video.metadata.height or 0)
    require_within(limits, *shape, count)
    indices = [frame_indices(count, offset) for offset in offsets]
    wanted = sorted({number for numbers in indices for number in numbers.tolist()})
    pictures: dict[int, Picture] = {}
    for start in range(0, count, TOGETHER):
        frames = video.get_frames_in_range(start, min(start + TOGETHER, count)).data
        for number in wanted:
            if start <= number < start + TOGETHER:
                pictures[number] = frames[number - start].cpu().numpy()
    return indices, pictures, count


def video_decoder() -> Any:
    """Import torchcodec's `VideoDecoder`: an extra, which looks for FFmpeg's libraries then."""
    return importlib.import_module("torchcodec.decoders").VideoDecoder
