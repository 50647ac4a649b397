"""One layer of graph attention against torch's own multi-head attention."""

import torch

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import GraphAttention


def test_one_head_equals_torchs_attention_with_the_graph_as_its_mask() -> None:
    torch.manual_seed(0)
    config = ModelConfig(heads=2)
    ours = GraphAttention(16, (4, 4), None, radius=1, similar=2, config=config).eval()
    with torch.no_grad():
        ours.gate.gate.fill_(1.0)
        ours.frame_bias.normal_()
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.in_proj_bias.copy_(ours.query_key_value.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens = torch.randn(1, 1, 16, 16)
    normed = ours.norm(tokens)
    bias = ours.frame_bias[:, ours.down, ours.across]
    mask = bias.masked_fill(~ours.edges(normed)[0, 0], float("-inf"))
    mixed, weights = theirs(
        normed[:, 0], normed[:, 0], normed[:, 0], attn_mask=mask, average_attn_weights=False
    )
    torch.testing.assert_close(ours(tokens), tokens + mixed[:, None], atol=1e-5, rtol=1e-5)
    shown = ours.graph(tokens, weights=True).frame_weights
    torch.testing.assert_close(shown[:, 0], weights, atol=1e-5, rtol=1e-5)
