"""The recipe in whole runs: scores, kept weights, what goes wrong; and float16's scaling."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory_store import moving_dot
from safetensors.torch import load_file
from small_models import awake
from test_recipe import LR, MODEL, TRAIN, by_hand, cosine, matrices_decay
from torch import Tensor

from tca.errors import TcaError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variant import Variant
from tca.fusion.train import judging
from tca.fusion.train.hooks import EpochReport, Hook
from tca.fusion.train.loop import train
from tca.fusion.train.member import Inputs, Member, Step
from tca.fusion.train.world import World

STORE = moving_dot(40)
MOTION = torch.from_numpy(STORE.motion)
# Four steps an epoch, and eight rows held out.
SHORT = TRAIN.model_copy(update={"epochs": 3, "holdout": 0.2})
PLAIN = MODEL.model_copy(update={"variant": "concat"})
CPU = World(0, 1, torch.device("cpu"))


def go(run: Path, **changes: Any) -> None:
    train(STORE, PLAIN, SHORT.model_copy(update=changes), run, resolved={})


def lines(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the lines of steps and of epochs."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in found if "step" in line], [e for e in found if "step" not in e]


def rows_of(inputs: Inputs) -> list[int]:
    """Return which rows of the store a batch holds."""
    return [int((one == MOTION).all((1, 2)).nonzero()) for one in inputs[1]]


class Watcher(Hook):
    """Keeps the weights that a run begins with, and what is scored after every epoch."""

    first: Variant
    scored: list[dict[str, Tensor]]

    def begin(self, run: Path, model: Variant, step: int) -> None:
        Watcher.first, Watcher.scored = copy.deepcopy(model), []

    def epoch(self, report: EpochReport, model: Variant) -> None:
        Watcher.scored.append(copy.deepcopy(model.state_dict()))


WATCHED = {"hooks": [f"{__name__}:Watcher"]}


def test_a_run_is_what_torchs_own_parts_make_of_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Inputs, Tensor]] = []
    step = Member.step

    def watched(self: Member, inputs: Inputs, target: Tensor, *others: Any) -> Step:
        # The memory of a batch is used again.
        given.append(copy.deepcopy((inputs, target)))
        return step(self, inputs, target, *others)

    monkeypatch.setattr(Member, "step", watched)
    go(tmp_path / "run", **WATCHED, ema=0.8, warmup=0.25, weight_decay=0.5)
    model = Watcher.first
    theirs = by_hand(
        model,
        given,
        schedule=lambda optimizer: cosine(optimizer, 3, 12, 0.0),
        groups=matrices_decay(0.5),
        ema=0.8,
    )
    steps, epochs = lines(tmp_path / "run")
    for name, expected in (("loss", theirs.losses), ("norm", theirs.norms), ("lr", theirs.rates)):
        assert [line[name] for line in steps] == pytest.approx(expected, rel=1e-4)

    seen = [row for inputs, _ in given[:4] for row in rows_of(inputs)]
    held = np.setdiff1d(np.arange(40), seen)
    assert (len(set(seen)), len(held)) == (32, 8)
    semantic, motion, label = (
        torch.from_numpy(getattr(STORE, name)[held]) for name in ("semantic", "motion", "label")
    )
    judged = []
    for number, line in enumerate(epochs, 1):
        model.load_state_dict(theirs.averages[4 * number - 1], strict=False)
        with torch.no_grad():
            scores = model.eval()(semantic, motion)
        loss = F.cross_entropy(scores, label.long()).item()
        judged.append(((scores.argmax(-1) == label).float().mean().item(), -loss))
        assert (line["holdout_top1"], -line["holdout_loss"]) == pytest.approx(judged[-1], rel=1e-4)
    best = judged.index(max(judged))
    assert epochs[-1]["best_epoch"] == best + 1
    for name, average in (("best", theirs.averages[4 * best + 3]), ("last", theirs.averages[-1])):
        kept = load_file(tmp_path / f"run/{name}.safetensors")
        for parameter, expected in average.items():
            torch.testing.assert_close(kept[parameter], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have the holdout say what a test wants it to, epoch by epoch."""

    def says(*scores: tuple[float, float]) -> None:
        left = iter(scores)
        monkeypatch.setattr(judging.Judge, "score", lambda _, runs: [next(left) for _ in runs])

    return says


