"""torch.compile takes every variant whole, dropout and all, and makes the same of it."""

from typing import Any

import pytest
import torch
from small_models import awake, features, small
from torch._dynamo.testing import CompileCounterWithBackend

from tca.cache.layout import FeatureShapes
from tca.fusion.model.registry import OWN
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss

SHAPES = FeatureShapes(2, (2, 3), 16, 3, 8)
TINY: dict[str, Any] = {"heads": 2, "bottleneck": 8, "rank": 2, "layers": 1, "similar": 2}
NOISE: dict[str, Any] = {"dropout": 0.2, "drop_path": 0.3}
TRAIN = TrainConfig()

Steps = list[tuple[float, dict[str, torch.Tensor]]]


def steps(
    model: torch.nn.Module, loss: Any, batches: tuple[int, ...], seed: int | None = None
) -> Steps:
    """Return loss and gradients of a training step on batches of these sizes."""
    found = []
    for batch in batches:
        if seed is not None:
            torch.manual_seed(seed)
        model.zero_grad()
        value = loss(model, *features(SHAPES, batch), torch.arange(batch) % 4, TRAIN)
        value.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        found.append((value.item(), gradients))
    return found


def agree(one: Steps, other: Steps, **tolerance: float) -> None:
    for (loss, gradients), (expected, theirs) in zip(one, other, strict=True):
        assert loss == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(gradients, theirs, **tolerance)


def alike(batches: tuple[int, ...], **settings: Any) -> int:
    """Hold training of a model compiled whole against the same not compiled; count its graphs."""
    torch._dynamo.reset()
    model = awake(small(SHAPES, 4, **(TINY | NOISE | settings))).train()
    whole = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(fusion_loss, fullgraph=True, backend=whole)
    agree(
        steps(model, compiled, batches, seed=1),
        steps(model, fusion_loss, batches, seed=1),
        atol=1e-5,
        rtol=1e-4,
    )
    assert whole.op_count > 10
    return whole.frame_count


@pytest.mark.parametrize(
    "variant",
    [v if v == "gasm_cast" else pytest.param(v, marks=pytest.mark.long) for v in OWN],
)
def test_every_variant_is_one_graph_that_trains_alike_dropout_and_all(variant: str) -> None:
    assert alike((4,), variant=variant) == 1


@pytest.mark.parametrize("switch", [{"progressive": True, "layers": 2}, {"checkpointing": True}])
def test_switches_stay_one_graph(switch: dict[str, Any]) -> None:
    assert alike((4,), variant="bcast", **switch) == 1


@pytest.mark.parametrize(
    "variant", ["semantic_only", pytest.param("gasm_cast", marks=pytest.mark.long)]
)
def test_a_batch_of_another_size_makes_one_more_graph_for_any_size(variant: str) -> None:
    assert alike((4, 3, 6), variant=variant) == 2


@pytest.mark.long
@pytest.mark.parametrize("variant", OWN)
def test_compiled_to_machine_code_every_variant_trains_alike(variant: str) -> None:
    torch._dynamo.reset()
    # Machine code draws other random numbers, so nothing is dropped here.
    model = awake(small(SHAPES, 4, variant=variant, **TINY, dropout=0, head_dropout=0)).train()
    compiled = torch.compile(fusion_loss, fullgraph=True)
    agree(steps(model, compiled, (4,)), steps(model, fusion_loss, (4,)), atol=1e-4, rtol=1e-3)


def test_checkpointing_gives_the_same_gradients_and_keeps_less() -> None:
    # Narrow streams and many tokens: what lies inside the layers is most of what is kept.
    shapes = FeatureShapes(4, (4, 4), 16, 3, 8)
    kept = {}
    found = {}
    for checkpointing in (False, True):
        settings = TINY | NOISE | {"layers": 3, "graph_layers": 2, "ratio": 4.0}
        model = awake(small(shapes, 4, checkpointing=checkpointing, **settings)).train()
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        bytes_of: dict[int, int] = {}

        def keep(
            tensor: torch.Tensor,
            weights: set[int] = weights,
            bytes_of: dict[int, int] = bytes_of,
        ) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                bytes_of[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = fusion_loss(model, *features(shapes), torch.arange(3), TRAIN)
        kept[checkpointing] = sum(bytes_of.values())
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found[checkpointing] = [(loss.item(), gradients)]
    agree(found[True], found[False], atol=0, rtol=0)
    assert kept[True] < kept[False] / 3
