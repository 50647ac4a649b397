"""What the demo leaves behind: numbers, a report, a folder in which every command works."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from demo_data import DemoData

from tca.cli import run
from tca.demo.demo import DemoResult, run_demo
from tca.errors import UsageError


def test_the_summary_is_json_with_the_numbers_of_the_table(demo: DemoResult) -> None:
    summary = json.loads(json.dumps(demo.to_json()))
    assert summary["top1"] == demo.evaluation.top1
    assert summary["classes"] == 12
    assert summary["variant"] == "gasm_cast"
    assert summary["parameters"] == demo.training.parameters
    assert summary["rows"] == {
        "train": {"extracted": 215, "failed": 1},
        "validation": {"extracted": 119, "failed": 1},
    }
    stages = {"render", "data check", "extract", "train-fusion", "evaluate"}
    assert set(summary["videos_per_second"]) == stages
    assert set(summary["seconds"]) == stages | {"total"}
    assert "random weights" in summary["backbones"]


def test_the_data_check_finds_both_broken_videos(demo: DemoResult) -> None:
    train, validation = demo.check.splits
    assert len(train.missing) == 1
    assert "5 frames, then: the file ends" in validation.unreadable[0].reason


def test_the_networks_are_of_the_real_classes(ordered: DemoData) -> None:
    identity = ordered.train.identity
    assert "dinov3_vit" in json.dumps(identity)
    assert "r3d" in json.dumps(identity)
    assert ordered.project.model.variant == "gasm_cast"
    # Both streams keep the order of time.
    assert ordered.train.shapes.segments == ordered.train.shapes.motion_segments == 8


def test_commands_work_in_the_demos_folder(
    demo: DemoResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo.folder)
    assert run(["evaluate", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["top1"] == demo.evaluation.top1
    # Everything is extracted: the command finds nothing left to do.
    assert run(["extract", "--allow-missing", "--device", "cpu", "--json"]) == 0
    assert [part["done"] for part in json.loads(capsys.readouterr().out)] == [0, 0]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Do nothing: drawn in one piece, nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_report_is_one_whole_file(demo: DemoResult) -> None:
    text = (demo.folder / "report.html").read_text(encoding="utf-8")
    page = _Links()
    page.feed(text)
    assert page.open == []
    assert len(page.links) >= 12
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|<script", text)


def test_the_report_tells_numbers_classes_and_backbones(demo: DemoResult) -> None:
    page = _Links()
    page.feed((demo.folder / "report.html").read_text(encoding="utf-8"))
    words = " ".join(page.words)
    assert f"{demo.evaluation.top1:.1%}" in words
    assert f"{demo.middle_frame_top1:.1%}" in words
    assert "random weights" in words
    for score in demo.evaluation.classes:
        assert score.name in words


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no demo made"):
        run_demo(tmp_path, train_clips=12, validation_clips=12)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
