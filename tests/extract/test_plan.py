"""What is said before an extraction begins, and that saying it writes nothing."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from in_process import in_process
from tiny_project import write_project

from tca.cli import run as tca
from tca.errors import TcaError, UsageError
from tca.extract.config import DataConfig
from tca.extract.plan import Part
from tca.extract.run import extract
from tca.extract.worker import Job, Report
from tca.project import load_project

ROWS = 37
NUMBERS = 8 * 4 * 16 + 8 * 512
"""Of a row: 8 frames of 2 x 2 patches of 16 features, 8 segments of 512."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path / "project", ROWS)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def dry_run(capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> dict[str, object]:
    assert tca(["extract", "--device", "cpu", "--dry-run", "--json", *more]) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return json.loads(shown.out)[0]


def test_the_plan_says_what_will_be_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(folder)
    plan = dry_run(capsys, "--allow-missing", "--workers", "2")
    assert {name: plan[name] for name in plan if name not in ("free", "needed")} == {
        "split": "train",
        "store": "cache/train.zarr",
        "store_format": "zarr",
        "part": None,
        "videos": ROWS,
        "missing": 1,
        "rows": ROWS,
        "rows_done": 0,
        "rows_per_shard": 8,
        "shards": 5,
        "shards_done": 0,
        "row_bytes": 2 * NUMBERS,
        "devices": ["cpu", "cpu"],
        "batch_size": 3,
        "problem": None,
    }
    assert plan["free"] == pytest.approx(shutil.disk_usage(folder).free, rel=0.01)
    assert tca(["extract", "--device", "cpu", "--dry-run", "--allow-missing"]) == 0
    shown = capsys.readouterr().out
    for words in ("37: 36 found, 1 missing", "37 of 37, in 5 of 5 shards", "1 x cpu; batches of 3"):
        assert words in shown
    assert listing(folder) == before


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_as_many_bytes_are_needed_as_are_then_written(
    folder: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"stores=cache/{{split}}.{suffix}"
    store = folder / f"cache/train.{suffix}"
    needed = dry_run(capsys, "--allow-missing", place)["needed"]
    project, _ = load_project(None, [place])
    extract("train", store, project, devices=["cpu"], engine=in_process, allow_missing=True)
    capsys.readouterr()
    shards = store / ("shards" if suffix == "h5" else ".")
    written = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())
    # Unreadable videos turn out to need nothing; metadata are small.
    assert 0.9 * needed < written < 1.2 * needed
    # And nothing more for what is there.
    plan = dry_run(capsys, "--allow-missing", place)
    assert (plan["needed"], plan["rows_done"], plan["shards_done"]) == (0, ROWS, 5)


def test_what_would_keep_it_from_starting_is_said_beside_the_rest(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dry_run(capsys, code=1)
    assert "1 of 37 videos of split train" in plan["problem"]
    assert "--allow-missing" in plan["problem"]
    assert plan["needed"] > 0
    weights = ["semantic.weights=./nowhere", "semantic.sizes={}", "semantic.size=224"]
    plan = dry_run(capsys, "--allow-missing", *weights, code=1)
    assert "there is no folder of weights" in plan["problem"]
    assert (plan["rows"], plan["shards"], plan["needed"]) == (ROWS, 5, None)
    tight = namedtuple("tight", "free")(1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: tight)
        plan = dry_run(capsys, "--allow-missing", code=1)
        assert "needs" in plan["problem"]
        assert "1 kB are free; free some space, or keep less" in plan["problem"]
        assert tca(["extract", "--device", "cpu", "--allow-missing"]) == 1
    assert "1 kB are free" in capsys.readouterr().err
    assert not (folder / "cache").exists()
    with monkeypatch.context() as patch:
        # As on a disk that is mounted read-only; root may write anywhere else.
        patch.setattr(os, "access", lambda *_: False)
        assert "cannot write to" in dry_run(capsys, "--allow-missing", code=1)["problem"]
    # Settings that never go together are no plan.
    assert tca(["extract", "--dry-run", "--allow-missing", "semantic.pool=3"]) == 2


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_decoder_that_is_not_here_is_refused_before_a_store_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    call = ["extract", "--device", "cpu", "--allow-missing", "extract.decoder=torchcodec-cuda"]
    assert tca([*call, *more]) == 2
    assert "error: extract.decoder=torchcodec-cuda " in capsys.readouterr().err
    assert not (folder / "cache").exists()


def test_a_store_of_other_settings_is_a_problem(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = load_project(None, [])
    store = folder / "cache/train.zarr"
    extract("train", store, project, devices=["cpu"], engine=in_process, allow_missing=True)
    capsys.readouterr()
    before = listing(folder)
    plan = dry_run(capsys, "--allow-missing", "extract.min_frames=4", code=1)
    assert "min_frames: expected 4, found 8" in plan["problem"]
    assert listing(folder) == before


def test_a_store_begun_with_another_precision_goes_on_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = load_project(None, ["extract.precision=float32"])
    store = folder / "cache/train.zarr"

    def one_shard(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
        in_process(job, shards[:1], devices, report)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract("train", store, project, devices=["cpu"], engine=one_shard, allow_missing=True)
    assert "begun otherwise" not in capsys.readouterr().err
    other, _ = load_project(None, ["extract.precision=bfloat16"])
    summary = extract("train", store, other, devices=["cpu"], engine=in_process, allow_missing=True)
    said = capsys.readouterr().err
    assert "was begun otherwise (precision: expected 'float32', found 'bfloat16')" in said
    assert summary.done == ROWS - 8


def test_not_one_video_that_can_be_read_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(9):
        (tmp_path / f"videos/{number}.mp4").write_bytes(b"no video")
    (tmp_path / "train.csv").write_text("".join(f"{number},x\n" for number in range(10)))
    project, _ = load_project(write_project(tmp_path / "other", 16), [])
    data = DataConfig(videos=tmp_path / "videos", annotations={"train": tmp_path / "train.csv"})
    project = project.model_copy(update={"data": data})
    for part, status in ((None, 10), (Part(1, 2), 8)):
        with pytest.raises(TcaError, match=rf"none of the {status} videos .*failures\.csv"):
            extract(
                "train",
                tmp_path / "train.zarr",
                project,
                devices=["cpu"],
                engine=in_process,
                part=part,
                allow_missing=True,
            )
    capsys.readouterr()


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "a/b", "1/2/3", "-1/3", "1.5/2", ""])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"must be I/N with I from 1 to N, as 3/16"):
        Part.parse(text)


def test_parts_are_slices_that_make_a_whole() -> None:
    for count in (1, 3, 16):
        parts = [Part.parse(f"{number}/{count}") for number in range(1, count + 1)]
        shards = [shard for part in parts for shard in part.shards(50)]
        assert sorted(shards) == list(range(50))
        sizes = [len(part.shards(50)) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert Part.parse("3/16").path(Path("a/train.h5")) == Path("a/train.part-3-of-16.h5")
