"""Every variant by name, behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

from tca.cache.layout import FeatureShapes
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig, VariantName
from tca.fusion.model.gasm_cast import STREAMS, GasmCast

Variant = Callable[[ModelConfig, FeatureShapes, int], GasmCast]

PARAMETER_LIMIT = 20_000_000

VARIANTS: dict[VariantName, Variant] = {
    "gasm_cast": GasmCast,
    "bcast": partial(GasmCast, graphs=False),
    "concat": partial(GasmCast, graphs=False, cross=False),
    "semantic_only": partial(GasmCast, streams=("semantic",), cross=False),
    "motion_only": partial(GasmCast, streams=("motion",), cross=False),
}
assert set(VARIANTS) == set(get_args(VariantName))


def streams_of(variant: VariantName) -> tuple[str, ...]:
    """Return the names of the streams that a variant reads."""
    chosen: tuple[str, ...] = getattr(VARIANTS[variant], "keywords", {}).get("streams", STREAMS)
    return chosen


def build(config: ModelConfig, shapes: FeatureShapes, classes: int) -> GasmCast:
    """Build the variant that `config` names, for features of `shapes`.

    Raises:
        UsageError: over 20 M parameters without `allow_large`, or sizes that do not fit the store.
    """
    model = VARIANTS[config.variant](config, shapes, classes)
    count = parameters(model)
    if count > PARAMETER_LIMIT and not config.allow_large:
        raise UsageError(
            f"the model would have {count / 1e6:.1f} M parameters, over the limit of "
            f"{PARAMETER_LIMIT / 1e6:.0f} M; lower model.bottleneck, model.rank or model.layers, "
            "or set model.allow_large=true."
        )
    return model


def parameters(model: GasmCast) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
