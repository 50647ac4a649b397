"""Which of the runs in a folder is meant, and what a finished one says of itself."""

import dataclasses
import os
from pathlib import Path

import pytest
from memory_store import moving_dot

from tca.errors import TcaError
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_folder import RunFolder, newest_first, run_of_job
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loop import train


def made(run: Path, age: int, text: str) -> Path:
    run.mkdir(parents=True)
    (run / "run.json").write_text(text)
    os.utime(run / "run.json", (1e9 - age, 1e9 - age))
    return run


def test_a_job_finds_its_own_run_among_those_of_others(tmp_path: Path) -> None:
    made(tmp_path / "older", 9, '{"job": "mine"}')
    ours = made(tmp_path / "ours", 5, '{"job": "mine"}')
    made(tmp_path / "theirs", 4, '{"job": "another"}')
    made(tmp_path / "alone", 3, '{"job": null}')
    made(tmp_path / "of an older tca", 2, "{}")
    made(tmp_path / "damaged", 1, '{"job": "mine"')
    runs = newest_first(tmp_path)
    assert [run.name for run in runs[:2]] == ["damaged", "of an older tca"]
    assert run_of_job(runs, "mine") == ours
    assert run_of_job(runs, "a new one") is None
    assert run_of_job(runs, None) is None
    assert run_of_job([tmp_path / "not there"], "mine") is None


def test_a_finished_run_says_again_what_it_said_at_its_end(tmp_path: Path) -> None:
    model = ModelConfig(variant="concat")
    config = TrainConfig(epochs=2, batch_size=16, holdout=0.2, device="cpu")
    summary = train(moving_dot(80), model, config, tmp_path / "run", resolved={})
    folder = RunFolder(tmp_path / "run")
    assert folder.outcome() == summary.to_json() | {"seconds": None}
    # As an older tca wrote it.
    folder.write_info({"finished": True, "variant": "concat"})
    old = folder.outcome()
    assert old is not None
    assert old.keys() == {field.name for field in dataclasses.fields(summary)}
    assert {name for name, value in old.items() if value is not None} == {"run", "variant"}
    folder.write_info({"finished": False})
    assert folder.outcome() is None
    folder.write_info({"mine": True})
    with pytest.raises(TcaError, match=r"a run\.json that tca did not write"):
        folder.outcome()
