import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import GraphAttention, similar_edges


def layer(
    grid: tuple[int, int], segments: int | None = None, radius: int = 1, similar: int = 0
) -> GraphAttention:
    torch.manual_seed(0)
    config = ModelConfig(heads=4, dropout=0.5)
    made = GraphAttention(16, grid, segments, radius=radius, similar=similar, config=config)
    with torch.no_grad():
        made.gate.gate.fill_(1.0)
    return made.eval()


def touched(
    attention: GraphAttention, tokens: Tensor, where: tuple[int, int]
) -> set[tuple[int, int]]:
    """Return the (segment, patch) whose output changes with the token at `where`."""
    changed = tokens.clone()
    changed[0, *where] += torch.randn(tokens.shape[-1])
    difference = (attention(changed) - attention(tokens)).abs().amax(-1)[0]
    return {(int(t), int(p)) for t, p in (difference > 1e-6).nonzero()}


@pytest.mark.parametrize(
    ("radius", "expected"), [(0, {12}), (1, {6, 7, 8, 11, 12, 13, 16, 17, 18})]
)
def test_without_similar_edges_a_patch_reaches_its_grid_neighbours_alone(
    radius: int, expected: set[int]
) -> None:
    tokens = torch.randn(1, 1, 25, 16)
    assert touched(layer((5, 5), radius=radius), tokens, (0, 12)) == {(0, p) for p in expected}


def test_frames_are_joined_by_tubes_alone() -> None:
    tokens = torch.randn(1, 4, 9, 16)
    frame = {(2, p) for p in (0, 1, 3, 4)}
    tube = {(t, 0) for t in range(4)}
    assert touched(layer((3, 3), segments=4), tokens, (2, 0)) == frame | tube
    assert touched(layer((3, 3)), tokens, (2, 0)) == frame


def test_segments_are_a_grid_of_one_column() -> None:
    tokens = torch.randn(1, 1, 8, 16)
    assert touched(layer((8, 1), radius=2), tokens, (0, 4)) == {(0, p) for p in range(2, 7)}


def test_a_look_alike_is_reached_wherever_it_lies() -> None:
    tokens = torch.randn(1, 1, 36, 16)
    tokens[0, 0, 35] = 3 * tokens[0, 0, 0] + 0.01 * torch.randn(16)
    edges = layer((6, 6), similar=1).edges(layer((6, 6)).norm(tokens))
    assert bool(edges[0, 0, 0, 35])
    near = layer((6, 6)).near
    assert int((edges[0, 0] & ~near).sum(-1).max()) == 1
    assert bool((edges[0, 0] & near == near).all())


@pytest.mark.parametrize("count", [1, 3, 8])
def test_similar_edges_are_the_highest_cosines(count: int) -> None:
    tokens = torch.randn(2, 9, 5)
    edges = similar_edges(tokens, count)
    cosine = F.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=-1)
    cosine.diagonal(dim1=1, dim2=2).fill_(-2)
    best = cosine.argsort(dim=-1, descending=True, stable=True)[..., :count]
    assert torch.equal(edges, torch.zeros_like(edges).scatter(-1, best, True))


def test_of_equally_similar_patches_the_lower_index_is_taken() -> None:
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [1.0, 0.0]])
    edges = similar_edges(tokens[None], 2)[0]
    chosen = [row.nonzero().flatten().tolist() for row in edges]
    assert chosen == [[1, 4], [2, 3], [1, 3], [1, 2], [0, 1]]
    assert similar_edges(tokens[None], 99)[0].sum(-1).tolist() == [4] * 5


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
    mixed, _ = theirs(normed[:, 0], normed[:, 0], normed[:, 0], attn_mask=mask)
    torch.testing.assert_close(ours(tokens), tokens + mixed[:, None], atol=1e-5, rtol=1e-5)
