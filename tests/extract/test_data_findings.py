"""What the data check makes of what it finds: duplicates, balance, distributions, verdict, page."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from drawn_video import write_video
from scipy.stats import entropy

from tca.extract.balance import balance
from tca.extract.checksums import Verified
from tca.extract.config import DataConfig, ExtractConfig
from tca.extract.data_check import Checked, check_data
from tca.extract.data_page import SHOWN, data_page
from tca.extract.data_report import print_report, print_verified
from tca.extract.data_state import DataReport, Problem
from tca.extract.distribution import describe
from tca.extract.duplicates import Copy, Marks, find_duplicates

CLASSES = ["jump", "run", "sit"]


def check(
    folder: Path, splits: dict[str, Sequence[str]], *, decoded: bool = True, **needs: float
) -> Checked:
    """Check `folder/videos`, listed as `splits` say: lines of `video,class`."""
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for split, lines in splits.items():
        (folder / f"{split}.csv").write_text("".join(f"{line}\n" for line in lines))
    config = DataConfig(
        videos=folder / "videos",
        labels=folder / "labels.txt",
        annotations={split: folder / f"{split}.csv" for split in splits},
    )
    extract = ExtractConfig.model_validate(needs)
    return check_data(config, list(splits), extract, processes=2, decoded=decoded)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(4):
        write_video(folder / f"{number}.webm", 10 + number)
    return folder


def groups(report: DataReport) -> list[tuple[str, list[str], bool, bool]]:
    return [
        (g.same, [f"{c.split} {c.id}" for c in g.copies], g.across_splits, g.labels_differ)
        for g in report.duplicates
    ]


def test_the_same_bytes_are_found_within_and_across_splits(videos: Path, tmp_path: Path) -> None:
    shutil.copy(videos / "0.webm", videos / "again.webm")
    shutil.copy(videos / "1.webm", videos / "elsewhere.avi")
    train, validation = ["0,jump", "1,run", "again,jump"], ["2,sit", "elsewhere,jump"]
    report = check(tmp_path, {"train": train, "validation": validation}).report
    assert groups(report) == [
        ("bytes", ["train 1", "validation elsewhere"], True, True),
        ("bytes", ["train 0", "train again"], False, False),
    ]
    assert report.duplicates[0].copies[1] == Copy(
        "validation", "elsewhere", "jump", str(videos / "elsewhere.avi")
    )
    assert report.failures() == [
        "1 video is in two splits under different names",
        "1 video is there twice with different classes",
    ]
    assert "1 video is in one split under several names" in report.warnings()


def test_the_same_pictures_are_found_in_other_bytes(videos: Path, tmp_path: Path) -> None:
    # A byte behind the last element is no part of the video.
    (videos / "more.webm").write_bytes((videos / "0.webm").read_bytes() + b"\0")
    shutil.copy(videos / "0.webm", videos / "same.webm")
    train, test = ["0,jump", "1,run"], ["more", "same"]
    report = check(tmp_path, {"train": train, "test": test}).report
    assert groups(report) == [("pictures", ["train 0", "test more", "test same"], True, False)]
    # Headers tell nothing of pictures.
    quick = check(tmp_path, {"train": train, "test": test}, decoded=False).report
    assert groups(quick) == [("bytes", ["train 0", "test same"], True, False)]


def test_what_is_of_no_use_is_no_duplicate(videos: Path, tmp_path: Path) -> None:
    for name in "abcd":
        # Two empty files, two error pages saved as videos.
        (videos / f"{name}.mp4").write_bytes(b"" if name < "c" else b"<html>not found</html>")
    report = check(tmp_path, {"train": ["a,run", "c,run"], "test": ["b", "d"]}).report
    assert report.duplicates == []
    assert [len(part.empty) + len(part.unreadable) for part in report.splits] == [2, 2]


def test_one_file_in_two_splits_is_told_once(videos: Path, tmp_path: Path) -> None:
    report = check(tmp_path, {"train": ["0,run", "1,sit"], "validation": ["0,run"]}).report
    assert report.shared == {"train+validation": ["0"]}
    assert report.duplicates == []
    assert report.failures() == ["1 video is listed in both train and validation"]


def test_duplicates_ask_for_few_names() -> None:
    asked = []

    def copy(place: int) -> Copy:
        asked.append(place)
        return Copy("train", str(place), None, str(place))

    marks = [Marks(str(number), "") for number in range(1000)] + [Marks("", "")] * 5
    marks.append(Marks("7", ""))
    (group,) = find_duplicates(marks, copy)
    assert [one.id for one in group.copies] == ["7", "1005"]
    assert len(asked) == 2


def test_balance_is_the_entropy_of_scipy() -> None:
    counts = [*np.random.default_rng(0).integers(1, 500, 30).tolist(), 0, 0]
    names = [f"class {number}" for number in range(len(counts))]
    found = balance(dict(zip(names, counts, strict=True)))
    assert found is not None
    assert (found.videos, found.classes, found.covered) == (sum(counts), 32, 30)
    assert found.evenness == pytest.approx(entropy(counts) / np.log(32))
    assert found.effective == pytest.approx(np.exp(entropy(counts)))
    assert found.most == (names[int(np.argmax(counts))], max(counts))
    assert found.least[1] == min(count for count in counts if count)
    assert found.ratio == max(counts) / found.least[1]
    assert found.majority == max(counts) / sum(counts)
    even = balance(dict.fromkeys(names, 3))
    assert even is not None
    assert (even.evenness, even.ratio) == (pytest.approx(1), 1)
    alone = balance({"a": 4, "b": 0})
    assert alone is not None
    assert (alone.evenness, alone.effective) == (0, 1)
    assert f"{alone.evenness:.3f}" == "0.000", "no minus before it"
    assert balance({"a": 0}) is None


def test_percentiles_are_those_of_numpy() -> None:
    numbers = np.random.default_rng(0).gamma(2, 20, 999)
    found = describe(numbers.tolist())
    assert found is not None
    expected = np.percentile(numbers, (5, 50, 95))
    assert (found.p5, found.median, found.p95) == pytest.approx(tuple(expected))
    assert found.mean == pytest.approx(numbers.mean())


def test_one_long_video_does_not_hide_all_others() -> None:
    numbers = [*np.random.default_rng(0).integers(20, 80, 5000).tolist(), 1, 90_000]
    found = describe(numbers)
    assert found is not None
    assert sum(found.histogram.values()) == 5002
    assert max(found.histogram.values()) < 1000
    spans = [tuple(float(end) for end in span.split("-")) for span in found.histogram]
    for (low, high), count in zip(spans, found.histogram.values(), strict=True):
        assert count == sum(low <= number < high for number in numbers)
    assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_a_size_is_odd_where_most_have_another(videos: Path, tmp_path: Path) -> None:
    write_video(videos / "wide.webm", 9, size=(128, 48))
    lines = [f"{number},run" for number in range(4)]
    (part,) = check(tmp_path, {"train": [*lines, "wide,run"]}).report.splits
    assert [p.id for p in part.odd["not 64x48 as most"]] == ["wide"]
    (part,) = check(tmp_path, {"train": ["0,run", "wide,run"]}).report.splits
    assert not any("as most" in kind for kind in part.odd)


def test_what_only_costs_a_look_is_no_failure(videos: Path, tmp_path: Path) -> None:
    write_video(videos / "short.webm", 3)
    train = ["0,run", "1,jump", "short,run", "2,"]
    report = check(tmp_path, {"train": train, "validation": ["3,sit"]}).report
    assert report.failures() == []
    warnings = " ".join(report.warnings())
    assert "1 video of train has under 8 frames" in warnings
    assert "1 video of train is unlabelled" in warnings
    assert "train has no usable video of 1 of the classes that other splits have" in warnings
    assert report.not_in_train == ["sit"]


def test_missing_videos_can_be_allowed(videos: Path, tmp_path: Path) -> None:
    report = check(tmp_path, {"train": ["0,run", "gone,sit"]}).report
    assert report.failures() == ["train misses 1 of 2 videos"]
    assert report.failures(allow_missing=True) == []
    assert report.to_json()["sound"] is False
    assert report.to_json(allow_missing=True)["sound"] is True


def test_limits_of_extraction_hold_here_too(videos: Path, tmp_path: Path) -> None:
    lines = [f"{number},run" for number in range(4)]
    (part,) = check(tmp_path, {"train": lines}, max_frames=11).report.splits
    assert [problem.id for problem in part.unreadable] == ["2", "3"]
    assert "extract.max_frames" in part.unreadable[0].reason


class Page(HTMLParser):
    """Collects what a page loads, its words, and whether its tags fit."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def hostile(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataReport:
    """A report in which every name is markup."""
    monkeypatch.setitem(globals(), "CLASSES", [HOSTILE, "<b>&amp;", '"onload="x'])
    name = "<img src=x onerror=alert(1)>"
    shutil.copy(videos / "0.webm", videos / f"{name}.webm")
    (videos / f"{name}2.webm").write_bytes(b"")
    write_video(videos / f"{name}3.webm", 3, size=(62, 129))
    lines = [f'"{name}",0', f'"{name}2",1', f'"{name}3",2', f'"{name} gone",2']
    return check(tmp_path, {"train": lines, "validation": ["0,1"]}).report


