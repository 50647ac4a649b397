"""How many videos are mapped at once where nobody says: settled before the first shard is written.

The store keeps it, because kernels and with them the last bits depend on it.
"""

from __future__ import annotations

import torch

from tca.device import out_of_memory
from tca.extract.backbones.pair import Backbones
from tca.extract.config import FRAMES, SEGMENTS

CPU_BATCH = 8
"""Videos at once on a CPU, where more are no faster (docs/extract.md)."""

GPU_BATCHES = (4, 8, 16, 32)
"""Videos at once on a GPU: the largest of these for which there is memory."""

SHARE = 0.5
"""Of a GPU's memory that a batch may take: others use it too, and allocators leave holes."""


def settled_batch_size(backbones: Backbones, precision: str) -> int:
    """Return how many videos to map at once on the device of `backbones`.

    On a GPU it is decided by memory alone, not by timing: two GPUs of one kind give the same, or
    parts made on several machines would not go together.

    Raises:
        TcaError: not enough memory even for a few videos.
    """
    if backbones.device.type != "cuda":
        return CPU_BATCH
    room = SHARE * torch.cuda.get_device_properties(backbones.device).total_memory
    best = 1
    for rows in GPU_BATCHES:
        taken = _peak(backbones, precision, rows)
        if taken is None or taken > room:
            break
        best = rows
    return best


def _peak(backbones: Backbones, precision: str, rows: int) -> int | None:
    """Return the bytes of the device that a batch takes at most; None if it has not so many."""
    size, small = backbones.sizes
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(backbones.device)
    try:
        frames = torch.zeros(rows, SEGMENTS, 3, size, size, dtype=torch.uint8)
        clips = torch.zeros(rows, FRAMES, 3, small, small, dtype=torch.uint8)
        backbones(frames, clips, precision)
        return torch.cuda.max_memory_allocated(backbones.device)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return None
