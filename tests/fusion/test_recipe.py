"""The steps of a training against a plain loop written with torch's own parts."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory_store import moving_dot
from small_models import awake
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variant import Variant
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.member import Inputs, Member
from tca.fusion.train.schedule import Plateau, rate
from tca.fusion.train.world import World

MODEL = ModelConfig(
    bottleneck=16,
    heads=2,
    layers=1,
    ratio=1,
    rank=8,
    similar=2,
    radius=1,
    dropout=0,
    head_dropout=0,
)
LR = 3e-3
TRAIN = TrainConfig(batch_size=8, lr=LR, device="cpu", precision="float32")
STORE = moving_dot(96)
STEPS = 12

Batch = tuple[Inputs, Tensor]
Group = dict[str, Any]


def batches() -> list[Batch]:
    """Return as many batches of eight rows as there are steps."""
    semantic, motion = torch.from_numpy(STORE.semantic), torch.from_numpy(STORE.motion)
    label = torch.from_numpy(STORE.label).long()
    parts = np.random.default_rng(0).permutation(96).reshape(STEPS, 8)
    return [((semantic[rows], motion[rows]), label[rows]) for rows in parts]


def member(config: TrainConfig) -> Member:
    """Return a member whose branches are all open.

    In float64: nothing depends on a key's bias, and of the rounding in its gradient, were it as
    large as float32's, AdamW would make whole steps.
    """
    found = Member(MODEL, config, STORE.shapes, STORE.classes, World(0, 1, torch.device("cpu")))
    awake(found.model.double())
    found.begin()
    return found


@dataclass
class ByHand:
    """What the plain loop came to, step by step; norms are of gradients before they are cut."""

    averages: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def by_hand(
    model: Variant,
    given: Sequence[Batch],
    *,
    schedule: Callable[[Optimizer], LRScheduler],
    groups: Callable[[nn.Module], list[Group]],
    clip_norm: float = 1.0,
    smoothing: float = 0.1,
    ema: float = 0.0,
) -> ByHand:
    """Train `model` with torch's own parts, every batch in one piece."""
    model.train()
    optimizer = AdamW(groups(model), lr=LR, foreach=False)
    scheduler = schedule(optimizer)
    found = ByHand()
    for (semantic, motion), target in given:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(semantic, motion), target, label_smoothing=smoothing)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.losses.append(loss.item())
        found.norms.append(gradient.norm().item())
        found.rates.append(optimizer.param_groups[0]["lr"])
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        scheduler.step()
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        before = found.averages[-1] if found.averages else now
        found.averages.append({name: ema * before[name] + (1 - ema) * now[name] for name in now})
    return found


