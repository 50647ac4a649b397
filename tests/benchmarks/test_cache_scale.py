from pathlib import Path

from run_benchmark import column, document


def test_stores_of_several_sizes(tmp_path: Path) -> None:
    options = ("--rows", "40,300", "--reads", "500", "--processes", "1")
    table, bars = document("cache_scale.py", tmp_path, *options)["tables"]
    assert column(table, "store") == ["zarr", "zarr", "hdf5", "hdf5"]
    assert column(table, "rows") == [40, 300, 40, 300]
    assert all(speed > 0 for speed in column(table, "reads, rows/s"))
    assert len(bars["rows"]) == 4
