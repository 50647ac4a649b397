import json
import re
from pathlib import Path

import pytest
from memory_store import moving_dot

from tca.fusion.curves import drawn, read_curves
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_report import write_run_report
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.hooks import Hook
from tca.fusion.train.loop import train

MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
TRAIN = TrainConfig(epochs=3, batch_size=16, lr=3e-3, holdout=0.2, device="cpu")


class StopInSecondEpoch(Hook):
    def step(self, report) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt


def text_of(run: Path) -> str:
    return (run / "report.html").read_text()


def test_a_run_ends_with_a_page_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(moving_dot(80), MODEL, TRAIN, run, resolved={})
    text = text_of(run)
    assert "finished" in text
    assert f"{summary.holdout_top1:.1%}" in text
    assert "<td>0.003</td>" in text
    # Two losses, the holdout's top-1, the steps' loss, the learning rate.
    assert text.count("<polyline") == 5
    assert not re.search(r"<script|://|<link|@import", text)
    steps = read_curves(run).steps
    assert all(step["rows_per_s"] > 0 and 0 <= step["waiting"] <= 1 for step in steps)


@pytest.mark.parametrize("epochs", [100])
def test_one_that_stops_early_too(tmp_path: Path, epochs: int) -> None:
    config = TRAIN.model_copy(update={"epochs": epochs, "patience": 1, "lr": 1e-30})
    train(moving_dot(80), MODEL, config, tmp_path / "run", resolved={})
    assert "<td>finished</td>" in re.sub(r' class="words"', "", text_of(tmp_path / "run"))


def test_one_that_is_interrupted_says_how_far_it_is(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"hooks": [f"{__name__}:StopInSecondEpoch"]})
    with pytest.raises(KeyboardInterrupt):
        train(moving_dot(80), MODEL, config, tmp_path / "run", resolved={})
    assert "unfinished, 1 of 3 epochs" in text_of(tmp_path / "run")


def test_without_a_holdout_and_before_the_first_step(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 1, "holdout": 0.0})
    train(moving_dot(80), MODEL, config, tmp_path / "run", resolved={})
    assert ">Top-1<" not in text_of(tmp_path / "run")
    (tmp_path / "run/log.jsonl").unlink()
    write_run_report(tmp_path / "run")
    assert "No step was logged" in text_of(tmp_path / "run")


def test_curves_survive_a_cut_line_and_stay_small(tmp_path: Path) -> None:
    line = json.dumps({"epoch": 1, "step": 1, "loss": 2.0})
    (tmp_path / "log.jsonl").write_text(f'{line}\n{line}\n{{"epoch": 1, "st')
    assert len(read_curves(tmp_path).steps) == 2
    chart = drawn("Loss", "step", {"a": [(n, float(n % 7)) for n in range(10_000)]})
    (points,) = re.findall(r'points="([^"]*)"', chart)
    assert 200 < len(points.split()) <= 300
    assert drawn("Loss", "step", {"a": [(1, float("nan"))]}) == ""
