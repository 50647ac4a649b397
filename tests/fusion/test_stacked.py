"""Members that step as one batched model come out as if each had stepped by itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from memory_store import moving_dot
from safetensors.torch import load_file
from small_models import awake
from torch import Tensor

from tca.cli import run as tca
from tca.fusion.model.config import ModelConfig
from tca.fusion.train import stack_choice
from tca.fusion.train.config import AugmentConfig, SeedConfig, TrainConfig
from tca.fusion.train.hooks import Hook
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.member import Inputs, Member
from tca.fusion.train.stack_choice import Trial, seconds_each_way
from tca.fusion.train.stacked import Stack, alike, obstacle
from tca.fusion.train.world import World

MODEL = ModelConfig(
    bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1, drop_path=0.2
)
TRAIN = TrainConfig(epochs=4, batch_size=16, lr=3e-3, holdout=0.2, device="cpu", save_steps=2)
VERBS = ["Pushing it left", "Pushing it right", "Lifting it", "Dropping it"]
STORE = moving_dot(64)
FEATURES = {name: torch.from_numpy(getattr(STORE, name)) for name in ("semantic", "motion")}
LABEL = torch.from_numpy(STORE.label).long()


def varied(train: TrainConfig) -> list[TrainConfig]:
    """What members of a stack may differ in."""
    return [
        train,
        train.model_copy(update={"seed": SeedConfig(model=5)}),
        train.model_copy(
            update={
                "seed": SeedConfig(model=7),
                "lr": 1e-3,
                "weight_decay": 0.3,
                "schedule": "linear",
                "clip_norm": 0.01,
                "ema": 0.5,
            }
        ),
    ]


def members(model: ModelConfig, trains: Sequence[TrainConfig]) -> list[Member]:
    """Return members in float64, with every branch open."""
    found = []
    for train in trains:
        member = Member(model, train, STORE.shapes, VERBS, World(0, 1, torch.device("cpu")))
        awake(member.model.double())
        member.begin()
        found.append(member)
    return found


def batch(member: Member, number: int, mixed: bool = False) -> tuple[Inputs, Tensor]:
    rows = (torch.arange(16) + 16 * number) % len(LABEL)
    target = LABEL[rows]
    if mixed:
        exact = F.one_hot(target, 4).double()
        target = 0.7 * exact + 0.3 * exact.flip(0)
    semantic, motion = (
        FEATURES[name][rows] if name in member.model.streams else None for name in FEATURES
    )
    return (semantic, motion), target


def same(one: Member, other: Member, **tolerance: float) -> None:
    tensors, expected = one.state()[0], other.state()[0]
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], **tolerance, msg=name)


# torch warns of what it runs for one member after the other.
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("model", "train", "mixed"),
    [
        ({}, {}, False),
        ({"progressive": True, "layers": 2}, {"accumulate": 3, "ema": 0.9}, True),
        ({"dropout": 0, "head_dropout": 0, "drop_path": 0, "similar": 0}, {}, False),
        ({"variant": "bcast", "ratio": 0}, {"label_smoothing": 0}, False),
        ({"variant": "cross_attention"}, {}, False),
        ({"variant": "attentive_probe"}, {}, False),
        ({"variant": "concat", "cells": 2}, {"decay_rules": {"head.*": 0.2}}, True),
        ({"variant": "gated_sum", "pool": 2}, {}, False),
        ({"variant": "motion_only", "similar_segments": 0}, {}, False),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_stack_steps_as_its_members_would(model: dict, train: dict, mixed: bool) -> None:
    config = MODEL.model_copy(update=model)
    trains = varied(TRAIN.model_copy(update=train))
    assert alike([(config, one) for one in trains]) == [[0, 1, 2]]
    alone, together = members(config, trains), members(config, trains)
    stack = Stack(together)
    for number in range(4):
        given, target = batch(alone[0], number, mixed)
        expected = [member.step(given, target, 16, number, 4) for member in alone]
        found = stack.step(given, target, 16, number, 4)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.lr == theirs.lr
            torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
            torch.testing.assert_close(ours.norm, theirs.norm, rtol=1e-9, atol=0)
        # Seeds and dropout count: none of them could pass for another.
        assert len({float(step.loss) for step in found}) == 3
    for ours, theirs in zip(together, alone, strict=True):
        same(ours, theirs, rtol=1e-6, atol=1e-9)
        given, target = batch(ours, 0)
        torch.testing.assert_close(ours.score(given, target), theirs.score(given, target))


def test_a_stack_in_half_precision_steps_as_its_members_would() -> None:
    trains = varied(TRAIN.model_copy(update={"precision": "bfloat16", "accumulate": 2}))
    alone, together = members(MODEL, trains), members(MODEL, trains)
    for member in (*alone, *together):
        member.model.float()
    given, target = batch(alone[0], 0)
    found = Stack(together).step(given, target, 16, 0, 2)
    for ours, theirs in zip(found, alone, strict=True):
        expected = theirs.step(given, target, 16, 0, 2)
        torch.testing.assert_close(ours.loss, expected.loss, rtol=1e-2, atol=0)
        torch.testing.assert_close(ours.norm, expected.norm, rtol=5e-2, atol=0)


def test_members_leave_a_stack_with_all_that_they_learned() -> None:
    trains = varied(TRAIN)
    whole, left = members(MODEL, trains), members(MODEL, trains)
    stacks = [Stack(whole), Stack(left)]
    for number in range(6):
        given, target = batch(whole[0], number)
        stacks[0].step(given, target, 16, number, 6)
        if number == 2:
            stacks[1].dissolve()
            before = [value.clone() for value in left[0].model.parameters()]
            stacks[1] = Stack(left[1:])
        stacks[1].step(given, target, 16, number, 6)
    for ours, theirs in zip(left[1:], whole[1:], strict=True):
        same(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(map(torch.equal, before, left[0].model.parameters()))


def test_what_cannot_be_stacked() -> None:
    def of_train(**changes):
        return MODEL, TRAIN.model_copy(update=changes)

    def of_model(**changes):
        return MODEL.model_copy(update=changes), TRAIN

    configs = [
        of_train(),
        of_train(lr=1.0),
        of_train(precision="bfloat16"),
        of_train(accumulate=2),
        of_model(dropout=0.2),
        of_train(patience=1),
        of_model(dropout=0.2),
    ]
    assert alike(configs) == [[0, 1, 5], [4, 6]]
    for config, says in (
        (of_train(compile=True), "train.compile"),
        (of_train(precision="float16"), "float16"),
        (of_model(checkpointing=True), "checkpointing"),
        (of_model(variant="theirs"), "package"),
    ):
        assert says in (obstacle(*config) or "")
        assert alike([config, config]) == []


def test_measuring_leaves_members_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_choice, "ROUNDS", 3)
    trains = varied(TRAIN.model_copy(update={"ema": 0.9}))
    measured, untouched = members(MODEL, trains), members(MODEL, trains)
    rounds = seconds_each_way(measured, Trial(*batch(measured[0], 0)))
    assert all(separate > 0 and together > 0 for separate, together in rounds)
    for number in range(2):
        given, target = batch(measured[0], number)
        for ours, theirs in zip(measured, untouched, strict=True):
            same(ours, theirs, rtol=0, atol=0)
            ours.step(given, target, 16, number, 2)
            theirs.step(given, target, 16, number, 2)
            same(ours, theirs, rtol=0, atol=0)


class Stop(Hook):
    """Ends the training after a step."""

    after = 0

    def step(self, report) -> None:
        if report.step == Stop.after:
            raise KeyboardInterrupt


AUGMENTED = AugmentConfig(mixup=0.2, token_dropout=0.1)
SWEPT = {
    "plain": TRAIN.model_copy(update={"augment": AUGMENTED}),
    "early": TRAIN.model_copy(update={"augment": AUGMENTED, "lr": 1e-30, "patience": 1}),
    "other": TRAIN.model_copy(
        update={"augment": AUGMENTED, "seed": SeedConfig(model=5), "lr": 1e-3, "ema": 0.9}
    ),
}


def sweep(place: Path, stack, *, stopped: int = 0, resume: bool = False, **changes) -> list[Path]:
    """Train the three members, or the first steps of them; return their folders."""
    Stop.after = stopped
    plans = [
        Plan(MODEL, train.model_copy(update=changes), place / name, {}, [Stop()])
        for name, train in SWEPT.items()
    ]
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            train_together(moving_dot(100), plans, stack=stack, resume=resume)
    else:
        train_together(moving_dot(100), plans, stack=stack, resume=resume)
    return [plan.run for plan in plans]


def log(run: Path) -> list[tuple[float, float, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["loss"], line["norm"], line["lr"]) for line in lines if "step" in line]


def stacked(run: Path) -> bool | None:
    return json.loads((run / "run.json").read_text()).get("stacked")


def equal_runs(one: Path, other: Path, rtol: float) -> None:
    ours, theirs = torch.tensor(log(one)), torch.tensor(log(other))
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=0)
    for name in ("best", "last"):
        got, expected = (load_file(run / f"{name}.safetensors") for run in (one, other))
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, rtol=rtol, atol=rtol / 10, msg=key)


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sweep(tmp_path_factory.mktemp("separate"), "off")


@pytest.fixture(scope="module")
def as_one(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sweep(tmp_path_factory.mktemp("as_one"), "on")


def test_a_stacked_sweep_equals_a_separate_one(as_one: list[Path], separate: list[Path]) -> None:
    for ours, theirs in zip(as_one, separate, strict=True):
        equal_runs(ours, theirs, rtol=1e-4)
        assert stacked(ours) is True
        assert stacked(theirs) is None
    # One of them left the stack before the end.
    assert len(log(as_one[1])) < len(log(as_one[0])) == 20


@pytest.mark.parametrize("choices", [("on", "off"), ("off", "on")])
def test_a_sweep_may_go_on_the_other_way(
    separate: list[Path], tmp_path: Path, choices: tuple[str, str]
) -> None:
    sweep(tmp_path, choices[0], stopped=7)
    runs = sweep(tmp_path, choices[1], resume=True)
    for ours, theirs in zip(runs, separate, strict=True):
        equal_runs(ours, theirs, rtol=1e-4)
        assert stacked(ours) is (choices[1] == "on")


def test_auto_goes_on_as_it_began_to_the_bit(
    as_one: list[Path],
    separate: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for speed, whole in ((2.0, as_one), (0.5, separate)):
        monkeypatch.setattr(stack_choice, "seconds_each_way", lambda *_, s=speed: [(s, 1.0)])
        place = tmp_path / str(speed)
        sweep(place, "auto", stopped=7)
        said = capsys.readouterr().err
        assert f"{speed:.2f} times as fast" in said
        # What a measurement would say now makes no difference.
        monkeypatch.setattr(stack_choice, "seconds_each_way", lambda *_, s=speed: [(1.0, s)])
        for ours, theirs in zip(sweep(place, "auto", resume=True), whole, strict=True):
            equal_runs(ours, theirs, rtol=0)
            assert stacked(ours) is (speed > 1)


def test_without_room_for_all_at_once_nothing_is_stacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stack_choice, "available_memory", lambda: 4 * 10**6)
    runs = sweep(tmp_path, "auto", epochs=1)
    assert "memory is short" in capsys.readouterr().err
    assert not any(map(stacked, runs))


@pytest.fixture
def project(train_project: Path) -> Path:
    (train_project / "sweep.yaml").write_text(
        "grid: {train.lr: [1.0e+30, 1.0e-3], train.seed.model: [0, 1]}\n"
    )
    return train_project


def test_a_member_that_diverges_leaves_the_others_as_they_were(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["train.epochs=2", "train.warmup=0", "train.save_steps=2", "--json"]
    for stack in ("on", "off"):
        assert tca(["ablate", "sweep.yaml", "--name", stack, "--stack", stack, *settings]) == 0
        captured = capsys.readouterr()
        assert captured.err.count("training has diverged") == 2
        assert ("4 members step as one batched model" in captured.err) is (stack == "on")
        bad, good = json.loads(captured.out)["settings"]
        assert len(bad["failed"]) == 2
        assert good["failed"] == {}
    for name in ("lr=0.001,model=0", "lr=0.001,model=1"):
        equal_runs(project / "runs/on" / name, project / "runs/off" / name, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "setting", "says"),
    [
        ("grid: {model.dropout: [0, 0.1]}", "train.lr=1e-3", "no two agree in model"),
        ("grid: {train.lr: [0.1, 0.2]}", "train.compile=true", "(train.compile=true)"),
        ("grid: {train.seed.data: [0, 1]}", "train.lr=1e-3", "no two members of a pass"),
    ],
)
def test_a_sweep_that_cannot_be_stacked_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, setting: str, says: str
) -> None:
    (project / "sweep.yaml").write_text(text)
    assert tca(["ablate", "sweep.yaml", "--stack", "on", setting]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "--stack auto" in said
    assert not (project / "runs").exists()
