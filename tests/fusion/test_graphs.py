"""Graphs are real: who is joined decides what reaches whom, and content decides who is joined."""

from typing import Any

import pytest
import torch
from small_models import awake, features, small
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.fusion.model.graph_attention import Graph, similar_edges
from tca.fusion.model.graphs import along_graphs
from tca.fusion.model.variant import Variant

SHAPES = FeatureShapes(4, (5, 5), 24, 8, 16)


def made(shapes: FeatureShapes = SHAPES, **settings: Any) -> Variant:
    return awake(small(shapes, **settings))


@torch.no_grad()
def after_graphs(model: Variant, semantic: Tensor, motion: Tensor) -> dict[str, Tensor]:
    """Return every stream after its graph layers, one token a node, (B, T·P, D)."""
    tokens = along_graphs(model, model.graph_layers, model.tokens(semantic, motion))
    return {name: some.flatten(1, 2) for name, some in tokens.items()}


def reach(graphs: list[Graph], node: int) -> Tensor:
    """Return which nodes of video 0 hear of `node` after all layers, bool (T·P,)."""
    heard = torch.zeros(graphs[0].adjacency().shape[-1], dtype=torch.bool)
    heard[node] = True
    for graph in graphs:
        # A node keeps itself: the layers are residual.
        heard = heard | (graph.adjacency()[0] & heard).any(-1)
    return heard


