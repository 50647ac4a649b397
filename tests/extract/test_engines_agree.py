"""Every engine makes the same bytes: one process, two, Ray actors, parts put together."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faulty_work
import pytest
import torch
from faulty_work import killer_of_one
from in_process import in_process
from tiny_project import store_files, write_project

from tca.cli import run as tca
from tca.errors import TcaError, UsageError
from tca.extract import ray_engine
from tca.extract.engine import run_local
from tca.extract.plan import Part
from tca.extract.ray_engine import RayCluster, ray_cluster
from tca.extract.run import Engine, extract
from tca.extract.worker import Job, Report
from tca.project import load_project

ROWS = 37
SUFFIX = {"zarr": "zarr", "hdf5": "h5"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), ROWS)


@pytest.fixture(scope="module")
def expected(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The stores of one worker in this process, by format."""
    folder = tmp_path_factory.mktemp("expected")
    for suffix in SUFFIX.values():
        run(config, folder / f"train.{suffix}", in_process, 1)
    return {name: store_files(folder / f"train.{suffix}") for name, suffix in SUFFIX.items()}


def run(
    config: Path, store: Path, engine: Engine, workers: int, part: Part | None = None
) -> object:
    project, _ = load_project(config, ())
    devices = ["cpu"] * workers
    return extract(
        "train", store, project, devices=devices, engine=engine, part=part, allow_missing=True
    )


@pytest.mark.parametrize(("store_format", "workers"), [("zarr", 2), ("hdf5", 1)])
def test_local(
    config: Path,
    expected: dict[str, dict[str, bytes]],
    tmp_path: Path,
    store_format: str,
    workers: int,
) -> None:
    store = tmp_path / f"train.{SUFFIX[store_format]}"
    run(config, store, run_local, workers)
    assert store_files(store) == expected[store_format]


@pytest.mark.parametrize("store_format", SUFFIX)
def test_parts_put_together(
    config: Path,
    expected: dict[str, dict[str, bytes]],
    tmp_path: Path,
    store_format: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    suffix = SUFFIX[store_format]
    store = tmp_path / f"cache/train.{suffix}"
    # More parts than shards: some have nothing to do, and say so. Devices differ from part to part.
    made = [
        run(config, store, in_process, 1 + number % 2, Part(number, 7)) for number in range(1, 8)
    ]
    assert [summary.rows for summary in made] == [8, 8, 8, 8, 5, 0, 0]
    names = [f"train.part-{number}-of-7.{suffix}" for number in range(1, 8)]
    assert [summary.store for summary in made] == [store.with_name(name) for name in names]
    # As a shell expands train.part-*: locks and reports are among them.
    around = sorted(map(str, store.parent.glob("train.part-*")))
    assert len(around) > 14
    assert tca(["cache", "merge", str(store), *around]) == 0
    assert "all 5 shards, 37 rows" in capsys.readouterr().out
    assert store_files(store) == expected[store_format]
    # What one part lacks, the next run of it makes, and a merge takes it over.
    assert tca(["cache", "merge", str(tmp_path / f"again/train.{suffix}"), *around[:2]]) == 0
    assert "1 of 5 shards" in capsys.readouterr().out


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        # Actors import the faults from here.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with ray_cluster("local", 2, on_cpu=True) as started:
            assert started.devices == ["cpu", "cpu"]
            yield started


def test_ray_with_an_actor_killed_in_the_middle_of_a_shard(
    cluster: RayCluster,
    config: Path,
    expected: dict[str, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ray_engine, "work", faulty_work.slow)
    reported: list[int] = []

    def killing(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
        kills = killer_of_one(job.store, lambda p: (reported.append(p.rows), report(p)))
        cluster.run(job, shards, devices, kills)

    store = tmp_path / "train.zarr"
    run(config, store, killing, 2)
    assert (
        "died (killed, out of memory, or with its node); another takes" in capsys.readouterr().err
    )
    assert store_files(store) == expected["zarr"]
    assert min(reported) < 0
    assert sum(reported) == ROWS


@pytest.mark.long
def test_ray_writes_hdf5(
    cluster: RayCluster, config: Path, expected: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    run(config, tmp_path / "train.h5", cluster.run, 1)
    assert store_files(tmp_path / "train.h5") == expected["hdf5"]


def with_a_folder_of_its_own(
    cluster: RayCluster, local: Path, monkeypatch: pytest.MonkeyPatch
) -> Engine:
    """An engine whose nodes find `local` where the store should be."""
    import ray

    def engine(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
        remote, theirs = ray_engine._Remote, ray.put(replace(job, store=local))
        monkeypatch.setattr(ray_engine, "_Remote", lambda number, _, n: remote(number, theirs, n))
        cluster.run(job, shards, devices, report)

    return engine


def test_a_ray_node_that_does_not_see_the_store_says_so(
    cluster: RayCluster, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = with_a_folder_of_its_own(cluster, tmp_path / "local.zarr", monkeypatch)
    with pytest.raises(TcaError, match=r"Ray node [\d.]+ does not see .*local\.zarr \(No such"):
        run(config, tmp_path / "train.zarr", engine, 1)


@pytest.mark.long
def test_a_ray_node_with_a_store_of_its_own_is_found_out(
    cluster: RayCluster, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "SETTLING_S", 0.0)
    run(config, tmp_path / "node/train.zarr", in_process, 1)
    engine = with_a_folder_of_its_own(cluster, tmp_path / "node/train.zarr", monkeypatch)
    with pytest.raises(
        TcaError, match=r"5 shards that Ray nodes have made are not in .*train\.zarr"
    ):
        run(config, tmp_path / "train.zarr", engine, 1)


def test_a_cluster_that_is_too_small(cluster: RayCluster) -> None:
    with pytest.raises(UsageError, match=r"--workers 50: the Ray cluster has \d+ CPUs"):
        ray_engine._cluster(50, True)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(UsageError, match=r"pip install 'tca\[ray\]'"),
        ray_cluster(None, 1, on_cpu=True),
    ):
        pytest.fail("no ray")


def test_what_does_not_go_with_ray(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["extract", "--config", str(config)]
    assert tca([*common, "--engine", "ray", "--gpus", "0"]) == 2
    assert "say how many with --workers N" in capsys.readouterr().err
    assert tca([*common, "--ray-address", "auto"]) == 2
    assert "goes with --engine ray" in capsys.readouterr().err


def test_rows_per_shard_of_a_part_depend_on_the_number_of_parts_alone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = []
    for part, workers in (("1/2", "1"), ("2/2", "3")):
        command = ["extract", "--config", str(config), "--part", part, "--workers", workers]
        options = ["--device", "cpu", "--allow-missing", "--dry-run", "--json"]
        assert tca([*command, *options, f"stores={tmp_path}/{{split}}.zarr"]) == 0
        plans += json.loads(capsys.readouterr().out)
    assert plans[0]["rows_per_shard"] == plans[1]["rows_per_shard"] == 8
    assert plans[0]["rows"] + plans[1]["rows"] == ROWS
