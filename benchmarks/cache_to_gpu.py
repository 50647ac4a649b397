"""How fast batches reach a GPU, by where the rows are kept and how they are stored.

The limit of rows that come from the disk's file cache or from RAM is the bus: copying a pinned
buffer of the same bytes. That of rows that are on the GPU already is gathering them there from one
tensor. Both take turns with the loader, which checks every row that it reads from files.

    python benchmarks/cache_to_gpu.py --rows 20000
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import click
import numpy as np
import torch
from made_rows import MadeRows, made_spec
from measuring import seconds, take_turns
from report import Report, common_options, run, working_folder

from tca.cache.config import LoaderConfig
from tca.cache.layout import Status
from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.cache.types import encode, to_numpy
from tca.cache.writer import StoreWriter

SHAPES = {"semantic": (196, 768), "motion": (8, 512)}
Place = Literal["disk", "ram", "gpu"]


@click.command()
@click.option("--rows", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@common_options
def command(
    rows: int, batch_size: int, rounds: int, output: str | None, keep: bool, folder: Path | None
) -> None:
    """Measure rows/s of whole epochs as floating point on the GPU."""
    if not torch.cuda.is_available():
        raise click.UsageError("this measures copies to a GPU, and there is none here.")
    device = torch.device("cuda")
    report = Report(
        "cache_to_gpu",
        {"rows": rows, "batch_size": batch_size, "device": torch.cuda.get_device_name(device)},
    )
    table = []
    with working_folder(folder, keep) as working:
        for stored in ("float16", "int8"):
            path = working / f"{stored}.zarr"
            _write(path, rows, stored)
            store = Store.open(path)
            for place in get_args(Place):
                table.append([stored, place, *_measured(store, place, batch_size, rounds, device)])
                torch.cuda.empty_cache()
    columns = ["stored as", "rows kept", "rows/s", "GB/s", "limit, rows/s", "ratio"]
    report.table("batches as floating point on the GPU", columns, table)
    report.show(output)


def _write(path: Path, rows: int, stored: str) -> None:
    spec = made_spec(rows, SHAPES)
    streams = {name: replace(stream, type=stored) for name, stream in spec.streams.items()}
    spec = replace(spec, streams=streams)
    made = {name: MadeRows(rows, shape) for name, shape in SHAPES.items()}
    writer = StoreWriter.open_or_create(path, spec, "zarr")
    for shard in range(writer.shards):
        numbers = writer.shard_rows(shard)
        features = {}
        for name in SHAPES:
            encoded = encode(name, torch.from_numpy(made[name].block(numbers)), stored)
            features |= {array: list(to_numpy(values)) for array, values in encoded.items()}
        writer.commit(shard, features, np.full(len(numbers), Status.OK, np.uint8))


def _measured(
    store: Store, place: Place, batch_size: int, rounds: int, device: torch.device
) -> list[float]:
    """Return rows/s, GB/s, rows/s of the limit and the ratio of the two."""
    config = LoaderConfig(residency=place)
    loader = Loader(store, store.ready(), batch_size, seed=0, config=config, device=device)
    epochs = itertools.count()
    ours = _per_second(store.rows, lambda: _epoch(loader, next(epochs), device))
    limit = _per_second(store.rows, _limit(loader, batch_size, device))
    # The first time fills the file cache and pins memory.
    ours()
    limit()
    speed, bound, ratio = take_turns(limit, {place: ours}, rounds)[place]
    return [speed, speed * loader.source.row_bytes / 1e9, bound, ratio]


def _epoch(loader: Loader, epoch: int, device: torch.device) -> None:
    for batch in loader.epoch(epoch):
        for stream in SHAPES:
            batch.features(stream, device)


def _limit(loader: Loader, batch_size: int, device: torch.device) -> Callable[[], None]:
    """Return what moves the bytes of an epoch without a loader."""
    rows = len(loader.rows)
    size = loader.source.row_bytes
    if loader.config.residency == "gpu":
        whole = torch.zeros(rows, size, dtype=torch.uint8, device=device)
        order = torch.randperm(rows, device=device)

        def gather() -> None:
            for places in order.split(batch_size):
                whole.index_select(0, places)

        return gather
    pinned = torch.zeros(batch_size, size, dtype=torch.uint8, pin_memory=True)

    def copy() -> None:
        for first in range(0, rows, batch_size):
            pinned[: rows - first].to(device, non_blocking=True)

    return copy


def _per_second(rows: int, work: Callable[[], None]) -> Callable[[], float]:
    def timed() -> float:
        def finished() -> None:
            work()
            torch.cuda.synchronize()

        torch.cuda.synchronize()
        return rows / seconds(finished)

    return timed


if __name__ == "__main__":
    run(command)
