"""What a backbone is, whoever wrote it: the two classes that the pipeline knows.

A user's package makes subclasses of its own and registers what loads them (docs/backbones.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from tca.errors import UsageError
from tca.extract.config import FRAMES


class SemanticBackbone(nn.Module, ABC):
    """Frames (B, 3, size, size) uint8 to patches (B, P, width) float32, top left first.

    Attributes:
        architecture: its name, as stores show it.
        size: pixels of the square frame that it sees.
        grid: patches (vertically, horizontally); their product is P.
        width: features a patch.
    """

    architecture: str
    size: int
    grid: tuple[int, int]
    width: int

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the features, as JSON: architecture, weights' sha256, size, normalisation.

        Stores with different ones do not go together.
        """

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Features of one frame: (P, width)."""
        return self.grid[0] * self.grid[1], self.width

    def prove(self) -> None:
        """Try one frame.

        Raises:
            UsageError: it cannot take frames of its size, or gives another shape than it promises.
        """
        _prove(self, (3, self.size, self.size), f"frames of semantic.size={self.size}")


class MotionBackbone(nn.Module, ABC):
    """Clips (B, 16, 3, size, size) uint8 to segments (B, segments, width) float32.

    Attributes:
        architecture: its name, as stores show it.
        size: pixels of the square frames that it sees.
        segments: time steps that it gives.
        width: features a segment.
    """

    architecture: str
    size: int
    segments: int
    width: int

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the features, as JSON; see `SemanticBackbone.identity`."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Features of one video: (segments, width)."""
        return self.segments, self.width

    def prove(self) -> None:
        """Try one clip; raises as `SemanticBackbone.prove`."""
        _prove(self, (FRAMES, 3, self.size, self.size), f"clips of motion.size={self.size}")


@torch.inference_mode()
def _prove(
    backbone: SemanticBackbone | MotionBackbone, shape: tuple[int, ...], pixels: str
) -> None:
    try:
        found = tuple(backbone(torch.zeros(1, *shape, dtype=torch.uint8)).shape)
    except Exception as error:
        raise UsageError(
            f"{backbone.architecture} cannot take {pixels}: {first_line(error)}."
        ) from None
    if found != (1, *backbone.row_shape):
        what = "one grid of patches" if isinstance(backbone, SemanticBackbone) else "segments"
        raise UsageError(
            f"{backbone.architecture} gives features of shape {found[1:]} of {pixels} instead of "
            f"{backbone.row_shape}; take a network that gives {what}."
        )


def first_line(error: BaseException) -> str:
    """Return what an error of somebody else's says, fit to stand in a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
