from pathlib import Path

from run_benchmark import SMALL_ROWS, column, document


def test_every_writer_writes_what_it_was_given(tmp_path: Path) -> None:
    options = (*SMALL_ROWS, "--shard-rows", "16", "--pairs", "1")
    (table,) = document("cache_writing.py", tmp_path, *options)["tables"]
    assert column(table, "writer") == ["tca Zarr", "tca HDF5", "zarr-python", "h5py"]
    assert all(ratio > 0 for ratio in column(table, "ratio"))
    assert column(table, "≥ 0.75")[2:] == [None, None]
