import json
from pathlib import Path

import pytest
from train_project import write_train_project

from tca.cli import run as tca
from tca.fusion.run_folder import write_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_train_project(tmp_path_factory.mktemp("project"))
    config = ["--config", str(folder / "tca.yaml")]
    train = ["train-fusion", *config, "train.epochs=2"]
    assert tca([*train, "--run", str(folder / "runs/a")]) == 0
    slow = ["train.lr=1e-5", "model.variant=concat"]
    assert tca([*train, *slow, "--run", str(folder / "runs/sweep/b")]) == 0
    return folder


def test_runs_are_listed_nested_ones_too(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    scores = {"split": "validation", "checkpoint": "best", "videos": 9, "top1": 0.5, "top5": None}
    write_json(trained / "runs/a/evaluation-validation.json", scores)
    broken = trained / "runs/broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    assert tca(["runs", "--json", "--sort", "parameters"]) == 0
    said = capsys.readouterr()
    assert "broken/run.json is damaged" in said.err
    listed = json.loads(said.out)
    assert {run["name"] for run in listed} == {"a", "sweep/b"}
    assert listed[0]["parameters"] >= listed[1]["parameters"]
    (one,) = (run for run in listed if run["name"] == "a")
    info = json.loads((trained / "runs/a/run.json").read_text())
    assert one["holdout_top1"] == info["holdout_top1"]
    assert (one["state"], one["scores"]) == ("finished", {"validation": 0.5})
    assert tca(["runs"]) == 0
    table = capsys.readouterr().out
    assert "sweep/b" in table
    assert "0.500" in table


def test_runs_are_compared(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert tca(["runs", "a", "runs/sweep/b", "--json", "--html", "both.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["differences"] == {
        "model.variant": ["gasm_cast", "concat"],
        "train.lr": [3e-3, 1e-5],
    }
    page = (trained / "both.html").read_text()
    assert page.count("<polyline") == 6
    assert "://" not in page
    assert tca(["runs", "a", "sweep/b"]) == 0
    assert "train.lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["a"], 2, "name two or more"),
        (["--html", "x.html"], 2, "name the runs"),
        (["a", "nope"], 1, "is not a run folder"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(trained)
    assert tca(["runs", *arguments]) == code
    assert says in capsys.readouterr().err
