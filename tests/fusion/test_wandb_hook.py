import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory_store import moving_dot

from tca.errors import TcaError, UsageError
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


REMEDY = (
    "log in with `wandb login`, keep the curves on this disk with WANDB_MODE=offline, or set "
    "train.wandb=null."
)


def test_who_is_not_logged_in_is_told_so_in_one_sentence(train_project: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    # In a process of its own: the package reads its environment once.
    home = {"HOME": str(train_project), "NETRC": str(train_project / ".netrc")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "tca", "train-fusion", "train.epochs=1", "train.wandb=mine"],
        env=kept | home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    start = "error: train.wandb: Weights & Biases does not take the run (No API key configured"
    assert done.stderr.splitlines()[-1].startswith(start)
    assert done.stderr.endswith(REMEDY + "\n")


def test_a_server_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")

    def unreachable(**_options):
        raise wandb.errors.CommError("context deadline exceeded\nwhile retrying: Post")

    monkeypatch.setattr(wandb, "init", unreachable)
    with pytest.raises(TcaError) as caught:
        train(moving_dot(80), MODEL, TRAIN, tmp_path / "run", resolved={})
    assert str(caught.value) == (
        "train.wandb: Weights & Biases does not take the run (context deadline exceeded while "
        f"retrying: Post); {REMEDY}"
    )
