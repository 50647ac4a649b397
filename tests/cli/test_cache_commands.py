"""`tca cache info|verify|repair|merge` as they are typed."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from drawn_video import write_video

from tca.cache.failures import Failure, write_failures
from tca.cache.files import sole_writer
from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.writer import StoreWriter
from tca.cli import run

CLASSES = [f"class {number}" for number in range(30)]
LABELS = np.arange(100) ** 2 % 30


def spec(kind: str = "float16") -> StoreSpec:
    rows = 100
    return StoreSpec(
        split="train",
        rows=RowTable(
            [f"v{row}" for row in range(rows)],
            LABELS.astype(np.int32),
            np.arange(rows, dtype=np.int32),
            np.zeros(rows, np.uint8),
        ),
        streams={"motion": Stream((rows, 8, 5), kind)},
        rows_per_shard=32,
        classes=CLASSES,
        identity={"keep": "mean", "motion": {"weights": "random:0"}},
        record={"device": ["cpu"]},
        grid=(1, 1),
    )


def write(path: Path, *shards: int, kind: str = "float16", noise: float = 0.0) -> Path:
    """A store whose rows 5 and 6 failed."""
    with sole_writer(path):
        writer = StoreWriter.open_or_create(path, spec(kind))
        for shard in shards or sorted(set(range(4)) - writer.committed()):
            rows = writer.shard_rows(shard)
            good = [row not in (5, 6) for row in rows]
            values = [np.random.default_rng(row).normal(size=(8, 5)) for row in rows]
            moved = [(v * (1 + noise)).astype(kind) for v in values]
            features = [v if ok else None for v, ok in zip(moved, good, strict=True)]
            failed = [Failure(r, "x", "no frames") for r in (5, 6) if r in rows]
            write_failures(path, shard, failed)
            status = np.where(good, Status.OK, Status.UNREADABLE).astype(np.uint8)
            writer.commit(shard, {"motion": features}, status)
    return path


@pytest.fixture(params=["zarr", "h5"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(Path(f"cache/train.{request.param}"))


def damage(store: Path, row: int = 40) -> None:
    """Flip a bit in the features of a row of shard 1."""
    file = store / ("motion/c/1/0/0" if store.suffix == ".zarr" else "shards/000001.h5")
    data = bytearray(file.read_bytes())
    values = np.random.default_rng(row).normal(size=(8, 5)).astype(np.float16)
    data[bytes(data).index(values.tobytes()) + 9] ^= 1
    file.write_bytes(data)


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_info_names_what_is_there(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "info", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == {".zarr": "zarr", ".h5": "hdf5"}[store.suffix]
    assert found["status"] == {"ok": 98, "unreadable": 2}
    assert found["reasons"] == {"no frames": 2}
    assert found["streams"]["motion"] == {
        "shape": [100, 8, 5],
        "type": "float16",
        "row_bytes": 80,
        "bytes": 98 * 80,
    }
    assert found["bytes"] > 98 * 80
    assert list(found["labels"]) == CLASSES
    assert list(found["labels"].values()) == np.bincount(LABELS, minlength=30).tolist()
    assert run(["cache", "info", str(store)]) == 0
    shown = capsys.readouterr().out
    for text in ("98", "no frames", "4 of 4", "motion.weights", "random:0", "device"):
        assert text in shown
    # The most frequent classes come first, and not all of them.
    assert shown.index("class 1 ") < shown.index("class 0 ")
    assert "and 10 more" in shown
    assert "class 29" not in shown
    assert run(["cache", "info", str(store), "--labels"]) == 0
    shown = capsys.readouterr().out
    assert "class 29" in shown
    assert "more with" not in shown


def test_info_of_several_stores(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("cache/other.zarr"), 0)
    assert run(["cache", "info", str(store), "cache/other.zarr", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in found] == [str(store), "cache/other.zarr"]
    assert found[1]["shards"] == {"committed": 1, "total": 4}


def test_one_store_that_cannot_be_opened_does_not_hide_the_others(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, words in (("info", "4 of 4"), ("repair", "nothing to repair")):
        assert run(["cache", command, "nowhere", str(store)]) == 1
        shown = capsys.readouterr()
        assert words in shown.out
        assert "there is no store at nowhere" in shown.err
        assert "nowhere; look at what is named above" in shown.err.splitlines()[-1]
        assert run(["cache", command, "nowhere", str(store), "--json"]) == 1
        first, second = json.loads(capsys.readouterr().out)
        assert (first["path"], second["path"]) == ("nowhere", str(store))
        assert "there is no store" in first["error"]
        assert "error" not in second


def test_a_store_behind_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(Path("train.zarr"))
    files = fsspec.filesystem("memory")
    files.put("train.zarr", "/bucket/", recursive=True)
    files.put("tca.sums", "/bucket/tca.sums")
    url = "memory://bucket/train.zarr"
    assert run(["cache", "info", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["path"], found["bytes"], found["rows"]) == (url, None, 100)
    assert run(["cache", "verify", url]) == 0
    assert "sound; 4 shards, 98 rows" in capsys.readouterr().out
    assert run(["cache", "verify", str(path), "--against", url]) == 0
    data = bytearray(files.cat_file("/bucket/train.zarr/motion/c/1/0/0"))
    data[3 * 84 + 1] ^= 1
    files.pipe_file("/bucket/train.zarr/motion/c/1/0/0", bytes(data))
    capsys.readouterr()
    assert run(["cache", "verify", url]) == 1
    assert "row 35 (id v35) of motion" in capsys.readouterr().out
    assert run(["cache", "repair", url]) == 1
    assert "not on a disk of this machine" in capsys.readouterr().err


def test_verify_of_a_sound_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "verify", str(store)]) == 0
    assert "sound; 4 shards, 98 rows of features" in capsys.readouterr().out
    assert run(["cache", "verify", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["problems"], found["bytes"]) == ([], 98 * 80)


def test_verify_names_every_problem(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("cache/other.zarr"))
    for row in (40, 41, 63):
        damage(store, row)
    assert run(["cache", "verify", "cache/other.zarr", str(store), "nowhere"]) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith(f"{store}/")]
    assert [line.split("): ", 1)[1] for line in lines] == [
        f"row {row} (id v{row}) of motion: the row's checksum does not hold" for row in (40, 41, 63)
    ]
    assert all("(shard 1)" in line for line in lines)
    assert "there is no store at nowhere" in shown.err
    assert "tca cache repair" in shown.err.splitlines()[-1]
    assert run(["cache", "verify", str(store), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(p["shard"], p["row"], p["id"]) for p in problems] == [
        (1, row, f"v{row}") for row in (40, 41, 63)
    ]


def test_verify_against_another_device(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("near.zarr"), noise=2e-3)
    write(Path("far.zarr"), noise=2e-2)
    assert run(["cache", "verify", str(store), "--against", "near.zarr"]) == 0
    assert "rows that differ" in capsys.readouterr().out
    assert run(["cache", "verify", str(store), "--against", "far.zarr"]) == 1
    shown = capsys.readouterr()
    assert "motion: 98 rows differ by more than 0.00391" in shown.out
    assert "row 0 (id v0) by 0.0" in shown.out
    assert "--tolerance" in shown.err
    arguments = ["cache", "verify", str(store), "--against", "far.zarr", "--tolerance", "0.03"]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["against"]
    assert found["streams"]["motion"]["beyond"] == 0
    assert found["streams"]["motion"]["different"] == 98


def test_repair_and_what_it_says(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = every_file(Path("cache"))
    assert run(["cache", "repair", str(store)]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    damage(store)
    damaged = every_file(Path("cache"))
    assert run(["cache", "repair", str(store), "--dry-run"]) == 0
    assert "would be removed: 1 (1), with 32 rows" in capsys.readouterr().out
    assert every_file(Path("cache")) == damaged
    assert run(["cache", "repair", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == [1]
    write(store)
    assert every_file(Path("cache")) == expected
    metadata = store / ("label/zarr.json" if store.suffix == ".zarr" else "index.h5")
    metadata.unlink()
    assert run(["cache", "repair", str(store)]) == 0
    shown = capsys.readouterr().out
    assert metadata.relative_to(store).as_posix() in shown
    assert "run tca extract again" in shown
    assert run(["cache", "info", str(store)]) == 1
    assert "extract again" in capsys.readouterr().err
    write(store)
    assert every_file(Path("cache")) == expected
    Path("cache/tca.sums").unlink()
    assert run(["cache", "verify", str(store)]) == 1
    assert run(["cache", "repair", str(store)]) == 0
    assert "written anew" in capsys.readouterr().out
    assert every_file(Path("cache")) == expected


def test_a_read_only_folder(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Root writes everywhere, so the system is made to refuse.
    other = write(Path("other") / store.name)
    damage(store)
    real = os.open

    def refusing(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", path)
        return real(path, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", refusing)
    assert run(["cache", "verify", str(store)]) == 1
    assert run(["cache", "repair", str(store), "--dry-run"]) == 0
    capsys.readouterr()
    for command in (["repair", str(store)], ["merge", str(store), str(other)]):
        assert run(["cache", *command]) == 1
        assert "choose a folder that can be written" in capsys.readouterr().err


def test_a_second_writer_is_locked_out(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("other/train.zarr"))
    with sole_writer(store):
        for command in (["repair", str(store)], ["merge", str(store), "other/train.zarr"]):
            assert run(["cache", *command]) == 1
            assert "is being written by another process" in capsys.readouterr().err


def test_merge_and_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("1/train.zarr"), 0, 2)
    write(Path("2/train.zarr"), 3)
    write(Path("3/train.zarr"), 1)
    assert run(["cache", "merge", "cache/train.zarr", "1/train.zarr", "2/train.zarr"]) == 0
    shown = capsys.readouterr().out
    assert "2 shards copied from 1/train.zarr" in shown
    assert "3 of 4 shards; missing with 32 rows: 1" in shown
    # The report that an extraction writes.
    rows = Path("cache/train.zarr.failures.csv").read_text().splitlines()
    assert rows[1] == "5,v5,0,unreadable,no frames,x"
    arguments = ["cache", "merge", "cache/train.zarr", "3/train.zarr"]
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copied"] == {"3/train.zarr": 1}
    assert run(arguments) == 0
    assert "all 4 shards, 100 rows" in capsys.readouterr().out
    whole = write(Path("whole/train.zarr"))
    assert every_file(Path("cache/train.zarr")) == {
        name.replace("whole", "cache"): data for name, data in every_file(whole).items()
    }
    shutil.rmtree("3")
    write(Path("3/train.zarr"), 1, kind="float32")
    assert run(arguments) == 1
    assert "streams.motion: expected 'float16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "a", "b", "--against", "c"], "name one"),
        (["verify", "a", "--tolerance", "0.1"], "--tolerance is for --against"),
        (["verify", "a", "--against", "b", "--tolerance", "-1"], "--tolerance"),
        (["verify", "a", "--against", "b", "--tolerance", "nan"], "nan allows anything"),
        (["verify", "a", "--against", "b", "--tolerance", "inf"], "inf allows anything"),
        (["verify"], "Missing argument"),
        (["merge", "a"], "Missing argument"),
        (["merge", "a", "a"], "nothing to merge into a"),
        (["merge", "s3://a/b", "part"], "s3://a/b is a URL; OUT must be on a disk"),
        (["merge", "out", "part", "s3://a/b/"], "tca cache convert s3://a/b/ FOLDER"),
        (["repair"], "Missing argument"),
        (["info"], "Missing argument"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["cache", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["info"], ["verify"], ["repair"], ["info", "--json"]])
def test_closed_streams_change_no_exit_code(store: Path, command: list[str]) -> None:
    before = every_file(Path("cache"))
    program = "import sys; from tca.cli import main; main()"
    typed = [sys.executable, "-c", program, "cache", *command]
    for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        for path, code in ((str(store), 0), ("nowhere", 1)):
            line = f'exec "$@" {closed}'
            done = subprocess.run(
                ["sh", "-c", line, "sh", *typed, path], capture_output=True, text=True
            )
            assert (done.returncode, done.stdout) == (code, "")
            assert "Traceback" not in done.stderr
    assert every_file(Path("cache")) == before


@pytest.mark.parametrize("name", ["info", "verify", "repair", "convert", "merge"])
def test_help_has_an_example_and_needs_nothing_heavy(name: str) -> None:
    program = (
        f"import sys; from tca.cli import run; assert run(['cache', '{name}', '--help']) == 0;"
        "heavy = {'torch', 'zarr', 'h5py', 'numpy'}; print('LOADED', heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f"tca cache {name} " in done.stdout
    assert "Example" in done.stdout
    assert "LOADED set()" in done.stdout


PROJECT = """
data: {videos: videos, labels: labels.json, annotations: {train: train.json}}
semantic:
  weights: random:0
  sizes: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
  size: 32
