"""K-fold cross-validation inside one store: every video is scored once, by a model without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.config import LoaderConfig
from tca.cache.residency import open_source
from tca.cache.store import Store
from tca.config import read_yaml
from tca.device import choose_device
from tca.errors import TcaError
from tca.fusion.evaluate.scoring import evaluate
from tca.fusion.inputs import require_inputs
from tca.fusion.model.config import ModelConfig
from tca.fusion.rows import Rows, labelled_rows, split_folds, tell_incomplete
from tca.fusion.run_folder import (
    RunFolder,
    dropped_if_empty,
    sole_trainer,
    write_config,
    write_json,
)
from tca.fusion.train.candidate import deciding, differences
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loop import train, training_rows
from tca.fusion.train.run_info import rows_digest


@dataclass(frozen=True)
class FoldSummary:
    """Top-1 of every fold, their mean and their standard deviation; shares between 0 and 1."""

    run: Path
    folds: list[float]
    mean: float
    spread: float
    videos: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return vars(self) | {"run": str(self.run)}


def cross_validate(
    store: Store,
    model_config: ModelConfig,
    train_config: TrainConfig,
    folds: int,
    run: Path,
    *,
    resolved: Mapping[str, Any],
    loader: LoaderConfig | None = None,
    resume: bool = False,
) -> FoldSummary:
    """Train `folds` models, each on the other folds, and score each on its own.

    Folds are stratified and drawn by video with `train.seed`. Checkpoints are chosen on the holdout
    inside the training folds (or are the last, with `train.holdout=0`), never on the fold that is
    reported. Writes `config.yaml`, `fold-1` … and `folds.json` into `run`; with `resume` it goes on
    with what is there, made with the same arguments.

    Raises:
        TcaError: as `train`, or more folds than the classes have videos; without `resume`, a folder
            that is not empty.
    """
    tell_incomplete(store)
    streams = require_inputs(store, model_config.variant)
    loader = loader or LoaderConfig()
    scores: list[float] = []
    videos = 0
    with sole_trainer(run), dropped_if_empty(run):
        if not resume and any(run.iterdir()):
            raise TcaError(f"{run} is not empty; name another run folder, or --resume it.")
        usable = labelled_rows(store)
        parts = split_folds(store, usable, folds, train_config.seed.data)
        # One copy in memory, if there is to be one, serves all folds.
        device = choose_device(train_config.device)
        source = open_source(store, usable, streams, loader, device)
        write_config(run, resolved)
        for number, (rest, fold) in enumerate(parts, 1):
            folder = run / f"fold-{number}"
            if resume and _is_finished(folder):
                _require_same(folder, store, train_config, rest, streams, resolved)
            else:
                train(
                    store,
                    model_config,
                    train_config,
                    folder,
                    resolved=resolved,
                    loader=loader,
                    rows=rest,
                    source=source,
                    resume=resume,
                )
            result = evaluate(folder, store, device=train_config.device, rows=fold, source=source)
            scores.append(result.top1)
            videos += result.videos
    summary = FoldSummary(run, scores, float(np.mean(scores)), float(np.std(scores)), videos)
    write_json(run / "folds.json", summary.to_json() | {"run": run.name})
    return summary


def _is_finished(fold: Path) -> bool:
    return (fold / "run.json").is_file() and RunFolder(fold).outcome() is not None


def _require_same(
    fold: Path,
    store: Store,
    config: TrainConfig,
    rest: Rows,
    streams: Sequence[str],
    resolved: Mapping[str, Any],
) -> None:
    """Refuse a finished fold that learnt from other rows, or in another way, than is asked for."""
    fit, held, _ = training_rows(store, config, None, rest, streams)
    began = RunFolder(fold).info()
    if began.get("digest") != rows_digest(store, fit) + rows_digest(store, held):
        raise TcaError(
            f"{fold} learnt from other rows than {store.path} has for it now, and may know those "
            "that it would be scored on; cross-validate anew."
        )
    if changed := differences(deciding(read_yaml(fold / "config.yaml")), deciding(resolved)):
        raise TcaError(
            f"{fold} was trained with other settings than these ({changed}); cross-validate anew."
        )
