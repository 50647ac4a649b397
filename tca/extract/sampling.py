"""Which frames of a video are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from tca.extract.config import FRAMES

Indices = np.ndarray[Any, np.dtype[np.int64]]


def frame_indices(count: int, offset: float = 0.0) -> Indices:
    """Return the 16 sampled frames of a video of `count` frames, `floor((i + 0.5 + o) N / 16)`.

    Args:
        count: N, the frames that the decoder delivers; a short video repeats frames.
        offset: o in [−0.5, 0.5), the temporal offset of a view.

    Returns:
        (16,) int64, ascending, in [0, N). Segment t is entries 2t and 2t + 1; the semantic stream
        looks at entry 2t.

    Raises:
        ValueError: no frame, or an offset outside its range.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if not -0.5 <= offset < 0.5:
        raise ValueError(f"offset must lie in [-0.5, 0.5), got {offset}")
    places = np.floor((np.arange(FRAMES) + 0.5 + offset) * count / FRAMES)
    # Rounding can lift the last place onto N where the offset is just below one half.
    return np.minimum(places.astype(np.int64), count - 1)
