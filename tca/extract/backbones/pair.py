"""Both backbones on one device: what a batch of decoded videos becomes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tca.device import autocast, keep_freed_memory, likes_bfloat16
from tca.errors import UsageError
from tca.extract.backbones.base import MotionBackbone, SemanticBackbone
from tca.extract.backbones.registry import load_motion, load_semantic
from tca.extract.config import SEGMENTS, MotionConfig, SemanticConfig


@dataclass(frozen=True)
class Backbones:
    """The semantic and the motion backbone, and what is kept of the former.

    Attributes:
        semantic: the image backbone.
        motion: the video backbone.
        keep: "mean" over the 8 frames, or "frames".
        pool: patches are averaged pool x pool.
    """

    semantic: SemanticBackbone
    motion: MotionBackbone
    keep: str
    pool: int

    @classmethod
    def load(
        cls, semantic: SemanticConfig, motion: MotionConfig, folder: Path, *, empty: bool = False
    ) -> Backbones:
        """Load both on the CPU; relative paths start at `folder`.

        Args:
            semantic: the image backbone and what is kept of it.
            motion: the video backbone.
            folder: of the configuration.
            empty: on no device, without weights, to count with.

        Raises:
            TcaError, UsageError: as `load_semantic` and `load_motion`, or a pool that does not
                divide the grid.
        """
        backbone = load_semantic(semantic, folder, empty=empty)
        if any(side % semantic.pool for side in backbone.grid):
            raise UsageError(
                f"semantic.pool={semantic.pool} does not divide the grid of "
                f"{backbone.grid[0]}x{backbone.grid[1]} patches; choose a divisor."
            )
        video = load_motion(motion, folder, empty=empty)
        return cls(backbone, video, semantic.keep, semantic.pool)

    @property
    def sizes(self) -> tuple[int, int]:
        """Pixels of the square frames that the semantic and the motion backbone see."""
        return self.semantic.size, self.motion.size

    @property
    def device(self) -> torch.device:
        """Where both are."""
        # A backbone of somebody else's may hold no numbers at all.
        modules = self.semantic, self.motion
        tensors = (t for m in modules for t in chain(m.parameters(), m.buffers()))
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def to(self, device: torch.device) -> Backbones:
        """Move both to `device`, in the memory order that its convolutions like."""
        self.semantic.to(device)
        self.motion.to(device)
        if device.type == "cpu":
            keep_freed_memory()
        if device.type == "cuda":
            for module in self.motion.modules():
                if isinstance(module, nn.Conv3d):
                    module.to(memory_format=torch.channels_last_3d)
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (vertically, horizontally) that are kept."""
        height, width = self.semantic.grid
        return height // self.pool, width // self.pool

    @property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each stream."""
        patches = (self.grid[0] * self.grid[1], self.semantic.width)
        return {
            "semantic": patches if self.keep == "mean" else (SEGMENTS, *patches),
            "motion": self.motion.row_shape,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features, as JSON."""
        semantic = self.semantic.identity | {"keep": self.keep, "pool": self.pool}
        return {"semantic": semantic, "motion": self.motion.identity}

    @torch.inference_mode()
    def __call__(self, frames: Tensor, clips: Tensor, precision: str) -> dict[str, Tensor]:
        """Return the rows of a batch of videos.

        Args:
            frames: (B, 8, 3, S, S) uint8, the first frame of every segment.
            clips: (B, 16, 3, s, s) uint8, all sampled frames.
            precision: auto, float32 or bfloat16.

        Returns:
            semantic (B, [8,] P, D) and motion (B, T', D), float32, on the backbones' device.
        """
        frames = frames.to(self.device, non_blocking=True)
        clips = clips.to(self.device, non_blocking=True)
        if precision == "auto" and likes_bfloat16(self.device):
            # Nothing is learned here, so that a CPU may round as a GPU does.
            precision = "bfloat16"
        with autocast(self.device, precision):
            patches = self.semantic(frames.flatten(0, 1))
            motion = self.motion(clips)
        patches = self._pooled(patches)
        patches = patches.reshape(*frames.shape[:2], *patches.shape[1:])
        return {
            "semantic": patches.mean(1) if self.keep == "mean" else patches,
            "motion": motion,
        }

    def _pooled(self, patches: Tensor) -> Tensor:
        if self.pool == 1:
            return patches
        count, _, width = patches.shape
        maps = patches.transpose(1, 2).reshape(count, width, *self.semantic.grid)
        return F.avg_pool2d(maps, self.pool).flatten(2).transpose(1, 2)
