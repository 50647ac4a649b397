"""Procedural surfaces: smooth noise, checks, stripes, dots, rings and the like.

Every family belongs to one split, so that nothing learned of how training clips look helps on the
held-out ones.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


def smooth_noise(generator: Generator, height: int, width: int, step: int) -> Array:
    """Return noise (height, width) in [0, 1] whose values change over about `step` pixels."""
    rows, columns = height // step + 2, width // step + 2
    coarse = generator.random((rows, columns), dtype=np.float32)
    for axis, size in ((0, height), (1, width)):
        place = np.arange(size, dtype=np.float32) / np.float32(step)
        low = place.astype(np.int64)
        part = place - low
        # A smooth step instead of a linear one: no creases along the coarse grid.
        part = part * part * (3 - 2 * part)
        part = part[:, None] if axis == 0 else part
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(low + 1, axis) * part
    return coarse


def _clouded(generator: Generator, height: int, width: int, step: float) -> Array:
    wide = smooth_noise(generator, height, width, max(2, int(step)))
    fine = smooth_noise(generator, height, width, max(2, int(step / 3)))
    return np.clip(1.6 * (0.7 * wide + 0.3 * fine) - 0.3, 0, 1)


def _checked(generator: Generator, height: int, width: int, step: float) -> Array:
    across, down = _turned(generator, height, width, step)
    return _soft(np.sin(np.pi * across) * np.sin(np.pi * down), 6)


def _striped(generator: Generator, height: int, width: int, step: float) -> Array:
    across, _ = _turned(generator, height, width, step)
    return _soft(np.sin(np.pi * across), 4)


def _dotted(generator: Generator, height: int, width: int, step: float) -> Array:
    across, down = _turned(generator, height, width, step)
    squared = (across % 1 - 0.5) ** 2 + (down % 1 - 0.5) ** 2
    return _soft(0.1 - squared, 40)


def _ringed(generator: Generator, height: int, width: int, step: float) -> Array:
    y, x = np.ogrid[:height, :width]
    centre = generator.uniform(0.2, 0.8, 2)
    radius = np.hypot(y - centre[0] * height, x - centre[1] * width).astype(np.float32)
    return _soft(np.sin(np.pi * radius / step), 4)


def _marbled(generator: Generator, height: int, width: int, step: float) -> Array:
    across, _ = _turned(generator, height, width, step)
    bend = smooth_noise(generator, height, width, max(2, int(step * 1.3)))
    return (0.5 + 0.5 * np.sin(np.pi * (0.6 * across + 2.5 * bend))).astype(np.float32)


FAMILIES: dict[str, dict[str, Callable[[Generator, int, int, float], Array]]] = {
    "train": {"clouded": _clouded, "checked": _checked, "striped": _striped},
    "validation": {"dotted": _dotted, "ringed": _ringed, "marbled": _marbled},
}
"""By split; a family names how a surface is patterned."""


def pattern(family: str, generator: Generator, height: int, width: int, step: float) -> Array:
    """Return a pattern (height, width) in [0, 1]; its details are about `step` pixels wide."""
    for families in FAMILIES.values():
        if family in families:
            return families[family](generator, height, width, step)
    raise ValueError(f"no texture family {family!r}")


def colour(hue: float, saturation: float, value: float) -> Array:
    """Return (3,) RGB in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def _turned(generator: Generator, height: int, width: int, step: float) -> tuple[Array, Array]:
    """Return coordinates in steps along two axes turned by a random angle, each (height, width)."""
    angle = generator.uniform(0, np.pi)
    y, x = np.ogrid[:height, :width]
    y, x = y / step, x / step
    phase = generator.uniform(0, 2, 2)
    across = np.cos(angle) * x + np.sin(angle) * y + phase[0]
    down = np.cos(angle) * y - np.sin(angle) * x + phase[1]
    return across.astype(np.float32), down.astype(np.float32)


def _soft(values: Array, sharpness: float) -> Array:
    return np.clip(0.5 + 0.5 * sharpness * values, 0, 1).astype(np.float32)
