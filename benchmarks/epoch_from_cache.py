"""What the cache is worth: an epoch from it, next to an epoch that decodes and maps every time.

Both sides train the same model on the same clips in the same order, so that their losses are the
same to rounding. Without a cache the clips go through what `tca extract` is made of: its decoding
processes, which work ahead of the model in one stream over all epochs, its batches and its
precision; only that features stay where they are instead of being written. Loading backbones and
the statistics of the features are left out on both sides, and the file cache is warm.

    python benchmarks/epoch_from_cache.py --data FOLDER --weights FOLDER --markdown
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
from report import Report, common_options, run, working_folder
from torch import Tensor

from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.device import choose_device
from tca.errors import TcaError
from tca.extract.annotations import Video, read_annotations
from tca.extract.backbones.pair import Backbones
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.batch_size import settle_batch_size
from tca.extract.config import DataConfig, Stage1Config
from tca.extract.decoder import Settings, Task
from tca.extract.decoders import SLOTS, Decoders, Wanted
from tca.extract.decoding import Limits
from tca.extract.recognise import recognise
from tca.extract.run import extract
from tca.extract.views import WHOLE
from tca.extract.worker import decoding_threads
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variant import STREAMS, fit_statistics
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.member import Member
from tca.fusion.train.world import World

TRAINING = 30
"""Epochs of a training, as `train.epochs` has it."""

ROUNDING = 0.02
"""Relative difference between both sides' losses: batches of another size round otherwise."""

Batches = Iterator[tuple[dict[str, Tensor], Tensor]]
"""Features by stream and labels, on the device."""


class Sides:
    """Both ways to feed a model."""

    def __init__(
        self, videos: list[Video], config: Stage1Config, train: TrainConfig, folder: Path
    ) -> None:
        """Load the backbones, and extract the clips for the side that has a cache."""
        self.device, self.train = choose_device(train.device), train
        place = str(self.device)
        self.config = settle_batch_size(config, folder / ".none", place, Path())
        store = folder / "train.zarr"
        self.extraction = extract("train", store, self.config, devices=[place]).seconds
        self.store = Store.open(store)
        rows = self.store.ready()
        if len(rows) != len(videos):
            raise TcaError(f"{len(rows)} of {len(videos)} clips were extracted.")
        self.loader = Loader(
            self.store, rows, train.batch_size, seed=train.seed.data, device=self.device
        )
        stage1 = self.config
        self.backbones = Backbones.load(stage1.semantic, stage1.motion, Path()).to(self.device)
        self._file = {video.id: video.path for video in videos}

    def cached(self) -> Batches:
        """Yield the batches of all epochs from the store."""
        for batch in self.loader.epochs(self._epochs()):
            yield batch.streams(self.device), batch.label.to(self.device, non_blocking=True)

    def uncached(self) -> Batches:
        """Yield the same batches from the clips' files.

        Raises:
            ValueError: a clip failed.
        """
        extract = self.config.extract
        buffers = BatchBuffers(SLOTS, extract.batch_size, *self.backbones.sizes)
        settings = Settings(
            geometry=extract.geometry,
            min_frames=extract.min_frames,
            limits=Limits(extract.max_frames, extract.max_pixels),
            megabytes=extract.max_megabytes,
            yielding=self.device.type == "cpu",
        )
        labels = iter([label for rows in self._steps() for label in self.store.label[rows]])
        parts: list[dict[str, Tensor]] = []
        with Decoders(
            self._wanted(),
            buffers,
            settings,
            processes=decoding_threads(),
            seconds=extract.max_seconds,
        ) as decoded:
            for batch in decoded:
                if any(batch.outcomes):
                    raise ValueError(f"failed: {batch.outcomes}")
                some = len(batch.rows)
                frames, clips = batch.frames[:some], batch.clips[:some]
                if self.device.type == "cuda":
                    # Copied from there when the device gets to it.
                    frames, clips = frames.pin_memory(), clips.pin_memory()
                found = self.backbones(frames, clips, extract.precision)
                decoded.give_back(batch)
                parts.append({name: numbers.half() for name, numbers in found.items()})
                if batch.last:
                    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
                    label = torch.tensor([int(next(labels)) for _ in whole["motion"]])
                    parts = []
                    yield whole, label.to(self.device)

    def _wanted(self) -> Iterator[Wanted]:
        """Yield what to decode: the rows of every step, as many at once as the backbones take."""
        size = self.config.extract.batch_size
        for number, rows in enumerate(self._steps()):
            files = [self._file[self.store.ids[row]] for row in rows]
            for start in range(0, len(rows), size):
                some = files[start : start + size]
                tasks = [Task(f, ((place, WHOLE),)) for place, f in enumerate(some) if f]
                last = start + size >= len(rows)
                yield Wanted(number, range(len(some)), last, tasks, {})

    def _steps(self) -> Iterator[list[int]]:
        """Yield the rows of every step of all epochs."""
        size = self.train.batch_size
        for epoch in self._epochs():
            rows = self.loader.order(epoch).rows.tolist()
            yield from (rows[first : first + size] for first in range(0, len(rows), size))

    def _epochs(self) -> range:
        return range(1, self.train.epochs + 1)

    def trained(self, batches: Callable[[], Batches], model: ModelConfig) -> tuple[float, Tensor]:
        """Train a new model; return seconds an epoch, and the loss of every step."""
        world = World(0, 1, self.device)
        member = Member(model, self.train, self.store.shapes, self.store.classes, world)
        whole = self.loader.epoch(0)
        pairs = (tuple(batch.features(name, self.device) for name in STREAMS) for batch in whole)
        fit_statistics([member.model], pairs)
        member.begin()
        steps = self.train.epochs * len(self.loader)
        losses = []
        began = time.perf_counter()
        for number, (found, label) in enumerate(batches()):
            inputs = found["semantic"], found["motion"]
            losses.append(member.step(inputs, label, len(label), number, steps).loss)
        lost = torch.stack(losses).cpu()
        took = time.perf_counter() - began
        if len(lost) != steps:
            raise ValueError(f"{len(lost)} steps were made instead of {steps}")
        return took / self.train.epochs, lost


