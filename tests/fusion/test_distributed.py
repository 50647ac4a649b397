"""Several processes train one model, as torchrun starts them: the curve is one process's."""

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from train_project import TORCHRUN, done, start, write_train_project

from tca.errors import TcaError, UsageError
from tca.fusion.run_folder import RunFolder
from tca.fusion.train import world

STILL = ["model.dropout=0", "model.head_dropout=0", "train.epochs=3"]
"""What a process draws for itself is left out."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_train_project(tmp_path_factory.mktemp("project"))


def lines(run: Path) -> list[dict[str, float]]:
    """The log, without what the clock says."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if k not in ("rows_per_s", "waiting")} for one in found]


def torchrun(
    project: Path, *arguments: str, processes: int = 2, restarts: int = 0
) -> subprocess.Popen[str]:
    launcher = [*TORCHRUN, "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    return start(project, *arguments, launcher=launcher)


def wait_for_states(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until there is enough to go on from."""
    end = time.monotonic() + 200
    while len(list((run / "state").glob("step-*.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(one) for one in listed.split()]


def runs(number: int) -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_last_child(process: subprocess.Popen[str]) -> None:
    os.kill(children(process)[-1], signal.SIGKILL)


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
    done(torchrun(project, "--run", several, *STILL, *more, processes=processes))
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
    arguments = [*STILL, "train.epochs=30"]
    process = torchrun(project, *arguments, "runs=again", restarts=2)
    run = project / "again/gasm_cast-001"
    wait_for_states(run, process)
    # Begun later by another job, and not finished either.
    other = RunFolder(project / "again/gasm_cast-002")
    other.write_info({**RunFolder(run).info(), "job": "another"})
    kill_last_child(process)
    done(process)
    assert not other.info()["finished"]
    done(torchrun(project, "--run", "never", *arguments))
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
                met.append(pool.submit(world._meet, store, rank, 3))
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
    wait_for_states(project / "two", agents[0])
    # The other agent restarts its process too, but does not count it.
    kill_last_child(agents[1])
    for agent in agents:
        done(agent)
    done(start(project, "--run", "never-two", *arguments, "--workers", "2"))
    assert lines(project / "two") == lines(project / "never-two")


HOOKS = """
import os, signal
from tca.fusion.train.hooks import Hook

class Enough(Hook):
    def epoch(self, report, model):
        return report.epoch == 2

class Broken(Hook):
    def epoch(self, report, model):
        raise OSError("no line to the chat")

class DiesAtExit(Hook):
    def end(self, run):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
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
def test_a_run_that_was_finished_when_a_process_died_stays_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "looking_on.py").write_text(HOOKS)
    monkeypatch.setenv("PYTHONPATH", str(project))
    arguments = ["--json", "--run", "at-exit", *STILL, "train.hooks=[looking_on:DiesAtExit]"]
    process = torchrun(project, *arguments, restarts=1)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(said) == RunFolder(project / "at-exit").outcome() | {"run": "at-exit"}
    assert "at-exit is finished; score it with: tca evaluate --run at-exit" in errors
    # What another job has finished is no success of this one, however often it is started.
    process = torchrun(project, *arguments, restarts=1)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "at-exit holds a finished run; name another run folder" in errors
    assert not said


@pytest.mark.long
@pytest.mark.parametrize("starter", ["tca", "torchrun"])
def test_an_interruption_is_told_once(project: Path, starter: str) -> None:
    run = f"interrupted-{starter}"
    arguments = ["--run", run, *STILL, "train.epochs=300"]
    if starter == "tca":
        process = start(project, *arguments, "--workers", "2")
    else:
        process = torchrun(project, *arguments)
    wait_for_states(project / run, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert said.count("interrupted; go on with `tca train-fusion --resume RUN`") == 1
    if starter == "tca":
        assert process.returncode == 130
        assert "Traceback" not in said


@pytest.mark.long
def test_a_killed_process_is_told_in_a_sentence(project: Path) -> None:
    process = start(project, "--run", "killed", "--workers", "2", *STILL, "train.epochs=300")
    wait_for_states(project / "killed", process)
    kill_last_child(process)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: the system ended process 1 (SIGKILL)" in said
    assert "Traceback" not in said


@pytest.mark.long
@pytest.mark.parametrize("starter", ["tca", "torchrun"])
def test_processes_end_when_what_started_them_is_killed(project: Path, starter: str) -> None:
    run = f"orphaned-{starter}"
    arguments = ["--run", run, *STILL, "train.epochs=30000"]
    if starter == "tca":
        process = start(project, *arguments, "--workers", "2")
    else:
        process = torchrun(project, *arguments)
    wait_for_states(project / run, process)
    training = children(process)
    process.kill()
    process.wait()
    assert len(training) == 2
    end = time.monotonic() + 60
    while (left := [one for one in training if runs(one)]) and time.monotonic() < end:
        time.sleep(0.1)
    for one in left:
        os.kill(one, signal.SIGKILL)
    assert left == []


@pytest.mark.long
def test_folds_are_one_processs(project: Path) -> None:
    process = torchrun(project, "--folds", "3", "runs=folded")
    _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert said.count("error: ") == 1
    assert "leave several processes out" in said
    assert not (project / "folded").exists()


GONE = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([UsageError("no store"), UsageError("no store")], ["no store", 2]),
        (
            [TcaError("no store here"), TcaError("no store there")],
            ["no store here", "no store there"],
        ),
        ([TcaError("no room"), GONE], ["no room", 1]),
        ([None, TcaError("no memory")], [None, "no memory"]),
        ([GONE, TcaError("no memory")], ["process 0 ends, as another one has", "no memory"]),
        ([None, GONE], [None, "process 1 ends, as another one has"]),
    ],
)
def test_an_error_of_all_processes_is_told_once_and_one_of_each_by_each(
    monkeypatch: pytest.MonkeyPatch, errors: list[Exception | None], told: list[str | int | None]
) -> None:
    monkeypatch.setattr(world, "TOGETHER", timedelta(seconds=1))
    store = dist.HashStore()

    def meet(rank: int) -> str | int | None:
        error = errors[rank]
        try:
            with world._told_once(store, rank):
                # The leading one may come later.
                time.sleep(0 if rank else 0.3)
                if error is not None:
                    raise error
        except TcaError as found:
            return str(found).partition(";")[0]
        except SystemExit as found:
            return found.code
        return None

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(meet, (0, 1))) == told
