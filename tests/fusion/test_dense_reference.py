"""The model is what docs/model.md says: value by value, gradient by gradient."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from dense_reference import DenseReference
from small_models import awake, small
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.fusion.model.variant import Variant

TINY: dict[str, Any] = {
    "heads": 2,
    "bottleneck": 8,
    "rank": 3,
    "ratio": 1.5,
    "similar": 2,
    "window": 1,
    "similar_segments": 1,
}

CASES: dict[str, tuple[FeatureShapes, dict[str, Any]]] = {
    "mean": (FeatureShapes(None, (3, 4), 12, 4, 9), {}),
    "frames": (FeatureShapes(3, (2, 3), 12, 4, 9), {}),
    "frames pooled by the model": (FeatureShapes(2, (4, 6), 10, 2, 7), {"pool": 2}),
    "frames wider than they may be": (FeatureShapes(2, (2, 2), 21, 3, 14), {"max_width": 11}),
    "two graph layers, odd heads, no feed-forward": (
        FeatureShapes(2, (3, 3), 13, 5, 8),
        {"graph_layers": 2, "heads": 3, "ratio": 0, "cells": 3, "radius": 0},
    ),
    "progressive": (FeatureShapes(2, (2, 2), 9, 3, 8), {"progressive": True, "layers": 3}),
    "one patch, one segment, one frame": (FeatureShapes(1, (1, 1), 9, 1, 8), {}),
}


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Build and count in float64."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(usual)


def made(case: str) -> tuple[Variant, Tensor, Tensor]:
    """Return a model whose every weight counts, and a batch of two videos."""
    shapes, settings = CASES[case]
    model = awake(small(shapes, 4, **(TINY | settings)))
    frames = () if shapes.segments is None else (shapes.segments,)
    semantic = torch.randn(2, *frames, shapes.grid[0] * shapes.grid[1], shapes.semantic_width)
    motion = torch.randn(2, shapes.motion_segments, shapes.motion_width)
    model.fit_statistics([(3 * semantic + 1, motion / 2)])
    return model, semantic.requires_grad_(), motion.requires_grad_()


def reference_of(model: Variant, case: str) -> tuple[DenseReference, dict[str, Tensor]]:
    """Return the reference with leaves of its own, and these."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    leaves = {name: state[name].requires_grad_() for name, _ in model.named_parameters()}
    return DenseReference(state, model.config, CASES[case][0]), leaves


def close(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-9, atol=1e-10, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_reference_to_rounding(case: str) -> None:
    model, semantic, motion = made(case)
    reference, leaves = reference_of(model, case)
    plain = [given.detach().clone().requires_grad_() for given in (semantic, motion)]
    scores, by_layer = model.supervised(semantic, motion)
    expected, expected_layers = reference.scores(*plain)
    close(scores, expected, "scores")
    close(model(semantic, motion), expected, "scores of forward")
    assert len(by_layer) == len(expected_layers) == (2 if model.config.progressive else 0)
    for found, one in zip(by_layer, expected_layers, strict=True):
        close(found.scores, one, "scores of a layer")

    # A sum of squares gives every score a gradient of its own.
    sum(one.square().sum() for one in (scores, *(layer.scores for layer in by_layer))).backward()
    sum(one.square().sum() for one in (expected, *expected_layers)).backward()
    for name, given, one in zip(("semantic", "motion"), (semantic, motion), plain, strict=True):
        assert given.grad.abs().max() > 1e-3
        close(given.grad, one.grad, name)
    for name, parameter in model.named_parameters():
        close(parameter.grad, leaves[name].grad, name)


@pytest.mark.parametrize("case", CASES)
def test_graphs_are_those_of_the_reference_edge_by_edge_and_weight_by_weight(case: str) -> None:
    model, semantic, motion = made(case)
    reference, _ = reference_of(model, case)
    with torch.no_grad():
        reference.scores(semantic, motion)
    found = model.graphs(semantic, motion, weights=True)
    assert set(found) == {"semantic", "motion"}
    for stream, graphs in found.items():
        assert len(graphs) == model.config.graph_layers
        for layer, graph in enumerate(graphs):
            edges, frame = torch.zeros_like(graph.edges), torch.zeros_like(graph.frame_weights)
            tube = None if graph.tube is None else torch.zeros_like(graph.tube_weights)
            joined = torch.zeros_like(graph.adjacency())
            patches = model.grid(stream)[0] * model.grid(stream)[1]
            for video, of_streams in enumerate(reference.graphs):
                seen = of_streams[stream][layer]
                for (node, head), shares in seen.inside.items():
                    for other, share in shares.items():
                        joined[video, _index(node, patches), _index(other, patches)] = True
                        # Segments are the nodes of the one frame that a time line is.
                        t, of, to = (
                            (0, node[0], other[0])
                            if stream == "motion"
                            else (node[0], node[1], other[1])
                        )
                        edges[video, t, of, to] = True
                        frame[video, t, head, of, to] = share
                for (node, head), shares in seen.through_time.items():
                    for other, share in shares.items():
                        joined[video, _index(node, patches), _index(other, patches)] = True
                        of_tubes = head - model.config.heads + tube.shape[2]
                        tube[video, node[1], of_tubes, node[0], other[0]] = share
            assert torch.equal(graph.edges, edges)
            assert torch.equal(graph.adjacency(), joined)
            assert torch.equal(graph.frame_weights != 0, edges[:, :, None].expand_as(frame))
            close(graph.frame_weights, frame, f"weights of {stream}")
            close(graph.frame_weights.sum(-1), torch.ones(frame.shape[:-1]), "sums")
            if tube is None:
                assert graph.tube_weights is None
            else:
                close(graph.tube_weights, tube, "weights through time")
                close(graph.tube_weights.sum(-1), torch.ones(tube.shape[:-1]), "sums")


def _index(node: tuple[int, int], patches: int) -> int:
    return node[0] * patches + node[1]
