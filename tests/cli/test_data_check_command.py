"""`tca data check` as a user types it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from drawn_video import write_video

from tca.cli import run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound data set of five videos and its tca.yaml; the working directory."""
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for number in range(5):
        write_video(tmp_path / f"videos/deep/{number}.webm", 10 + number)
    (tmp_path / "train.csv").write_text("0,up\n1,down\n2,up\n")
    (tmp_path / "validation.csv").write_text("3,up\n4,down\n")
    (tmp_path / "tca.yaml").write_text(
        "data: {annotations: {train: train.csv, validation: validation.csv}}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return shown.out, " ".join(shown.err.split())


def test_a_sound_data_set(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "--processes", "1"]) == 0
    out, _ = words(capsys)
    assert "Balance of the classes" in out
    assert run(["data", "check", "--quick", "--json", "--split", "validation"]) == 0
    document = json.loads(words(capsys)[0])
    assert document["sound"] is True
    assert document["decoded"] is False
    assert [part["usable"] for part in document["splits"]] == [2]


def test_what_must_not_be_overlooked_is_exit_code_1(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "videos/deep/3.webm").unlink()
    assert run(["data", "check"]) == 1
    assert "validation misses 1 of 2 videos; put that right" in words(capsys)[1]
    assert run(["data", "check", "--allow-missing"]) == 0
    words(capsys)
    shutil.copy("videos/deep/0.webm", "videos/deep/3.webm")
    assert run(["data", "check", "--json", "--html", "report.html"]) == 1
    out, err = words(capsys)
    document = json.loads(out)
    assert document["sound"] is False
    assert [copy["id"] for copy in document["duplicates"][0]["copies"]] == ["0", "3"]
    assert "1 video is in two splits under different names" in err
    # The report is written all the same.
    assert "Not sound" in Path("report.html").read_text()


def test_checksums_are_written_and_verified(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", "--quick", "--checksums", "lists/SHA256SUMS"]) == 0
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd="lists").returncode == 0
    lines = Path("lists/SHA256SUMS").read_text().splitlines()
    assert [line[66:] for line in lines] == [f"../videos/deep/{n}.webm" for n in range(5)]
    words(capsys)
    verify = ["data", "check", "--verify", "lists/SHA256SUMS"]
    assert run(verify) == 0
    # Later: one changed, one gone, one new.
    with open("videos/deep/0.webm", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    os.remove("videos/deep/1.webm")
    write_video(project / "videos/new.webm", 9)
    Path("validation.csv").write_text("3,up\n4,down\nnew,up\n")
    words(capsys)
    assert run([*verify, "--json"]) == 1
    out, err = words(capsys)
    document = json.loads(out)
    assert document["changed"] == ["../videos/deep/0.webm"]
    assert document["missing"] == ["../videos/deep/1.webm"]
    assert document["new"] == ["../videos/new.webm"]
    assert "1 changed, 1 missing, 0 unreadable, 1 new" in err
    assert run(verify) == 1
    assert "../videos/deep/0.webm" in words(capsys)[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--verify", "none"], 1, "cannot read none"),
        (["--verify", "train.csv"], 1, "line 1 of train.csv is no checksum"),
        (["--verify", "train.csv", "--quick"], 2, "--verify only compares files"),
        (["--verify", "train.csv", "--html", "x"], 2, "--verify only compares files"),
        (["--verify", "videos"], 2, "is a directory"),
        (["--html", "train.csv/report.html"], 1, "cannot write train.csv/report.html"),
        (["--html", "same", "--checksums", "same"], 2, "two files"),
        (["--processes", "-1"], 2, "Invalid value"),
        (["extract.max_seconds=0"], 2, "extract.max_seconds"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    before = sorted(project.rglob("*"))
    assert run(["data", "check", *arguments]) == code
    out, err = words(capsys)
    assert says in err
    assert "check train" not in err
    assert out == ""
    assert sorted(project.rglob("*")) == before


def test_the_real_validation_split(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "--data", str(shared / "data/ssv2")]) == 0
    capsys.readouterr()
    check = ["data", "check", "--split", "validation", "--allow-missing", "--json"]
    assert run([*check, "--html", "report.html", "--checksums", "sums"]) == 0
    out, _ = words(capsys)
    (part,) = json.loads(out)["splits"]
    assert (part["annotated"], part["found"], part["usable"]) == (24_777, 2, 2)
    assert len(part["missing"]) == 24_775
    assert part["annotated_balance"]["covered"] == 174
    assert "24,775" in Path("report.html").read_text()
    assert len(Path("sums").read_text().splitlines()) == 2
    assert subprocess.run(["sha256sum", "-c", "--quiet", "sums"]).returncode == 0
    assert run(["data", "check", "--split", "validation"]) == 1
    assert "validation misses 24,775 of 24,777 videos" in words(capsys)[1]
