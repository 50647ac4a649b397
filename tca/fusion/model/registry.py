"""Every variant by name: tca's own, and those that an installed package plugs in.

A package names a subclass of `Variant` as an entry point of the group `tca.fusion_variants`; see
docs/model.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

import torch
from torch import nn

from tca.cache.layout import FeatureShapes
from tca.errors import TcaError, UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variant import STREAMS, Variant
from tca.fusion.model.variants.attentive_probe import AttentiveProbe
from tca.fusion.model.variants.bcast import BCastAlone
from tca.fusion.model.variants.concat import Concat
from tca.fusion.model.variants.cross_attention import CrossAttentionOnly
from tca.fusion.model.variants.gasm_cast import GasmCast
from tca.fusion.model.variants.gated_sum import GatedSum
from tca.fusion.model.variants.one_stream import MotionOnly, SemanticOnly

GROUP = "tca.fusion_variants"
"""Group of entry points."""

PARAMETER_LIMIT = 20_000_000

OWN: dict[str, type[Variant]] = {
    "gasm_cast": GasmCast,
    "bcast": BCastAlone,
    "cross_attention": CrossAttentionOnly,
    "attentive_probe": AttentiveProbe,
    "concat": Concat,
    "gated_sum": GatedSum,
    "semantic_only": SemanticOnly,
    "motion_only": MotionOnly,
}


def variant_names() -> list[str]:
    """Return every name, tca's own first."""
    plugged = {point.name for point in entry_points(group=GROUP)}
    return [*OWN, *sorted(plugged.difference(OWN))]


def find_variant(name: str) -> type[Variant]:
    """Return the variant of that name.

    Raises:
        UsageError: there is none, two packages have one, or its package does not work.
    """
    points = list(entry_points(group=GROUP, name=name))
    packages = [point.dist.name if point.dist is not None else point.module for point in points]
    if len(points) + (name in OWN) > 1:
        both = " and ".join([*(["tca"] if name in OWN else []), *packages])
        raise UsageError(f"{both} each have a variant {name!r}; uninstall one, or have it renamed.")
    if name in OWN:
        return OWN[name]
    if not points:
        raise UsageError(f"model.variant={name!r} is none of {', '.join(variant_names())}.")
    whose = f"the variant {name!r} of the package {packages[0]}"
    try:
        found = points[0].load()
    except Exception as error:
        raise UsageError(
            f"{whose} cannot be imported from {points[0].value} ({type(error).__name__}: {error}); "
            "repair or uninstall that package."
        ) from None
    if not (isinstance(found, type) and issubclass(found, Variant)):
        raise UsageError(
            f"{whose} is no subclass of tca.fusion.model.variant.Variant: {points[0].value}."
        )
    return found


def build(config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> Variant:
    """Build the variant that `config` names, for features of `shapes`.

    Raises:
        UsageError: no such variant, over 20 M parameters without `allow_large`, sizes that do not
            fit the store, or a plugged-in variant that does not score.
    """
    variant = find_variant(config.variant)
    if config.variant in OWN:
        model = variant(config, shapes, classes)
    else:
        model = _plugged(variant, config, shapes, classes)
    count = parameters(model)
    if count > PARAMETER_LIMIT and not config.allow_large:
        raise UsageError(
            f"the model would have {count / 1e6:.1f} M parameters, over the limit of "
            f"{PARAMETER_LIMIT / 1e6:.0f} M; lower model.bottleneck, model.rank or model.layers, "
            "or set model.allow_large=true."
        )
    return model


def _plugged(
    variant: type[Variant], config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]
) -> Variant:
    """Build a variant that a package brought, and have it score two videos before it is used."""
    try:
        model = variant(config, shapes, classes)
        wrong = _wrong_scores(model, shapes, len(classes))
    except TcaError:
        raise
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        raise UsageError(
            f"the variant {config.variant!r} does not work on this store ({wrong}); see "
            "docs/model.md for what a variant must be."
        )
    return model


@torch.no_grad()
def _wrong_scores(model: Variant, shapes: FeatureShapes, classes: int) -> str:
    """Return what is wrong with the scores of two videos without features, "" if nothing is."""
    frames = () if shapes.segments is None else (shapes.segments,)
    patches = shapes.grid[0] * shapes.grid[1]
    rows = {
        "semantic": (2, *frames, patches, shapes.semantic_width),
        "motion": (2, shapes.motion_segments, shapes.motion_width),
    }
    semantic, motion = (
        torch.zeros(rows[name]) if name in model.streams else None for name in STREAMS
    )
    model.eval()
    scores, by_layer = model.supervised(semantic, motion)
    found = {tuple(scores.shape), tuple(model(semantic, motion).shape)} - {(2, classes)}
    model.train()
    if found:
        return f"it gives scores of shape {found.pop()} for 2 videos and {classes} classes"
    if len(by_layer) < len(model.layer_heads):
        return (
            f"its fuse returns {len(by_layer) + 1} states and its layers are "
            f"{len(model.layer_heads) + 1}"
        )
    return ""


def parameters(module: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
