"""`tca tune` as a user types it: what it prints, writes, and refuses."""

import json
import sys
from pathlib import Path

import pytest

from tca.cli import run as tca

RANGES = "ranges: {train.lr: {low: 1e-4, high: 1e-2, log: true}}\ntrials: 3\n"
QUICK = ["train.epochs=1", "model.variant=concat"]


@pytest.fixture
def project(train_project: Path) -> Path:
    (train_project / "ranges.yaml").write_text(RANGES)
    return train_project


def test_the_best_settings_are_printed_and_can_be_trained_with(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tca(["tune", "ranges.yaml", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((project / "runs/ranges/tune.json").read_text())
    assert len(found["trials"]) == 3
    assert found["importance"].keys() <= {"train.lr"}
    assert tca(["tune", "ranges.yaml", *QUICK]) == 0
    shown = capsys.readouterr().out
    for expected in ("0002", "complete", f"best: {found['best']['run']}", "train.lr"):
        assert expected in shown
    # From anywhere, and to the same weights.
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    best = str(project / "runs/ranges/best.yaml")
    assert tca(["train-fusion", "--config", best, "--run", "again"]) == 0
    again = Path("again/best.safetensors").read_bytes()
    assert again == (project / f"runs/ranges/{found['best']['run']}/best.safetensors").read_bytes()


def test_ctrl_c_is_130_and_goes_on_later(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "tune_stop.py").write_text(
        "from tca.fusion.train.hooks import Hook\n"
        "class Stop(Hook):\n"
        "    def begin(self, run, model, step):\n"
        "        if run.name == 'trial-0001':\n"
        "            raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(project))
    tune = ["tune", "ranges.yaml", *QUICK, "train.hooks=[tune_stop:Stop]", "--json"]
    # Oftener than a trial may die: Ctrl-C is no fault of the trial's.
    for _ in range(4):
        assert tca(tune) == 130
    assert "goes on where it was" in capsys.readouterr().err
    monkeypatch.setattr("tune_stop.Stop.begin", lambda self, run, model, step: None)
    assert tca(tune) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 3


def test_without_optuna_the_extra_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("tca.fusion.train.")]:
        if name.endswith((".tuning", ".study")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tca(["tune", "ranges.yaml"]) == 1
    assert "tca[tune]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks the key 'ranges'"),
        ("ranges: {}", "ranges has nothing in it"),
        ("ranges: {model.layers: {low: 1}}", "it needs low and high, or choices"),
        ("ranges: {model.layers: {low: 3, high: 1}}", "low (3) is above high (1)"),
        ("ranges: {train.lr: {low: 0, high: 1, log: true}}", "log needs low above 0"),
        ("ranges: {train.lr: {lo: 0}}", "unknown key 'ranges.train.lr.lo'"),
        ("ranges: {model.layers: {low: 0, high: 3}}", "greater than or equal to 1"),
        ("ranges: {model.layes: {low: 1, high: 3}}", "did you mean 'layers'"),
        ("ranges: {model.variant: {choices: [nope]}}", "'nope' is none of"),
        ("ranges: {train.seed.model: {low: 1, high: 3}}", "cannot be tuned"),
        ("ranges: {train.holdout: {low: 0.1, high: 0.3}}", "cannot be tuned"),
        ("ranges: {semantic.pool: {low: 1, high: 2}}", "settings of model and train can"),
        (RANGES + "goal: top1", "'holdout_top1' or 'holdout_loss'"),
    ],
)
def test_what_is_no_tuning_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (project / "bad.yaml").write_text(text)
    assert tca(["tune", "bad.yaml"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert not (project / "runs").exists()


@pytest.mark.parametrize("setting", ["train.select_on=validation", "train.holdout=0"])
def test_it_looks_at_the_holdout_of_training_alone(
    project: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    assert tca(["tune", "ranges.yaml", setting]) == 2
    assert "holdout" in capsys.readouterr().err
