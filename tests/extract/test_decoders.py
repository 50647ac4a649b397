"""Decoders are watched: what a video does to one costs that video and no other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import hostile_decoders
import pytest
import torch
from drawn_video import write_video

from tca.cache.layout import Status
from tca.errors import TcaError
from tca.extract import decoder
from tca.extract import decoders as decoders_module
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.decoder import Settings, Task
from tca.extract.decoders import SLOTS, Decoders, Wanted
from tca.extract.decoding import Limits, decode
from tca.extract.geometry import squares
from tca.extract.nursery import shared_nursery
from tca.extract.video_error import VideoError
from tca.extract.views import WHOLE, View

SIZE = 4
BUFFERS = BatchBuffers(SLOTS, SIZE, 32, 16)
SETTINGS = Settings("full", 8, Limits(1000, 10**6), 512)
GONE = VideoError(Status.MISSING, "gone")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{number}.webm", 8 + number) for number in range(11)]


def wanted(paths: Sequence[Path | None], views: Sequence[View] = (WHOLE,)) -> Iterator[Wanted]:
    videos = SIZE // len(views)
    for start in range(0, len(paths), videos):
        some = list(enumerate(paths[start : start + videos]))
        count = len(views)
        tasks = [
            Task(path, tuple((n * count + v, view) for v, view in enumerate(views)))
            for n, path in some
            if path is not None
        ]
        failed = {n: GONE for n, path in some if path is None}
        yield Wanted(0, range(len(some) * count), False, tasks, failed)


def decoded(
    paths: Sequence[Path | None],
    views: Sequence[View] = (WHOLE,),
    *,
    settings: Settings = SETTINGS,
    seconds: float = 60,
    draw: decoder.Draw = decoder.draw,
) -> tuple[torch.Tensor, torch.Tensor, list[VideoError | None]]:
    """Return frames, clips and outcomes of all rows, copied."""
    frames, clips, outcomes = [], [], []
    given = wanted(paths, views)
    with Decoders(given, BUFFERS, settings, processes=2, seconds=seconds, draw=draw) as decoders:
        for batch in decoders:
            assert batch.frames.shape == (SIZE, 8, 3, 32, 32)
            assert batch.clips.shape == (SIZE, 16, 3, 16, 16)
            rows = len(batch.rows)
            # Past the rows there is nothing.
            assert not batch.frames[rows:].any()
            assert not batch.clips[rows:].any()
            frames.append(batch.frames[:rows].clone())
            clips.append(batch.clips[:rows].clone())
            outcomes += batch.outcomes
            decoders.give_back(batch)
    return torch.cat(frames), torch.cat(clips), outcomes


def expected(path: Path, view: View = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
    clip = decode(path, offset=view.offset)
    shape = "full", clip.pixel_aspect, view
    return squares(clip.frames[::2], 32, *shape), squares(clip.frames, 16, *shape)


def test_batches_hold_the_squares_of_the_sampled_frames_in_order(videos: list[Path]) -> None:
    paths: list[Path | None] = [*videos, None, *videos[:3]]
    frames, clips, outcomes = decoded(paths)
    assert outcomes == [GONE if path is None else None for path in paths]
    for row, path in enumerate(paths):
        if path is None:
            assert not frames[row].any()
            assert not clips[row].any()
        else:
            theirs = expected(path)
            assert torch.equal(frames[row], theirs[0])
            assert torch.equal(clips[row], theirs[1])


def test_batches_that_are_kept_are_not_filled_anew(videos: list[Path]) -> None:
    given = wanted(videos * 2)
    with Decoders(given, BUFFERS, SETTINGS, processes=2, seconds=60) as decoders:
        batches = iter(decoders)
        kept = [next(batches) for _ in range(SLOTS)]
        with pytest.raises(RuntimeError, match="none was given back"):
            next(batches)
    for number, batch in enumerate(kept):
        assert torch.equal(batch.frames[0], expected(videos[number * SIZE])[0])


def test_views_of_a_video_are_filled_by_one_task(videos: list[Path]) -> None:
    views = [View((0.25, 0.0, 1.0, 0.5), 0.3), View(None, -0.5, True)]
    frames, clips, outcomes = decoded(videos[:5], views)
    assert outcomes == [None] * 10
    for row in range(10):
        theirs = expected(videos[row // 2], views[row % 2])
        assert torch.equal(frames[row], theirs[0])
        assert torch.equal(clips[row], theirs[1])


def test_pictures_too_large_to_be_held_together_give_the_same(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [View(None, 0.3), View(None, -0.5, True)]
    buffers = BUFFERS.create()[1]
    task = Task(videos[5], tuple(enumerate(views)), 0)
    decoder.draw(task, buffers, SETTINGS)
    whole = [pixels.clone() for pixels in buffers.batch(0)]
    for pixels in buffers.batch(0):
        pixels.zero_()
    monkeypatch.setattr(decoder, "PICTURE_BYTES", 1)
    decoder.draw(task, buffers, SETTINGS)
    assert all(map(torch.equal, whole, buffers.batch(0)))


HOSTILE = {
    "segfault": (Status.UNREADABLE, "died of SIGSEGV"),
    "abort": (Status.UNREADABLE, "died of SIGABRT"),
    "exit": (Status.UNREADABLE, "died with code 3"),
    "raise": (Status.UNREADABLE, "ArithmeticError: too odd"),
    "hang": (Status.TIMED_OUT, r"over 3 seconds \(extract.max_seconds\)"),
    "deaf": (Status.TIMED_OUT, r"over 3 seconds \(extract.max_seconds\)"),
    "hungry": (Status.UNREADABLE, r"over 512 MB \(extract.max_megabytes\)"),
    "greedy": (Status.UNREADABLE, r"over 512 MB \(extract.max_megabytes\)"),
}


def test_what_hangs_a_decoder_or_takes_it_down_costs_that_video_alone(
    videos: list[Path], tmp_path: Path
) -> None:
    paths = [p for name, video in zip(HOSTILE, videos, strict=False) for p in (video, Path(name))]
    frames, clips, outcomes = decoded(paths, seconds=3, draw=hostile_decoders.draw)
    for row, path in enumerate(paths):
        error = outcomes[row]
        if path.stem in HOSTILE:
            status, reason = HOSTILE[path.stem]
            assert error is not None
            assert error.status is status
            with pytest.raises(VideoError, match=reason):
                raise error
            # It had written there before.
            assert not frames[row].any()
            assert not clips[row].any()
        else:
            assert error is None
            assert torch.equal(frames[row], expected(path)[0])
            assert torch.equal(clips[row], expected(path)[1])


def test_a_decoder_that_somebody_else_killed_is_no_fault_of_the_video(
    videos: list[Path], tmp_path: Path
) -> None:
    unlucky = tmp_path / "unlucky.webm"
    unlucky.write_bytes(videos[3].read_bytes())
    frames, _, outcomes = decoded([unlucky, videos[4]], draw=hostile_decoders.draw)
    assert outcomes == [None, None]
    assert unlucky.with_suffix(".seen").exists()
    assert torch.equal(frames[0], expected(unlucky)[0])


def test_a_file_that_never_opens_times_out(videos: list[Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.webm"
    os.mkfifo(pipe)
    _, _, outcomes = decoded([videos[0], pipe, videos[1]], seconds=2)
    assert outcomes[0] is outcomes[2] is None
    assert outcomes[1].status is Status.TIMED_OUT


def test_a_real_video_too_large_for_the_memory_says_so_and_is_not_cut_short(
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / "large.mp4", 20, size=(3000, 2000), codec="mpeg4")
    for megabytes in (16, 40, 60, 100, 150, 200, 250):
        settings = Settings("full", 1, Limits(1000, 10**7), megabytes)
        (error,) = decoded([path], settings=settings)[2]
        assert error is not None
        assert error.status is Status.UNREADABLE
        assert error.reason == f"decoding it takes over {megabytes} MB (extract.max_megabytes)"
    assert decoded([path], settings=Settings("full", 1, Limits(1000, 10**7), 1000))[2] == [None]


def test_limits_of_frames_and_pixels(videos: list[Path]) -> None:
    settings = Settings("full", 8, Limits(10, 64 * 48), 512)
    _, _, outcomes = decoded(videos[:4], settings=settings)
    assert outcomes[:3] == [None] * 3
    assert "more than 10 frames (extract.max_frames)" in outcomes[3].reason
    settings = Settings("full", 8, Limits(1000, 64 * 48 - 1), 512)
    _, _, outcomes = decoded(videos[:1], settings=settings)
    assert outcomes[0].status is Status.UNREADABLE
    assert "64x48 pixels are over 3,071 (extract.max_pixels)" in outcomes[0].reason


class Unloadable:
    """A function that no decoder can load."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.abort, ()


