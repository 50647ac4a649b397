"""Batches in memory that decoding processes fill and the device's process reads, without a copy.

The memory has no name in any file system: it goes when the last process that maps it does, however
that ends, and its size does not depend on that of /dev/shm.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tca.extract.config import FRAMES, SEGMENTS


@dataclass(frozen=True)
class BatchBuffers:
    """A few batches; pixels are (…, S, S, 3) in memory, as they are decoded and resized.

    Attributes:
        slots: batches.
        batch_size: places a batch.
        frame_size, clip_size: sides of the squares of the two streams.
        memory: all bytes; None before `mapped`.
    """

    slots: int
    batch_size: int
    frame_size: int
    clip_size: int
    memory: Tensor | None = field(default=None, repr=False)

    @property
    def _place_bytes(self) -> tuple[int, int]:
        return SEGMENTS * 3 * self.frame_size**2, FRAMES * 3 * self.clip_size**2

    def create(self) -> tuple[int, BatchBuffers]:
        """Return the open file of new memory, all zero, and the buffers mapped on it."""
        fd = os.memfd_create("tca-batches")
        os.ftruncate(fd, self.slots * self.batch_size * sum(self._place_bytes))
        return fd, self.mapped(fd)

    def mapped(self, fd: int) -> BatchBuffers:
        """Return the same buffers, mapped on an open file."""
        memory = torch.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), dtype=torch.uint8)
        sizes = self.slots, self.batch_size, self.frame_size, self.clip_size
        return BatchBuffers(*sizes, memory)

    def batch(self, slot: int) -> tuple[Tensor, Tensor]:
        """Return frames (B, 8, 3, S, S) and clips (B, 16, 3, s, s) of a slot, uint8, in place."""
        assert self.memory is not None
        frame_bytes, clip_bytes = (self.batch_size * size for size in self._place_bytes)
        start = slot * (frame_bytes + clip_bytes)
        memory = self.memory[start : start + frame_bytes + clip_bytes]
        frames = memory[:frame_bytes].view(-1, SEGMENTS, self.frame_size, self.frame_size, 3)
        clips = memory[frame_bytes:].view(-1, FRAMES, self.clip_size, self.clip_size, 3)
        return frames.permute(0, 1, 4, 2, 3), clips.permute(0, 1, 4, 2, 3)

    def place(self, slot: int, place: int) -> tuple[Tensor, Tensor]:
        """Return frames (8, 3, S, S) and clips (16, 3, s, s) of one place, in place."""
        frames, clips = self.batch(slot)
        return frames[place], clips[place]

    def clear(self, slot: int, place: int) -> None:
        """Set one place to zero."""
        for pixels in self.place(slot, place):
            pixels.zero_()
