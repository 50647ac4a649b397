"""The learning rate of every step, as a share of the highest: a function of the step alone."""

from __future__ import annotations

import math

from tca.fusion.train.config import TrainConfig


def rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the share of `train.lr` in step `step` (from 0) of `steps`.

    First a linear warm-up, then the schedule; what a plateau takes off comes on top.
    """
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    if config.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    elif config.schedule == "linear":
        left = 1 - done
    else:
        return 1.0
    return config.min_lr + (1 - config.min_lr) * left


class Plateau:
    """Lowers the learning rate when the loss on the holdout has stopped falling.

    Its `factor`, which every step's rate is times, is times `plateau_factor` whenever the loss has
    not fallen for `plateau_patience` epochs. torch's ReduceLROnPlateau does so with a patience of
    one less and a threshold of 0; this one goes together with a warm-up.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.factor = 1.0
        self.best = math.inf
        self.waited = 0

    def saw(self, loss: float) -> bool:
        """Take the loss of an epoch; tell whether the rate was lowered."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self._config.plateau_patience:
            return False
        self.factor *= self._config.plateau_factor
        self.waited = 0
        return True
