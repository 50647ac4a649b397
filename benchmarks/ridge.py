"""What ridge regression scores on a store: the floor that a fusion model has to beat.

Ridge on standardised features, every frame's patches averaged into a coarse grid and all segments
kept in order, is hard to beat on a few hundred videos. Folds are those of
`tca.fusion.train.cross_validation`, so a row of this table stands beside a row of a trained model.
The strength is chosen by cross-validation inside the training part. Several views of a video are so
many rows to learn from, and one prediction: the average of its scores.

    python benchmarks/ridge.py cache/train.zarr --pool-grid 4 --folds 5
    python benchmarks/ridge.py cache/train.zarr --test cache/validation.zarr
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tca.cache.residency import read_decoded
from tca.cache.store import Store
from tca.console import print_table
from tca.errors import TcaError
from tca.fusion.features import require_same_features
from tca.fusion.rows import Rows, labelled_rows, split_folds, video_labels

STRENGTHS = np.logspace(1, 6, 6)
Features = np.ndarray[Any, np.dtype[np.float32]]


def semantic_features(store: Store, rows: Rows, cells: int, departures: bool) -> Features:
    """Return patches averaged to at most cells x cells a frame, (rows, features)."""
    height, across = store.grid
    down, right = (-(-side // min(cells, side)) for side in (height, across))
    parts = []
    for row in rows:
        patches = read_decoded(store, "semantic", np.asarray([row]))[0].float().numpy()
        frames = patches.reshape(-1, height, across, patches.shape[-1])
        pooled = np.stack(
            [
                frames[:, y : y + down, x : x + right].mean((1, 2))
                for y in range(0, height, down)
                for x in range(0, across, right)
            ],
            axis=1,
        )
        parts.append((pooled - pooled.mean(0) if departures else pooled).ravel())
    return np.stack(parts)


def motion_features(store: Store, rows: Rows) -> Features:
    """Return all segments in order, (rows, features)."""
    return read_decoded(store, "motion", rows).float().numpy().reshape(len(rows), -1)


def fitted(features: Features, store: Store, rows: Rows) -> Any:
    """Return standardisation and ridge, the strength chosen by 3-fold cross-validation."""
    model = make_pipeline(StandardScaler(), RidgeClassifier(solver="cholesky"))
    search = GridSearchCV(model, {"ridgeclassifier__alpha": STRENGTHS}, cv=GroupKFold(3))
    return search.fit(features, store.label[rows], groups=store.video[rows])


def top1(model: Any, features: Features, store: Store, rows: Rows) -> float:
    """Return the share of videos whose highest score, averaged over views, is the true class."""
    videos, label = video_labels(store, rows)
    of_row = np.searchsorted(videos, store.video[rows])
    # A mirrored view may show another class than its video.
    own = store.label[rows] == label[of_row]
    scores = np.zeros((len(videos), len(model.classes_)))
    np.add.at(scores, of_row[own], model.decision_function(features[own]))
    return float(np.mean(model.classes_[scores.argmax(1)] == label))


@click.command(help=__doc__)
@click.argument("store_path", type=click.Path(path_type=Path))
@click.option("--pool-grid", default=4, show_default=True, help="Cells down and across a frame.")
@click.option("--folds", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the folds, as `train.seed`.")
@click.option("--test", "test_path", type=click.Path(path_type=Path), help="A store to score once.")
def main(store_path: Path, pool_grid: int, folds: int, seed: int, test_path: Path | None) -> None:
    store = Store.open(store_path)
    rows = labelled_rows(store)
    inputs = {
        "semantic": lambda s, r: semantic_features(s, r, pool_grid, False),
        "motion": motion_features,
    }
    if store.shapes.segments is not None:
        inputs["semantic, clip average taken off"] = lambda s, r: semantic_features(
            s, r, pool_grid, True
        )
    inputs["both"] = lambda s, r: np.hstack(
        [semantic_features(s, r, pool_grid, False), motion_features(s, r)]
    )
    test = None
    if test_path is not None:
        test = Store.open(test_path)
        what = f"{test_path} holds other features"
        require_same_features(test, store.classes, store.identity, list(store.streams), what)
    table = []
    for name, features_of in inputs.items():
        features = features_of(store, rows)
        scores = []
        for rest, fold in split_folds(store, rows, folds, seed):
            fit, held = np.isin(rows, rest), np.isin(rows, fold)
            model = fitted(features[fit], store, rows[fit])
            scores.append(top1(model, features[held], store, rows[held]))
        line = [name, features.shape[1], f"{np.mean(scores):.3f}", f"{np.std(scores):.3f}"]
        if test is not None:
            there = labelled_rows(test)
            model = fitted(features, store, rows)
            line.append(f"{top1(model, features_of(test, there), test, there):.3f}")
        table.append(line)
    columns = ["ridge on", "features", f"top-1, {folds} folds", "spread"]
    print_table(f"{store_path}", columns + (["top-1, test"] if test is not None else []), table)


if __name__ == "__main__":
    try:
        main()
    except TcaError as error:
        sys.exit(f"error: {error}")
