"""Between what a backbone computes and what a store holds: float16, bfloat16, float32, int8.

An int8 patch is `round(x / scale)` with one float16 scale a patch (or segment): its largest
magnitude over 127, rounded up, so that nothing is cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tca.cache.format import Array
from tca.cache.layout import SCALE

_FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_LARGEST = 127


def encode(name: str, features: Tensor, stored: str) -> dict[str, Tensor]:
    """Return the tensors that hold `features` of the stream `name`, on their device.

    Args:
        name: semantic or motion.
        features: (…, width) floating point.
        stored: one of `layout.TYPES`.

    Returns:
        By array name: the numbers, and for int8 the float16 scales, (…).
    """
    if stored in _FLOATS:
        return {name: features.to(_FLOATS[stored])}
    exact = features.float()
    largest = exact.abs().amax(-1)
    scale = (largest / _LARGEST).half()
    short = scale.float() * _LARGEST < largest
    up = torch.nextafter(scale, torch.full_like(scale, torch.inf))
    scale = torch.where(short, up, scale)
    # A patch of zeros has scale zero.
    divisor = torch.where(scale == 0, 1, scale).float().unsqueeze(-1)
    numbers = (exact / divisor).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return {name: numbers, name + SCALE: scale}


def finite(encoded: dict[str, Tensor]) -> Tensor:
    """Return (rows,) bool: whether all of a row's stored numbers are finite."""
    whole = [t.isfinite().flatten(1).all(1) for t in encoded.values() if t.is_floating_point()]
    return torch.stack(whole).all(0)


def to_numpy(tensor: Tensor) -> Array:
    """Return a CPU tensor as the array that is stored; bfloat16 becomes uint16."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    found: Array = tensor.numpy()
    return found


def from_numpy(array: Array, stored: str) -> Tensor:
    """Return a stored array as a tensor that shares its memory."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if stored == "bfloat16" else tensor


def decode(numbers: Tensor, scale: Tensor | None) -> Tensor:
    """Return floating-point features, on the device of `numbers`.

    int8 becomes float32, as its scale times up to 127 may be more than float16 holds; what is
    floating point already stays as it is.
    """
    if scale is None:
        return numbers
    # Of int8 and float32 the product is float32, made in one pass.
    return numbers * scale.float().unsqueeze(-1)
