"""The rows of a split: one a view of a video, the views of a video side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from typing_extensions import override

from tca.cache.layout import RowTable
from tca.errors import UsageError
from tca.extract.annotations import Annotations, read_flip_table
from tca.extract.config import DataConfig, RandomViewsConfig, ViewsConfig
from tca.extract.views import View, even_views, random_view

PLAIN = [{"crop": "whole", "offset": 0.0, "flip": False}]
"""`identity.views` of stores with one view a video, of whatever split."""


@dataclass(frozen=True)
class RowViews(Sequence[View]):
    """The view that each row shows, made when it is asked for: a big split has half a million.

    Attributes:
        videos: ids, in the order of the annotations.
        random: what random views are drawn by; None: every video gets `even`.
        even: the views of every video, empty if they are random.
    """

    videos: list[str]
    random: RandomViewsConfig | None
    even: list[View]

    @classmethod
    def of(cls, config: ViewsConfig, annotations: Annotations) -> RowViews:
        """Return random views for the split train, and even ones for the others."""
        videos = [video.id for video in annotations.videos]
        if annotations.split == "train":
            return cls(videos, config.train, [])
        return cls(videos, None, even_views(config.test))

    @property
    def per_video(self) -> int:
        """Views of each video."""
        return len(self.even) if self.random is None else self.random.count

    @override
    def __len__(self) -> int:
        return len(self.videos) * self.per_video

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> list[View]: ...
    @override
    def __getitem__(self, row: int | slice) -> View | list[View]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        video, number = divmod(row, self.per_video)
        # Asked for first, so that a row past the end is an IndexError.
        name = self.videos[video]
        return self.even[number] if self.random is None else random_view(self.random, name, number)


@dataclass(frozen=True)
class Rows:
    """All that is known of the rows before extraction.

    Attributes:
        table: ids, labels, videos and views.
        files: (N,) the file of every row, None where it is missing.
        views: (N,) what each row shows.
        identity: what decides the views, as JSON.
    """

    table: RowTable
    files: list[Path | None]
    views: RowViews
    identity: Any

    @classmethod
    def of(cls, annotations: Annotations, data: DataConfig, config: ViewsConfig) -> Rows:
        """Lay out the rows of a split; a mirrored view has the label of the mirrored class.

        Args:
            annotations: of the split.
            data: names the table of classes that swap under a flip.
            config: how many views, and which.

        Raises:
            TcaError: flips are asked for, and there is no sound table.
        """
        views = RowViews.of(config, annotations)
        count = views.per_video
        number = np.arange(len(annotations.videos), dtype=np.int32)
        label = np.array([video.label for video in annotations.videos], dtype=np.int32)
        label = np.repeat(label, count)
        pairs = None
        if views.random is not None and views.random.flip:
            flipped = _flip_table(annotations, data)
            pairs = [[one, other] for one, other in enumerate(flipped) if one < other]
            label = _mirrored(label, views, flipped)
        return cls(
            table=RowTable(
                ids=[video for video in views.videos for _ in range(count)],
                label=label,
                video=np.repeat(number, count),
                view=np.tile(np.arange(count, dtype=np.uint8), len(number)),
            ),
            files=[video.path for video in annotations.videos for _ in range(count)],
            views=views,
            identity=_identity(views, pairs),
        )


def _flip_table(annotations: Annotations, data: DataConfig) -> list[int]:
    if data.flip is None:
        raise UsageError(
            "extract.views.train.flip needs to know which classes swap in a mirror; name SSv2's "
            'flip.json or a file {"left/right": {"name": "name"}} as data.flip, or set '
            "extract.views.train.flip=false."
        )
    return read_flip_table(data.flip, annotations.classes)


def _mirrored(
    label: np.ndarray[Any, np.dtype[np.int32]], views: RowViews, flipped: list[int]
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the label of every row, given that of its video."""
    # An unknown label, -1, stays unknown.
    swapped = np.array([*flipped, -1], dtype=np.int32)[label]
    # Few classes swap, and drawing every view would take seconds.
    rows = [row for row in np.flatnonzero(swapped != label).tolist() if views[row].flip]
    made = label.copy()
    made[rows] = swapped[rows]
    return made


def _identity(views: RowViews, pairs: list[list[int]] | None) -> Any:
    if views.per_video == 1:
        return PLAIN
    if views.random is None:
        crops, offsets = (
            dict.fromkeys(getattr(view, name) for view in views.even) for name in ("crop", "offset")
        )
        return {"crops": [crop or "whole" for crop in crops], "offsets": list(offsets)}
    return {
        "count": views.random.count,
        "scale": list(views.random.scale),
        "aspect": list(views.random.aspect),
        "flip": pairs,
        "seed": views.random.seed,
    }