motion: {weights: random:0, blocks: [1, 1, 1, 1], size: 16}
extract: {batch_size: 4}
"""


@pytest.mark.parametrize(
    ("store_format", "name", "shard", "metadata"),
    [
        ("zarr", "train.zarr", "semantic/c/1/0/0", ["zarr.json", "label/c/0"]),
        ("hdf5", "train.h5", "shards/000001.h5", ["index.h5"]),
    ],
)
def test_extracting_again_mends_what_repair_took_away(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store_format: str,
    name: str,
    shard: str,
    metadata: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    for number in range(10):
        write_video(Path(f"videos/{number}.webm"), 16)
    Path("labels.json").write_text(json.dumps({"Moving": "0", "Resting": "1"}))
    entries = [{"id": str(n), "template": ("Moving", "Resting")[n % 2]} for n in range(10)]
    Path("train.json").write_text(json.dumps(entries))
    Path("tca.yaml").write_text(PROJECT)
    extract = ["extract", "--device", "cpu", "--format", store_format]
    assert run(extract) == 0
    expected = every_file(Path("cache"))
    store = Path("cache") / name
    for file in (shard, *metadata):
        data = bytearray((store / file).read_bytes())
        data[len(data) // 3] ^= 16
        (store / file).write_bytes(data)
    assert run(extract) == 1
    assert run(["cache", "verify", str(store)]) == 1
    assert run(["cache", "repair", str(store)]) == 0
    assert run(extract) == 0
    assert run(["cache", "verify", str(store)]) == 0
    found = every_file(Path("cache"))
    assert {k: v for k, v in found.items() if ".damaged/" not in k} == expected
