import json
from pathlib import Path

from example_store import Example, contents

from tca.cache.info import describe
from tca.cache.store import Store


def test_a_store_is_described(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr")
    info = describe(example.write(0, 2))
    files = contents(example.path)

    def size(start: str) -> int:
        return sum(len(data) for name, data in files.items() if name.startswith(start))

    assert info == {
        "path": str(example.path),
        "split": "train",
        "rows": 21,
        "rows_per_shard": 8,
        "status": {"ok": 10, "missing": 1, "unreadable": 1, "timed out": 1, "not extracted": 8},
        "shards": {"committed": 2, "total": 3},
        "streams": {
            "semantic": {"shape": [21, 4, 6], "type": "float16", "bytes": size("semantic/")},
            "motion": {"shape": [21, 8, 5], "type": "float32", "bytes": size("motion/")},
        },
        "bytes": size(""),
        "classes": 3,
        "labels": {"push": 6, "pull": 5, "schütteln": 4},
        "unlabelled": 6,
        "identity": example.identity,
        "record": {"tca": "0.1.0"},
    }
    assert json.loads(json.dumps(info)) == info
    assert info["streams"]["semantic"]["bytes"] > 13 * 48


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
