"""The sampled frames are those of the ffmpeg program, in every odd kind of file that it makes."""

import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from turned_video import turn

from tca.cache.layout import Status
from tca.extract.decoding import Clip, decode
from tca.extract.sampling import frame_indices
from tca.extract.video_error import VideoError

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="needs the ffmpeg program (Debian package ffmpeg)"
)

DRAWN = "-f lavfi -i testsrc2=s=128x96:d=2:r=12"
H264 = "-c:v libx264 -pix_fmt yuv420p"


def ffmpeg(arguments: str, *, cwd: Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *arguments.split()]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=True).stdout


def frames_of_ffmpeg(path: Path) -> bytes:
    """Return every frame as the ffmpeg program shows it, RGB."""
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    command += ["-map", "0:V:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return subprocess.run(command, capture_output=True, check=False).stdout


def sampled_by_ffmpeg(path: Path, clip: Clip) -> np.ndarray:
    """Return the frames that ffmpeg has at the sampled places, (16, H, W, 3)."""
    theirs = np.frombuffer(frames_of_ffmpeg(path), np.uint8).reshape(-1, *clip.frames[0].shape)
    assert len(theirs) == clip.count
    return theirs[frame_indices(len(theirs))]


def difference(path: Path) -> int:
    clip = decode(path)
    assert clip.broken is None
    return int(np.abs(sampled_by_ffmpeg(path, clip) - np.stack(clip.frames).astype(int)).max())


MADE = {
    "variable_rate.mp4": f"{DRAWN} -vf setpts='if(lt(N,6),N,N*3-11)/12/TB' -fps_mode vfr {H264}",
    "b_frames.mp4": f"{DRAWN} {H264} -bf 3 -g 48",
    "open_groups.ts": f"{DRAWN} {H264} -x264-params open-gop=1:keyint=8:min-keyint=4:bframes=3",
    "pixel_aspect.mp4": f"{DRAWN} -vf setsar=2 {H264}",
    "full_range.mp4": f"{DRAWN} -c:v libx264 -pix_fmt yuvj420p",
    "bt709.mp4": f"{DRAWN} {H264} -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "chroma_422.mp4": f"{DRAWN} -c:v libx264 -pix_fmt yuv422p",
    "grey.mp4": f"{DRAWN} -c:v libx264 -pix_fmt gray",
    "rgb.mp4": f"{DRAWN} -c:v libx264rgb -pix_fmt rgb24",
    "no_moov_at_the_start.mp4": f"{DRAWN} {H264} -movflags frag_keyframe+empty_moov",
    "no_container.h264": f"{DRAWN} {H264} -f h264",
    "odd_width.webm": f"{DRAWN} -vf scale=127:96 -c:v libvpx-vp9 -pix_fmt yuv420p",
    "odd_size_444.mp4": f"{DRAWN} -vf scale=127:95 -c:v libx264 -pix_fmt yuv444p",
    "odd_width.avi": f"{DRAWN} -vf scale=127:96 -c:v mjpeg -pix_fmt yuvj420p",
    "hidden_frames.webm": f"{DRAWN} -c:v libvpx -auto-alt-ref 1 -lag-in-frames 16",
    "alpha_vp9.webm": f"{DRAWN} -c:v libvpx-vp9 -pix_fmt yuva420p -auto-alt-ref 0",
    "alpha.apng": f"{DRAWN} -vf format=rgba,colorchannelmixer=aa=0.5 -f apng",
    "alpha.gif": f"{DRAWN} -vf format=rgba,colorkey=red",
    "alpha_10_bit.mov": f"{DRAWN} -c:v prores_ks -pix_fmt yuva444p10le",
    "lossless_alpha.mkv": f"{DRAWN} -c:v ffv1 -pix_fmt bgra",
    "one_picture.png": f"{DRAWN} -frames:v 1",
    "flash.flv": f"{DRAWN} -c:v flv",
    "windows.wmv": f"{DRAWN} -c:v wmv2",
    "mpeg4.avi": f"{DRAWN} -c:v mpeg4 -bf 2",
    "wrong_extension.avi": f"{DRAWN} {H264} -f mp4",
    "wrong_extension.txt": f"{DRAWN} -c:v libvpx-vp9 -f webm",
}


@pytest.mark.parametrize("name", MADE)
def test_frames_of_every_kind_of_file_are_those_of_ffmpeg(tmp_path: Path, name: str) -> None:
    ffmpeg(f"{MADE[name]} {name}", cwd=tmp_path)
    assert difference(tmp_path / name) <= 1


@pytest.mark.parametrize(
    "how",
    [
        f"{H264.replace('yuv420p', 'yuv420p10le')} v.mp4",
        f"{H264} -x264-params interlaced=1 v.mp4",
        "-c:v mpeg2video -flags +ildct+ilme -top 1 v.mpg",
        "-vf scale=127:95 -c:v libvpx-vp9 -pix_fmt yuv420p v.webm",
    ],
)
def test_ten_bits_fields_and_odd_heights_have_the_brightness_of_ffmpegs_frames(
    tmp_path: Path, how: str
) -> None:
    # Of these, versions of FFmpeg place the colour, which is half as sharp, a little differently.
    ffmpeg(f"-f lavfi -i mandelbrot=s=128x96:r=12 -t 2 {how}", cwd=tmp_path)
    shown, brightness = difference_of_brightness(tmp_path / how.split()[-1])
    assert shown > 0.3
    assert brightness < 2.5


def difference_of_brightness(path: Path) -> tuple[float, float]:
    """Return the share of pixels whose colours all fit into a byte, and how far those differ."""
    clip = decode(path)
    theirs, ours = sampled_by_ffmpeg(path, clip).astype(float), np.stack(clip.frames).astype(float)
    shown = ((np.minimum(theirs, ours) > 2) & (np.maximum(theirs, ours) < 253)).all(-1)
    brightness = np.abs((theirs - ours) @ [0.299, 0.587, 0.114])
    return float(shown.mean()), float(brightness[shown].max())


def test_a_stream_without_end_or_length(tmp_path: Path) -> None:
    (tmp_path / "v.webm").write_bytes(
        ffmpeg(f"{DRAWN} -c:v libvpx-vp9 -f webm pipe:", cwd=tmp_path)
    )
    with av.open(str(tmp_path / "v.webm")) as container:
        assert container.duration is None
        assert container.streams.video[0].frames == 0
    assert difference(tmp_path / "v.webm") <= 1


def test_a_header_that_lies_about_the_number_of_frames(tmp_path: Path) -> None:
    ffmpeg(f"{DRAWN} -c:v mpeg4 v.avi", cwd=tmp_path)
    whole = bytearray((tmp_path / "v.avi").read_bytes())
    for place, old in ((whole.index(b"avih") + 24, 24), (whole.index(b"strh") + 40, 24)):
        assert struct.unpack_from("<I", whole, place) == (old,)
        struct.pack_into("<I", whole, place, 9999)
    (tmp_path / "v.avi").write_bytes(whole)
    with av.open(str(tmp_path / "v.avi")) as container:
        assert container.streams.video[0].frames == 9999
    assert decode(tmp_path / "v.avi").count == 24
    assert difference(tmp_path / "v.avi") <= 1


def test_a_clip_cut_without_encoding_begins_where_its_edit_list_says(tmp_path: Path) -> None:
    ffmpeg(f"{DRAWN} {H264} -bf 3 -g 48 v.mp4", cwd=tmp_path)
    ffmpeg("-ss 0.77 -i v.mp4 -c copy cut.mp4", cwd=tmp_path)
    assert decode(tmp_path / "cut.mp4").count < 24
    assert difference(tmp_path / "cut.mp4") <= 1


def test_a_recording_that_starts_in_the_middle(tmp_path: Path) -> None:
    ffmpeg(f"{DRAWN} {H264} -x264-params keyint=8:bframes=3 -f mpegts v.ts", cwd=tmp_path)
    whole = (tmp_path / "v.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[188 * (len(whole) // 188 // 2) :])
    assert 0 < decode(tmp_path / "cut.ts", min_frames=1).count < 24
    assert difference(tmp_path / "cut.ts") <= 1


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pictures_are_turned_and_mirrored_as_the_file_says(
    tmp_path: Path, turns: int, mirrored: bool
) -> None:
    ffmpeg(f"{DRAWN} -vf setsar=2 {H264} v.mp4", cwd=tmp_path)
    turn(tmp_path / "v.mp4", turns, mirrored)
    assert difference(tmp_path / "v.mp4") <= 1
    clip = decode(tmp_path / "v.mp4")
    assert clip.frames[0].shape == ((128, 96, 3) if turns % 2 else (96, 128, 3))
    assert clip.pixel_aspect == pytest.approx(0.5 if turns % 2 else 2)


def test_frames_whose_size_changes_on_the_way(tmp_path: Path) -> None:
    ffmpeg(f"{DRAWN} {H264} a.h264", cwd=tmp_path)
    ffmpeg(f"{DRAWN.replace('128x96', '64x160')} {H264} b.h264", cwd=tmp_path)
    parts = [tmp_path / "a.h264", tmp_path / "b.h264"]
    path = tmp_path / "v.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = decode(path)
    assert clip.count == 48
    first = np.frombuffer(frames_of_ffmpeg(parts[0]), np.uint8).reshape(-1, 96, 128, 3)
    second = np.frombuffer(frames_of_ffmpeg(parts[1]), np.uint8).reshape(-1, 160, 64, 3)
    for picture, number in zip(clip.frames, frame_indices(48).tolist(), strict=True):
        theirs = first[number] if number < 24 else second[number - 24]
        assert np.abs(picture.astype(int) - theirs).max() <= 1


def test_the_cover_of_a_song_is_no_video_and_that_of_a_video_is_passed_over(
    tmp_path: Path,
) -> None:
    ffmpeg(f"{DRAWN} -frames:v 1 cover.png", cwd=tmp_path)
    covered = "-map 1 -map 0 -c:v:0 png -disposition:v:0 attached_pic"
    ffmpeg(f"-f lavfi -i sine=d=1 -i cover.png {covered} song.m4a", cwd=tmp_path)
    with pytest.raises(VideoError, match="no video stream") as caught:
        decode(tmp_path / "song.m4a")
    assert caught.value.status is Status.UNREADABLE
    coded = "-c:v:1 libx264 -pix_fmt:v:1 yuv420p -disposition:v:1 default"
    ffmpeg(f"{DRAWN} -i cover.png {covered} {coded} film.mp4", cwd=tmp_path)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert {stream.codec_context.name for stream in container.streams.video} == {"png", "h264"}
    assert decode(tmp_path / "film.mp4").count == 24
    assert difference(tmp_path / "film.mp4") <= 1


@pytest.mark.parametrize(
    "name",
    [
        "gif_vfr.gif",
        "h264_1frame_sar.mp4",
        "mpeg4_audio.avi",
        "rot90.mov",
        "tiny_40x30_13frames.mp4",
        "vp9_webm_no_duration_vfr.webm",
    ],
)
def test_odd_files_are_those_of_ffmpeg(shared: Path, name: str) -> None:
    assert difference(shared / "data/odd" / name) <= 1


def test_ten_bits_of_others_have_the_brightness_of_ffmpegs_frames(shared: Path) -> None:
    shown, brightness = difference_of_brightness(shared / "data/odd/hevc_10bit.mp4")
    assert shown > 0.05
    assert brightness < 2.5


def test_real_clips_are_those_of_ffmpeg(shared: Path) -> None:
    gestures = sorted((shared / "data/gestures/videos").iterdir())[::48]
    ssv2 = sorted((shared / "data/ssv2/videos").iterdir())[::5]
    for path in [*gestures, *ssv2]:
        assert difference(path) <= 1, path


@pytest.mark.long
def test_all_real_clips_are_those_of_ffmpeg(shared: Path) -> None:
    for folder in ("gestures", "ssv2"):
        for path in sorted((shared / "data" / folder / "videos").iterdir()):
            assert difference(path) <= 1, path
