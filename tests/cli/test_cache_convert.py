"""`tca cache convert` as it is typed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.cli import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with cache/train.zarr and cache/validation.zarr."""
    monkeypatch.chdir(tmp_path)
    # No test cuts the power, and flushing is most of their time.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for split, rows in (("train", 12), ("validation", 5)):
        made(tmp_path / f"cache/{split}.zarr", split, rows)
    return tmp_path


def made(path: Path, split: str, rows: int) -> None:
    numbers = np.arange(rows)
    table = RowTable(
        [f"clip {row}" for row in numbers],
        (numbers % 2).astype(np.int32),
        numbers.astype(np.int32),
        np.zeros(rows, np.uint8),
    )
    spec = StoreSpec(
        split=split,
        rows=table,
        streams={"motion": Stream((rows, 2, 3), "float32")},
        rows_per_shard=4,
        classes=["push", "pull"],
        identity={"dtype": "float32"},
        record={},
        grid=(1, 1),
    )
    writer = StoreWriter.open_or_create(path, spec)
    for shard in range(writer.shards):
        inside = writer.shard_rows(shard)
        status = np.array([Status.EMPTY if row == 2 else Status.OK for row in inside])
        features = [None if row == 2 else np.full((2, 3), row, dtype=np.float32) for row in inside]
        writer.commit(shard, {"motion": features}, status)


def test_one_line_says_what_was_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "convert", "cache/train.zarr", "new/train.h5"]) == 0
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert line.startswith("12 rows, 1 without features, 0.0 MB as hdf5: ")
    assert line.endswith("new/train.h5")
    assert "convert train: 12/12 rows" in shown.err
    assert Store.open(folder / "new/train.h5").read("motion", [11])[0, 0, 0] == 11
    report = (folder / "new/train.h5.failures.csv").read_text().splitlines()
    assert report[1].startswith("2,clip 2,0,empty")


def test_several_splits_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cache", "convert", "cache/{split}.zarr", "new/{split}.zarr", "--json"]
    arguments += ["--type", "int8", "--rows-per-shard", "3", "--only-ok"]
    splits = ["--split", "train", "--split", "validation"]
    assert run([*arguments, *splits]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(entry["split"], entry["rows"], entry["done"]) for entry in found] == [
        ("train", 11, 11),
        ("validation", 4, 4),
    ]
    for entry in found:
        store = Store.open(entry["target"])
        assert (store.split, store.rows_per_shard) == (entry["split"], 3)
        assert store.identity == {"dtype": "int8"}
        files = [file for file in Path(entry["target"]).rglob("*") if file.is_file()]
        assert entry["bytes"] == sum(file.stat().st_size for file in files)
    assert run([*arguments, *splits]) == 0
    assert [entry["done"] for entry in json.loads(capsys.readouterr().out)] == [0, 0]


def test_splits_before_one_that_fails_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cache", "convert", "cache/{split}.zarr", "new/{split}.zarr", "--json"]
    assert run([*arguments, "--split", "train", "--split", "test"]) == 1
    shown = capsys.readouterr()
    assert [entry["split"] for entry in json.loads(shown.out)] == ["train"]
    assert "there is no store at cache/test.zarr" in shown.err


def test_rows_and_ids(folder: Path) -> None:
    # Of Windows, with a mark at its beginning; the last line has no end.
    (folder / "ids.txt").write_bytes("\ufeffclip 9\r\n\r\nclip 3\r\nclip 4".encode())
    base = ["cache", "convert", "cache/train.zarr"]
    for name, options, expected in (
        ("ids", ["--ids", "ids.txt"], [3, 4, 9]),
        ("rows", ["--rows", "9:"], [9, 10, 11]),
        ("both", ["--rows", ":9", "--ids", "ids.txt"], [3, 4]),
    ):
        assert run([*base, f"{name}.zarr", *options]) == 0
        store = Store.open(folder / f"{name}.zarr")
        assert store.video.tolist() == expected
        assert store.read("motion", store.ready())[:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cache/train.zarr", "new.zarr", "--split", "train"], "they have none"),
        (["cache/{split}.zarr", "new.zarr", "--split", "train"], "must be in both"),
        (["cache/{split}.zarr", "{split}.zarr"], "--split must say"),
        (["cache/train.zarr", "s3://bucket/new.zarr"], "TARGET must be on a disk"),
        (["cache/train.zarr", "cache/train.zarr"], "is SOURCE itself"),
        (["cache/train.zarr", "new.h5", "--format", "zarr"], "named like hdf5"),
        (["cache/train.zarr", "new.zarr", "--rows", "5"], "'5' is not FIRST:END"),
        (["cache/train.zarr", "new.zarr", "--rows", ":"], "':' is not FIRST:END"),
        (["cache/train.zarr", "new.zarr", "--rows", "5:2"], "rows 5:2 are not rows"),
        (["cache/train.zarr", "new.zarr", "--ids", "no.txt"], "cannot read no.txt"),
        (["cache/train.zarr", "new.zarr", "--ids", "unknown.txt"], "'other clip'"),
        (["cache/train.zarr", "new.zarr", "--ids", "empty.txt"], "has no ids"),
        (["cache/train.zarr", "new.zarr", "--ids", "bytes.txt"], "is not UTF-8"),
        (["cache/train.zarr", "new.zarr", "--stream", "semantic"], "no semantic stream"),
        (["cache/train.zarr", "new.zarr", "--rows-per-shard", "0"], "1<=x<=65536"),
        (["cache/train.zarr", "new.zarr", "--rows-per-shard", "100000000000"], "1<=x<=65536"),
        (["cache/train.zarr", "new.zarr", "--type", "float8"], "float8"),
    ],
)
def test_wrong_usage_starts_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "unknown.txt").write_text("clip 1\nother clip\n")
    (folder / "empty.txt").write_text("\n\n")
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    before = sorted(folder.rglob("*"))
    assert run(["cache", "convert", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_a_source_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "convert", "no.zarr", "new.zarr"]) == 1
    assert "there is no store at no.zarr" in capsys.readouterr().err
    assert not (folder / "new.zarr").exists()


def test_ctrl_c_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StoreWriter.commit

    def interrupted(writer: StoreWriter, shard: int, *rest: object) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        commit(writer, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "commit", interrupted)
        assert run(["cache", "convert", "cache/train.zarr", "new.zarr"]) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert run(["cache", "convert", "cache/train.zarr", "new.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["done"] == 4
