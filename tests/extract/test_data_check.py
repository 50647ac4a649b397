import json
import threading
from collections import Counter
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest

from tca.errors import TcaError, UsageError
from tca.extract.config import DataConfig, ExtractConfig
from tca.extract.data_check import check_data
from tca.extract.data_report import print_report
from tca.extract.data_state import DataReport
from tca.extract.decoding import Clip, Limits, decode
from tca.extract.distribution import describe
from tca.extract.probe import probe
from tca.extract.recognise import recognise
from tca.extract.video_error import VideoError

LIMITS = Limits(frames=1000, pixels=2**25)


def write_video(path: Path, frames: int, fps: int = 12, size: tuple[int, int] = (64, 48)) -> None:
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def report_of(
    config: DataConfig, splits: list[str], min_frames: int = 8, processes: int = 1
) -> DataReport:
    needs = ExtractConfig(min_frames=min_frames)
    return check_data(config, splits, needs, processes=processes).report


def check_folder(folder: Path, tmp_path: Path, processes: int = 2) -> DataReport:
    """Check every file of `folder`, all of them of one class, with 8 frames needed."""
    lines = [f"{path.name},action\n" for path in sorted(folder.iterdir())]
    (tmp_path / "all.csv").write_text("".join(lines))
    config = DataConfig(videos=folder, annotations={"train": tmp_path / "all.csv"})
    return report_of(config, ["train"], processes=processes)


def test_files_are_sorted_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "good.avi", 40, fps=25)
    write_video(folder / "good2.mp4", 20, size=(96, 64))
    write_video(folder / "short.mp4", 5)
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video" * 100)
    lines = ["good,a\n", "good2,b\n", "short,a\n", "zero,a\n", "text,c\n", "gone,d\n", "gone2,\n"]
    (tmp_path / "all.csv").write_text("".join(lines))
    config = DataConfig(videos=folder, annotations={"train": tmp_path / "all.csv"})
    (report,) = report_of(config, ["train"]).splits
    assert (report.annotated, report.found, report.usable, report.unlabelled) == (7, 5, 3, 1)
    assert report.missing == ["gone", "gone2"]
    assert [problem.id for problem in report.empty] == ["zero"]
    assert [problem.id for problem in report.unreadable] == ["text"]
    assert "Invalid data" in report.unreadable[0].reason
    assert [(problem.id, problem.reason) for problem in report.too_short] == [("short", "5 frames")]
    assert report.broken_off == []
    assert report.frames is not None
    assert (report.frames.min, report.frames.median, report.frames.max) == (5, 20, 40)
    assert report.frames.histogram == {"5": 1, "20": 1, "40": 1}
    assert report.fps is not None
    assert report.fps.histogram == {"12": 2, "25": 1}
    assert report.seconds is not None
    assert report.seconds.max == pytest.approx(20 / 12, abs=0.01)
    assert report.resolutions == {"64x48": 2, "96x64": 1}
    counts = {name: (c.annotated, c.found, c.usable) for name, c in report.per_class.items()}
    assert counts == {"a": (3, 3, 2), "b": (1, 1, 1), "c": (1, 1, 0), "d": (1, 0, 0)}
    assert report.classes_without_video == ["c", "d"]


