"""What the data check says of a file, against the programs ffprobe and ffmpeg."""

import json
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_video import write_video

from tca.extract.decoding import Limits
from tca.extract.oddities import oddities
from tca.extract.probe import Probe, probe, varies

LIMITS = Limits(frames=1000, pixels=2**25)


@pytest.fixture(autouse=True)
def _programs() -> None:
    for name in ("ffprobe", "ffmpeg"):
        if shutil.which(name) is None:
            pytest.skip(f"needs the program {name}, which is not installed")


def ffprobe(file: Path) -> dict[str, Any]:
    shown = ["-count_frames", "-select_streams", "v:0", "-show_streams", "-of", "json"]
    program = ["ffprobe", "-v", "error", *shown, f"file:{file}"]
    done = subprocess.run(program, capture_output=True, check=True)
    (stream,) = json.loads(done.stdout)["streams"]
    return dict(stream)


def ffmpeg(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-hide_banner", "-y", *map(str, arguments)],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stderr


def whole_files(shared: Path) -> list[Path]:
    odd = {"audio_only", "broken_header", "corrupted_decode_error", "init_only_zero_frames"}
    files = sorted((shared / "data/odd").iterdir()) + sorted(
        (shared / "data/ssv2/videos").iterdir()
    )
    return [file for file in files if file.stem not in odd and file.stat().st_size]


def test_it_says_what_ffprobe_says(shared: Path) -> None:
    files = whole_files(shared)
    assert len(files) >= 9
    for file in files:
        found, stream = probe(file, LIMITS), ffprobe(file)
        assert found.reason == "", file
        assert found.frames == int(stream["nb_read_frames"]), file
        assert found.codec == f"{stream['codec_name']} {stream['pix_fmt']}", file
        turned = [
            int(s["rotation"]) % 360 for s in stream.get("side_data_list", []) if "rotation" in s
        ]
        assert found.turned == (turned or [0])[0], file
        size = (stream["width"], stream["height"])
        assert (found.width, found.height) == (size[::-1] if found.turned % 180 else size), file
        aspect = Fraction(stream.get("sample_aspect_ratio", "1:1").replace(":", "/"))
        assert found.pixel_aspect == pytest.approx(float(aspect)), file
        assert found.fps == pytest.approx(float(Fraction(stream["avg_frame_rate"])), rel=0.15), file


def test_a_variable_rate_is_what_ffmpegs_detector_finds(shared: Path) -> None:
    for file in whole_files(shared):
        found = re.search(r"VFR:(\S+)", ffmpeg("-i", file, "-vf", "vfrdet", "-f", "null", "-"))
        assert found is not None
        share = float(found[1])
        # It counts the rounding of times to milliseconds too.
        ssv2 = file.parent.name == "videos"
        assert probe(file, LIMITS).variable_rate == (share > 0 and not ssv2), file


def test_rates_are_even_up_to_rounding() -> None:
    even = np.arange(50) / 12
    assert not varies(even.tolist(), 1 / 12)
    assert not varies(np.round(even, 3).tolist(), 0.001)
    # A GIF counts hundredths: 8, 8, 9, ...
    assert not varies(np.round(even, 2).tolist(), 0.01)
    assert varies(np.delete(even, 20).tolist(), 1 / 12)
    assert varies(np.round(np.delete(even, 20), 3).tolist(), 0.001)
    assert not varies([], 0.001)
    assert not varies([1.0], 0.001)


def test_a_header_is_believed_where_nothing_is_decoded(shared: Path) -> None:
    for file in whole_files(shared):
        found, stream = probe(file, None), ffprobe(file)
        assert found.frames == int(stream.get("nb_frames", 0)), file
        assert (found.width, found.height) == (stream["width"], stream["height"]), file
        if "duration" in stream:
            assert found.seconds == pytest.approx(float(stream["duration"]), abs=0.01), file
    # A lie that only decoding shows.
    broken = shared / "data/odd/corrupted_decode_error.mp4"
    assert (probe(broken, None).frames, probe(broken, None).reason) == (50, "")
    assert probe(broken, LIMITS).frames == 30


def test_a_webm_that_was_cut_short_shows_in_its_header(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.webm", 30).read_bytes()
    (tmp_path / "a.webm").write_bytes(whole[:-100])
    assert probe(tmp_path / "a.webm", None).reason == "the file ends 100 bytes early"


def test_pictures_are_known_again_in_another_container(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.webm", 20)
    pictures = probe(video, LIMITS).pictures
    ffmpeg("-i", video, "-c", "copy", tmp_path / "b.mkv")
    ffmpeg("-i", video, "-c", "copy", tmp_path / "c.mp4")
    ffmpeg("-i", video, "-c:v", "ffv1", tmp_path / "lossless.mkv")
    for copy in ("b.mkv", "c.mp4", "lossless.mkv"):
        assert (tmp_path / copy).read_bytes() != video.read_bytes()
        assert probe(tmp_path / copy, LIMITS).pictures == pictures, copy
    ffmpeg("-i", video, "-c:v", "libvpx-vp9", "-crf", "50", "-b:v", "0", tmp_path / "coarse.webm")
    ffmpeg("-i", video, "-frames:v", "19", "-c:v", "ffv1", tmp_path / "shorter.mkv")
    ffmpeg("-i", video, "-vf", "reverse", "-c:v", "ffv1", tmp_path / "reversed.mkv")
    ffmpeg("-i", video, "-vf", "hflip", "-c:v", "ffv1", tmp_path / "mirrored.mkv")
    others = ("coarse.webm", "shorter.mkv", "reversed.mkv", "mirrored.mkv")
    found = {probe(tmp_path / other, LIMITS).pictures for other in others}
    assert len(found | {pictures}) == 5


@pytest.mark.parametrize("form", ["yuv410p", "yuv411p", "yuv420p10le", "gray10le", "bgr0"])
def test_pixel_formats_without_an_array_have_a_fingerprint_too(tmp_path: Path, form: str) -> None:
    video = write_video(tmp_path / "a.webm", 9)
    ffmpeg("-i", video, "-pix_fmt", form, "-c:v", "ffv1", tmp_path / "a.mkv")
    ffmpeg("-i", tmp_path / "a.mkv", "-c", "copy", tmp_path / "a.avi")
    ffmpeg("-i", tmp_path / "a.mkv", "-vf", "reverse", "-c:v", "ffv1", tmp_path / "other.mkv")
    first, again, other = (probe(tmp_path / n, LIMITS) for n in ("a.mkv", "a.avi", "other.mkv"))
    assert (first.frames, first.reason, first.codec) == (9, "", f"ffv1 {form}")
    assert first.pictures == again.pictures != other.pictures


def test_odd_sizes_have_a_fingerprint_that_padding_does_not_change(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.webm", 9, size=(70, 50))
    ffmpeg("-i", video, "-vf", "crop=61:37:0:0:exact=1", "-c:v", "ffv1", tmp_path / "odd.mkv")
    ffmpeg("-i", tmp_path / "odd.mkv", "-c", "copy", tmp_path / "odd.avi")
    first, again = (probe(tmp_path / f"odd.{form}", LIMITS) for form in ("mkv", "avi"))
    assert (first.width, first.height, first.reason) == (61, 37, "")
    assert first.pictures == again.pictures != ""


def test_what_is_over_a_limit_is_unreadable(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.webm", 20)
    found = probe(video, Limits(frames=19, pixels=2**25))
    assert (found.frames, found.reason) == (0, "it has more than 19 frames (extract.max_frames)")
    found = probe(video, Limits(frames=20, pixels=64 * 48 - 1))
    assert "extract.max_pixels" in found.reason
    assert probe(video, Limits(frames=20, pixels=64 * 48)).frames == 20


def test_what_is_odd_is_named(shared: Path, tmp_path: Path) -> None:
    odd = {
        file.stem: set(oddities(probe(file, LIMITS)))
        for file in whole_files(shared)
        if file.parent.name == "odd"
    }
    assert odd == {
        "gif_vfr": {"variable frame rate"},
        "h264_1frame_sar": {"pixels not square"},
        "hevc_10bit": set(),
        "mpeg4_audio": set(),
        "rot90": {"rotated", "upright"},
        "tiny_40x30_13frames": {"tiny"},
        "vp9_webm_no_duration_vfr": {"variable frame rate"},
    }
    assert set(oddities(Probe(9, width=427, height=240))) == {"odd number of pixels"}
    assert set(oddities(Probe(9, width=3840, height=2160))) == {"huge"}
    assert set(oddities(Probe(9, width=1920, height=1088))) == set()
    assert set(oddities(Probe(9, width=1280, height=240))) == {"long"}
    # 240 pixels that are twice as wide as high.
    assert set(oddities(Probe(9, width=240, height=320, pixel_aspect=2))) == {"pixels not square"}
    # A stream that changes its size in the middle.
    for name, size in (("a", (64, 48)), ("b", (96, 64))):
        write_video(tmp_path / f"{name}.mpg", 10, size=size, codec="mpeg2video")
    both = (tmp_path / "a.mpg").read_bytes() + (tmp_path / "b.mpg").read_bytes()
    (tmp_path / "both.mpg").write_bytes(both)
    assert "changes size" in oddities(probe(tmp_path / "both.mpg", LIMITS))
