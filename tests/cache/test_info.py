import json
from pathlib import Path

import pytest
from example_store import Example, contents

from tca.cache.failures import Failure, write_failures
from tca.cache.info import describe
from tca.cache.layout import Status
from tca.cache.store import Store


@pytest.mark.parametrize("store_format", ["zarr", "hdf5"])
def test_a_store_is_described(tmp_path: Path, store_format: str) -> None:
    example = Example(tmp_path / "train", store_format=store_format)
    info = describe(example.write(0, 2))
    assert info == {
        "path": str(example.path),
        "format": store_format,
        "split": "train",
        "rows": 21,
        "rows_per_shard": 8,
        "status": {"ok": 10, "missing": 1, "unreadable": 1, "timed out": 1, "not extracted": 8},
        "reasons": {},
        "shards": {"committed": 2, "total": 3},
        "streams": {
            "semantic": {"shape": [21, 4, 6], "type": "float16", "row_bytes": 48, "bytes": 480},
            "motion": {"shape": [21, 8, 5], "type": "float32", "row_bytes": 160, "bytes": 1600},
        },
        "bytes": sum(map(len, contents(example.path).values())),
        "classes": 3,
        "labels": {"push": 6, "pull": 5, "schütteln": 4},
        "unlabelled": 6,
        "identity": example.identity,
        "record": {"tca": "0.1.0"},
    }
    assert json.loads(json.dumps(info)) == info


@pytest.mark.parametrize(("kind", "row_bytes"), [("bfloat16", 48), ("int8", 24 + 8)])
def test_types_are_those_that_were_asked_for(tmp_path: Path, kind: str, row_bytes: int) -> None:
    types = {"semantic": kind, "motion": "float16"}
    stream = describe(Example(tmp_path / "train.zarr", types=types).write())["streams"]["semantic"]
    assert (stream["type"], stream["row_bytes"], stream["bytes"]) == (
        kind,
        row_bytes,
        18 * row_bytes,
    )


def test_failures_are_counted_by_reason(tmp_path: Path) -> None:
    failed = {1: Status.UNREADABLE, 2: Status.UNREADABLE, 9: Status.TIMED_OUT, 10: Status.MISSING}
    example = Example(tmp_path / "train.zarr", failed=failed)
    example.write()
    reasons = {1: "no frames", 2: "no frames", 9: "hung", 10: ""}
    for shard, rows in ((0, (1, 2)), (1, (9, 10))):
        entries = [Failure(row, "x", reasons[row]) for row in rows]
        write_failures(example.path, shard, entries)
    # Left by a run whose shard was taken away since then.
    write_failures(example.path, 2, [Failure(20, "x", "old")])
    assert describe(Store.open(example.path))["reasons"] == {"no frames": 2, "hung": 1}


def test_a_store_without_anything_yet(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr", rows=1, failed={})
    example.writer()
    info = describe(Store.open(example.path))
    assert info["status"] == {"not extracted": 1}
    assert info["shards"] == {"committed": 0, "total": 1}
    assert info["labels"] == {"push": 0, "pull": 0, "schütteln": 0}
    assert info["unlabelled"] == 1


def test_classes_without_a_row_and_rows_without_a_class(tmp_path: Path) -> None:
    example = Example(tmp_path / "test.zarr", classes=())
    example.table.label[:] = -1
    info = describe(example.write())
    assert (info["labels"], info["unlabelled"], info["classes"]) == ({}, 21, 0)
    assert describe(Store.open(example.path)) == info