def test_a_file_that_breaks_off_counts_what_came_before(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    whole = (shared / "data/odd/corrupted_decode_error.mp4").read_bytes()
    (folder / "late.mp4").write_bytes(whole)
    report = check_folder(folder, tmp_path)
    (problem,) = report.splits[0].broken_off
    assert problem.reason.startswith("30 frames, then: ")
    # The same file where more frames are needed than came before the break.
    config = DataConfig(videos=folder, annotations={"train": tmp_path / "all.csv"})
    (part,) = report_of(config, ["train"], min_frames=31).splits
    assert part.broken_off == []
    assert part.usable == 0
    assert [problem.id for problem in part.unreadable] == ["late"]


def test_odd_files_are_reported_and_none_stops_the_check(shared: Path, tmp_path: Path) -> None:
    (report,) = check_folder(shared / "data/odd", tmp_path).splits
    assert report.annotated == report.found == 12
    assert {problem.id for problem in report.empty} == {"empty_0byte", "init_only_zero_frames"}
    reasons = {problem.id: problem.reason for problem in report.unreadable}
    assert set(reasons) == {"audio_only", "broken_header"}
    assert reasons["audio_only"] == "the file has no video stream"
    assert [problem.id for problem in report.broken_off] == ["corrupted_decode_error"]
    assert {problem.id for problem in report.too_short} == {"h264_1frame_sar", "rot90"}
    # One of the two has its first frame at 0.04 s.
    assert report.fps is not None
    assert report.fps.histogram["25"] == 2
    # A picture that is turned is as wide as it is shown.
    assert report.resolutions["320x568"] == 1


def decoded(file: Path) -> tuple[Clip | None, str]:
    try:
        return decode(file), "OK"
    except VideoError as error:
        return None, error.status.name


def test_the_check_and_extraction_agree(shared: Path) -> None:
    files = sorted((shared / "data/odd").iterdir())
    files += sorted((shared / "data/ssv2/videos").iterdir())[:4]
    for file in files:
        found = probe(file, LIMITS)
        clip, status = decoded(file)
        if clip is None:
            assert found.reason, file
            assert found.empty == (status == "EMPTY"), file
            continue
        assert found.frames == clip.count, file
        assert bool(found.reason) == bool(clip.broken), file
        assert (found.height, found.width) == clip.frames[0].shape[:2], file


def test_real_ssv2_counts_what_is_missing(shared: Path, tmp_path: Path) -> None:
    config = recognise(shared / "data/ssv2")
    report = report_of(config, ["validation", "test"])
    validation, test = report.splits
    assert (validation.annotated, validation.found, validation.usable) == (24_777, 2, 2)
    assert len(validation.missing) == 24_775
    assert validation.fps is not None
    assert validation.fps.histogram == {"12": 2}
    assert validation.height is not None
    assert (validation.height.min, validation.height.max) == (240, 240)
    assert len(validation.classes_without_video) == 172
    entries = json.loads(config.annotations["validation"].read_text())
    templates = Counter(entry["template"].replace("[", "").replace("]", "") for entry in entries)
    assert {name: c.annotated for name, c in validation.per_class.items()} == templates
    assert (test.annotated, test.found, test.frames) == (27_157, 0, None)
    assert len(test.classes_without_video) == 174
    assert report.shared == {}


def test_videos_of_two_splits_are_named(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "t.csv").write_text("1,a\n2,a\n3,a\n")
    (tmp_path / "v.csv").write_text("4,a\n3,a\n1,a\n")
    config = DataConfig(
        videos=tmp_path / "videos",
        annotations={"train": tmp_path / "t.csv", "validation": tmp_path / "v.csv"},
    )
    report = report_of(config, ["train", "validation"])
    assert report.shared == {"train+validation": ["1", "3"]}
    with pytest.raises(UsageError, match="test is not configured"):
        report_of(config, ["train", "test"])


def test_processes_do_not_change_the_report(shared: Path, tmp_path: Path) -> None:
    one, four = (check_folder(shared / "data/odd", tmp_path, processes=n) for n in (1, 4))
    assert one == four


def test_whatever_a_decoder_raises_belongs_to_its_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", 9)

    def raises(*args: object, **named: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(av, "open", raises)
    assert probe(tmp_path / "a.mp4", LIMITS).reason == "MemoryError: too large"
    assert probe(tmp_path / "none.mp4", LIMITS).reason == "no such file"


class Listener(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)


def test_a_playlist_does_not_reach_the_network(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.ts"
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", url, "#EXT-X-ENDLIST", ""]
        (tmp_path / "a.m3u8").write_text("\n".join(lines))
        found = probe(tmp_path / "a.m3u8", LIMITS)
        server.shutdown()
    assert (found.frames, Listener.asked) == (0, [])
    assert found.reason


def test_the_report_is_json_and_a_text(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    # Square brackets would be markup to the library that prints tables.
    (folder / "[red]x[.mp4").write_bytes(b"")
    (tmp_path / "labels.txt").write_text("Push [/b] it\nother\n")
    (tmp_path / "all.csv").write_text("[red]x[.mp4,0\n")
    config = DataConfig(
        videos=folder, annotations={"train": tmp_path / "all.csv"}, labels=tmp_path / "labels.txt"
    )
    report = report_of(config, ["train"])
    document = json.loads(json.dumps(report.to_json()))
    assert document["splits"][0]["empty"][0]["id"] == "[red]x["
    assert document["splits"][0]["per_class"]["Push [/b] it"]["found"] == 1
    print_report(report)
    print_report(check_folder(shared / "data/odd", tmp_path))
    text = capsys.readouterr().out
    for part in ("[red]x[", "0 bytes", "Push [/b] it", "1280x720", "30 frames, then:"):
        assert part in " ".join(text.split())


def test_histograms() -> None:
    assert describe([]) is None
    few = describe([2, 1, 2])
    assert few is not None
    assert (few.min, few.median, few.max, few.histogram) == (1, 2, 2, {"1": 1, "2": 2})
    numbers = np.random.default_rng(0).integers(3, 997, 5000).tolist()
    many = describe(numbers)
    assert many is not None
    assert len(many.histogram) <= 12
    assert sum(many.histogram.values()) == 5000
    for span, count in many.histogram.items():
        low, high = (int(part) for part in span.split("-"))
        assert count == sum(low <= number < high for number in numbers)


@pytest.mark.parametrize("span", [0.013, 1.0, 11.0, 11.1, 99.0, 54321.0])
def test_histograms_have_few_bins_for_any_span(span: float) -> None:
    found = describe(7.77 + span * place / 40 for place in range(41))
    assert found is not None
    assert 5 <= len(found.histogram) <= 12
    assert sum(found.histogram.values()) == 41


def test_the_flip_table_is_held_against_the_classes(shared: Path, tmp_path: Path) -> None:
    labels = shared / "data/gestures/labels"
    (tmp_path / "train.csv").write_text("1;Swiping something up\n")
    config = DataConfig(
        videos=tmp_path,
        labels=labels / "labels.json",
        annotations={"train": tmp_path / "train.csv"},
        flip=labels / "flip.json",
    )
    report = report_of(config, ["train"])
    left, right = "Swiping something to the left", "Swiping something to the right"
    assert report.flips == {left: right, right: left}
    (tmp_path / "flip.json").write_text('{"left/right": {"Swiping nothing": "x"}}')
    wrong = config.model_copy(update={"flip": tmp_path / "flip.json"})
    with pytest.raises(TcaError, match=r"flip\.json"):
        report_of(wrong, ["train"])