def test_a_plateau_lowers_the_rate_from_the_next_step_on(tmp_path: Path, scored: Any) -> None:
    losses = [1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.85, 0.9, 0.9, 0.7]
    scored(*((0.5, loss) for loss in losses))
    plateau = {"schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5}
    go(tmp_path / "run", **plateau, epochs=10, warmup=0)
    expected = [LR] * 4 + [LR / 2] * 3 + [LR / 4] * 2 + [LR / 8]
    steps, epochs = lines(tmp_path / "run")
    assert [line["lr"] for line in steps] == pytest.approx(np.repeat(expected, 4))
    assert [line["holdout_loss"] for line in epochs] == losses


def test_what_a_plateau_has_seen_is_part_of_a_state() -> None:
    changes = {"schedule": "plateau", "plateau_patience": 3, "plateau_factor": 0.5, "warmup": 0}
    one, other = (member(**changes) for _ in range(2))
    for loss in (1.0, 1.0, 1.0, 1.0, 0.9, 0.95, 0.95):
        one.plateau.saw(loss)
    tensors, numbers = one.state()
    other.restore(tensors, json.loads(json.dumps(numbers)))
    for loss in (0.92, 0.91, 0.89, 0.9):
        assert other.plateau.saw(loss) == one.plateau.saw(loss) == (loss == 0.92)
        assert step(other).lr == step(one).lr == LR / 4
    # Also what has seen nothing yet.
    tensors, numbers = member(**changes).state()
    other.restore(tensors, json.loads(json.dumps(numbers)))
    assert not other.plateau.saw(1e9)
    assert step(other).lr == LR


def test_the_two_best_epochs_are_kept_whole(tmp_path: Path, scored: Any) -> None:
    # Three are equally good but for their losses, of which the first is the highest.
    scored((0.4, 1.0), (0.6, 1.0), (0.6, 0.9), (0.5, 0.1), (0.6, 0.95), (0.2, 0.1))
    go(tmp_path / "run", **WATCHED, epochs=6, keep=2)
    kept = {path.name: load_file(path) for path in (tmp_path / "run/epochs").iterdir()}
    assert kept.keys() == {"epoch-0003.safetensors", "epoch-0005.safetensors"}
    assert len(Watcher.scored) == 6
    equal(kept["epoch-0003.safetensors"], Watcher.scored[2])
    equal(kept["epoch-0005.safetensors"], Watcher.scored[4])
    equal(load_file(tmp_path / "run/best.safetensors"), Watcher.scored[2])
    equal(load_file(tmp_path / "run/last.safetensors"), Watcher.scored[5])


def test_without_a_holdout_the_latest_epochs_are_kept(tmp_path: Path) -> None:
    go(tmp_path / "run", **WATCHED, holdout=0, keep=2)
    kept = {path.name: load_file(path) for path in (tmp_path / "run/epochs").iterdir()}
    assert kept.keys() == {"epoch-0002.safetensors", "epoch-0003.safetensors"}
    for number in (2, 3):
        equal(kept[f"epoch-000{number}.safetensors"], Watcher.scored[number - 1])


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("what", ["loss", "length of the gradient"])
@pytest.mark.parametrize(
    ("at", "epoch", "good"),
    [
        (3, 1, "no weights were kept before it"),
        (10, 3, "the last good weights are best.safetensors, of epoch 1"),
    ],
)
def test_what_is_no_number_is_told_with_its_step_and_videos(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored: Any,
    what: str,
    at: int,
    epoch: int,
    good: str,
) -> None:
    scored((0.6, 1.0), (0.5, 1.0))
    step = Member.step
    ids: list[str] = []

    def poisoned(self: Member, inputs: Inputs, *others: Any) -> Step:
        if others[2] != at - 1:
            return step(self, inputs, *others)
        ids.extend(STORE.ids[row] for row in rows_of(inputs))
        if what == "loss":
            return step(self, (inputs[0], inputs[1] * torch.nan), *others)
        weight = self.model.get_parameter("head.classify.weight")
        with weight.register_hook(lambda gradient: gradient * torch.nan):
            return step(self, inputs, *others)

    monkeypatch.setattr(Member, "step", poisoned)
    with pytest.raises(TcaError) as caught:
        go(tmp_path / "run")
    assert str(caught.value) == (
        f"the {what} is nan in epoch {epoch}, step {at}, of the videos {', '.join(ids)}: training "
        f"has diverged; {good}; lower train.lr (now 0.003) or set train.precision=float32."
    )
    assert len(ids) == 8
    lines = [json.loads(text) for text in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, at))
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert (info["finished"], info["failed"]) == (False, str(caught.value))
    if epoch > 1:
        weights = load_file(tmp_path / "run/best.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def member(**changes: Any) -> Member:
    """Return a member in float32 whose branches are all open."""
    model = ModelConfig(**MODEL.model_dump())
    found = Member(model, SHORT.model_copy(update=changes), STORE.shapes, STORE.classes, CPU)
    awake(found.model)
    found.begin()
    return found


FOUR = (torch.from_numpy(STORE.semantic[:4]), MOTION[:4])
LABEL = torch.from_numpy(STORE.label[:4]).long()


def step(one: Member, number: int = 5) -> Step:
    return one.step(FOUR, LABEL, 4, number, 12)


def test_a_scaled_step_in_float16_is_the_step_without_scaling() -> None:
    ours = member(precision="float16", clip_norm=1e9)
    ours.scaler.load_state_dict(ours.scaler.state_dict() | {"scale": 2.0**10})
    model = copy.deepcopy(ours.model).train()
    with torch.autocast("cpu", dtype=torch.float16):
        scores = model(*FOUR)
    loss = F.cross_entropy(scores.float(), LABEL, label_smoothing=0.1)
    loss.backward()
    done = step(ours)
    assert ours.scaler.get_scale() == 2.0**10
    assert done.loss.item() == pytest.approx(loss.item(), rel=1e-3)
    # What AdamW keeps after its first step is a tenth of the gradient.
    found = [10 * ours.optimizer.state[p]["exp_avg"].flatten() for p in ours.model.parameters()]
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (torch.cat(found) - expected).norm() < 0.01 * expected.norm()
    assert done.norm.item() == pytest.approx(expected.norm().item(), rel=0.01)


def test_a_gradient_that_overflows_float16_skips_its_step_and_halves_the_scale() -> None:
    ours = member(precision="float16", ema=0.5)
    step(ours)
    ours.scaler.load_state_dict(ours.scaler.state_dict() | {"scale": 2.0**40})
    before = copy.deepcopy(ours.state()[0])
    assert not step(ours).norm.isfinite()
    after = ours.state()[0]
    assert after.pop("average.n_averaged") == before.pop("average.n_averaged") + 1
    averages = [name for name in after if name.startswith("average.")]
    assert len(averages) > 10
    equal(
        {name: tensor for name, tensor in after.items() if name not in averages},
        {name: tensor for name, tensor in before.items() if name not in averages},
    )
    assert all(bool(after[name].isfinite().all()) for name in averages)
    assert ours.scaler.get_scale() == 2.0**39


def test_the_scale_is_part_of_a_state() -> None:
    one, other = (member(precision="float16") for _ in range(2))
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 2.0**12, "_growth_tracker": 7})
    step(one)
    tensors, numbers = one.state()
    tensors = copy.deepcopy(tensors)
    other.restore(tensors, json.loads(json.dumps(numbers)))
    assert other.scaler.state_dict() == one.scaler.state_dict()
    assert (other.scaler.get_scale(), other.scaler.state_dict()["_growth_tracker"]) == (2.0**12, 8)
    step(one), step(other)
    equal(other.state()[0], one.state()[0])