def heard(model: Variant, stream: str, one: Any, other: Any) -> Tensor:
    """Return at which nodes of video 0 two batches come out differently, in any bit."""
    before, after = (after_graphs(model, *batch)[stream][0] for batch in (one, other))
    return (before != after).any(-1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("segments", [None, 4])
def test_on_a_fixed_grid_a_patch_reaches_its_neighbours_neighbours_and_not_one_bit_further(
    segments: int | None, layers: int
) -> None:
    shapes = FeatureShapes(segments, (5, 5), 24, 8, 16)
    model = made(shapes, graph_layers=layers, similar=0, radius=1)
    semantic, motion = features(shapes)
    times = segments or 1
    for at in [(0, 0), (times - 1, 7), (times // 2, 12)]:
        changed = semantic.clone()
        changed.view(3, times, 25, 24)[0, at[0], at[1]] += 1
        touched = heard(model, "semantic", (semantic, motion), (changed, motion))
        y, x = divmod(at[1], 5)
        expected = {
            (t, p)
            for t in range(times)
            for p in range(25)
            for steps in [max(abs(p // 5 - y), abs(p % 5 - x))]
            # One layer goes a step across the grid or any way through time; two do both.
            if steps <= layers - (t != at[0])
        }
        assert {(int(n) // 25, int(n) % 25) for n in touched.nonzero()} == expected
        graphs = model.graphs(semantic, motion)["semantic"]
        assert torch.equal(reach(graphs, at[0] * 25 + at[1]), touched)


def test_a_segment_reaches_as_far_as_the_window_and_the_layers() -> None:
    model = made(graph_layers=2, similar_segments=0, window=1)
    semantic, motion = features(SHAPES)
    changed = motion.clone()
    changed[0, 1] += 1
    touched = heard(model, "motion", (semantic, motion), (semantic, changed))
    assert touched.nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert not heard(model, "semantic", (semantic, motion), (semantic, changed)).any()


def test_with_look_alikes_only_those_who_list_a_patch_hear_of_it() -> None:
    model = made(graph_layers=2, similar=2, radius=0)
    semantic, motion = features(SHAPES)
    tried = far = 0
    for node in range(4 * 25):
        changed = semantic.clone()
        changed[0, node // 25, node % 25, 0] += 0.01
        graphs, after = (
            model.graphs(patches, motion)["semantic"] for patches in (semantic, changed)
        )
        if not all(torch.equal(a.edges, b.edges) for a, b in zip(graphs, after, strict=True)):
            continue  # Somebody's list has changed with it.
        tried += 1
        expected = reach(graphs, node)
        assert torch.equal(
            heard(model, "semantic", (semantic, motion), (changed, motion)), expected
        )
        far += int((~expected).sum())
    assert tried > 50
    assert far > 50 * tried  # Most nodes are out of the reach of most others.


def test_a_patch_in_nobodys_list_is_heard_by_itself_and_its_tube_alone() -> None:
    model = made(similar=2, radius=0)
    semantic, motion = features(SHAPES)
    listed = model.graphs(semantic, motion)["semantic"][0].edges[0, 0]
    alone = (listed.sum(0) == 1).nonzero().flatten().tolist()
    assert alone, "no patch is in nobody's list; take another seed"
    changed = semantic.clone()
    changed[0, 0, alone[0], 0] += 0.01
    touched = heard(model, "semantic", (semantic, motion), (changed, motion))
    assert touched.nonzero().flatten().tolist() == [alone[0] + 25 * t for t in range(4)]


def test_edges_follow_a_look_alike_wherever_it_moves() -> None:
    model = made(similar=1, radius=0)
    semantic, motion = features(SHAPES)
    for place in (24, 13, 4):
        moved = semantic.clone()
        moved[0, 2, place] = 2 * moved[0, 2, 0]
        edges = model.graphs(moved, motion)["semantic"][0].edges[0, 2]
        assert edges[0].nonzero().flatten().tolist() == [0, place]
        assert edges[place].nonzero().flatten().tolist() == [0, place]
    steps = motion.clone()
    steps[0, 6] = -motion[0, 1]
    steps[0, 4] = motion[0, 1]
    model = made(similar_segments=1, window=0)
    edges = model.graphs(semantic, steps)["motion"][0].edges[0, 0]
    assert edges[1].nonzero().flatten().tolist() == [1, 4]


def test_look_alikes_are_added_to_the_neighbours_and_lie_in_the_same_frame() -> None:
    model = made(similar=3, radius=1)
    graph = model.graphs(*features(SHAPES))["semantic"][0]
    bare = made(similar=0, radius=1).graphs(*features(SHAPES))["semantic"][0]
    assert graph.edges.shape == bare.edges.shape == (3, 4, 25, 25)
    more = graph.edges.sum(-1) - bare.edges.sum(-1)
    assert bool((graph.edges & bare.edges == bare.edges).all())
    assert (int(more.min()), int(more.max())) == (0, 3)
    frame = torch.arange(100) // 25
    inside = frame[:, None] == frame[None]
    same_patch = torch.arange(100)[:, None] % 25 == torch.arange(100)[None] % 25
    joined = graph.adjacency()
    assert torch.equal(joined & ~inside, (same_patch & ~inside).expand_as(joined))


def test_weights_of_the_graph_make_the_layers_own_output() -> None:
    model = made(similar=3, radius=1)
    semantic, motion = features(SHAPES)
    tokens = model.tokens(semantic, motion)["semantic"]
    (layer,) = model.graph_layers["semantic"]
    (graph,) = model.graphs(semantic, motion, weights=True)["semantic"]
    packed = torch.nn.functional.linear(
        layer.norm(tokens), layer.query_key_value.weight, layer.query_key_value.bias
    )
    value = packed.chunk(3, dim=-1)[2].unflatten(-1, (4, -1))  # (B, T, P, heads, size)
    inside = torch.einsum("bthpq,btqhd->btphd", graph.frame_weights, value[..., :2, :])
    through = torch.einsum("bphst,btphd->bsphd", graph.tube_weights, value[..., 2:, :])
    mixed = layer.out(torch.cat((inside, through), dim=-2).flatten(-2))
    expected = tokens + layer.gate.gate * mixed
    torch.testing.assert_close(layer(tokens), expected, atol=1e-5, rtol=1e-5)


def test_graphs_are_those_of_scoring_even_while_training() -> None:
    model = made(graph_layers=2, dropout=0.5, checkpointing=True)
    inputs = features(SHAPES)
    scored = model.graphs(*inputs, weights=True)
    model.train()
    found = model.graphs(*inputs, weights=True)
    assert model.training
    for stream in ("semantic", "motion"):
        for one, other in zip(scored[stream], found[stream], strict=True):
            assert torch.equal(one.edges, other.edges)
            assert torch.equal(one.frame_weights, other.frame_weights)


def test_variants_without_graphs_have_none() -> None:
    for name in ("bcast", "attentive_probe", "concat", "gated_sum"):
        assert made(variant=name).graphs(*features(SHAPES)) == {}
    assert list(made(variant="motion_only").graphs(None, features(SHAPES)[1])) == ["motion"]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_similar_edges_are_the_highest_cosines(count: int) -> None:
    tokens = torch.randn(2, 9, 5)
    edges = similar_edges(tokens, count)
    cosine = torch.nn.functional.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=-1)
    cosine.diagonal(dim1=1, dim2=2).fill_(-2)
    best = cosine.argsort(dim=-1, descending=True, stable=True)[..., :count]
    assert torch.equal(edges, torch.zeros_like(edges).scatter(-1, best, True))


def test_of_equally_similar_patches_the_lower_index_is_taken() -> None:
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [1.0, 0.0]])
    edges = similar_edges(tokens[None], 2)[0]
    chosen = [row.nonzero().flatten().tolist() for row in edges]
    assert chosen == [[1, 4], [2, 3], [1, 3], [1, 2], [0, 1]]
    assert similar_edges(tokens[None], 99)[0].sum(-1).tolist() == [4] * 5
    # Through the model: without positions, equal frames give every patch equal others.
    model = made(similar=3, radius=0)
    with torch.no_grad():
        model.stems["semantic"].positions.scale.zero_()
    semantic, motion = features(SHAPES)
    flat = semantic[:, :, :1].expand_as(semantic)
    edges = model.graphs(flat, motion)["semantic"][0].edges[0, 0]
    assert edges[0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert edges[24].nonzero().flatten().tolist() == [0, 1, 2, 24]
