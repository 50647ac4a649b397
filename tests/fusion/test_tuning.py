"""A tuning that is stopped, killed or shared tries what an undisturbed one does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tca.cli import run as tca
from tca.errors import TcaError
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.study import open_study
from tca.fusion.train.tune_config import Range, TuneConfig

RANGES = """
ranges:
  train.lr: {low: 1e-4, high: 1e-2, log: true}
  train.weight_decay: {low: 0, high: 1}
  model.layers: {low: 1, high: 2}
  model.variant: {choices: [concat, gated_sum]}
trials: 4
pruner: none
"""
QUICK = ["train.epochs=2", "train.save_steps=2"]


@pytest.fixture
def project(train_project: Path) -> Path:
    (train_project / "ranges.yaml").write_text(RANGES)
    return train_project


def document(project: Path, name: str) -> dict:
    return json.loads((project / f"runs/{name}/tune.json").read_text())


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tca", "tune", "ranges.yaml", *QUICK, *arguments],
        cwd=project,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_and_gone_on_with_it_is_the_undisturbed_tuning(project: Path) -> None:
    assert tca(["tune", "ranges.yaml", *QUICK, "--name", "whole"]) == 0
    killed = start(project, "--name", "cut")
    deadline = time.monotonic() + 120
    while not list(project.glob("runs/cut/trial-0001/state/*")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # A power cut leaves half a line as well.
    with (project / "runs/cut/study.journal").open("ab") as journal:
        journal.write(b'{"op_code":4,"wor')
    assert tca(["tune", "ranges.yaml", *QUICK, "--name", "cut"]) == 0
    whole, cut = document(project, "whole"), document(project, "cut")
    assert cut["trials"] == whole["trials"]
    assert cut["best"] == whole["best"]
    assert [trial["state"] for trial in cut["trials"]] == ["complete"] * 4
    for trial in whole["trials"]:
        settings = trial["settings"]
        assert isinstance(settings["model.layers"], int)
        assert isinstance(settings["train.weight_decay"], float)
        info = json.loads((project / f"runs/cut/{trial['run']}/run.json").read_text())
        assert info["train"]["lr"] == settings["train.lr"]
        assert info["variant"] == settings["model.variant"]
        assert trial["value"] == info["holdout_top1"]
    # Optuna's own reader sees the same study.
    backend = JournalFileBackend(str(project / "runs/cut/study.journal"))
    study = optuna.load_study(study_name="tca", storage=JournalStorage(backend))
    assert study.best_value == cut["best"]["value"] == max(t["value"] for t in cut["trials"])
    # More trials are more of the same; the former ones stay.
    (project / "ranges.yaml").write_text(RANGES.replace("trials: 4", "trials: 5"))
    assert tca(["tune", "ranges.yaml", *QUICK, "--name", "cut"]) == 0
    assert document(project, "cut")["trials"][:4] == cut["trials"]
    assert len(document(project, "cut")["trials"]) == 5


@pytest.mark.long
def test_two_processes_share_a_study(project: Path) -> None:
    both = [start(project, "--name", "both", "--json") for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert "Traceback" not in said
        assert process.returncode == 0 or "another process trains them" in said
    assert tca(["tune", "ranges.yaml", *QUICK, "--name", "both"]) == 0
    trials = document(project, "both")["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 4
    assert len({json.dumps(trial["settings"]) for trial in trials}) == 4
    folders = [path.name for path in (project / "runs/both").glob("trial-*")]
    assert sorted(folders) == [trial["run"] for trial in trials]


def test_a_hopeless_trial_is_given_up_and_kept_as_a_run(project: Path) -> None:
    (project / "pruned.yaml").write_text(
        "ranges: {train.lr: {low: 1e-4, high: 1e-2}}\ntrials: 8\ngoal: holdout_loss\n"
    )
    assert tca(["tune", "pruned.yaml", "train.epochs=5", "model.variant=concat"]) == 0
    found = document(project, "pruned")
    pruned = [trial for trial in found["trials"] if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        info = json.loads((project / f"runs/pruned/{trial['run']}/run.json").read_text())
        assert info["finished"]
        assert info["epochs"] == trial["epochs"] < 5
        assert trial["value"] > found["best"]["value"]
    values = [t["value"] for t in found["trials"] if t["state"] == "complete"]
    assert found["best"]["value"] == min(values)


def test_trials_that_cannot_be_trained_are_passed_over(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "wild.yaml").write_text(
        "ranges: {train.lr: {choices: [1.0e-3, 1.0e+30]}}\ntrials: 4\npruner: none\n"
    )
    wild = ["tune", "wild.yaml", *QUICK, "train.warmup=0", "model.variant=concat"]
    assert tca(wild) == 0
    trials = document(project, "wild")["trials"]
    for trial in trials:
        diverged = trial["settings"]["train.lr"] > 1
        assert trial["state"] == ("failed" if diverged else "complete")
        assert ("diverged" in (trial["reason"] or "")) == diverged
    assert {trial["state"] for trial in trials} == {"failed", "complete"}
    capsys.readouterr()
    assert tca([*wild, "train.clip_norm=2"]) == 1
    said = capsys.readouterr().err
    assert "holds a tuning of other settings than these (train.clip_norm=2.0)" in said
    # Two processes on two devices share a study.
    assert tca([*wild, "train.device=auto"]) == 0


def test_a_trial_that_ends_its_process_does_not_do_so_forever(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "dying.py").write_text(
        "from tca.fusion.train.hooks import Hook\n"
        "class Dies(Hook):\n"
        "    def begin(self, run, model, step):\n"
        "        if run.name == 'trial-0001':\n"
        "            raise SystemExit(9)\n"
    )
    monkeypatch.syspath_prepend(str(project))
    dies = ["tune", "ranges.yaml", *QUICK, "--name", "dies", "train.hooks=[dying:Dies]"]
    for _ in range(3):
        with pytest.raises(SystemExit):
            tca(dies)
    assert tca(dies) == 0
    states = [trial["state"] for trial in document(project, "dies")["trials"]]
    assert states == ["complete", "failed", "complete", "complete"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ranges: {train.lrr: {low: 1, high: 2}}", "unknown key 'ranges.train.lrr'; did you mean"),
        ("ranges: {train.lr: {low: -1, high: 2}}", "bad.yaml sets 'ranges.train.lr' to -1: input"),
        ("ranges: {train.lr: {low: 3, high: 2}}", "low (3) is above high (2)"),
        ("ranges: {}", "error: bad.yaml: ranges has nothing in it"),
        ("ranges: {train.lr: 3}", "it must be a block of keys"),
    ],
)
def test_what_is_no_tuning_is_blamed_on_its_file(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (project / "bad.yaml").write_text(text)
    assert tca(["tune", "bad.yaml"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: bad.yaml ") or said.startswith("error: bad.yaml:")
    assert not (project / "runs").exists()


def test_killed_while_settings_are_drawn_it_draws_the_same_rest(project: Path) -> None:
    ranges = RANGES.replace("trials: 4", "trials: 2")
    (project / "ranges.yaml").write_text(ranges)
    tune = ["tune", "ranges.yaml", "train.epochs=1", "--name"]
    assert tca([*tune, "whole"]) == 0
    whole = document(project, "whole")["trials"]
    lines = (project / "runs/whole/study.journal").read_text().splitlines(keepends=True)
    begun = [json.loads(line)["op_code"] for line in lines].index(4, 10)
    for drawn in (0, 1, 3):
        cut = project / f"runs/cut{drawn}"
        shutil.copytree(project / "runs/whole/trial-0000", cut / "trial-0000")
        (cut / "study.journal").write_text("".join(lines[: begun + 1 + drawn]))
        assert tca([*tune, cut.name]) == 0
        assert document(project, cut.name)["trials"] == whole


def test_a_study_that_does_not_know_its_runs_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "ranges.yaml").write_text(RANGES.replace("trials: 4", "trials: 1"))
    tune = ["tune", "ranges.yaml", "train.epochs=1"]
    assert tca(tune) == 0
    journal = project / "runs/ranges/study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    unknown = "trial-0000 is there, but study.journal does not say that it was begun; remove it"
    damaged = "study.journal is damaged; give the tuning another --name"
    untold = [line for line in lines if json.loads(line)["op_code"] not in (6, 7)]
    for content, says in (
        ([], unknown),
        (untold, "does not say what runs/ranges/trial-0000 came to"),
        ([*lines, "[]\n"], damaged),
        ([*lines, '{"op_code": 99}\n'], damaged),
        ([*lines, "hello\n"], damaged),
    ):
        journal.write_text("".join(content))
        capsys.readouterr()
        assert tca(tune) == 1
        assert says in capsys.readouterr().err
    # What it says to do helps.
    journal.write_text("".join(untold))
    shutil.rmtree(project / "runs/ranges/trial-0000")
    assert tca(tune) == 0


def test_a_folder_of_something_else_is_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "sweep.yaml").write_text("grid: {model.variant: [concat]}\n")
    quick = ["train.epochs=1", "model.variant=concat"]
    (project / "ranges.yaml").write_text(RANGES.replace("trials: 4", "trials: 1"))
    assert tca(["ablate", "sweep.yaml", "--name", "s", *quick]) == 0
    assert tca(["tune", "ranges.yaml", "--name", "t", *quick]) == 0
    assert tca(["train-fusion", "--run", "runs/r", *quick]) == 0
    capsys.readouterr()
    for command, name, what in (
        (["tune", "ranges.yaml"], "s", "a sweep"),
        (["tune", "ranges.yaml"], "r", "a run"),
        (["ablate", "sweep.yaml"], "t", "a tuning"),
        (["ablate", "sweep.yaml"], "r", "a run"),
    ):
        assert tca([*command, "--name", name, *quick]) == 1
        said = capsys.readouterr().err
        assert f"runs/{name} holds {what}; give this one another --name." in said


def test_a_line_that_a_full_disk_cut_does_not_spoil_what_others_write(
    mount: Callable[[str], Path],
) -> None:
    place = mount("size=64k")
    config = TuneConfig(ranges={"train.lr": Range(low=1e-4, high=1e-2)})
    ours, theirs = (open_study(place, config, TrainConfig(), {}) for _ in range(2))
    with pytest.raises(OSError, match="No space"):
        (place / "filling").write_bytes(bytes(1 << 20))
    with pytest.raises(TcaError, match=r"cannot write .*study\.journal: No space .*; free some"):
        ours.set_user_attr("long", "x" * 9000)
    assert not (place / "study.journal").read_bytes().endswith(b"\n")
    (place / "filling").unlink()
    theirs.set_user_attr("short", 1)
    assert open_study(place, config, TrainConfig(), {}).user_attrs["short"] == 1
