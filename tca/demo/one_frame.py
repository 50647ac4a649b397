"""How much a single frame tells of the class: what must be near chance if motion is what counts."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tca.cache.residency import read_decoded
from tca.cache.store import Store
from tca.fusion.rows import labelled_rows


def middle_frame_top1(train: Store, validation: Store) -> float:
    """Return top-1 on `validation` of a linear probe on the middle frame's patches.

    Both stores must hold frames (`semantic.keep: frames`). The probe is ridge regression on
    standardised features, its strength chosen by leave-one-out on `train`.
    """
    parts = []
    for store in (train, validation):
        rows = labelled_rows(store)
        frames = read_decoded(store, "semantic", rows)
        middle = frames[:, frames.shape[1] // 2].reshape(len(rows), -1).float().numpy()
        parts.append((middle, store.label[rows]))
    (features, label), (unseen, truth) = parts
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 6, 13)))
    return float((probe.fit(features, label).predict(unseen) == truth).mean())
