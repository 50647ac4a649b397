"""Hooks of a user: they see every step and epoch, and what goes wrong in one is told as theirs."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_resume_training import TRAIN, Killer, run_once
from torch import Tensor

from tca.errors import TcaError, UsageError
from tca.fusion.model.variant import Variant
from tca.fusion.train import judging
from tca.fusion.train.hooks import EpochReport, Hook, StepReport, make_hooks


class Offline(Hook):
    def step(self, report: object) -> None:
        raise ConnectionError("no line to the chat")


class Recorder(Hook):
    """Keeps all that it is told, in order, and the weights that it is shown."""

    told: list[tuple[Any, ...]]
    weights: list[dict[str, Tensor]]

    def begin(self, run: Path, model: Variant, step: int) -> None:
        Recorder.told, Recorder.weights = [("begin", run, step)], []

    def step(self, report: StepReport) -> None:
        Recorder.told.append(("step", report))

    def epoch(self, report: EpochReport, model: Variant) -> None:
        Recorder.told.append(("epoch", report))
        Recorder.weights.append(copy.deepcopy(model.state_dict()))

    def end(self, run: Path) -> None:
        Recorder.told.append(("end", run))


class Enough(Hook):
    def epoch(self, report: EpochReport, model: Variant) -> bool:
        return report.epoch == 2


def hooked(*names: str, **changes: Any) -> Any:
    """Return settings with these hooks of this file, and the recorder before them."""
    hooks = [f"{__name__}:{name}" for name in ("Recorder", *names)]
    return TRAIN.model_copy(update={"hooks": hooks, **changes})


def test_hooks_are_told_what_the_log_and_the_outcome_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    scores = iter([(0.3, 1.0), (0.7, 0.9), (0.7, 0.8), (0.5, 0.1)])
    monkeypatch.setattr(judging.Judge, "score", lambda *_: [next(scores)])
    run_once(run, hooked(batch_size=24))
    assert [one[0] for one in Recorder.told] == [
        "begin",
        *["step", "step", "step", "step", "epoch"] * 4,
        "end",
    ]
    assert (Recorder.told[0], Recorder.told[-1]) == (("begin", run, 0), ("end", run))
    reports = [one[1] for one in Recorder.told[1:-1]]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(lines) == len(reports)
    losses: list[float] = []
    for number, (report, line) in enumerate(zip(reports, lines, strict=True)):
        epoch, place = number // 5 + 1, number % 5
        assert report.epoch == line["epoch"] == epoch
        if place < 4:
            assert report.step == line["step"] == 4 * epoch + place - 3
            assert report.rows == (8 if place == 3 else 24)
            assert report.seconds >= report.waited >= 0
            assert line["rows_per_s"] == pytest.approx(report.rows / report.seconds)
            assert line["waiting"] == pytest.approx(report.waited / report.seconds)
            assert (report.loss, report.lr, report.norm) == tuple(
                line[name] for name in ("loss", "lr", "norm")
            )
            losses.append(report.loss)
        else:
            assert report.step == 4 * epoch
            assert report.train_loss == line["train_loss"] == pytest.approx(sum(losses[-4:]) / 4)
            told = report.holdout_top1, report.holdout_loss, report.best_epoch
            assert told == [(0.3, 1.0, 1), (0.7, 0.9, 2), (0.7, 0.8, 3), (0.5, 0.1, 3)][epoch - 1]
            assert told == (line["holdout_top1"], line["holdout_loss"], line["best_epoch"])
    info = json.loads((run / "run.json").read_text())
    assert info["finished"] is True
    assert (info["epochs"], info["train_loss"]) == (4, reports[-1].train_loss)
    assert (info["best_epoch"], info["holdout_top1"]) == (3, 0.7)
    # What was scored, which is the average.
    for name, epoch in (("last", 4), ("best", 3)):
        kept, shown = load_file(run / f"{name}.safetensors"), Recorder.weights[epoch - 1]
        assert kept.keys() == shown.keys()
        assert all(torch.equal(kept[key], shown[key]) for key in kept)


def test_hooks_are_told_of_the_end_also_by_an_error_and_where_a_run_goes_on(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    Killer.after = 6
    killed = hooked()
    with pytest.raises(KeyboardInterrupt):
        run_once(
            run, killed.model_copy(update={"hooks": [*killed.hooks, "test_resume_training:Killer"]})
        )
    assert [one[1].step for one in Recorder.told if one[0] == "step"] == [1, 2, 3, 4, 5, 6]
    assert Recorder.told[-1] == ("end", run)
    run_once(run, hooked(), resume=True)
    # The state before the sixth step is the last one.
    assert Recorder.told[0] == ("begin", run, 5)
    assert [one[1].step for one in Recorder.told if one[0] == "step"] == list(range(6, 21))


def test_a_hook_may_ask_for_the_end(tmp_path: Path) -> None:
    run_once(tmp_path / "run", hooked("Enough"))
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert (info["finished"], info["epochs"]) == (True, 2)
    assert [one[1].epoch for one in Recorder.told if one[0] == "epoch"] == [1, 2]


def test_what_goes_wrong_in_a_hook_is_told_as_the_hooks(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"hooks": [f"{__name__}:Offline"]})
    # An error of the system's, as a full disk is one.
    with pytest.raises(
        TcaError, match=r"the hook Offline failed .*no line to the chat; .*py, line"
    ):
        run_once(tmp_path / "run", config)


def test_a_module_that_is_not_found_is_told_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"PYTHONPATH=\."):
        make_hooks(["nowhere_to_be_found:Hook"])
