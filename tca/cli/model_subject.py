"""What `tca model` counts models for: the configured store, or what extraction will make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.cache.layout import FeatureShapes
from tca.cache.residency import read_decoded
from tca.cache.store import Store
from tca.extract.annotations import read_classes
from tca.extract.backbones.listing import hollow_pair
from tca.fusion.inputs import require_inputs
from tca.fusion.model.cost import EXAMPLES, Features
from tca.fusion.model.registry import find_variant, variant_names
from tca.project import Project


@dataclass(frozen=True)
class Subject:
    """What models are built for.

    Attributes:
        store: its path, None before extraction.
        shapes: of its features.
        classes: names.
        features: a few of its rows, None if it has none yet.
        variants: names of those that can read it.
    """

    store: str | None
    shapes: FeatureShapes
    classes: list[str]
    features: Features | None
    variants: list[str]

    @property
    def words(self) -> str:
        """What a table is headed with."""
        frames = "" if self.shapes.segments is None else f"{self.shapes.segments}×"
        patches = "×".join(map(str, self.shapes.grid))
        return (
            f"{self.store or 'features to be extracted'}: patches "
            f"{frames}({patches})×{self.shapes.semantic_width}, segments "
            f"{self.shapes.motion_segments}×{self.shapes.motion_width}, {len(self.classes)} classes"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "store": self.store,
            "shapes": vars(self.shapes),
            "classes": len(self.classes),
            "edges_of": "random rows" if self.features is None else "rows of the store",
        }


def subject_of(project: Project, folder: Path, names: Sequence[str]) -> Subject:
    """Return the store of the configured split, or what it will be.

    Args:
        project: the configuration.
        folder: where relative weights start.
        names: of variants that must be able to read it.

    Raises:
        TcaError: a damaged store, or one without what a variant reads; as `read_classes` and
            `hollow_pair` before extraction.
    """
    place = project.store(project.train.split)
    if isinstance(place, Path) and not place.exists():
        for name in names:
            find_variant(name)
        classes = read_classes(project.data)
        pair = hollow_pair(project, folder)
        semantic, motion = pair.row_shapes["semantic"], pair.row_shapes["motion"]
        segments = semantic[0] if len(semantic) == 3 else None
        shapes = FeatureShapes(segments, pair.grid, semantic[-1], *motion)
        return Subject(None, shapes, classes, None, variant_names())
    store = Store.open(place)
    for name in names:
        require_inputs(store, name)
    readable = [
        name for name in variant_names() if set(find_variant(name).streams) <= set(store.streams)
    ]
    rows = store.ready()[:EXAMPLES]
    features = None
    if len(rows):
        there = {name: read_decoded(store, name, rows) for name in store.streams}
        features = there.get("semantic"), there.get("motion")
    return Subject(str(store.path), store.shapes, store.classes, features, readable)
