"""Small fusion models whose branches all count, and features to give them."""

from typing import Any

import torch
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import build
from tca.fusion.model.variant import Variant

SMALL: dict[str, Any] = {
    "bottleneck": 16,
    "heads": 4,
    "rank": 8,
    "layers": 2,
    "ratio": 2.0,
    "cells": 2,
    "radius": 1,
    "similar": 3,
}

FORMS = {
    "mean": FeatureShapes(None, (6, 6), 48, 8, 32),
    "frames": FeatureShapes(8, (6, 6), 48, 8, 32),
    "pooled": FeatureShapes(8, (3, 3), 48, 8, 32),
    "flat grid, odd widths, other clocks": FeatureShapes(4, (2, 5), 50, 6, 37),
    "wider than the widest": FeatureShapes(None, (2, 2), 800, 16, 24),
}

VERBS = ("Pushing", "Pulling", "Lifting")


def class_names(count: int) -> list[str]:
    """Return class names of three verbs."""
    return [f"{VERBS[number % 3]} something {number}" for number in range(count)]


def small(shapes: FeatureShapes, classes: int = 5, **settings: Any) -> Variant:
    """Build a small model, the same one for the same arguments."""
    torch.manual_seed(0)
    return build(ModelConfig(**{**SMALL, **settings}), shapes, class_names(classes))


def features(shapes: FeatureShapes, batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return a batch as a store would hold it, in float16."""
    generator = torch.Generator().manual_seed(seed)
    patches = (shapes.grid[0] * shapes.grid[1], shapes.semantic_width)
    frames = () if shapes.segments is None else (shapes.segments,)
    semantic = torch.randn(batch, *frames, *patches, generator=generator)
    motion = torch.randn(batch, shapes.motion_segments, shapes.motion_width, generator=generator)
    return semantic.half(), motion.half()


def awake(model: Variant) -> Variant:
    """Give every parameter that starts at zero, or at one, a value of its own.

    A fresh model is blind to its branches: gates, biases and classifiers are zero. It is set to
    score, not to train.
    """
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2 or name.endswith(("bias", "classify.weight")):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.5 * noise.to(parameter))
            if name.endswith("gate"):
                # Never near zero: what is behind a closed gate cannot be seen.
                parameter.copy_(parameter.sign() * (0.3 + parameter.abs()))
    return model.eval()
