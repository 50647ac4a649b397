"""Members of a sweep share a pass over the rows and come out as if each had been alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, moving_dot
from safetensors.torch import load_file

from tca.cli import run as tca
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_folder import sole_trainer
from tca.fusion.train.ablation import run_sweep
from tca.fusion.train.config import SeedConfig, TrainConfig
from tca.fusion.train.loop import Plan, train, train_together
from tca.fusion.train.sweep import SweepConfig, member_names, passes

MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
TRAIN = TrainConfig(epochs=4, batch_size=16, lr=3e-3, holdout=0.2, device="cpu")
MEMBERS = {
    "plain": (MODEL, TRAIN),
    "seed": (MODEL, TRAIN.model_copy(update={"seed": SeedConfig(model=5)})),
    "lr": (MODEL, TRAIN.model_copy(update={"lr": 1e-3, "ema": 0.9, "accumulate": 2})),
    "other": (MODEL.model_copy(update={"variant": "motion_only", "dropout": 0.3}), TRAIN),
    "early": (MODEL, TRAIN.model_copy(update={"lr": 1e-30, "patience": 1})),
}


class Counting(MemoryStore):
    """Counts the rows that are read of each stream."""

    def read(self, stream, rows, out=None, *, check=True):
        self.counts = getattr(self, "counts", {})
        self.counts[stream] = self.counts.get(stream, 0) + len(rows)
        return super().read(stream, rows, out, check=check)


def counting() -> Counting:
    plain = moving_dot(100)
    return Counting(plain.semantic, plain.motion, plain.label, plain.classes)


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "step" in line]


def test_every_member_is_as_if_trained_alone_and_rows_are_read_once(tmp_path: Path) -> None:
    store = counting()
    plans = [Plan(*member, tmp_path / f"all/{name}", {}) for name, member in MEMBERS.items()]
    summaries = train_together(store, plans)
    together = store.counts
    alone = counting()
    for name, member in MEMBERS.items():
        train(alone, *member, tmp_path / f"one/{name}", resolved={})
    for name, summary in zip(MEMBERS, summaries, strict=True):
        ours, theirs = (tmp_path / folder / name for folder in ("all", "one"))
        assert losses(ours) == losses(theirs), name
        got, expected = (load_file(run / "last.safetensors") for run in (ours, theirs))
        assert all(torch.equal(got[key], expected[key]) for key in expected)
        info = json.loads((ours / "run.json").read_text())
        assert info == json.loads((theirs / "run.json").read_text())
        assert summary.epochs == info["epochs"]
    # Once for the statistics, and in every epoch the rows that are learnt from and the holdout.
    single = counting()
    train(single, *MEMBERS["plain"], tmp_path / "single", resolved={})
    assert together == single.counts == dict.fromkeys(("semantic", "motion"), 80 + 4 * 100)
    assert alone.counts["semantic"] > 3 * together["semantic"]
    assert len(losses(tmp_path / "all/early")) < len(losses(tmp_path / "all/plain"))


def test_passes_are_shared_where_rows_are() -> None:
    def tree(**changes):
        train = TRAIN.model_copy(update=changes).model_dump()
        return {"train": train, "loader": {}, "stores": "x"}

    trees = [tree(), tree(lr=1.0), tree(seed=SeedConfig(data=1)), tree(ema=0.5), tree(epochs=9)]
    assert list(passes(trees, 8)) == [[0, 1, 3], [2], [4]]
    assert list(passes(trees, 2)) == [[0, 1], [3], [2], [4]]


def test_what_a_sweep_holds() -> None:
    sweep = SweepConfig(
        grid={"model.x": [1, 2], "train.b": ["u", "v"]}, members=[{"model.x": 3}, {"train.x": 3}]
    )
    assert member_names(sweep.settings()) == [
        "x=1,b=u",
        "x=1,b=v",
        "x=2,b=u",
        "x=2,b=v",
        "model.x=3",
        "train.x=3",
    ]
    assert member_names([{"p": "../../etc"}]) == ["p=.._.._etc"]
    with pytest.raises(UsageError, match="would be called model"):
        member_names([{"model.p": "/a"}, {"model.p": "?a"}])
    with pytest.raises(UsageError, match="a member twice"):
        SweepConfig(grid={"model.a": [1, 1]}).settings()


@pytest.fixture
def project(train_project: Path) -> Path:
    (train_project / "sweep.yaml").write_text(
        "grid: {model.variant: [gasm_cast, concat], train.seed.model: [0, 1]}\n"
    )
    return train_project


def test_a_sweep_is_stopped_and_gone_on_with(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [
        "ablate",
        "sweep.yaml",
        "--stack",
        "off",
        "train.epochs=2",
        "train.save_steps=2",
        "--json",
    ]
    (project / "stopping.py").write_text(
        "from tca.fusion.train.hooks import Hook\n"
        "class Stop(Hook):\n"
        "    def step(self, report):\n"
        "        if report.step == 7:\n"
        "            raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(project))
    hooks = "train.hooks=[stopping:Stop]"
    assert tca([*sweep, "--name", "cut", hooks]) == 130
    states = list((project / "runs/cut").glob("*/state/*"))
    assert len(states) == 4 * 2
    monkeypatch.setattr("stopping.Stop.step", lambda self, report: None)
    assert tca([*sweep, "--name", "cut", hooks]) == 0
    assert tca([*sweep, "--name", "whole", hooks]) == 0
    documents = [
        json.loads((project / f"runs/{n}/sweep.json").read_text()) for n in ("cut", "whole")
    ]
    assert documents[0]["settings"] == documents[1]["settings"]
    assert documents[0]["varied"] == ["train.seed.model"]
    first = documents[0]["settings"][0]
    assert first["settings"] == {"model.variant": "gasm_cast"}
    assert first["runs"] == ["variant=gasm_cast,model=0", "variant=gasm_cast,model=1"]
    assert first["top1_mean"] == pytest.approx(np.mean(first["top1"]))
    for run in (project / "runs/whole").glob("*=*"):
        assert losses(run) == losses(project / "runs/cut" / run.name)
    # Once more, there is nothing to do.
    before = [f.stat().st_mtime_ns for f in (project / "runs/cut").glob("*/log.jsonl")]
    assert tca([*sweep, "--name", "cut", hooks, "--evaluate", "train"]) == 0
    assert [f.stat().st_mtime_ns for f in (project / "runs/cut").glob("*/log.jsonl")] == before
    capsys.readouterr()
    assert tca([*sweep, "--name", "cut", hooks, "train.lr=1"]) == 1
    assert "was trained with other settings than these (train.lr=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "error: bad.yaml: neither grid nor members"),
        ("grid: {model.variant: []}", "lists no value"),
        ("grid: {model.variant: [nope]}", "'nope' is none of gasm_cast"),
        ("grid: {model.varant: [concat]}", "bad.yaml has an unknown key 'grid.model.varant'; did"),
        ("members: [{}, {train.lr: x}]", "bad.yaml sets 'members.1.train.lr' to 'x': input should"),
        ("grid: {train..lr: [1]}", "cannot read the override 'train..lr=1' of bad.yaml"),
        ("grid: {train.lr.x: [1]}", "bad.yaml has 'train.lr.x=1', but 'train.lr' is 0.003 and no"),
        (
            "grid: {train.schedule: [plateau]}",
            "tca.yaml with the command line and bad.yaml, in 'train': train.sch",
        ),
        ("grid: {train: [{}]}", "train is a whole section; name its settings, as train.KEY"),
        ("grid: {stores: [x]}", "bad.yaml sets 'grid.stores' to 'x': it must contain {split}"),
        ("gird: {}", "unknown key 'gird'"),
        ("grid: {train.folds: [3]}", "cannot cross-validate"),
        ("grid: {semantic.keep: [mean, frames]}", "semantic.keep makes no difference"),
        ("grid: {train.split: [2020-01-01]}", "sets 'grid.train.split' to '2020-01-01'"),
    ],
)
def test_what_is_no_sweep_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (project / "bad.yaml").write_text(text)
    assert tca(["ablate", "bad.yaml", "train.holdout=0"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_a_member_that_diverges_does_not_end_the_others(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["ablate", "sweep.yaml", "--stack", "off", "train.epochs=2", "train.warmup=0", "--json"]
    (project / "sweep.yaml").write_text(
        "grid: {train.lr: [1.0e+30, 1.0e-3], train.seed.model: [0, 1]}\n"
    )
    assert tca(sweep) == 0
    captured = capsys.readouterr()
    assert captured.err.count("training has diverged") == 2
    bad, good = json.loads(captured.out)["settings"]
    assert bad["runs"] == bad["top1"] == []
    assert bad["top1_mean"] is None
    assert list(bad["failed"]) == ["lr=1e+30,model=0", "lr=1e+30,model=1"]
    assert good["failed"] == {}
    # What went on is what it would have been alone.
    alone = ["train-fusion", "--run", "runs/alone", "train.lr=1e-3", "train.seed.model=1"]
    assert tca([*alone, "train.epochs=2", "train.warmup=0"]) == 0
    assert losses(project / "runs/sweep/lr=0.001,model=1") == losses(project / "runs/alone")
    # Once more, it is told again and not tried again.
    before = [f.stat().st_mtime_ns for f in (project / "runs/sweep").glob("*/log.jsonl")]
    assert tca(sweep) == 0
    assert "training has diverged" in capsys.readouterr().err
    assert [f.stat().st_mtime_ns for f in (project / "runs/sweep").glob("*/log.jsonl")] == before
    (project / "bad.yaml").write_text("grid: {train.lr: [1.0e+30]}\n")
    assert tca(["ablate", "bad.yaml", "train.warmup=0"]) == 1
    assert "could be trained" in capsys.readouterr().err


def test_passes_stay_the_same_when_one_of_their_members_has_ended(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a member that is half done would start anew, beside one that has no state."""
    (project / "sweep.yaml").write_text(
        "members:\n- {train.lr: 1.0e-30, train.patience: 1}\n- {train.lr: 1.0e-3}\n"
        "- {train.lr: 2.0e-3}\n"
    )
    (project / "stopping_late.py").write_text(
        "from tca.fusion.train.hooks import Hook\n"
        "class Stop(Hook):\n"
        "    def step(self, report):\n"
        "        if report.epoch == 5:\n"
        "            raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(project))
    sweep = ["ablate", "sweep.yaml", "--together", "2", "train.hooks=[stopping_late:Stop]"]
    assert tca(sweep) == 130
    begun: list[int] = []
    monkeypatch.setattr("stopping_late.Stop.step", lambda self, report: None)
    monkeypatch.setattr(
        "stopping_late.Stop.begin", lambda self, run, model, step: begun.append(step)
    )
    assert tca(sweep) == 0
    assert len(begun) == 2
    assert begun[0] > 0
    assert begun[1] == 0


def test_a_missing_split_is_told_before_the_training(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tca(["ablate", "sweep.yaml", "--evaluate", "validation"]) == 1
    assert "validation.zarr" in capsys.readouterr().err
    assert not (project / "runs").exists()


def test_a_grid_that_nobody_can_mean_is_refused_before_it_is_made() -> None:
    grid = {f"train.s{number}": list(range(10)) for number in range(12)}
    with pytest.raises(ValueError, match="the grid has 1,000,000,000,000 members"):
        SweepConfig(grid=grid)


def test_a_sweep_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="leave torchrun out"):
        run_sweep(SweepConfig(members=[{}]), lambda *_: pytest.fail("begun"), "name", together=1)


def test_results_of_another_store_are_not_taken_for_those_of_this(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "sweep.yaml").write_text("grid: {model.variant: [concat, gated_sum]}\n")
    shutil.copytree(project / "train.zarr", project / "other-train.zarr")
    sweep = ["ablate", "sweep.yaml", "train.epochs=1"]
    assert tca([*sweep, "stores=other-{split}.zarr"]) == 0
    assert tca(sweep) == 1
    said = capsys.readouterr().err
    assert "was trained with other settings than these (stores=" in said
    assert "give the sweep another --name" in said
    # The same store by another way to it, and what decides nothing of the result.
    (project / "sub").mkdir()
    monkeypatch.chdir(project / "sub")
    again = ["ablate", "../sweep.yaml", "--config", "../tca.yaml", "train.epochs=1"]
    assert tca([*again, "stores=other-{split}.zarr", "train.save_steps=5"]) == 0
    assert "2 of 2 members are there already" in capsys.readouterr().err


def test_a_member_that_was_killed_as_it_began_is_begun_anew(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "sweep.yaml").write_text("grid: {model.variant: [concat]}\n")
    sweep = ["ablate", "sweep.yaml", "train.epochs=1"]
    assert tca(sweep) == 0
    run = project / "runs/sweep/variant=concat"
    info = json.loads((run / "run.json").read_text())
    (run / "config.yaml").unlink()
    capsys.readouterr()
    assert tca(sweep) == 1
    assert "config.yaml is missing or damaged; remove" in capsys.readouterr().err
    # The first file of a run, as `begin` writes it.
    (run / "run.json").write_text(json.dumps(info | {"finished": False}))
    assert tca(sweep) == 0
    assert json.loads((run / "run.json").read_text()) == info
    assert (run / "config.yaml").is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", "a/"])
@pytest.mark.parametrize("command", ["ablate", "tune"])
def test_a_name_is_that_of_one_folder(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    (project / "ranges.yaml").write_text("ranges: {train.lr: {low: 1e-4, high: 1e-2}}\ntrials: 1\n")
    file = {"ablate": "sweep.yaml", "tune": "ranges.yaml"}[command]
    assert tca([command, file, "--name", name, "train.epochs=1", "model.variant=concat"]) == 2
    assert f"{name!r} is not the name of one folder in runs/" in capsys.readouterr().err
    assert not (project / "runs").exists()


def test_a_sweep_is_trained_by_one_process_at_a_time(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sole_trainer(project / "runs/sweep"):
        assert tca(["ablate", "sweep.yaml", "train.epochs=1"]) == 1
    assert "runs/sweep is being trained by another process" in capsys.readouterr().err
    assert not list((project / "runs/sweep").iterdir())
