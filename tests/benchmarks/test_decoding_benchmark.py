from pathlib import Path

import pytest
from drawn_video import write_video
from run_benchmark import BENCHMARKS, column, document


def test_processes_beside_threads(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "work").mkdir()
    for number in range(17):
        write_video(tmp_path / f"videos/{number}.webm", 16)
    options = ("--data", str(tmp_path / "videos"), "--repeat", "1", "--rounds", "1")
    speeds, steps = document("decoding.py", tmp_path / "work", *options)["tables"]
    assert column(speeds, "decoders") == ["threads", "watched processes"]
    assert all(speed > 0 for speed in column(speeds, "videos/s"))
    assert column(steps, "step") == ["open", "decode", "to RGB", "resize"]
    assert sum(column(steps, "share")) == pytest.approx(1)


def test_a_video_that_fails_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from decoding import Sides

    videos = [write_video(tmp_path / f"{number}.webm", 16) for number in range(9)]
    videos[8].write_bytes(b"no video")
    with pytest.raises(ValueError, match="failed"):
        Sides(videos, 1, 2).processes()
