"""Several processes train one model, as torchrun starts them: the curve is one process's."""

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from train_project import TORCHRUN, done, start, write_train_project

from tca.fusion.run_folder import RunFolder
from tca.fusion.train.world import _meet

STILL = ["model.dropout=0", "model.head_dropout=0", "train.epochs=3"]
"""What a process draws for itself is left out."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_train_project(tmp_path_factory.mktemp("project"))


def lines(run: Path) -> list[dict[str, float]]:
    """The log, without what the clock says."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if k not in ("rows_per_s", "waiting")} for one in found]


@pytest.mark.parametrize(
    ("processes", "more"),
    [
        (2, ["train.batch_size=16"]),
        # 76 rows: batches of 25 leave one row, which two of three processes do not see.
        pytest.param(
            3,
            ["train.batch_size=25", "train.accumulate=2", "train.ema=0.9"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_loss_curve_is_that_of_one_process(
    project: Path, processes: int, more: list[str]
) -> None:
    one, several = f"one-{processes}", f"several-{processes}"
    done(start(project, "--run", one, *STILL, *more))
    launcher = [*TORCHRUN, "--nproc-per-node", str(processes)]
    done(start(project, "--run", several, *STILL, *more, launcher=launcher))
    ours, theirs = lines(project / several), lines(project / one)
    assert len(ours) == len(theirs)
    for got, expected in zip(ours, theirs, strict=True):
        assert got.keys() == expected.keys()
        for key in got:
            assert got[key] == pytest.approx(expected[key], rel=2e-3, abs=1e-5), key
    got, expected = (load_file(project / run / "last.safetensors") for run in (several, one))
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-2, atol=1e-4)
    assert RunFolder(project / several).info()["processes"] == processes


@pytest.mark.long
def test_only_the_first_process_writes_and_speaks(project: Path) -> None:
    process = start(project, "--json", "--workers", "2", *STILL)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    run = Path(json.loads(said)["run"])
    run = project / run
    assert len([line for line in lines(run) if "step" in line]) == 3 * 5
    assert len(list(run.glob("events.out.tfevents*"))) == 1
    assert [path.name for path in run.parent.iterdir()] == [run.name]


@pytest.mark.long
def test_after_a_process_has_died_all_are_started_again_and_go_on(project: Path) -> None:
    launcher = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "2"]
    arguments = [*STILL, "train.epochs=30"]
    process = start(project, "--run", "again", *arguments, launcher=launcher)
    end = time.monotonic() + 200
    run = project / "again"
    while len(list((run / "state").glob("step-*.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(_children(process.pid)[-1], signal.SIGKILL)
    done(process)
    done(start(project, "--run", "never", *arguments, launcher=launcher))
    assert lines(run) == lines(project / "never")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_meet_anew_whatever_the_dead_left(order: tuple[int, ...]) -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as pool:
        # A first start in which one of them never came, two whole ones, with one store for all.
        store.add("generation", 1)
        store.set("1 word 1", "of a process that is dead")
        for generation in (2, 3):
            met = []
            for rank in order:
                met.append(pool.submit(_meet, store, rank, 3))
                time.sleep(0.1)
            assert [one.result(timeout=30) for one in met] == [generation] * 3


@pytest.mark.long
def test_processes_of_two_machines_go_on_after_one_has_died(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--max-restarts", "2"]
    arguments = [*STILL, "train.epochs=30"]
    agents = [start(project, "--run", "two", *arguments, launcher=launcher) for _ in range(2)]
    end = time.monotonic() + 200
    while len(list((project / "two/state").glob("step-*.safetensors"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    # The other agent restarts its process too, but does not count it.
    os.kill(_children(agents[1].pid)[-1], signal.SIGKILL)
    for agent in agents:
        done(agent)
    done(start(project, "--run", "never-two", *arguments, "--workers", "2"))
    assert lines(project / "two") == lines(project / "never-two")


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(number) for number in listed.split()]


HOOKS = """
from tca.fusion.train.hooks import Hook

class Enough(Hook):
    def epoch(self, report, model):
        return report.epoch == 2

class Broken(Hook):
    def epoch(self, report, model):
        raise OSError("no line to the chat")
"""


@pytest.mark.long
def test_a_hook_ends_all_processes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "looking_on.py").write_text(HOOKS)
    monkeypatch.setenv("PYTHONPATH", str(project))
    two = ["--workers", "2", *STILL]
    done(start(project, "--run", "enough", *two, "train.hooks=[looking_on:Enough]"))
    assert RunFolder(project / "enough").info()["epochs"] == 2
    process = start(project, "--run", "broken", *two, "train.hooks=[looking_on:Broken]")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: the hook Broken failed (OSError: no line to the chat" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_a_killed_process_is_told_in_a_sentence(project: Path) -> None:
    process = start(project, "--run", "killed", "--workers", "2", *STILL, "train.epochs=300")
    end = time.monotonic() + 200
    while not (project / "killed/state").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(_children(process.pid)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: the system ended process 1 (SIGKILL)" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_folds_are_one_processs(project: Path) -> None:
    process = start(project, "--folds", "3", launcher=[*TORCHRUN, "--nproc-per-node", "2"])
    _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "leave several processes and --resume out" in said
