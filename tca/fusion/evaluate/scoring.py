"""Scoring a run on a store: the numbers are scikit-learn's, a video counts once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from tca.cache.config import LoaderConfig
from tca.cache.loader import Loader
from tca.cache.residency import RowSource, open_source
from tca.cache.store import Store
from tca.console import warn
from tca.device import autocast, choose_device
from tca.errors import TcaError
from tca.fusion.inputs import batch_inputs
from tca.fusion.model.fusion_model import FusionModel
from tca.fusion.model.variant import Variant
from tca.fusion.rows import Rows, labelled_rows, tell_incomplete, video_labels

BATCH_SIZE = 64


@dataclass(frozen=True)
class ClassScore:
    """One row of the per-class table; shares between 0 and 1."""

    name: str
    videos: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """How well a checkpoint of a run does on a split.

    Attributes:
        run: the run folder.
        checkpoint: "best" or "last".
        split: name of the scored split.
        videos: how many were scored; several views of a video are averaged.
        top1: share of videos whose highest score is the true class.
        top5: the same for the five highest, None with five classes or fewer.
        classes: one entry a class.
        confusion: (classes, classes) counts, a row a true class.
        ids: (videos,) video ids.
        label: (videos,) true classes.
        probability: (videos, classes) softmax, averaged over views.
    """

    run: Path
    checkpoint: str
    split: str
    videos: int
    top1: float
    top5: float | None
    classes: list[ClassScore]
    confusion: np.ndarray[Any, Any]
    ids: list[str]
    label: np.ndarray[Any, Any]
    probability: np.ndarray[Any, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the scores, overall and by class, as JSON."""
        return {
            "run": self.run.name,
            "checkpoint": self.checkpoint,
            "split": self.split,
            "videos": self.videos,
            "top1": self.top1,
            "top5": self.top5,
            "classes": [vars(score) for score in self.classes],
        }


def load_model(run: Path, checkpoint: str = "best", device: str = "auto") -> FusionModel:
    """Return the model of a run, or of a folder that was saved or exported, in evaluation mode.

    Raises:
        TcaError: no model there, no such checkpoint, or a damaged file.
    """
    return FusionModel.open(run, checkpoint).to(choose_device(device))


def evaluate(
    run: Path,
    store: Store,
    checkpoint: str = "best",
    *,
    device: str = "auto",
    loader: LoaderConfig | None = None,
    rows: Rows | None = None,
    source: RowSource | None = None,
) -> Evaluation:
    """Score a run's checkpoint on the good, labelled rows of `store`.

    The probabilities of a video are averaged over its views, apart from those that a flip has given
    another class.

    Args:
        run: the run folder, or one that holds a saved model.
        store: the split to score on.
        checkpoint: best or last.
        device: where the model runs.
        loader: how features are read; the defaults if not given.
        rows: score these only (their good, labelled ones).
        source: where features come from, instead of one made with `loader`.

    Raises:
        TcaError: no such run or checkpoint, features other than those trained on (every difference
            in what the model reads is named), a stream that the model reads and the store lacks, or
            a store without labels.
    """
    model = load_model(run, checkpoint, device)
    record = model.saved.record or {}
    if rows is None:
        tell_incomplete(store)
        _tell_seen(record, store.split)
    model.require_store(store, f"the run {run}")
    usable = _views_of_own_class(store, labelled_rows(store))
    if rows is not None:
        usable = usable[np.isin(usable, rows)]
    if source is None:
        source = open_source(
            store, usable, model.network.streams, loader or LoaderConfig(), choose_device(device)
        )
    probability = predict(model.network, source, usable, model.saved.precision)
    # Several views of one video are one prediction: the average of their probabilities.
    videos, first, of_row = np.unique(store.video[usable], return_index=True, return_inverse=True)
    summed = np.zeros((len(videos), probability.shape[1]))
    np.add.at(summed, of_row, probability)
    mean = summed / np.bincount(of_row)[:, None]
    label = store.label[usable][first].astype(np.int64)
    return _measure(run, checkpoint, store, [store.ids[usable[i]] for i in first], label, mean)


def _views_of_own_class(store: Store, rows: Rows) -> Rows:
    """Leave out views that show another class than their video does: mirrored ones."""
    videos, label = video_labels(store, rows)
    own: Rows = rows[store.label[rows] == label[np.searchsorted(videos, store.video[rows])]]
    return own


def _tell_seen(record: Mapping[str, Any], split: str) -> None:
    """Warn if the model was trained on `split`, or its checkpoint chosen on it."""
    if split == record.get("split"):
        warn(f"this model was trained on {split}; its scores there say nothing about new videos.")
    elif split == record.get("holdout", {}).get("split"):
        warn(f"this model's best checkpoint was chosen on {split}; its scores there are too high.")


@torch.no_grad()
def predict(
    model: Variant, source: RowSource, rows: Rows, precision: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return class probabilities (len(rows), classes), float64, of rows of a store."""
    device, store = next(model.parameters()).device, source.store
    loader = Loader(store, rows, BATCH_SIZE, seed=0, shuffle=False, source=source)
    parts = []
    for batch in loader.epoch(0):
        with autocast(device, precision):
            scores = model(*batch_inputs(batch, model, device))
        parts.append(scores.double().softmax(-1).cpu().numpy())
    probability = np.concatenate(parts)
    broken = np.flatnonzero(~np.isfinite(probability).all(1))
    if len(broken):
        row = int(rows[broken[0]])
        raise TcaError(
            f"the model gives no finite scores for row {row} (id {store.ids[row]}) of {store.path} "
            f"and {len(broken) - 1} more; its features or the weights are damaged."
        )
    return probability


def _measure(
    run: Path,
    checkpoint: str,
    store: Store,
    ids: list[str],
    label: np.ndarray[Any, Any],
    probability: np.ndarray[Any, Any],
) -> Evaluation:
    every = np.arange(len(store.classes))
    predicted = probability.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        label, predicted, labels=every, zero_division=0
    )
    return Evaluation(
        run=run,
        checkpoint=checkpoint,
        split=store.split,
        videos=len(label),
        top1=float(accuracy_score(label, predicted)),
        top5=(
            float(top_k_accuracy_score(label, probability, k=5, labels=every))
            if len(every) > 5
            else None
        ),
        classes=[
            ClassScore(name, int(n), float(p), float(r), float(f))
            for name, n, p, r, f in zip(store.classes, support, precision, recall, f1, strict=True)
        ],
        confusion=confusion_matrix(label, predicted, labels=every),
        ids=ids,
        label=label,
        probability=probability,
    )
