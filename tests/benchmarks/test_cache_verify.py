from pathlib import Path

import pytest
from run_benchmark import BENCHMARKS, SMALL_ROWS, column, document

from tca.cache.store import Store


def test_verify_beside_reading(tmp_path: Path) -> None:
    options = (*SMALL_ROWS, "--rows", "300", "--rounds", "1", "--cold-rounds", "0")
    (table,) = document("cache_verify.py", tmp_path, *options)["tables"]
    assert column(table, "store") == ["zarr, warm", "hdf5, warm"]
    assert all(ratio > 0 for ratio in column(table, "ratio"))


def test_a_store_that_verify_finds_wrong_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from cache_verify import Sides
    from made_rows import MadeRows, write_store

    made = {"semantic": MadeRows(20, (8, 16))}
    path = tmp_path / "train.zarr"
    write_store(path, made, "zarr")
    sides = Sides(path, made, 1)
    assert sides.verify(cold=False) > 0
    shard = Store.open(path).format.shard_file("semantic", 0)
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="row=0"):
        sides.verify(cold=False)
