"""One process that may not hold a store in memory reads it; `cache_cold.py` starts it.

Turns are: the files from front to back (the limit), then the loader with `rows` and with `blocks`.
Prints JSON: by name rows/s of each turn.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from made_rows import numbers_of
from measuring import forget_files, read_files, seconds

from tca.cache.config import LoaderConfig
from tca.cache.loader import Loader
from tca.cache.store import Store

FILES = "files from front to back"


def epoch(path: Path, batch: int, number: int, config: LoaderConfig) -> float:
    """Return rows/s of one epoch.

    Raises:
        ValueError: not every row came once, or under another number.
    """
    store = Store.open(path)
    loader = Loader(store, store.ready(), batch, seed=0, config=config)
    seen = np.zeros(store.rows, np.int64)
    begin = time.perf_counter()
    for found in loader.epoch(number):
        for stream in found.arrays.values():
            if not np.array_equal(numbers_of(stream.numpy()), found.rows):
                raise ValueError(f"{path}: other rows than those asked for")
        seen[found.rows] += 1
    took = time.perf_counter() - begin
    if not (seen == 1).all():
        raise ValueError(f"{path}: rows came {seen.min()} to {seen.max()} times")
    return store.rows / took


def main(path: Path, batch: int, rounds: int, buffer_blocks: int) -> dict[str, list[float]]:
    """Return rows/s of every turn by name."""
    torch.set_num_threads(1)
    rows = Store.open(path).rows
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        works = {FILES: lambda: rows / seconds(partial(read_files, path))}
        for shuffle in ("rows", "blocks"):
            config = LoaderConfig(shuffle=shuffle, buffer_blocks=buffer_blocks)
            works[f"shuffle: {shuffle}"] = partial(epoch, path, batch, number, config)
        for name, work in works.items():
            forget_files(path)
            found.setdefault(name, []).append(work())
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
