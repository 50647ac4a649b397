"""A folder with a tca.yaml and a small store on disk, and trainings in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from memory_store import moving_dot

from tca.cache.creation import create_store
from tca.cache.layout import RowTable, StoreSpec, Stream
from tca.cache.writer import StoreWriter

CONFIG = """
data: {videos: none, annotations: {train: none.json}}
model: {bottleneck: 16, heads: 2, layers: 1, ratio: 1, rank: 8, similar: 2, radius: 1}
train:
  {epochs: 6, batch_size: 16, lr: 3.0e-3, holdout: 0.2, device: cpu, save_steps: 1,
   seed: {data: 3, model: 3}}
stores: "{split}.zarr"
"""


def write_train_project(folder: Path) -> Path:
    """Write both into `folder` and return it."""
    memory = moving_dot(96)
    table = RowTable(
        ids=memory.ids,
        label=memory.label,
        video=memory.video,
        view=memory.view,
    )
    spec = StoreSpec(
        split="train",
        rows=table,
        streams={name: Stream((96, *s.row_shape), "float16") for name, s in memory.streams.items()},
        rows_per_shard=32,
        classes=tuple(memory.classes),
        identity={"keep": "frames"},
        record={},
        grid=memory.grid,
    )
    create_store(folder / "train.zarr", spec, "zarr")
    writer = StoreWriter(folder / "train.zarr")
    for shard in range(3):
        rows = list(writer.shard_rows(shard))
        features = {name: list(getattr(memory, name)[rows]) for name in memory.streams}
        writer.commit(shard, features, memory.status[rows])
    (folder / "tca.yaml").write_text(CONFIG)
    return folder


TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]


def start(project: Path, *arguments: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    # Or torchrun takes our --run for its own --run-path.
    separator = ["--"] if launcher else []
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", *separator, "tca", "train-fusion", *arguments],
        cwd=project,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
