"""How many videos are mapped at once where nobody says: settled before the first shard is written.

The store keeps it, because kernels and with them the last bits depend on it. On a GPU memory alone
decides, no timing: GPUs of one kind give the same, or parts made on several machines would not go
together.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from tca.cache.writer import StoreWriter
from tca.device import out_of_memory
from tca.errors import TcaError
from tca.extract.backbones.pair import Backbones
from tca.extract.config import FRAMES, SEGMENTS, Stage1Config

ON_CPU = 8
"""Videos at once on a CPU, where 1 to 8 take the same time a video (docs/extract.md)."""

ON_GPU = (4, 8, 16, 32)
"""Videos at once on a GPU: the largest of these for which there is memory."""

ELSEWHERE = 16
"""Videos at once on a GPU that this machine cannot ask, in a Ray cluster."""

SHARE = 0.5
"""Of a GPU's memory that a batch may take: others use it too, and allocators leave holes."""


def settle_batch_size(config: Stage1Config, store: Path, device: str, folder: Path) -> Stage1Config:
    """Return `config` with a number for `extract.batch_size`: as given, as begun, or fitting.

    Args:
        config: the settings of stage 1.
        store: where the store lies, if it is begun.
        device: name of the first worker's device.
        folder: where relative paths of weights start.

    Raises:
        TcaError: the backbones cannot be loaded, or the device fails.
    """
    if config.extract.batch_size:
        return config
    size = _begun_with(store)
    if size is None and device == "cpu":
        size = ON_CPU
    elif size is None and not device.startswith("cuda"):
        size = ELSEWHERE
    elif size is None:
        size = _fitting_elsewhere(config, device, folder)
    extract = config.extract.model_copy(update={"batch_size": size})
    return config.model_copy(update={"extract": extract})


def _begun_with(store: Path) -> int | None:
    if not store.exists():
        return None
    try:
        size = StoreWriter(store).spec.identity.get("batch_size")
    except TcaError:
        # Whoever opens it to go on says what is wrong.
        return None
    return size if isinstance(size, int) and size > 0 else None


def _fitting_elsewhere(config: Stage1Config, device: str, folder: Path) -> int:
    """Ask a GPU in a process of its own: this one never touches it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_fitting, config, device, folder).result()
        except BrokenProcessPool:
            raise TcaError(
                f"{device} took down the process that tried how many videos it maps at once; set "
                "extract.batch_size."
            ) from None


def _fitting(config: Stage1Config, device: str, folder: Path) -> int:
    backbones = Backbones.load(config.semantic, config.motion, folder).to(torch.device(device))
    room = SHARE * torch.cuda.get_device_properties(device).total_memory
    best = 1
    for videos in ON_GPU:
        taken = _peak(backbones, config.extract.precision, videos)
        if taken is None or taken > room:
            break
        best = videos
    return best


def _peak(backbones: Backbones, precision: str, videos: int) -> int | None:
    """Return the bytes of the device that a batch takes at most; None if it has not so many."""
    size, small = backbones.sizes
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(backbones.device)
    try:
        frames = torch.zeros(videos, SEGMENTS, 3, size, size, dtype=torch.uint8)
        clips = torch.zeros(videos, FRAMES, 3, small, small, dtype=torch.uint8)
        backbones(frames, clips, precision)
        return torch.cuda.max_memory_allocated(backbones.device)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return None
