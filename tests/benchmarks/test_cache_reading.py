from pathlib import Path

import numpy as np
import pytest
from run_benchmark import BENCHMARKS, column, document

TINY = ("--rows", "300", "--shape", "8,16", "--batch", "64", "--rounds", "1")


def test_everybody_reads_the_right_rows(tmp_path: Path) -> None:
    found = document("cache_reading.py", tmp_path, *TINY, "--cold-rounds", "0", "--seconds", "1")
    warm, bars, how = found["tables"]
    assert column(how, "reader")[2:] == column(warm, "reader")
    missing = [line for line in found["notes"] if "not installed" in line]
    assert len(warm["rows"]) + len(missing) == 22
    assert all(speed > 0 for speed in column(warm, "rows/s"))
    assert {"unchecked", "checked"} <= set(column(bars, "tca"))


@pytest.mark.long
def test_cold_files(tmp_path: Path) -> None:
    options = ("--reader", "tca", "--cold-rows", "64", "--cold-rounds", "1")
    found = document("cache_reading.py", tmp_path, *TINY, *options)
    cold = found["tables"][1]
    assert cold["title"] == "64 random rows, cold file cache"
    assert all(speed > 0 for speed in column(cold, "rows/s"))


def test_a_peer_that_is_not_installed_is_named(tmp_path: Path) -> None:
    options = (*TINY, "--cold-rounds", "0", "--reader", "litdata", "--reader", "h5py")
    found = document("cache_reading.py", tmp_path, *options, without="litdata")
    assert column(found["tables"][0], "reader") == ["h5py", "h5py, read_direct_chunk"]
    assert "litdata: not installed (litdata)" in found["notes"]


def test_other_rows_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from cache_reading import Bench
    from made_rows import MadeRows
    from reading_files import H5py, IndexSelect
    from reading_streams import Webdataset

    class Behind(H5py):
        @staticmethod
        def open(folder, made, threads):
            read = H5py.open(folder, made, threads)
            return lambda rows, out: read((rows + 1) % made.rows, out)

    class Short(Webdataset):
        @staticmethod
        def batches(folder, made, batch, threads):
            import torch

            yield torch.from_numpy(made.block(np.arange(batch)))

    made = MadeRows(300, (8, 16))
    bench = Bench(tmp_path, made, batch=64, threads=1, rounds=1, seconds=1)
    assert bench.limit.family == IndexSelect.family
    with pytest.raises(ValueError, match="h5py read other rows"):
        bench.compare([Behind], 0, 0)
    with pytest.raises(ValueError, match="webdataset delivered 64 rows"):
        bench.compare([Short], 0, 0)
