"""The local engine: workers die and are replaced, and the store is what it would have been."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty_work
import pytest
import torch
from faulty_work import BAD_SHARD, DiesAtOnce, killer_of_one
from in_process import in_process
from tiny_project import outlived, session_members, store_files, write_project

from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.device import device_names
from tca.errors import TcaError, UsageError
from tca.extract import engine
from tca.extract.crew import lead
from tca.extract.engine import run_local
from tca.extract.handout import Handout, exit_words
from tca.extract.run import Engine, ExtractSummary, extract
from tca.extract.serve import STOP, Message, Ready, Work
from tca.extract.worker import Job, Report
from tca.project import load_project

ROWS = 37


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), ROWS)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(config: Path, store: Path, engine: Engine = run_local, workers: int = 2) -> ExtractSummary:
    project, _ = load_project(config, ())
    devices = ["cpu"] * workers
    return extract("train", store, project, devices=devices, engine=engine, allow_missing=True)


@pytest.fixture(scope="module")
def expected(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store of an undisturbed worker, in this process."""
    store = tmp_path_factory.mktemp("expected") / "train.zarr"
    assert run(config, store, in_process).status == {
        "ok": 33,
        "missing": 1,
        "unreadable": 1,
        "empty": 2,
    }
    return store_files(store)


def test_a_killed_worker_is_replaced_and_its_shard_redone(
    config: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engine, "work", faulty_work.slow)
    reported = []

    def killing(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
        kills = killer_of_one(job.store, lambda p: (reported.append(p.rows), report(p)))
        run_local(job, shards, devices, kills)

    store = tmp_path / "train.zarr"
    run(config, store, killing)
    assert "the worker on cpu was killed by SIGKILL (as the system does when" in (
        capsys.readouterr().err
    )
    assert store_files(store) == expected
    # What the dead had done and not committed was taken back.
    assert min(reported) < 0
    assert sum(reported) == ROWS


def test_a_shard_that_kills_its_workers_ends_the_run(
    config: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "work", faulty_work.dies_at_one_shard)
    store = tmp_path / "train.zarr"
    with pytest.raises(TcaError) as error:
        run(config, store)
    for words in (
        f"shard {BAD_SHARD} (rows 8 to 15, videos 8 to 15) took its worker down 3 times",
        "the one on cpu was killed by SIGSEGV;",
        "run the command again",
    ):
        assert words in str(error.value)
    assert Store.open(store).shard_status(BAD_SHARD) is None
    monkeypatch.undo()
    run(config, store)
    assert store_files(store) == expected


def test_workers_that_die_at_once_end_the_run(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "work", DiesAtOnce())
    with pytest.raises(TcaError, match=r"worker on cpu ended with exit code 7, 3 times before"):
        run(config, tmp_path / "train.zarr")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            faulty_work.loses_its_device_once,
            "lost its device (CUDA error: unspecified launch failure); another takes",
        ),
        (
            faulty_work.loses_its_nursery_once,
            "lost its decoders (the process that starts decoders died (",
        ),
    ],
)
def test_a_worker_that_loses_its_device_or_decoders_is_replaced(
    config: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Work,
    said: str,
) -> None:
    monkeypatch.setattr(engine, "work", fault)
    run(config, tmp_path / "train.zarr", workers=1)
    assert said in capsys.readouterr().err
    assert store_files(tmp_path / "train.zarr") == expected


def test_a_bug_in_a_worker_keeps_its_traceback(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "work", faulty_work.has_a_bug)
    with pytest.raises(RuntimeError, match=r"(?s)in has_a_bug.*KeyError: 'no such key for 0'"):
        run(config, tmp_path / "train.zarr", workers=1)


