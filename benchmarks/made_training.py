"""Trainings on made rows that last about as long as asked for, whatever the model and the machine.

A step of the default model takes a CPU seconds and a GPU milliseconds: a fixed number of rows would
be too few for one of them, or take the other an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from made_rows import MadeRows, write_store
from measuring import read_files

from tca.cache.order import Rows
from tca.cache.store import Store
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.step_time import time_steps

SHAPES = {"semantic": (196, 768), "motion": (8, 512)}
"""Of the rows of the default backbones, 309 kB together."""

MOST_ROWS = 0x7BFF
"""A made row begins with its number's bits; those of a higher one are no finite float16."""

TRIED_STEPS = 3
LEAST_STEPS = 4


def warm_store(folder: Path, rows: int, store_format: str) -> Store:
    """Write a store of made rows, read it once so that the file cache has it, and open it."""
    path = folder / f"train.{'zarr' if store_format == 'zarr' else 'h5'}"
    write_store(path, {name: MadeRows(rows, shape) for name, shape in SHAPES.items()}, store_format)
    read_files(path)
    return Store.open(path)


def train_config(settings: Mapping[str, Any]) -> TrainConfig:
    """Return the defaults but for `settings`, without a holdout: only steps are measured."""
    return TrainConfig.model_validate({"holdout": 0.0, **settings})


def rows_lasting(seconds: float, store: Store, model: ModelConfig, config: TrainConfig) -> Rows:
    """Return rows by chance, whole batches, whose epoch takes about `seconds`.

    Fewer if the store has no more, and `LEAST_STEPS` batches at least.
    """
    only = {"model": model}
    taken = time_steps(only, store.shapes, store.classes, config, TRIED_STEPS)["model"].seconds
    steps = max(LEAST_STEPS, int(seconds / taken))
    batches = min(steps, store.rows // config.batch_size)
    chosen = np.random.default_rng(0).permutation(store.rows)[: batches * config.batch_size]
    return np.sort(chosen).astype(np.int64)
