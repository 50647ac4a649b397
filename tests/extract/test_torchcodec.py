"""torchcodec gives the frames that PyAV gives, or leaves them to it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from drawn_video import write_video
from turned_video import turn

from tca.cache.layout import Status
from tca.errors import UsageError
from tca.extract import torchcodec_sampling
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.decoder import Settings, Task
from tca.extract.decoders import SLOTS, Decoders, Wanted
from tca.extract.decoding import Limits, Sample, sample
from tca.extract.pictures import upright
from tca.extract.torchcodec_sampling import sample_by_torchcodec, torchcodec_device
from tca.extract.video_error import VideoError
from tca.extract.views import WHOLE

LIMITS = Limits(1000, 10**7)

try:
    torchcodec_device("torchcodec", torch.device("cpu"))
except UsageError as error:
    pytestmark = pytest.mark.skip(reason=str(error))


def by_torchcodec(path: Path, offsets: list[float], min_frames: int = 8) -> Sample:
    return sample_by_torchcodec(path, offsets, min_frames=min_frames, limits=LIMITS, device="cpu")


def same(path: Path, min_frames: int = 8) -> bool:
    """Compare with PyAV, and return whether torchcodec had a part in it."""
    offsets = [0.0, 0.4]
    ours, theirs = (
        by_torchcodec(path, offsets, min_frames),
        sample(path, offsets, min_frames=min_frames),
    )
    assert (ours.count, ours.broken) == (theirs.count, theirs.broken)
    assert ours.pixel_aspect == pytest.approx(theirs.pixel_aspect)
    assert np.array_equal(ours.indices, theirs.indices)
    assert sorted(ours.frames) == sorted(theirs.frames)
    reformatter = VideoReformatter()
    for number, frame in theirs.frames.items():
        mine, its = (upright(f, reformatter) for f in (ours.frames[number], frame))
        assert mine.shape == its.shape
        assert np.abs(mine.astype(int) - its).max() <= 1
    return all(isinstance(frame, np.ndarray) for frame in ours.frames.values())


def error_of(work: Callable[[], object]) -> tuple[Status, str] | None:
    try:
        work()
    except VideoError as error:
        return error.status, error.reason
    return None


@pytest.mark.parametrize("count", [1, 5, 16, 70])
def test_frames_are_the_same_and_torchcodecs(tmp_path: Path, count: int) -> None:
    assert same(write_video(tmp_path / "v.webm", count), min_frames=1)
    assert same(write_video(tmp_path / "v.mp4", count, codec="mpeg4"), min_frames=1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_and_mirrored_pictures_are_the_same(
    tmp_path: Path, turns: int, mirrored: bool
) -> None:
    path = write_video(tmp_path / "v.mp4", 20, codec="mpeg4")
    turn(path, turns, mirrored)
    assert same(path) is not mirrored


@pytest.mark.parametrize("name", ["v.avi", "v.ts", "v.mpg"])
def test_files_without_sound_times_are_left_to_pyav(tmp_path: Path, name: str) -> None:
    assert not same(write_video(tmp_path / name, 20, codec="mpeg2video"))


def test_what_breaks_off_is_left_to_pyav(shared: Path, tmp_path: Path) -> None:
    assert not same(shared / "data/odd/corrupted_decode_error.mp4")
    whole = write_video(tmp_path / "whole.webm", 29).read_bytes()
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole[: int(0.7 * len(whole))])
    assert not same(cut, min_frames=1)
    with pytest.raises(VideoError, match="29 are needed"):
        by_torchcodec(cut, [0.0], min_frames=29)


def test_real_and_odd_files_are_the_same(shared: Path) -> None:
    files = sorted((shared / "data/gestures/videos").iterdir())[::60]
    files += sorted((shared / "data/ssv2/videos").iterdir())[::6]
    for path in files:
        assert same(path), path
    for path in sorted((shared / "data/odd").iterdir()):
        if path.name == "hevc_10bit.mp4":
            # Versions of FFmpeg place its colours a little differently.
            continue
        theirs = error_of(lambda path=path: sample(path, [0.0], min_frames=8))
        assert error_of(lambda path=path: by_torchcodec(path, [0.0])) == theirs
        if theirs is None:
            same(path)


def test_limits_hold(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.webm", 20)
    for limits, name in ((Limits(19, 10**6), "max_frames"), (Limits(20, 100), "max_pixels")):
        with pytest.raises(VideoError, match=name) as caught:
            sample_by_torchcodec(path, [0.0], min_frames=8, limits=limits, device="cpu")
        assert caught.value.status is Status.UNREADABLE


def test_decoders_use_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.webm", 20)
    buffers = BatchBuffers(SLOTS, 1, 32, 16)
    found = []
    for device in (None, "cpu"):
        settings = Settings("full", 8, LIMITS, 1024, device)
        wanted = iter([Wanted(0, range(1), True, [Task(path, ((0, WHOLE),))], {})])
        with Decoders(wanted, buffers, settings, processes=1, seconds=60) as decoders:
            for batch in decoders:
                assert batch.outcomes == [None]
                found.append((batch.frames.clone(), batch.clips.clone()))
    assert found[0][0].any()
    for one, other in zip(*found, strict=True):
        assert (one.int() - other.int()).abs().max() <= 1


def test_a_gpu_decodes_for_the_backbones_on_it() -> None:
    with pytest.raises(UsageError, match="GPU of the backbones, and they run on the CPU"):
        torchcodec_device("torchcodec-cuda", torch.device("cpu"))
    assert torchcodec_device("torchcodec-cuda", torch.device("cuda:1")) == "cuda:1"


def test_it_decodes_what_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Were PyAV to do the work in secret, the other tests would compare it with itself.
    def never(*_: object, **__: object) -> Sample:
        raise AssertionError("PyAV was asked")

    monkeypatch.setattr(torchcodec_sampling, "sample", never)
    found = by_torchcodec(write_video(tmp_path / "v.webm", 20), [0.0])
    assert found.count == 20
