import subprocess
import sys
from pathlib import Path

import pytest
from run_benchmark import BENCHMARKS, SMALL_ROWS, column, document


def test_epochs_in_a_group_or_a_clear_word(tmp_path: Path) -> None:
    options = (*SMALL_ROWS, "--rows", "300", "--batch", "64", "--rounds", "1")
    found = document("cache_cold.py", tmp_path, *options)
    (table,) = found["tables"]
    if found["notes"]:
        assert found["notes"][0].startswith("not measured: ")
        assert table["rows"] == []
        pytest.skip(found["notes"][0])
    assert column(table, "reader")[:3] == [
        "zarr, files from front to back",
        "zarr, shuffle: rows",
        "zarr, shuffle: blocks",
    ]
    assert all(speed > 0 for speed in column(table, "rows/s"))


def test_a_command_gets_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from memory_group import NoGroupError, run_limited

    hungry = "print(len(bytearray(b'x') * (200 << 20)))"
    try:
        assert run_limited([sys.executable, "-c", hungry], 400 << 20) == f"{200 << 20}\n"
    except NoGroupError as error:
        pytest.skip(str(error))
    with pytest.raises(subprocess.CalledProcessError):
        run_limited([sys.executable, "-c", hungry], 100 << 20)


def test_who_may_make_no_group_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import memory_group

    monkeypatch.setattr(memory_group, "MOUNT", tmp_path)
    with pytest.raises(memory_group.NoGroupError, match="memory can be limited"):
        memory_group.run_limited(["true"], 1 << 30)
