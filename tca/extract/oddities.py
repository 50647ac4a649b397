"""What is unusual in how a video is shaped or timed: worth a look, no reason to leave it out.

Extraction handles all of these. They are named because they often come from a step that went wrong
before: a telephone held upright, a converter that guessed, a thumbnail instead of the video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tca.extract.probe import Probe

TINY = 112
"""A video whose short side has fewer pixels is enlarged for both streams."""

HUGE = 1920 * 1088
"""Pixels of a frame above which decoding costs over 20 times what it does for SSv2."""

LONG = 3.0
"""Times the long side over the short one: squeezed into a square, little of it is to be seen."""


def oddities(found: Probe) -> dict[str, str]:
    """Return what is odd about one decoded video: the kind, and what was found."""
    size = f"{found.width}x{found.height}"
    odd = {}
    if found.turned:
        odd["rotated"] = f"turned by {found.turned} degrees"
    if abs(found.pixel_aspect - 1) > 0.01:
        odd["pixels not square"] = f"a pixel is {found.pixel_aspect:.3g} times as wide as high"
    if found.height > found.width * found.pixel_aspect:
        odd["upright"] = size
    if max(found.width, found.height) > LONG * min(found.width, found.height):
        odd["long"] = size
    if min(found.width, found.height) < TINY:
        odd["tiny"] = size
    if found.width * found.height > HUGE:
        odd["huge"] = size
    if found.width % 2 or found.height % 2:
        odd["odd number of pixels"] = size
    if found.changes_size:
        odd["changes size"] = f"begins with {size}"
    if found.variable_rate:
        odd["variable frame rate"] = f"{found.fps} frames/s on average"
    return odd


def usual_size(sizes: Sequence[str]) -> str | None:
    """Return the size that more than half of the videos have, None if there is no such size."""
    if not sizes:
        return None
    size, count = Counter(sizes).most_common(1)[0]
    return size if count > len(sizes) / 2 else None
