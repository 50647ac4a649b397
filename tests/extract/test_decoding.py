import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from drawn_video import bar, write_video

from tca.cache.layout import Status
from tca.errors import UsageError
from tca.extract import decoding
from tca.extract.decoding import decode
from tca.extract.sampling import frame_indices
from tca.extract.torchcodec_sampling import torchcodec_device
from tca.extract.truncation import missing_bytes
from tca.extract.video_error import VideoError


@pytest.mark.parametrize("count", [1, 5, 16, 29])
def test_the_sampled_frames_are_the_right_ones_by_content(tmp_path: Path, count: int) -> None:
    clip = decode(write_video(tmp_path / "v.webm", count))
    assert clip.count == count
    assert clip.broken is None
    assert [bar(picture) for picture in clip.frames] == frame_indices(count).tolist()
    later = decode(tmp_path / "v.webm", offset=0.4)
    assert [bar(picture) for picture in later.frames] == frame_indices(count, 0.4).tolist()


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("audio_only.mp4", Status.UNREADABLE, "no video stream"),
        ("broken_header.mp4", Status.UNREADABLE, "Invalid data"),
        ("empty_0byte.webm", Status.EMPTY, "0 bytes"),
        ("init_only_zero_frames.mp4", Status.EMPTY, "no frame"),
        ("not_there.mp4", Status.MISSING, "no such file"),
    ],
)
def test_what_gives_no_frames_says_why(
    shared: Path, name: str, status: Status, reason: str
) -> None:
    with pytest.raises(VideoError, match=reason) as caught:
        decode(shared / "data/odd" / name)
    assert caught.value.status is status


def test_a_video_that_breaks_off_gives_the_frames_before_the_break(shared: Path) -> None:
    path = shared / "data/odd/corrupted_decode_error.mp4"
    clip = decode(path)
    assert clip.count == 30
    assert "Invalid data" in clip.broken
    with pytest.raises(VideoError, match="breaks off after 30 frames, 31 are needed"):
        decode(path, min_frames=31)


@pytest.mark.parametrize("share", [0.05, 0.6, 0.9])
def test_a_truncated_webm_gives_a_clip_or_a_reason(tmp_path: Path, share: float) -> None:
    whole = write_video(tmp_path / "whole.webm", 29).read_bytes()
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole[: int(share * len(whole))])
    if share < 0.1:
        with pytest.raises(VideoError) as caught:
            decode(cut)
        assert caught.value.status in (Status.UNREADABLE, Status.EMPTY)
        return
    clip = decode(cut, min_frames=1)
    assert 1 <= clip.count < 29
    assert [bar(p) for p in clip.frames] == frame_indices(clip.count).tolist()
    # FFmpeg does not say so; the file does.
    assert clip.broken == f"the file ends {len(whole) - cut.stat().st_size} bytes early"
    with pytest.raises(VideoError, match=rf"breaks off after {clip.count} frames, 29 are needed"):
        decode(cut, min_frames=29)


def test_real_clips_are_whole(shared: Path) -> None:
    folders = [shared / "data/gestures/videos", shared / "data/ssv2/videos", shared / "data/odd"]
    files = [path for folder in folders for path in folder.iterdir()]
    assert [path.name for path in files if missing_bytes(path)] == []


def test_a_long_video_is_decoded_twice_with_the_same_result(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("corrupted_decode_error.mp4", "vp9_webm_no_duration_vfr.webm"):
        held = decode(shared / "data/odd" / name)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "HELD_BYTES", 5_000_000)
            twice = decode(shared / "data/odd" / name)
        assert (held.count, held.broken) == (twice.count, twice.broken)
        assert all(np.array_equal(a, b) for a, b in zip(held.frames, twice.frames, strict=True))


def test_pixel_aspect_follows_the_file_and_its_rotation(shared: Path, tmp_path: Path) -> None:
    assert decode(shared / "data/odd/h264_1frame_sar.mp4").pixel_aspect == pytest.approx(16 / 9)
    assert decode(shared / "data/odd/rot90.mov").frames[0].shape == (568, 320, 3)
    wide = tmp_path / "wide.mp4"
    with av.open(str(wide), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert decode(wide).pixel_aspect == pytest.approx(2.0)


def test_a_name_is_never_read_as_a_protocol_or_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_video(tmp_path / "v.webm", 16).read_bytes()
    for name in ("concat:a.webm", "-i.webm", "%03d.webm", "ünïcode 視頻.webm", "wrong.txt"):
        Path(name).write_bytes(source)
        assert decode(Path(name)).count == 16


def test_a_playlist_in_disguise_reaches_no_network(tmp_path: Path) -> None:
    path = tmp_path / "v.webm"
    path.write_text("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError) as caught:
        decode(path)
    assert caught.value.status is Status.UNREADABLE


def test_torchcodec_that_is_not_there_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert torchcodec_device("pyav", torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(UsageError, match=r"install 'tca\[torchcodec\]' .* or choose pyav"):
        torchcodec_device("torchcodec", torch.device("cpu"))
