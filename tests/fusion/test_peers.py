"""The peers are what their papers say, out of torch's own attention and by hand."""

import pytest
import torch
import torch.nn.functional as F
from small_models import FORMS, awake, features, small
from torch import nn

from tca.fusion.model.cross import CrossAttention
from tca.fusion.model.head import Head

SHAPES = FORMS["frames"]


def theirs(ours: CrossAttention, width: int, other_width: int) -> nn.MultiheadAttention:
    """Return torch's attention between widths with the weights of ours."""
    made = nn.MultiheadAttention(
        width, ours.heads, kdim=other_width, vdim=other_width, batch_first=True
    )
    key, value = ours.key_value.weight.chunk(2)
    with torch.no_grad():
        if made.in_proj_weight is None:
            made.q_proj_weight.copy_(ours.query.weight)
            made.k_proj_weight.copy_(key)
            made.v_proj_weight.copy_(value)
        else:
            made.in_proj_weight.copy_(torch.cat((ours.query.weight, key, value)))
        made.in_proj_bias.copy_(torch.cat((ours.query.bias, ours.key_value.bias)))
        made.out_proj.load_state_dict(ours.out.state_dict())
    return made


def attended(ours: CrossAttention, tokens: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return what torch's attention makes of the normed tokens."""
    torchs = theirs(ours, tokens.shape[-1], other.shape[-1])
    normed = ours.other_norm(other)
    return torchs(ours.norm(tokens), normed, normed, need_weights=False)[0]


def test_cross_attention_is_torchs_between_full_widths_both_ways_at_once() -> None:
    model = awake(small(SHAPES, variant="cross_attention", layers=1, heads=2))
    (layer,) = model.layers
    semantic, motion = torch.randn(2, 20, 48), torch.randn(2, 8, 32)
    found = layer(semantic, motion)
    for side, tokens, other, after in (
        (layer.semantic, semantic, motion, found[0]),
        (layer.motion, motion, semantic, found[1]),
    ):
        expected = tokens + side.cross_gate.gate * attended(side.cross, tokens, other)
        (norm, widen, _, _), narrow = side.feed_forward.widen, side.feed_forward.narrow
        fed = narrow(F.gelu(widen(norm(expected))))
        assert widen.out_features == 2 * tokens.shape[-1]
        expected = expected + side.feed_forward_gate.gate * fed
        torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)


def test_the_attentive_probe_is_one_query_over_all_tokens() -> None:
    model = awake(small(SHAPES, variant="attentive_probe", heads=2))
    inputs = features(SHAPES)
    gathered = []
    for name, tokens in model.tokens(*inputs).items():
        probe = model.head.probes[name]
        query = probe.query.expand(3, -1, -1)
        one = query + attended(probe.cross, query, tokens.flatten(1, 2))
        (norm, widen, _, _), narrow = probe.feed_forward.widen, probe.feed_forward.narrow
        gathered.append((one + narrow(F.gelu(widen(norm(one)))))[:, 0])
    expected = model.head.classify(model.head.norm(torch.cat(gathered, -1)))
    torch.testing.assert_close(model(*inputs), expected, atol=1e-4, rtol=1e-4)


def test_the_gated_sum_is_the_gated_multimodal_unit() -> None:
    model = awake(small(SHAPES, variant="gated_sum"))
    inputs = features(SHAPES)
    tokens = model.tokens(*inputs)
    head = model.head
    read = [
        F.layer_norm(head.readouts[n](t), (head.readouts[n].features,)) for n, t in tokens.items()
    ]
    hidden = [torch.tanh(head.project[n](one)) for n, one in zip(tokens, read, strict=True)]
    share = torch.sigmoid(head.weigh(torch.cat(read, -1)))
    expected = head.classify(share * hidden[0] + (1 - share) * hidden[1])
    torch.testing.assert_close(model(*inputs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("variant", "parts"),
    [
        ("gasm_cast", {"graph_layers", "layers"}),
        ("bcast", {"layers"}),
        ("cross_attention", {"graph_layers", "layers"}),
        ("attentive_probe", set()),
        ("concat", set()),
        ("gated_sum", set()),
        ("semantic_only", {"graph_layers"}),
        ("motion_only", {"graph_layers"}),
    ],
)
def test_variants_differ_in_the_parts_that_the_table_says(variant: str, parts: set[str]) -> None:
    model = small(SHAPES, variant=variant)
    streams = {"semantic_only": {"semantic"}, "motion_only": {"motion"}}
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"stems", "head"} | parts
    assert set(model.stems) == streams.get(variant, {"semantic", "motion"})
    assert isinstance(model.head, Head) == (variant not in ("attentive_probe", "gated_sum"))
    if "graph_layers" in parts:
        # The same graphs as GASM-CAST's, so that a difference is another part's.
        full = small(SHAPES)
        for name, layers in model.graph_layers.items():
            shapes = {key: value.shape for key, value in layers.state_dict().items()}
            theirs = full.graph_layers[name].state_dict()
            assert shapes == {key: value.shape for key, value in theirs.items()}
