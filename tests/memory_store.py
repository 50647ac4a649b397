"""A store held in memory: what fusion sees of one, without files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.layout import FeatureShapes, Stream


@dataclass
class MemoryStore:
    semantic: np.ndarray
    motion: np.ndarray
    label: np.ndarray
    classes: list[str]
    split: str = "train"
    video: np.ndarray = None
    status: np.ndarray = None
    identity: dict[str, Any] = field(default_factory=lambda: {"keep": "frames"})
    record: dict[str, Any] = field(default_factory=dict)
    path: Path = Path("memory.zarr")

    def __post_init__(self) -> None:
        self.rows = len(self.label)
        self.rows_per_shard = 32
        self.label = np.asarray(self.label, dtype=np.int32)
        if self.video is None:
            self.video = np.arange(self.rows, dtype=np.int32)
        if self.status is None:
            self.status = np.zeros(self.rows, dtype=np.uint8)
        self.view = np.zeros(self.rows, dtype=np.uint8)
        self.ids = [f"v{number}" for number in self.video]
        side = round(self.semantic.shape[-2] ** 0.5)
        self.grid = (side, side)
        arrays = {"semantic": self.semantic, "motion": self.motion}
        self.streams = {name: Stream(a.shape, a.dtype.name) for name, a in arrays.items()}

    @property
    def shapes(self) -> FeatureShapes:
        segments = self.semantic.shape[1] if self.semantic.ndim == 4 else None
        widths = self.semantic.shape[-1], *self.motion.shape[1:]
        return FeatureShapes(segments, self.grid, *widths)

    def ready(self) -> np.ndarray:
        return np.flatnonzero(self.status == 0)

    def prefetch(self, stream: str, rows: np.ndarray) -> None:
        """There is nothing to wait for."""

    def read(
        self, stream: str, rows: np.ndarray, out: np.ndarray | None = None, *, check: bool = True
    ) -> np.ndarray:
        found = getattr(self, stream)[rows]
        if out is None:
            return found
        out[...] = found
        return out


def moving_dot(
    videos: int,
    classes: int = 4,
    *,
    seed: int = 0,
    strength: float = 2.0,
    shuffle_labels: bool = False,
    **changes: Any,
) -> MemoryStore:
    """A bright patch walks along a row of the grid; the class is the row and the direction.

    One frame tells half of it: direction shows in the order of frames alone.
    """
    generator = np.random.default_rng(seed)
    label = np.arange(videos) % classes
    semantic = generator.normal(size=(videos, 8, 16, 12)).astype(np.float32)
    motion = generator.normal(size=(videos, 8, 6)).astype(np.float32)
    pattern = np.random.default_rng(99).normal(size=12) * strength
    for video, name in enumerate(label):
        columns = np.arange(8) // 2
        if name % 2:
            columns = columns[::-1]
        semantic[video, np.arange(8), 4 * (name // 2) + columns] += pattern
    if shuffle_labels:
        label = generator.permutation(label)
    names = [f"class {number}" for number in range(classes)]
    return MemoryStore(
        semantic.astype(np.float16), motion.astype(np.float16), label, names, **changes
    )