def test_the_page_is_one_file_with_plots_and_every_name_escaped(hostile: DataReport) -> None:
    text = data_page(hostile)
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.tags.count("figure") >= 12
    assert "svg" in page.tags
    for words in (HOSTILE, "<img src=x onerror=alert(1)> gone", '"onload="x', "Not sound"):
        assert words in page.words
    assert not re.search(r"https?://|url\(|@import", text)


def test_a_page_stays_small(hostile: DataReport) -> None:
    hostile.splits[0].missing[:] = [f"video {number}" for number in range(50_000)]
    hostile.splits[0].odd["tiny"] = [Problem(str(n), "a", "b") for n in range(50_000)]
    text = data_page(hostile)
    assert len(text) < 200_000
    assert f"and {50_000 - SHOWN:,} more" in text
    assert "50,000" in Page(text).words


def test_tables_cannot_be_steered_by_names(
    hostile: DataReport, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a\x1b[31mred\x07\nb"
    part = hostile.splits[0]
    part.empty[:] = [Problem(evil, f"/x/{evil}", evil)]
    part.odd["tiny"] = [Problem(evil, evil, evil)]
    print_report(hostile)
    print_verified(Path(evil), Verified(changed=[evil], new=[evil]))
    shown = capsys.readouterr().out
    assert "\x1b[31mred" not in shown
    assert "\x07" not in shown
    assert "x1b[31m" in re.sub(r"[\s│]", "", shown)


def test_a_report_without_any_file_is_shown_everywhere(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check(tmp_path, {"train": ["gone,run"], "test": ["gone2"]}).report
    print_report(report)
    assert "missing" in capsys.readouterr().out
    assert Page(data_page(report)).open == []
    document = json.loads(json.dumps(report.to_json()))
    assert document["failures"] == [
        "train misses 1 of 1 videos",
        "test misses 1 of 1 videos",
    ]


def test_folders_that_loop_and_names_that_are_no_text(videos: Path, tmp_path: Path) -> None:
    (videos / "loop").symlink_to("..", target_is_directory=True)
    shutil.copy(videos / "0.webm", videos / os.fsdecode(b"latin-\xe9.webm"))
    report = check(tmp_path, {"train": ["0,run", "1,sit"]}).report
    assert report.failures() == []
    # As far as text goes, where it is found under such a folder.
    strange = tmp_path / os.fsdecode(b"\xff\xfe")
    shutil.move(videos, strange)
    config = DataConfig(
        videos=strange,
        labels=tmp_path / "labels.txt",
        annotations={"train": tmp_path / "train.csv"},
    )
    shutil.copy(strange / "0.webm", strange / "1.webm")
    found = check_data(config, ["train"], ExtractConfig()).report
    (group,) = found.duplicates
    assert "\ufffd\ufffd" in group.copies[0].file
    data_page(found).encode()
    json.dumps(found.to_json(), ensure_ascii=False).encode()
