"""`tca train-fusion`: how the flags for processes and devices reach the training."""

from pathlib import Path

import pytest
import torch
from train_project import write_train_project

from tca.cli import SPOKEN_FOR, run
from tca.fusion.train.config import TrainConfig


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_train_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"number {number}")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("config", ["auto", "cpu"])
def test_gpus_of_the_command_line_are_those_that_train(
    monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    # Taken back after the test, as the command sets it.
    monkeypatch.setenv(SPOKEN_FOR, "")
    launched = []
    monkeypatch.setattr(
        "tca.fusion.train.launch.launch", lambda *given: launched.append(given) or 0
    )
    with pytest.raises(SystemExit, match="0"):
        run(["train-fusion", "--gpus", "0,1", f"train.device={config}"])
    ((devices, arguments),) = launched
    assert devices == ["cuda:0", "cuda:1"]
    assert arguments[-1] == "train.device=cuda"


@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[TrainConfig] = []

    def train(_store: object, _model: object, config: TrainConfig, *_: object, **__: object):
        trained.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("tca.fusion.train.world.choose_device", torch.device)
    monkeypatch.setattr("tca.fusion.train.loop.train", train)
    assert run(["train-fusion", "--gpus", "1"]) == 130
    assert trained[0].device == "cuda:1"
