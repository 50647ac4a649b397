"""Which rows are trained on and which are held out: by video, every class in its share."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from tca.cache.failures import failed_rows
from tca.cache.layout import Status, status_words
from tca.cache.store import Store
from tca.console import warn
from tca.errors import TcaError

Rows = np.ndarray[Any, np.dtype[np.int64]]


def labelled_rows(store: Store) -> Rows:
    """Return the rows that were extracted and have a label.

    Raises:
        TcaError: there are none.
    """
    ready = np.asarray(store.ready(), dtype=np.int64)
    rows: Rows = ready[store.label[ready] >= 0]
    if len(rows) == 0:
        reason = "no row has a label"
        remedy = "extract a split with labels first (`tca cache info` shows what is there)"
        if len(ready) == 0:
            reason = "no row has been extracted"
            failed = _failed(store)
            if failed:
                reason = f"no row has features, {failed}"
                remedy = "put that right and extract the split anew, into another store"
        raise TcaError(f"{store.path} has nothing to learn or score from: {reason}; {remedy}.")
    return rows


def _failed(store: Store) -> str:
    """Return how many rows failed with which status, and why most of them did; "" if none."""
    statuses = Counter(map(status_words, store.status[store.status != Status.NOT_EXTRACTED]))
    if not statuses:
        return ""
    counts = ", ".join(f"{count} {words}" for words, count in statuses.most_common())
    _, known = failed_rows(store)
    reasons = Counter(failure.reason for failure in known.values() if failure.reason)
    why = f" (most often: {reasons.most_common(1)[0][0]})" if reasons else ""
    return f"{statuses.total()} of {store.rows} failed: {counts}{why}"


def tell_incomplete(store: Store) -> None:
    """Warn if rows of `store` are still to be extracted: what they show is not seen."""
    left = int((store.status == Status.NOT_EXTRACTED).sum())
    if left:
        warn(
            f"{store.path} is not complete, {left} of {store.rows} rows are not extracted yet; "
            "run `tca extract` again to go on with it."
        )


def split_holdout(store: Store, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Part `rows` into training and holdout; views of one video stay together.

    Every class gives its share of its videos; what rounding leaves over is handed to the next
    class, so that the whole is right where classes are small. A class keeps at least one video in
    training.

    Raises:
        TcaError: the holdout would have fewer videos than there are classes.
    """
    videos, label = video_labels(store, rows)
    present = np.unique(label)
    generator = np.random.default_rng(seed)
    held: list[int] = []
    owed = 0.0
    for name in present:
        members = generator.permutation(videos[label == name])
        owed += share * len(members)
        take = min(int(owed + 0.5), len(members) - 1)
        owed -= take
        held.extend(members[:take])
    if len(held) < len(present):
        enough = min(0.5, np.ceil(100 * len(present) / len(videos) + 1) / 100)
        # Each class keeps a video in training.
        possible = len(videos) - len(present) >= len(present)
        raise TcaError(
            f"train.holdout={share:g} of {len(videos)} videos leaves {len(held)} to choose the "
            f"best checkpoint for {len(present)} classes; "
            + (f"raise it to at least {enough:.2f}, or " if possible and share < enough else "")
            + "set train.holdout=0 to take the last checkpoint."
        )
    outside = np.isin(store.video[rows], held)
    return rows[~outside], rows[outside]


def split_folds(store: Store, rows: Rows, folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Part `rows` into (rest, fold) pairs, stratified, views of one video together.

    Raises:
        TcaError: no class has as many videos as there are folds.
    """
    videos, label = video_labels(store, rows)
    counts = np.bincount(label)
    largest = int(counts.max())
    if not 2 <= folds <= largest:
        raise TcaError(
            f"{folds} folds do not fit: the largest class has {largest} videos; "
            f"choose 2 to {largest} folds."
        )
    small = int(((counts > 0) & (counts < folds)).sum())
    if small:
        warn(f"{small} classes have fewer videos than the {folds} folds: some folds lack them.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folded = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = list(folded.split(videos, label))
    of_row = store.video[rows]
    return [
        (rows[np.isin(of_row, videos[rest])], rows[np.isin(of_row, videos[fold])])
        for rest, fold in parts
    ]


def video_labels(store: Store, rows: Rows) -> tuple[Rows, Rows]:
    """Return the videos of labelled `rows` in ascending order and each one's own label.

    That is the label of its first view in the store: a mirrored view may have another one, the
    first is never mirrored.
    """
    labelled = np.flatnonzero(store.label >= 0)
    by_view = labelled[np.lexsort((store.view[labelled], store.video[labelled]))]
    every, first = np.unique(store.video[by_view], return_index=True)
    videos = np.unique(store.video[rows])
    label = store.label[by_view[first[np.searchsorted(every, videos)]]]
    return videos.astype(np.int64), label.astype(np.int64)
