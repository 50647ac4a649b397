"""What a training leaves to go on from: all of its state, and the weights of its best epochs.

`state/step-N.safetensors` holds what a resume needs; two are kept, so that one that a crash spoiled
costs a few steps and no run. `epochs/epoch-N.safetensors` holds weights, `best.safetensors` is a
copy of the best of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tca.console import warn
from tca.errors import TcaError
from tca.fusion.tensor_file import read_tensors, write_tensors

KEPT_STATES = 2

PROGRESS = "progress"
"""Name of the tensor that holds the numbers of a state, as JSON: one sum covers all."""


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: the one under way, from 1; 0 before the first.
        position: rows of it that have been used.
        step: steps done.
        best_epoch, best_top1, best_loss: of the holdout so far.
        losses: sum of the losses of this epoch's steps, and their number.
        kept: [top-1, loss, epoch] of the epochs whose weights are kept, the best first.
        log_bytes: of `log.jsonl`, when this was written.
        finished: no step is left.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    best_epoch: int = 0
    best_top1: float | None = None
    best_loss: float | None = None
    losses: tuple[float, int] = (0.0, 0)
    kept: list[list[float]] = field(default_factory=list)
    log_bytes: int = 0
    finished: bool = False

    @property
    def train_loss(self) -> float:
        """Mean loss of this epoch's steps so far."""
        total, count = self.losses
        return total / count if count else math.nan


def save_state(
    run: Path, progress: Progress, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """Write a state of `run`, and remove those that are no longer needed.

    Raises:
        TcaError: the disk is full, or cannot be written; former states stay.
    """
    text = json.dumps({"progress": asdict(progress), "member": numbers}).encode()
    written = {**tensors, PROGRESS: torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    folder = run / "state"
    folder.mkdir(exist_ok=True)
    write_tensors(folder / f"step-{progress.step:09d}.safetensors", written)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT_STATES]:
        old.unlink(missing_ok=True)


def saved_steps(run: Path) -> list[int]:
    """Return the steps whose states are there, the newest first."""
    names = [file.stem.removeprefix("step-") for file in (run / "state").glob("step-*.safetensors")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def load_state(run: Path, step: int) -> tuple[Progress, dict[str, Tensor], dict[str, Any]] | None:
    """Return a state; None, with a warning, if it is damaged."""
    file = run / "state" / f"step-{step:09d}.safetensors"
    try:
        tensors = read_tensors(file, "the state before it is taken")
        document = json.loads(tensors.pop(PROGRESS).numpy().tobytes())
        progress = Progress(**document["progress"])
    except TcaError as error:
        warn(str(error))
        return None
    except (KeyError, TypeError, ValueError):
        warn(f"{file} is no state of this tca; the one before it is taken.")
        return None
    return progress, tensors, document["member"]


def keep_epoch(run: Path, progress: Progress, weights: dict[str, Tensor], most: int) -> None:
    """Keep the weights of this epoch if it is among the `most` best; drop the one it displaces.

    Args:
        run: the run folder.
        progress: `kept` is changed; its last epoch is judged by [top-1, loss].
        weights: of the epoch.
        most: how many are kept.

    Raises:
        TcaError: the disk is full, or cannot be written.
    """
    folder = run / "epochs"
    progress.kept.sort(key=lambda entry: (-entry[0], entry[1]))
    if progress.epoch in [int(entry[2]) for entry in progress.kept[:most]]:
        folder.mkdir(exist_ok=True)
        write_tensors(epoch_file(run, progress.epoch), weights)
    for entry in progress.kept[most:]:
        epoch_file(run, int(entry[2])).unlink(missing_ok=True)
    del progress.kept[most:]


def epoch_file(run: Path, epoch: int) -> Path:
    """Return where the weights of an epoch lie."""
    return run / "epochs" / f"epoch-{epoch:04d}.safetensors"
