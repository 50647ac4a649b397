"""Whether two stores hold the same features, as far as a model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tca.cache.layout import TYPES, FeatureShapes, differences
from tca.cache.store import Store
from tca.errors import TcaError
from tca.fusion.model.variant import STREAMS

STORED_TYPE = "dtype"
"""Key of `identity` that a conversion can put right."""

OF_STREAM = {
    "semantic": ("segments", "grid", "semantic_width"),
    "motion": ("motion_segments", "motion_width"),
}
"""What `FeatureShapes` says of which stream."""

VIEWS = "views"
"""Key of `identity` that may differ: a model is trained on random views and scored on even ones."""


def require_same_features(
    store: Store,
    classes: Sequence[str],
    identity: Mapping[str, Any],
    streams: Sequence[str],
    says: str,
    shapes: FeatureShapes | None = None,
) -> None:
    """Hold the features of `store` against those that a model is trained on, views apart.

    Args:
        store: where a model shall be scored.
        classes: names of the classes trained on.
        identity: `identity` of the store trained on.
        streams: what the model reads; keys of other streams may differ.
        says: what it means if they are not the same, the middle of a sentence.
        shapes: of the features trained on, where the identity may not say all of them: a store
            that others made has one of its own.

    Raises:
        TcaError: they differ; names every difference and what to do.
    """

    def read(
        classes: Sequence[str], identity: Mapping[str, Any], shapes: FeatureShapes | None
    ) -> dict[str, Any]:
        unread = {VIEWS, *STREAMS}.difference(streams)
        sizes = {} if shapes is None else vars(shapes)
        return {
            "classes": list(classes),
            **{key: value for key, value in identity.items() if key not in unread},
            **{
                f"shape of {key}": sizes[key]
                for name in streams
                for key in OF_STREAM[name]
                if sizes
            },
        }

    expected = read(classes, identity, shapes)
    found = read(store.classes, store.identity, None if shapes is None else store.shapes)
    different = differences(expected, found)
    if not different:
        return
    remedy = "extract it with the configuration of the training split"
    trained_as = expected.get(STORED_TYPE)
    if trained_as in TYPES and expected == {**found, STORED_TYPE: trained_as}:
        remedy = (
            f"turn it into that type with `tca cache convert {store.path} NEW --type {trained_as}` "
            "and name NEW in `stores`"
        )
    raise TcaError(f"{store.path} {says}: {'; '.join(different)}; {remedy}.")
