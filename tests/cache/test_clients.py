"""Any Zarr client reads the store, complete or not."""

import re
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from example_store import Example

from tca.cache.layout import Status
from tca.cache.store import Store

ARRAYS = ("semantic", "motion", "label", "id", "video", "view", "status")


def with_zarr(path: Path) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        # A foreign file inside the group would make it warn.
        warnings.simplefilter("error")
        group = zarr.open_group(path, mode="r")
        assert sorted(group) == sorted(ARRAYS)
        return {name: group[name][:] for name in ARRAYS}


def with_tensorstore(path: Path) -> dict[str, np.ndarray]:
    def read(name: str) -> np.ndarray:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        return tensorstore.open(spec, read=True).result().read().result()

    return {name: read(name) for name in ARRAYS}


@pytest.mark.parametrize("client", [with_zarr, with_tensorstore])
@pytest.mark.parametrize("rows_per_shard", [8, 256])
@pytest.mark.parametrize("shards", [None, (), (0,)], ids=["empty", "all", "partly"])
def test_a_client_reads_every_array(
    tmp_path: Path, client, rows_per_shard: int, shards: tuple[int, ...] | None
) -> None:
    example = Example(tmp_path / "train.zarr", rows_per_shard=rows_per_shard)
    if shards is None:
        example.writer()
    else:
        example.write(*shards)
    there = {None: 0, (): example.rows, (0,): min(rows_per_shard, example.rows)}[shards]
    found = client(example.path)
    for name, array in example.features.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name][:there], array[:there])
        assert found[name].shape == array.shape
        assert not found[name][there:].any()
    assert np.array_equal(found["status"][:there], example.status[:there])
    assert (found["status"][there:] == Status.NOT_EXTRACTED).all()
    for name in ("label", "video", "view"):
        assert np.array_equal(found[name], getattr(example.table, name))
    ids = [bytes(row).rstrip(b"\0").decode() for row in found["id"]]
    assert ids == example.table.ids == Store.open(example.path).ids


def test_the_group_says_what_it_is(tmp_path: Path) -> None:
    example = Example(tmp_path / "train.zarr")
    example.writer()
    group = zarr.open_group(example.path, mode="r")
    assert dict(group.attrs) == {
        "tca_layout": 1,
        "split": "train",
        "classes": list(example.classes),
        "grid": [2, 2],
        "identity": example.identity,
        "record": {"tca": "0.1.0"},
    }
    assert {name: group[name].attrs["tca_dtype"] for name in ARRAYS} == {
        "semantic": "float16",
        "motion": "float32",
        "label": "int32",
        "id": "uint8",
        "video": "int32",
        "view": "uint8",
        "status": "uint8",
    }
    for name in ARRAYS:
        array = group[name].metadata.to_dict()
        codecs = array["codecs"]
        if name in example.streams:
            assert [codec["name"] for codec in codecs] == ["sharding_indexed"]
            codecs = codecs[0]["configuration"]["codecs"]
        assert [codec["name"] for codec in codecs] == ["bytes", "crc32c"]
        assert array["fill_value"] == (Status.NOT_EXTRACTED if name == "status" else 0)


def test_the_snippets_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/cache.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    printed = {
        "zarr": "push 動画1 (4, 4, 6)\n",
        "tensorstore": "(8, 5)\n",
        "h5py": "push (4, 4, 6)\n",
    }
    for suffix in ("zarr", "h5"):
        Example(tmp_path / f"cache/train.{suffix}").write()
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(snippet, {})
        library = re.match(r"import (\w+)", snippet)
        assert capsys.readouterr().out == printed[library[1]]
    assert len(snippets) >= 2


def test_sha256sum_checks_the_sums(tmp_path: Path) -> None:
    Example(tmp_path / "train.zarr").writer()
    command = ["sha256sum", "--check", "--quiet", "--strict", "tca.sums"]
    try:
        subprocess.run(command, cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("needs sha256sum")
    (tmp_path / "train.zarr/zarr.json").write_text("{}")
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode != 0
