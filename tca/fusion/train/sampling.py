"""Which rows an epoch trains on, where that is not every row once: one view a video, equal classes.

Like the order of rows, both are pure functions of seed and epoch, so that a training goes on in the
middle of an epoch and is the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tca.cache.store import Store
from tca.fusion.rows import Rows
from tca.fusion.train.config import TrainConfig

VIEW, BALANCE = 1, 2
"""Third words of the seeds of what is drawn here; the order of rows is drawn without one.

Not 0: a seed of NumPy is the same with zeros behind it. `augment.py` has those that follow.
"""


def rows_of_epochs(store: Store, rows: Rows, config: TrainConfig) -> Callable[[int], Rows] | None:
    """Return what gives the rows of an epoch; None if it is `rows`, each once."""
    if config.views == "all" and not config.balanced:
        return None
    return partial(_rows_of, store, np.sort(rows), config)


def _rows_of(store: Store, rows: Rows, config: TrainConfig, epoch: int) -> Rows:
    if config.views == "one":
        rows = one_view(rows, store.video[rows].astype(np.int64), config.seed.data, epoch)
    if config.balanced:
        rows = balanced(rows, store.label[rows].astype(np.int64), config.seed.data, epoch)
    return rows


def one_view(rows: Rows, video: Rows, seed: int, epoch: int) -> Rows:
    """Return one of the rows of every video, each as likely as the others.

    Args:
        rows: row numbers (N,).
        video: of which video each is (N,).
        seed: of the training.
        epoch: number of the epoch.
    """
    by_video = np.argsort(video, kind="stable")
    _, first, views = np.unique(video[by_video], return_index=True, return_counts=True)
    drawn = np.random.PCG64([seed, epoch, VIEW]).random_raw(len(views)) % views.astype(np.uint64)
    chosen: Rows = rows[by_video[first + drawn.astype(np.int64)]]
    return chosen


def balanced(rows: Rows, label: Rows, seed: int, epoch: int) -> Rows:
    """Return as many rows as there are, of every class equally many; they differ by one at most.

    Inside a class too every row comes equally often, give or take one: a large class gives some of
    its rows once, a small one all of its rows several times.

    Args:
        rows: row numbers (N,).
        label: of which class each is (N,).
        seed: of the training.
        epoch: number of the epoch.
    """
    classes, of_row = np.unique(label, return_inverse=True)
    keys = np.random.PCG64([seed, epoch, BALANCE]).random_raw(len(rows) + len(classes))
    by_class = np.lexsort((keys[: len(rows)], of_row))
    members = np.split(rows[by_class], np.cumsum(np.bincount(of_row))[:-1])
    share, extra = divmod(len(rows), len(classes))
    wanted = np.full(len(classes), share)
    # What does not divide goes to other classes in every epoch.
    wanted[np.argsort(keys[len(rows) :], kind="stable")[:extra]] += 1
    # `resize` begins again where the rows of a class are used up.
    drawn = [np.resize(some, count) for some, count in zip(members, wanted.tolist(), strict=True)]
    return np.concatenate(drawn)
