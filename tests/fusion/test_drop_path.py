"""Stochastic depth leaves branches out for whole videos and keeps what is expected of them."""

import pytest
import torch
from small_models import FORMS, SMALL, awake, features, small

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.gate import Gate
from tca.fusion.model.graph_attention import GraphAttention


@pytest.mark.parametrize("rate", [0.25, 0.6])
def test_a_branch_is_left_out_for_whole_videos_and_its_expectation_is_kept(rate: float) -> None:
    torch.manual_seed(0)
    gate = Gate(rate).train()
    with torch.no_grad():
        gate.gate.fill_(0.5)
    stream, branch = torch.randn(4000, 3, 5), torch.randn(4000, 3, 5)
    added = gate(stream, branch) - stream
    # Either nothing of a video's branch, or all of it, scaled up.
    left_out = (added == 0).flatten(1).all(1)
    assert (left_out | (added != 0).flatten(1).all(1)).all()
    torch.testing.assert_close(
        added[~left_out], 0.5 * branch[~left_out] / (1 - rate), atol=1e-5, rtol=1e-4
    )
    # Within four standard deviations of a binomial.
    assert abs(float(left_out.float().mean()) - rate) < 4 * (rate * (1 - rate) / 4000) ** 0.5
    gate.eval()
    assert torch.equal(gate(stream, branch), stream + gate.gate * branch)


def test_a_layer_of_graph_attention_leaves_whole_videos_as_they_are() -> None:
    torch.manual_seed(0)
    config = ModelConfig(**SMALL, drop_path=0.5, dropout=0)
    layer = GraphAttention(16, (3, 3), 4, radius=1, similar=2, config=config).train()
    with torch.no_grad():
        layer.gate.gate.fill_(1.0)
    tokens = torch.randn(64, 4, 9, 16)
    touched = (layer(tokens) != tokens).flatten(1)
    whole = touched.float().mean(1)
    assert set(whole.gt(0.5).tolist()) == {True, False}
    assert ((whole == 0) | (whole > 0.99)).all()


@pytest.mark.parametrize("variant", ["gasm_cast", "cross_attention"])
def test_every_branch_of_a_model_draws_for_itself_and_scoring_draws_nothing(variant: str) -> None:
    shapes = FORMS["pooled"]
    model = awake(small(shapes, variant=variant, drop_path=0.5, dropout=0, head_dropout=0))
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    drawn: list[tuple[bool, ...]] = []
    for gate in gates:
        gate.register_forward_hook(
            lambda _, given, after: drawn.append(
                tuple((given[0] == after).flatten(1).all(1).tolist())
            )
        )
    model.train()
    torch.manual_seed(0)
    model(*features(shapes, 12))
    # 2 streams, a graph layer and 2 layers between; full width has a gate for its feed-forward too.
    assert len(drawn) == len(gates) == {"gasm_cast": 6, "cross_attention": 10}[variant]
    assert len(set(drawn)) == len(gates)
    drawn.clear()
    model.eval()
    before = torch.get_rng_state()
    model(*features(shapes, 12))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(any(one) for one in drawn)
