import json
from pathlib import Path
from typing import Any

import pytest

from tca.errors import TcaError
from tca.fusion.runs_table import comparison_page, differences, list_runs, read_run, results


def run_folder(place: Path, logged: tuple[float, ...] = (), **info: Any) -> Path:
    place.mkdir(parents=True)
    whole = {
        "finished": False,
        "variant": "concat",
        "parameters": 5,
        "train": {"epochs": 9},
        **info,
    }
    (place / "run.json").write_text(json.dumps(whole))
    lines = [
        {
            "epoch": n,
            "train_loss": 1 / n,
            "holdout_top1": top1,
            "holdout_loss": 1.0,
            "best_epoch": 1,
        }
        for n, top1 in enumerate(logged, 1)
    ]
    (place / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_how_far_each_run_is(tmp_path: Path) -> None:
    run_folder(tmp_path / "sweep/half", (0.7, 0.5))
    run_folder(tmp_path / "begun")
    run_folder(tmp_path / "bad", (0.1,), failed="it diverged")
    run_folder(tmp_path / "done", (0.2,), finished=True, epochs=1, best_epoch=1, holdout_top1=0.2)
    found = {run.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in found.items()} == {
        "bad": "failed",
        "begun": "unfinished, 0 of 9 epochs",
        "done": "finished",
        "sweep/half": "unfinished, 2 of 9 epochs",
    }
    half = found["sweep/half"]
    assert (half.epochs, half.best_epoch, half.holdout_top1) == (2, 1, 0.7)
    assert found["begun"].holdout_top1 is None


def test_orders_put_the_best_and_the_largest_first_and_the_unknown_last(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", (0.3,), parameters=1)
    run_folder(tmp_path / "b", parameters=3)
    run_folder(tmp_path / "c", (0.8,), parameters=2)
    assert [run.name for run in list_runs(tmp_path, "top1")] == ["c", "a", "b"]
    assert [run.name for run in list_runs(tmp_path, "parameters")] == ["b", "c", "a"]
    assert [run.name for run in list_runs(tmp_path, "name")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"finished": false, "train": 3}',
        '{"train": {}, "model": [1]}x',
        '{"finished": true, "parameters": "many"}',
        '{"variant": ["concat"]}',
        '{"finished": true, "epochs": NaN}',
    ],
)
def test_a_damaged_run_is_named_and_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    run_folder(tmp_path / "good")
    (run_folder(tmp_path / "odd") / "run.json").write_text(text)
    assert [run.name for run in list_runs(tmp_path)] == ["good"]
    assert "odd/run.json is damaged" in capsys.readouterr().err
    with pytest.raises(TcaError, match="is damaged"):
        read_run(tmp_path / "odd", "odd")


def test_what_another_program_wrote_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder(tmp_path / "theirs") / "run.json").write_text('{"id": 7}')
    ours = run_folder(tmp_path / "ours", (0.5,))
    with (ours / "log.jsonl").open("a") as log:
        log.write('{"epoch": "second", "train_loss": null}\n')
    (one,) = list_runs(tmp_path)
    assert (one.name, one.epochs) == ("ours", 1)
    assert "theirs/run.json was not written by tca" in capsys.readouterr().err
    assert "null" not in comparison_page([one, one])


def test_what_differs_is_found_however_deep_also_where_a_setting_is_new(tmp_path: Path) -> None:
    train = {"lr": 1.0, "seed": {"data": 0, "model": 0}}
    run_folder(tmp_path / "a", train=train)
    run_folder(tmp_path / "b", train={**train, "seed": {"data": 0, "model": 7}, "ema": 0.9})
    found = list_runs(tmp_path)
    assert differences(found) == {"train.seed.model": [0, 7], "train.ema": [None, 0.9]}
    assert differences(found[:1] * 2) == {}


def test_runs_are_compared_on_a_page_that_trusts_no_name(tmp_path: Path) -> None:
    run_folder(tmp_path / "a<b>", (0.5, 0.6))
    run_folder(tmp_path / "c", (0.5,), variant="bcast")
    found = list_runs(tmp_path)
    assert dict(results(found))["top-1 on the holdout"] == ["0.600", "0.500"]
    text = comparison_page(found)
    assert "a<b>" not in text
    assert "a&lt;b&gt;" in text
    assert text.count("<polyline") == 6