def test_decoders_that_do_not_start_end_the_run(videos: list[Path]) -> None:
    with pytest.raises(TcaError, match="decoding processes do not start: one died of SIGABRT"):
        decoded(videos[:1], draw=Unloadable())


class SlowToLoad(Unloadable):
    """A function that decoders load at last."""

    def __reduce__(self) -> tuple[object, ...]:
        return hostile_decoders.draw_after, (3,)


def test_the_time_of_a_decoders_start_is_no_videos(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoded(videos[:2], seconds=2, draw=SlowToLoad())[2] == [None, None]
    monkeypatch.setattr(decoders_module, "START_S", 1)
    with pytest.raises(TcaError, match="do not start within 1 seconds"):
        decoded(videos[:1], draw=SlowToLoad())


def test_the_process_that_starts_decoders_can_die_and_is_replaced(videos: list[Path]) -> None:
    nursery = shared_nursery()
    given = wanted([*videos, Path("segfault"), *videos])
    decoders = Decoders(
        given, BUFFERS, SETTINGS, processes=2, seconds=60, draw=hostile_decoders.draw
    )
    with decoders:
        batches = iter(decoders)
        decoders.give_back(next(batches))
        os.kill(nursery._process.pid, signal.SIGKILL)
        with pytest.raises(TcaError, match=r"that starts decoders died .* run the command again"):
            list(batches)
    assert decoded(videos[:3])[2] == [None] * 3
    assert shared_nursery() is not nursery


def processes() -> dict[int, str]:
    """Return the command line of every process that is no zombie."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if ") Z " not in (folder / "stat").read_text():
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    return found


def test_decoders_survive_ctrl_c_die_with_their_parent_and_leave_no_memory() -> None:
    program = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
import test_decoders as t
from tca.extract.decoders import Decoders
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
with Decoders(t.wanted([Path("deaf"), Path("hang")]), t.BUFFERS, t.SETTINGS, processes=2,
              seconds=1000, draw=t.hostile_decoders.draw) as decoders:
    decoders._fill()
    while not all(p.ready for p in decoders._alive) or len(decoders._alive) < 2:
        pass
    print(*(p.number for p in decoders._alive), flush=True)
    next(iter(decoders))
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert parent.stdout is not None
    children = [int(number) for number in parent.stdout.readline().split()]
    assert len(children) == 2
    assert set(children) <= set(processes())
    # The pixels lie in memory without a name, which goes with those who use it.
    maps = Path(f"/proc/{children[0]}/maps").read_text()
    assert "memfd:tca-batches" in maps
    assert "/dev/shm" not in maps
    nursery = int(Path(f"/proc/{children[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    # Ctrl-C is sent to all at once; what ends then is the parent's to say.
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.2)
    assert {*children, nursery} <= set(processes())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while {*children, nursery} & set(processes()):
        time.sleep(0.05)


@pytest.mark.long
def test_time_that_all_were_stopped_does_not_count() -> None:
    program = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
import test_decoders as t
print(t.decoded([Path("slow")], seconds=5, draw=t.hostile_decoders.draw)[2], flush=True)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "slow\n"
    os.killpg(parent.pid, signal.SIGSTOP)
    time.sleep(8)
    os.killpg(parent.pid, signal.SIGCONT)
    assert parent.stdout.readline() == "[None]\n"
    assert parent.wait() == 0
    parent.stdout.close()
