"""No NaN and no infinity: large features, half precision, and graphs of one node or one edge."""

from typing import Any

import pytest
import torch
from small_models import FORMS, awake, features, small
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.fusion.model.registry import OWN
from tca.fusion.model.variant import Variant
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss

NARROW: dict[str, Any] = {"allow_large": True}


def finite_step(model: Variant, semantic: Tensor, motion: Tensor, precision: Any) -> Tensor:
    """Hold that one training step is all numbers; returns the scores of the batch."""
    model.train()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        loss = fusion_loss(model, semantic, motion, torch.arange(3), TrainConfig())
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        scores = model(semantic, motion)
    assert scores.isfinite().all()
    return scores


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", OWN)
def test_features_a_hundred_times_as_large_as_those_measured(
    variant: str, precision: torch.dtype | None
) -> None:
    shapes = FORMS["frames"]
    model = awake(small(shapes, variant=variant, **NARROW))
    semantic, motion = features(shapes)
    model.fit_statistics([(semantic, motion)])
    finite_step(model, 100 * semantic, 100 * motion, precision)


@pytest.mark.parametrize("value", [0.0, 1.0, -6e4])
@pytest.mark.parametrize("form", ["mean", "frames"])
def test_features_that_are_all_the_same(form: str, value: float) -> None:
    shapes = FORMS[form]
    model = awake(small(shapes))
    semantic, motion = (torch.full_like(given, value) for given in features(shapes))
    finite_step(model, semantic, motion, torch.bfloat16)
    # And where the statistics are of such features too.
    model.fit_statistics([(semantic, motion)])
    model.zero_grad()
    finite_step(model, semantic, motion, torch.bfloat16)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_types_are_taken_as_they_are(stored: torch.dtype) -> None:
    shapes = FORMS["frames"]
    model = awake(small(shapes))
    semantic, motion = features(shapes)
    scores = finite_step(model, semantic.to(stored), motion.to(stored), None)
    exact = model(semantic.to(stored).float(), motion.to(stored).float())
    torch.testing.assert_close(scores, exact)


def test_bfloat16_autocast_agrees_with_float32() -> None:
    model = awake(small(FORMS["frames"], similar=0, similar_segments=0))
    inputs = features(FORMS["frames"])
    exact = model(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(*inputs)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.05


def test_lists_of_look_alikes_are_made_in_float32_whatever_the_precision() -> None:
    model = awake(small(FORMS["frames"]))
    inputs = features(FORMS["frames"])
    exact = model.graphs(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.graphs(*inputs, weights=True)
    for stream in ("semantic", "motion"):
        assert torch.equal(rounded[stream][0].edges, exact[stream][0].edges)
        sums = rounded[stream][0].frame_weights.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


DEGENERATE: dict[str, tuple[FeatureShapes, dict[str, Any]]] = {
    "one patch": (FeatureShapes(None, (1, 1), 12, 4, 8), {}),
    "one patch a frame": (FeatureShapes(4, (1, 1), 12, 4, 8), {}),
    "one segment": (FeatureShapes(4, (3, 3), 12, 1, 8), {}),
    "one frame": (FeatureShapes(1, (3, 3), 12, 4, 8), {}),
    "one of everything": (FeatureShapes(None, (1, 1), 1, 1, 1), {}),
    "a row of patches": (FeatureShapes(2, (1, 7), 12, 4, 8), {}),
    "no edge but to itself": (
        FeatureShapes(4, (3, 3), 12, 4, 8),
        {"similar": 0, "radius": 0, "window": 0, "similar_segments": 0},
    ),
    "more look-alikes than there are": (
        FeatureShapes(4, (2, 2), 12, 3, 8),
        {"similar": 99, "similar_segments": 99, "radius": 0},
    ),
    "a radius beyond the grid": (FeatureShapes(4, (2, 3), 12, 3, 8), {"radius": 50}),
    "two heads, one of them for tubes": (FeatureShapes(4, (3, 3), 12, 4, 8), {"heads": 2}),
    "three heads": (FeatureShapes(4, (3, 3), 12, 4, 8), {"heads": 3}),
    "more cells than patches": (FeatureShapes(4, (2, 3), 12, 4, 8), {"cells": 9}),
}


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("case", DEGENERATE)
def test_the_smallest_graphs_are_defined(case: str, precision: torch.dtype | None) -> None:
    shapes, settings = DEGENERATE[case]
    model = awake(small(shapes, **settings))
    semantic, motion = features(shapes)
    finite_step(model, semantic, motion, precision)
    for graphs in model.graphs(semantic, motion, weights=True).values():
        for graph in graphs:
            # Nobody is without an edge: every node attends to itself at least.
            assert graph.edges.diagonal(dim1=-2, dim2=-1).all()
            sums = graph.frame_weights.sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))


def test_alone_with_itself_a_node_takes_its_own_value_whole() -> None:
    shapes, settings = DEGENERATE["no edge but to itself"]
    model = awake(small(shapes, **settings))
    (graph,) = model.graphs(*features(shapes), weights=True)["semantic"]
    assert torch.equal(graph.frame_weights, torch.eye(9).expand_as(graph.frame_weights))


def test_more_look_alikes_than_there_are_join_everybody() -> None:
    shapes, settings = DEGENERATE["more look-alikes than there are"]
    model = awake(small(shapes, **settings))
    graphs = model.graphs(*features(shapes))
    assert graphs["semantic"][0].edges.all()
    assert graphs["motion"][0].edges.all()
