"""The record of a run: JSON lines and TensorBoard's files, cut where a resumed run goes on."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from torch.utils.tensorboard import SummaryWriter
from typing_extensions import override

from tca.fusion.model.variant import Variant
from tca.fusion.train.hooks import EpochReport, Hook, StepReport


class RunLog(Hook):
    """Writes `log.jsonl` and TensorBoard's event files into the run folder.

    Args:
        log_bytes: of `log.jsonl` that a resumed run keeps; what comes after it is told again.
    """

    def __init__(self, log_bytes: int) -> None:
        self._keep = log_bytes
        self._file: IO[str] | None = None
        self._board: SummaryWriter | None = None

    @property
    def size(self) -> int:
        """Bytes of `log.jsonl` so far, all of them on their way to the disk."""
        assert self._file is not None
        self._file.flush()
        return self._file.tell()

    @override
    def begin(self, run: Path, model: Variant, step: int) -> None:
        path = run / "log.jsonl"
        if path.exists():
            os.truncate(path, min(self._keep, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run), purge_step=step + 1 if step else None)

    @override
    def step(self, report: StepReport) -> None:
        self._line(
            {
                "epoch": report.epoch,
                "step": report.step,
                "loss": report.loss,
                "lr": report.lr,
                # JSON has no infinity, which scaling finds out by.
                "norm": report.norm if math.isfinite(report.norm) else None,
                "rows_per_s": report.rows_per_s,
                "waiting": report.waiting,
            }
        )
        for name in ("loss", "lr", "norm", "rows_per_s", "waiting"):
            self._add(f"train/{name}", getattr(report, name), report.step)

    @override
    def epoch(self, report: EpochReport, model: Variant) -> None:
        document = asdict(report)
        del document["step"]
        self._line({name: value for name, value in document.items() if value is not None})
        for name in ("top1", "loss"):
            value = getattr(report, f"holdout_{name}")
            if value is not None:
                self._add(f"holdout/{name}", value, report.step)

    @override
    def end(self, run: Path) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _line(self, document: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(document) + "\n")

    def _add(self, name: str, value: float, step: int) -> None:
        assert self._board is not None
        self._board.add_scalar(name, value, step)
