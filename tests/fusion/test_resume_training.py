"""Kill a training whenever you like and resume it: every later loss and weight is the same."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_store import moving_dot
from safetensors.torch import load_file
from train_project import done, start, write_train_project

from tca.errors import TcaError
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_folder import RunFolder, sole_trainer
from tca.fusion.train import training
from tca.fusion.train.checkpoints import load_state, saved_steps
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.hooks import Hook
from tca.fusion.train.loop import train
from tca.fusion.train.member import Member
from tca.fusion.train.run import Run
from tca.fusion.train.world import World

MODEL = ModelConfig(
    bottleneck=16,
    heads=2,
    layers=2,
    ratio=1,
    rank=8,
    similar=2,
    radius=1,
    drop_path=0.1,
    progressive=True,
)
TRAIN = TrainConfig(
    epochs=4,
    batch_size=16,
    lr=3e-3,
    holdout=0.2,
    device="cpu",
    save_steps=1,
    ema=0.9,
    keep=2,
    accumulate=2,
)
VERBS = ["Pushing it left", "Pushing it right", "Lifting it", "Dropping it"]


def store_of_verbs(**changes):
    store = moving_dot(100, **changes)
    store.classes = VERBS
    return store


def losses(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["norm"]) for line in lines if "step" in line]


class Killer(Hook):
    """Ends the training after a step, as nothing that may be caught would."""

    after = 0

    def step(self, report) -> None:
        if report.step == Killer.after:
            raise KeyboardInterrupt


def run_once(run: Path, config: TrainConfig = TRAIN, *, resume: bool = False) -> None:
    train(store_of_verbs(), MODEL, config, run, resolved={}, resume=resume)


def same_runs(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    for name in ("best", "last"):
        ours, theirs = (load_file(run / f"{name}.safetensors") for run in (one, other))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    kept = [sorted(path.name for path in (run / "epochs").iterdir()) for run in (one, other)]
    assert kept[0] == kept[1]
    infos = [RunFolder(run).info() for run in (one, other)]
    for key in ("best_epoch", "holdout_top1", "epochs"):
        assert infos[0][key] == infos[1][key]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_once(run)
    return run


@pytest.mark.parametrize("save_steps", [1, 3])
@pytest.mark.parametrize("after", [1, 5, 7, 20])
def test_a_training_that_was_stopped_goes_on_as_if_nothing_had_happened(
    undisturbed: Path, tmp_path: Path, after: int, save_steps: int
) -> None:
    run = tmp_path / "run"
    Killer.after = after
    stopped = TRAIN.model_copy(update={"hooks": [f"{__name__}:Killer"], "save_steps": save_steps})
    with pytest.raises(KeyboardInterrupt):
        run_once(run, stopped)
    run_once(run, TRAIN.model_copy(update={"save_steps": save_steps}), resume=True)
    same_runs(run, undisturbed)
    assert not (run / "state").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "both"])
def test_a_damaged_state_costs_the_steps_since_the_one_before(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    run = tmp_path / "run"
    Killer.after = 9
    with pytest.raises(KeyboardInterrupt):
        run_once(run, TRAIN.model_copy(update={"hooks": [f"{__name__}:Killer"]}))
    states = sorted((run / "state").iterdir())
    assert len(states) == 2
    for state in states if damage == "both" else states[-1:]:
        content = bytearray(state.read_bytes())
        if damage == "flipped":
            content[len(content) // 2] ^= 4
        else:
            del content[len(content) // 2 :]
        state.write_bytes(content)
    run_once(run, resume=True)
    said = capsys.readouterr().err
    assert "is damaged" in said
    assert ("has no state to go on from; it starts anew" in said) == (damage == "both")
    same_runs(run, undisturbed)


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Killer.after = 3
    with pytest.raises(KeyboardInterrupt):
        run_once(run, TRAIN.model_copy(update={"hooks": [f"{__name__}:Killer"]}))
    other = MODEL.model_copy(update={"bottleneck": 24})
    with pytest.raises(Exception, match="its state is of another model"):
        train(store_of_verbs(), other, TRAIN, run, resolved={}, resume=True)


def stopped(run: Path, **changes: object) -> None:
    """Begin a run and leave it after six steps."""
    Killer.after = 6
    with pytest.raises(KeyboardInterrupt):
        run_once(run, TRAIN.model_copy(update={"hooks": [f"{__name__}:Killer"], **changes}))


def test_other_features_or_rows_than_it_began_with_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(run)
    store = store_of_verbs(identity={"keep": "frames", "pool": 2})
    words = r"is no longer what it began with \(other backbones or settings of extract\)"
    with pytest.raises(TcaError, match=words):
        train(store, MODEL, TRAIN, run, resolved={}, resume=True)
    store = store_of_verbs()
    store.status[3] = 2
    with pytest.raises(TcaError, match=r"another number of rows|another holdout"):
        train(store, MODEL, TRAIN, run, resolved={}, resume=True)


def test_as_many_rows_of_other_videos_or_labels_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(run)
    relabelled, renamed = store_of_verbs(), store_of_verbs()
    one, other = (int(np.flatnonzero(relabelled.label == label)[0]) for label in (0, 1))
    relabelled.label[[one, other]] = relabelled.label[[other, one]]
    renamed.ids[5] = "another"
    for store in relabelled, renamed:
        with pytest.raises(TcaError, match=r"what it began with \([^)]*other videos or labels\)"):
            train(store, MODEL, TRAIN, run, resolved={}, resume=True)


def test_settings_edited_in_between_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(tmp_path / "run", lr=1e-3)
    run_once(tmp_path / "run", resume=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: run began with train.lr=0.001 and goes on with 0.003" in said
    assert said.count("warning: ") == 1


def test_moments_stay_with_their_weights_where_decay_is_edited(tmp_path: Path) -> None:
    # Which weights decay decides the order in which the optimiser has them.
    run = tmp_path / "run"
    stopped(run)
    _, tensors, numbers = load_state(run, saved_steps(run)[0])
    store = store_of_verbs()
    for changes in ({"weight_decay": 0.0}, {"decay_rules": {"*": 0.5}}):
        config = TRAIN.model_copy(update=changes)
        member = Member(MODEL, config, store.shapes, VERBS, World(0, 1, torch.device("cpu")))
        member.begin()
        member.restore(dict(tensors), numbers)
        for name, parameter in member.model.named_parameters():
            state = member.optimizer.state[parameter]
            assert state["exp_avg"].shape == parameter.shape, name
            assert torch.equal(state["exp_avg"], tensors[f"optimizer.{name}.exp_avg"])
    run_once(run, TRAIN.model_copy(update={"weight_decay": 0.0}), resume=True)
    assert RunFolder(run).info()["finished"]


def test_a_run_that_has_done_more_epochs_than_it_is_to_have_is_finished(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(run)
    run_once(run, TRAIN.model_copy(update={"epochs": 1}), resume=True)
    assert RunFolder(run).info()["finished"]
    assert (run / "last.safetensors").is_file()
    assert not (run / "state").exists()


def test_a_run_that_can_go_on_is_not_begun_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(run)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    with pytest.raises(TcaError, match=r"is not finished; go on with --resume .*run, or remove it"):
        run_once(run)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_two_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with sole_trainer(run), pytest.raises(TcaError, match="is being trained by another process"):
        run_once(run)
    # The empty folder of who trains there is still there.
    assert run.is_dir()
    run_once(run)


def test_saves_come_by_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(Run, "save", lambda run: saved.append(run.progress.step))
    run_once(tmp_path / "run", TRAIN.model_copy(update={"save_steps": None}))
    # At the end of every epoch but the last, which leaves nothing to go on with.
    assert saved == [5, 10, 15]


@pytest.mark.parametrize(
    ("steps", "expected"), [(2, [2, 4, 6, 8, 10, 12, 14, 16, 18]), (7, [7, 14])]
)
def test_saves_come_after_as_many_steps_as_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, expected: list[int]
) -> None:
    saved = []
    monkeypatch.setattr(training, "LOOK_EVERY", 1)
    monkeypatch.setattr(Run, "save", lambda run: saved.append(run.progress.step))
    run_once(tmp_path / "run", TRAIN.model_copy(update={"save_steps": steps}))
    assert saved == expected


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_train_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.long)])
def test_killed_again_and_again(project: Path, kills: int) -> None:
    done(start(project, "--run", f"whole-{kills}"))
    run = project / f"killed-{kills}"
    chance = random.Random(kills)
    process = start(project, "--run", run.name)
    for _ in range(kills):
        end = time.monotonic() + 120
        have = len(losses(run)) if (run / "log.jsonl").exists() else 0
        wanted = have + chance.randrange(1, 4)
        while process.poll() is None and time.monotonic() < end:
            if (run / "log.jsonl").exists() and len(_whole_lines(run)) >= wanted:
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if RunFolder(run).info()["finished"]:
            break
        process = start(project, "--resume", run.name)
    process.communicate()
    if not RunFolder(run).info()["finished"]:
        done(start(project, "--resume", run.name))
    assert losses(run) == losses(project / f"whole-{kills}")
    for name in ("best", "last"):
        files = [f / f"{name}.safetensors" for f in (run, project / f"whole-{kills}")]
        assert files[0].read_bytes() == files[1].read_bytes()


def _whole_lines(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text().split("\n")[:-1]


def test_resume_goes_with_nothing_else(project: Path) -> None:
    (project / "some").mkdir(exist_ok=True)
    process = start(project, "--resume", "some", "train.lr=1")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "goes on with the configuration of some" in said