def chosen_clips(data: Path, count: int | None, folder: Path) -> tuple[list[Video], DataConfig]:
    """Return clips of the training split, evenly chosen, and a data set of no others."""
    source = recognise(data)
    annotations = read_annotations(source, "train")
    here = [v for v in annotations.videos if v.path is not None and v.label >= 0]
    count = min(count or len(here), len(here))
    videos = [here[number * len(here) // count] for number in range(count)]
    listed = folder / "train.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        lines = [[video.id, annotations.classes[video.label]] for video in videos]
        csv.writer(file).writerows([["id", "label"], *lines])
    return videos, DataConfig(videos=source.videos.absolute(), annotations={"train": listed})


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", required=True, help="As semantic.weights.")
@click.option("--motion", default="random:0", show_default=True, help="As motion.weights.")
@click.option("--keep-of-frames", "kept", default="mean", show_default=True, help="semantic.keep.")
@click.option("--clips", type=click.IntRange(2), help="How many.  [default: all of the split]")
@click.option("--variant", default="gasm_cast", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows a step.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--device", default="auto", show_default=True)
@common_options
def main(
    data: Path,
    weights: str,
    motion: str,
    kept: str,
    clips: int | None,
    variant: str,
    batch: int,
    epochs: int,
    device: str,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    place = choose_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    train = TrainConfig(batch_size=batch, epochs=epochs, device=device)
    weights = str(Path(weights).absolute()) if Path(weights).exists() else weights
    with working_folder(folder, keep) as working:
        videos, source = chosen_clips(data, clips, working)
        config = Stage1Config.model_validate(
            {
                "data": source,
                "semantic": {"weights": weights, "keep": kept},
                "motion": {"weights": motion},
            }
        )
        sides = Sides(videos, config, train, working)
        model = ModelConfig(variant=variant)
        without, theirs = sides.trained(sides.uncached, model)
        cached, ours = sides.trained(sides.cached, model)
    apart = ((ours - theirs).abs() / theirs.abs()).max().item()
    if not apart < ROUNDING:
        raise ValueError(f"losses with and without a cache differ by {apart:.2g}")
    settings = {"device": name, "clips": len(videos), "batch": batch, "epochs": epochs}
    report = Report("epoch_from_cache", settings | {"model": variant, "keep": kept})
    count = len(videos)
    table = [
        ["decode and map every time", without, count / without, 1.0],
        ["from the cache", cached, count / cached, without / cached],
    ]
    report.table("An epoch", ["features", "s", "clips/s", "times as fast"], table)
    many, once = TRAINING * without, sides.extraction
    few = once + TRAINING * cached
    total = [
        ["decode and map every time", None, many, 1.0],
        ["from the cache", once, few, many / few],
    ]
    columns = ["features", "extraction, s", "all, s", "times as fast"]
    report.table(f"A training of {TRAINING} epochs, from these speeds", columns, total)
    report.notes.append(f"losses of the two sides differ by {apart:.2g} at most")
    report.show(output)


if __name__ == "__main__":
    run(main)
