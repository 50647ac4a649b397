from pathlib import Path

import pytest
from run_benchmark import BENCHMARKS

from tca.errors import TcaError


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_medians_of_pairs() -> None:
    from measuring import take_turns

    ours = iter([1.0, 8.0, 3.0])
    limit = iter([2.0, 10.0, 4.0])
    found = take_turns(lambda: next(limit), {"we": lambda: next(ours)}, 3)
    assert found == {"we": (3.0, 4.0, 0.75)}


def test_made_rows_say_which_they_are() -> None:
    from made_rows import MadeRows, numbers_of

    made = MadeRows(70_000, (2, 3))
    assert numbers_of(made.block([69_999, 0, 65_536])).tolist() == [69_999, 0, 65_536]


def test_all_bytes_of_all_files_are_read(tmp_path: Path) -> None:
    from measuring import CHUNK, read_files

    (tmp_path / "a").mkdir()
    (tmp_path / "a/large").write_bytes(bytes(CHUNK + 1))
    (tmp_path / "small").write_bytes(b"abc")
    assert read_files(tmp_path, threads=2) == CHUNK + 4


def test_cells_show_what_matters() -> None:
    from report import shown

    cells = [None, True, False, "text", 20_000, 12_345.6, 12.34, 1.234, 0.00123]
    expected = ["", "yes", "**no**", "text", "20,000", "12,346", "12.3", "1.23", "0.00123"]
    assert [shown(cell) for cell in cells] == expected


def test_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from report import Report

    report = Report("example", {"rows": 3})
    report.table("Speeds", ["reader", "rows/s"], [["one", 1234.5], ["other", None]])
    report.notes.append("cold")
    report.show("markdown")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("; rows 3")
    assert lines[2:] == [
        "**Speeds**",
        "",
        "| reader | rows/s |",
        "| --- | --: |",
        "| one | 1,234 |",
        "| other |  |",
        "",
        "- cold",
    ]


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    from report import working_folder

    with (
        pytest.raises(TcaError, match=r"1000000\.0 GB are needed at .*; choose another --folder"),
        working_folder(tmp_path, keep=False, size=10**15),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