def matrices_decay(decay: float) -> Callable[[nn.Module], list[Group]]:
    """Return groups in which the weights of linear layers decay, and nothing else."""

    def groups(model: nn.Module) -> list[Group]:
        matrices = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
        others = [p for p in model.parameters() if all(p is not m for m in matrices)]
        return [
            {"params": matrices, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]

    return groups


def by_name(model: nn.Module) -> list[Group]:
    """Return the groups that RULES mean, with a weight decay of 0.5 beside them."""
    found = []
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            decay = 0.3 if name in ("head.classify.weight", "head.classify.bias") else 0.9
        elif name.startswith("layers.0."):
            decay = 0.7
        elif name.endswith("gate"):
            decay = 0.2
        else:
            decay = 0.5 if name.endswith(("query_key_value.weight", "out.weight")) else 0.0
        found.append({"params": [parameter], "weight_decay": decay})
    return found


RULES = {"layers.0.*": 0.7, "head.classify.*": 0.3, "head.*": 0.9, "*.gate": 0.2}


def risen(optimizer: Optimizer, warm: int, then: LRScheduler) -> LRScheduler:
    """Return a schedule that rises for `warm` steps, in equal ones, and goes on with `then`."""
    rise = LinearLR(optimizer, start_factor=1 / warm, total_iters=max(1, warm - 1))
    return SequentialLR(optimizer, [rise, then], milestones=[warm])


def cosine(optimizer: Optimizer, warm: int, steps: int, end: float) -> LRScheduler:
    then = CosineAnnealingLR(optimizer, T_max=steps - warm, eta_min=LR * end)
    return risen(optimizer, warm, then)


def linear(optimizer: Optimizer, warm: int, steps: int, end: float) -> LRScheduler:
    then = LinearLR(optimizer, 1.0, end_factor=end, total_iters=steps - warm)
    return risen(optimizer, warm, then)


def constant(optimizer: Optimizer, warm: int, steps: int, end: float) -> LRScheduler:
    return risen(optimizer, warm, ConstantLR(optimizer, 1.0))


TORCHS = {"cosine": cosine, "linear": linear, "constant": constant, "plateau": constant}


@pytest.mark.parametrize("end", [0.0, 0.3])
@pytest.mark.parametrize(("share", "warm"), [(0.0, 1), (0.25, 10), (0.7, 28)])
@pytest.mark.parametrize("name", TORCHS)
def test_learning_rates_are_those_of_torchs_schedulers(
    name: str, share: float, warm: int, end: float
) -> None:
    config = TRAIN.model_copy(update={"schedule": name, "warmup": share, "min_lr": end})
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = TORCHS[name](optimizer, warm, 40, end)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [LR * rate(config, step, 40) for step in range(40)] == pytest.approx(expected)


def started(
    changes: dict[str, Any], name: str = "cosine", warm: int = 1, end: float = 0.0, **others: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings and the arguments of `by_hand` that mean the same."""
    schedule = TORCHS[name]
    settings = {"groups": matrices_decay(0.05), **others}
    return changes, settings | {"schedule": lambda given: schedule(given, warm, STEPS, end)}


CASES = {
    "what is set if nothing is": started({}),
    "linear": started({"schedule": "linear", "warmup": 0.5}, "linear", 6),
    "much decay": started({"weight_decay": 0.9}, groups=matrices_decay(0.9)),
    "decay by name": started({"weight_decay": 0.5, "decay_rules": RULES}, groups=by_name),
    "cut gradients": started({"clip_norm": 0.01}, clip_norm=0.01),
    "gradients as they are": started({"clip_norm": 1e9}, clip_norm=1e9),
    "other smoothing": started({"label_smoothing": 0.6}, smoothing=0.6),
    "in three parts of 2, 3 and 3 rows": started({"accumulate": 3}),
    "an average": started({"ema": 0.8}, ema=0.8),
    "all at once": started(
        {
            "warmup": 0.25,
            "min_lr": 0.3,
            "weight_decay": 0.9,
            "clip_norm": 0.5,
            "label_smoothing": 0.3,
            "accumulate": 3,
            "ema": 0.6,
        },
        "cosine",
        3,
        0.3,
        groups=matrices_decay(0.9),
        clip_norm=0.5,
        smoothing=0.3,
        ema=0.6,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_torchs_own_parts(case: str) -> None:
    changes, settings = CASES[case]
    ours = member(TRAIN.model_copy(update=changes))
    model = copy.deepcopy(ours.model)
    theirs = by_hand(model, batches(), **settings)
    steps = [
        ours.step(inputs, target, len(target), number, STEPS)
        for number, (inputs, target) in enumerate(batches())
    ]
    assert [step.lr for step in steps] == pytest.approx(theirs.rates)
    assert [step.loss.item() for step in steps] == pytest.approx(theirs.losses)
    # Before they were cut.
    assert [step.norm.item() for step in steps] == pytest.approx(theirs.norms)
    same(ours.model, dict(model.named_parameters()))
    # Without an average the weights themselves: ema is 0 by hand too.
    same(ours.scored, theirs.averages[-1])


def same(ours: nn.Module, theirs: dict[str, Tensor]) -> None:
    found = dict(ours.named_parameters())
    assert found.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_plateau_is_torchs_with_a_patience_of_one_less(patience: int) -> None:
    changes = {"schedule": "plateau", "plateau_patience": patience, "plateau_factor": 0.4}
    plateau = Plateau(TRAIN.model_copy(update=changes))
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # There an epoch more has to pass than is waited, and a fall of a ten-thousandth is none.
    torchs = ReduceLROnPlateau(optimizer, factor=0.4, patience=patience - 1, threshold=0, eps=0)
    generator = np.random.default_rng(patience)
    lowered = []
    # Few different losses: that one comes again is no fall.
    for loss in np.linspace(1, 0.5, 60).round(1) + generator.integers(0, 4, 60) / 10:
        before = plateau.factor
        assert plateau.saw(float(loss)) == (plateau.factor < before)
        torchs.step(float(loss))
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"])
        lowered.append(plateau.factor < before)
    assert 2 < sum(lowered) < 60
