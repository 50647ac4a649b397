"""From the pixels of a picture to the numbers that a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of red, green and blue, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
KINETICS = Normalisation((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


class Normalise(nn.Module):
    """Pixels (…, 3, H, W) uint8 to float32."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, by: Normalisation) -> None:
        super().__init__()
        # In pixels of 0 to 255, so that normalising is one subtraction and one division.
        for name, values in (("_mean", by.mean), ("_std", by.std)):
            scaled = 255 * torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, scaled, persistent=False)

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        # Two passes and one piece of memory.
        return torch.sub(pixels, self._mean).div_(self._std)
