"""Formats that stream, in `cache_reading.py`: webdataset and litdata through their own loaders."""

# The base classes say what the methods do, `settings` what a reader is.
# ruff: noqa: D101, D102
from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_rows import MadeRows
from reading import ROWS_PER_FILE, StreamReader

SHUFFLE_ROWS = 1000
"""Rows in a shuffle buffer."""


class Webdataset(StreamReader):
    name = family = files = "webdataset"
    settings = "256 rows a tar, raw bytes, shuffle buffer of 1,000, a worker process a thread"
    needs = ("webdataset",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        for numbers, block in made.blocks(ROWS_PER_FILE):
            with tarfile.open(folder / f"{numbers.start // ROWS_PER_FILE:06d}.tar", "w") as tar:
                for number, row in zip(numbers, block, strict=True):
                    member = tarfile.TarInfo(f"{number:06d}.bin")
                    member.size = row.nbytes
                    tar.addfile(member, io.BytesIO(row.tobytes()))

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, threads: int) -> Iterator[Any]:
        import webdataset

        urls = [str(file) for file in sorted(folder.glob("*.tar"))]
        rows = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        rows = rows.shuffle(SHUFFLE_ROWS).batched(batch, collation_fn=partial(_stacked, made.shape))
        return iter(webdataset.WebLoader(rows, batch_size=None, num_workers=threads))


def _stacked(shape: tuple[int, ...], samples: list[dict[str, Any]]) -> Any:
    together = np.empty((len(samples), *shape), np.float16)
    for place, sample in enumerate(samples):
        together[place] = np.frombuffer(sample["bin"], np.float16).reshape(shape)
    return torch.from_numpy(together)


class Litdata(StreamReader):
    name = family = files = "litdata"
    settings = "64 MB a chunk, tensors, `StreamingDataLoader`, shuffled, a worker process a thread"
    needs = ("litdata",)

    @staticmethod
    def write(folder: Path, made: MadeRows) -> None:
        import litdata

        litdata.optimize(
            partial(_row, made),
            list(range(made.rows)),
            str(folder / "chunks"),
            chunk_bytes="64MB",
            num_workers=1,
            verbose=False,
            start_method="fork",  # it stays that for whoever comes after
        )

    @staticmethod
    def batches(folder: Path, made: MadeRows, batch: int, threads: int) -> Iterator[Any]:
        import litdata

        rows = litdata.StreamingDataset(str(folder / "chunks"), shuffle=True, drop_last=False)
        return iter(litdata.StreamingDataLoader(rows, batch_size=batch, num_workers=threads))


def _row(made: MadeRows, number: int) -> Any:
    return torch.from_numpy(made.block(range(number, number + 1))[0])


READERS: tuple[type[StreamReader], ...] = (Webdataset, Litdata)
