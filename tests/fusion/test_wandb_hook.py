import json
import sys
from pathlib import Path

import pytest
from memory_store import moving_dot

from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.hooks import Hook
from tca.fusion.train.loop import train

MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
TRAIN = TrainConfig(
    epochs=2, batch_size=16, lr=3e-3, holdout=0.2, device="cpu", save_steps=1, wandb="mine"
)


class StopAtFive(Hook):
    def step(self, report) -> None:
        if report.step == 5:
            raise KeyboardInterrupt


def test_a_resumed_run_goes_on_in_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begun, logged = [], []
    init, log = wandb.init, wandb.Run.log

    def watched_init(**options):
        begun.append(options["id"])
        return init(**options)

    def watched_log(run, data, step=None, **options):
        logged.append((step, data))
        return log(run, data, step=step, **options)

    monkeypatch.setattr(wandb, "init", watched_init)
    monkeypatch.setattr(wandb.Run, "log", watched_log)
    stopped = TRAIN.model_copy(update={"hooks": [f"{__name__}:StopAtFive"]})
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(moving_dot(80), MODEL, stopped, run, resolved={"train": {"lr": 3e-3}})
    train(moving_dot(80), MODEL, TRAIN, run, resolved={}, resume=True)
    assert len(begun) == 2
    assert set(begun) == {json.loads((run / "wandb.json").read_text())["id"]}
    assert list((run / "wandb").glob(f"offline-run-*-{begun[0]}"))
    assert {step for step, data in logged if "train/loss" in data} == set(range(1, 9))
    assert {step for step, data in logged if "holdout/top1" in data} == {4, 8}


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'tca\[wandb\]'"):
        train(moving_dot(80), MODEL, TRAIN, tmp_path / "run", resolved={})
    assert not (tmp_path / "run").exists()
