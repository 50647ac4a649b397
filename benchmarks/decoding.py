"""How fast videos are decoded: by watched processes, next to threads; and where the time goes.

Both do the same work into the same kind of memory. Threads could not be watched: one that hangs
cannot be ended, and one that crashes takes all the others along.

    python benchmarks/decoding.py --data FOLDER --markdown
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import click
import torch
from av.video.reformatter import VideoReformatter
from measuring import take_turns, use_cores
from report import Report, common_options, run, working_folder

from tca.extract.batch_buffers import BatchBuffers
from tca.extract.decoder import Settings, Task, draw
from tca.extract.decoders import SLOTS, Decoders, Wanted
from tca.extract.decoding import Limits, opened, sample
from tca.extract.geometry import squares
from tca.extract.pictures import upright
from tca.extract.video_files import VIDEO_SUFFIXES
from tca.extract.views import WHOLE

BATCH = 8
BAR = 0.97
"""Of the speed of threads, which processes may not fall under."""
SETTINGS = Settings("full", 8, Limits(100_000, 2**25), 4096)


class Sides:
    """Both ways to decode some videos, `repeat` times over."""

    def __init__(self, videos: list[Path], repeat: int, workers: int) -> None:
        self.videos, self.workers = videos * repeat, workers
        self.sizes = BatchBuffers(SLOTS, BATCH, 224, 112)
        self._buffers = self.sizes.create()[1]
        self.cpu: dict[str, list[float]] = {"threads": [], "processes": []}

    def threads(self) -> float:
        """Return videos/s of a pool of threads."""
        ahead: deque[object] = deque()
        cpu = time.process_time()
        with ThreadPoolExecutor(
            self.workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            begin = time.perf_counter()
            for number, video in enumerate(self.videos):
                if len(ahead) == 2 * BATCH:
                    ahead.popleft().result()
                task = Task(video, ((number % BATCH, WHOLE),), number // BATCH % SLOTS)
                ahead.append(pool.submit(draw, task, self._buffers, SETTINGS))
            for waiting in ahead:
                waiting.result()
            took = time.perf_counter() - begin
        self.cpu["threads"].append((time.process_time() - cpu) / len(self.videos))
        return len(self.videos) / took

    def processes(self) -> float:
        """Return videos/s of watched processes, from the first batch on.

        Raises:
            ValueError: a video failed.
        """
        with Decoders(
            self._wanted(), self.sizes, SETTINGS, processes=self.workers, seconds=60
        ) as decoders:
            batches = iter(decoders)
            decoders.give_back(next(batches))
            begin, cpu = time.perf_counter(), time.process_time()
            seconds = 0.0
            for batch in batches:
                if any(batch.outcomes):
                    raise ValueError(f"failed: {batch.outcomes}")
                seconds += batch.seconds
                decoders.give_back(batch)
            took = time.perf_counter() - begin
        count = len(self.videos) - BATCH
        self.cpu["processes"].append((seconds + time.process_time() - cpu) / count)
        return count / took

    def _wanted(self) -> Iterator[Wanted]:
        for start in range(0, len(self.videos), BATCH):
            some = self.videos[start : start + BATCH]
            tasks = [Task(video, ((place, WHOLE),)) for place, video in enumerate(some)]
            yield Wanted(0, range(start, start + len(some)), False, tasks, {})


def shares(videos: list[Path]) -> dict[str, float]:
    """Return seconds a video of each step, on one core."""
    torch.set_num_threads(1)
    spent = dict.fromkeys(("open", "decode", "to RGB", "resize"), 0.0)
    for video in videos:
        clock = [time.thread_time()]
        with opened(video):
            clock.append(time.thread_time())
        found = sample(video, [0.0], min_frames=8)
        clock.append(time.thread_time())
        reformatter = VideoReformatter()
        made = {number: upright(frame, reformatter) for number, frame in found.frames.items()}
        clock.append(time.thread_time())
        pictures = [made[number] for number in found.indices[0].tolist()]
        squares(pictures[::2], 224, "full")
        squares(pictures, 112, "full")
        clock.append(time.thread_time())
        for step, (before, after) in zip(spent, pairwise(clock), strict=True):
            spent[step] += (after - before) / len(videos)
    # `sample` opens too.
    spent["decode"] -= spent["open"]
    return spent


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--videos", type=click.IntRange(2 * BATCH), default=200, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--cores", type=click.IntRange(1), default=2, show_default=True)
@common_options
def main(
    data: Path,
    videos: int,
    repeat: int,
    rounds: int,
    cores: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    cores = use_cores(cores)
    found = sorted(f for f in data.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES)[:videos]
    settings = {"videos": len(found), "repeat": repeat, "cores": cores, "rounds": rounds}
    report = Report("decoding", settings)
    with working_folder(folder, keep) as place:
        copies = [Path(shutil.copy(file, place / file.name)) for file in found]
        sides = Sides(copies, repeat, cores)
        sides.threads()
        sides.processes()
        ours, threads, ratio = take_turns(sides.threads, {"processes": sides.processes}, rounds)[
            "processes"
        ]
        steps = shares(copies)
    cpu = {name: 1000 * min(spent) for name, spent in sides.cpu.items()}
    table = [
        ["threads", threads, cpu["threads"], 1.0, True],
        ["watched processes", ours, cpu["processes"], ratio, ratio >= BAR],
    ]
    columns = ["decoders", "videos/s", "least CPU ms a video", "ratio", f"≥ {BAR}"]
    report.table("Decoding, sampling and resizing", columns, table)
    whole = sum(steps.values())
    shared = [[name, 1000 * spent, spent / whole] for name, spent in steps.items()]
    report.table("Where the time of a video goes", ["step", "CPU ms", "share"], shared)
    report.show(output)


if __name__ == "__main__":
    run(main)