def test_workers_die_with_their_parent(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tca", "extract", "--config", str(config), "--allow-missing"]
    command += ["--device", "cpu", "--workers", "2", f"stores={tmp_path}/{{split}}.zarr"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "train.zarr").exists():
        time.sleep(0.01)
    # Workers start now; some moment in it.
    time.sleep(1.0)
    assert len(session_members(process.pid)) > 1
    process.kill()
    process.wait()
    assert outlived(process.pid) == []


def test_what_workers_are_forked_from_asks_for_no_gpu() -> None:
    # A process that has done so cannot fork one that uses it.
    program = (
        "import torch; asked = []; no = lambda *_: asked.append(1) or 0;"
        "torch.cuda.is_available = torch.cuda.device_count = torch._C._cuda_init = no;"
        "torch._C._cuda_getDeviceCount = no; import tca.extract.worker; print('ASKED', asked)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ASKED []" in done.stdout


@pytest.fixture
def writer(config: Path, tmp_path: Path) -> StoreWriter:
    """A store of five shards, of which none is committed."""

    def nothing(*_: object) -> None:
        raise TcaError("not now")

    with pytest.raises(TcaError, match="not now"):
        run(config, tmp_path / "train.zarr", nothing)
    return StoreWriter(tmp_path / "train.zarr")


@pytest.mark.parametrize("shards", [[0], [0, 1, 2, 3, 4]])
def test_as_many_threads_add_up_a_number_however_little_is_left(
    config: Path, writer: StoreWriter, monkeypatch: pytest.MonkeyPatch, shards: list[int]
) -> None:
    found = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(engine, "_Process", lambda job, device, threads: found.append(threads))
    monkeypatch.setattr(
        engine, "lead", lambda handout, count, hire, *_: [hire(number) for number in range(count)]
    )
    project, folder = load_project(config, ())
    run_local(Job(writer.path, [], [], folder, project), shards, ["cpu"] * 2, lambda _: None)
    assert found == [4] * min(2, len(shards))


def test_suspects_are_made_alone(writer: StoreWriter) -> None:
    handout = Handout(writer, range(5))
    assert [handout.ask(0, idle=True), handout.ask(0, idle=False)] == [0, 1]
    assert handout.ask(1, idle=True) == 2
    handout.reported(0, 6)
    assert handout.died(0, "cuda:0", "died") == 6
    # The replacement gets one of the two alone, the other worker the rest meanwhile.
    assert [handout.ask(0, idle=True), handout.ask(0, idle=False)] == [0, None]
    assert [handout.ask(1, idle=False), handout.ask(1, idle=False)] == [3, 4]
    assert handout.ask(1, idle=False) is None
    assert handout.left
    assert handout.died(0, "cuda:0", "died") == 0
    assert handout.ask(1, idle=True) == 1
    assert handout.ask(0, idle=True) == 0
    with pytest.raises(
        TcaError, match=r"shard 0 \(rows 0 to 7, .* 3 times: the one on cuda:0 died"
    ):
        handout.died(0, "cuda:0", "died")


class Endless:
    """A worker in a batch that never ends."""

    name = "cpu"

    def __init__(self) -> None:
        self.told: list[int | None] = []
        self.killed = False

    def messages(self) -> list[Message]:
        return [Ready()]

    def tell(self, answer: int | None) -> None:
        self.told.append(answer)

    def ended(self) -> None:
        return None

    def kill(self) -> None:
        self.killed = True


def test_a_second_ctrl_c_does_not_wait_for_the_batch(
    writer: StoreWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Endless()
    moments = iter([False, True, True])

    def wait(*_: object) -> None:
        if next(moments):
            assert not worker.killed
            signal.raise_signal(signal.SIGINT)

    # Jobs in the background ignore it.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            lead(Handout(writer, range(5)), 1, lambda _: worker, wait, lambda _: None)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert worker.told == [STOP]
    assert worker.killed
    assert "stopping after the current batch; Ctrl-C again" in capsys.readouterr().err


def test_a_worker_may_die_often_if_it_does_something_between(writer: StoreWriter) -> None:
    handout = Handout(writer, [0])
    for _ in range(2):
        assert handout.died(0, "cpu", "died") == 0
    assert handout.ask(0, idle=True) == 0
    handout.reported(0, 3)
    assert handout.ask(0, idle=True) is None
    for _ in range(2):
        assert handout.died(0, "cpu", "died") == 0
    with pytest.raises(TcaError, match="worker on cpu died, 3 times before it made a single"):
        handout.died(0, "cpu", "died")


def test_a_store_that_is_gone_is_said_at_the_next_shard(writer: StoreWriter) -> None:
    handout = Handout(writer, range(5))
    handout.ask(0, idle=True)
    writer.path.rename(writer.path.with_name("elsewhere.zarr"))
    with pytest.raises(TcaError, match="was moved or deleted while it was written"):
        handout.ask(0, idle=False)


def test_how_a_process_ended_is_said_in_words() -> None:
    assert exit_words(3) == "ended with exit code 3"
    assert exit_words(-signal.SIGBUS) == "was killed by SIGBUS"
    assert "when memory runs out" in exit_words(-signal.SIGKILL)


def test_workers_share_a_cpu_and_nothing_else() -> None:
    assert device_names(None, "cpu", 3) == ["cpu"] * 3
    with pytest.raises(UsageError, match="--gpus and --workers exclude each other"):
        device_names("0", None, 2)
