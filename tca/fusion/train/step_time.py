"""How long a training step takes, variants in turns: machines are rarely idle, ratios hold."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.console import ProgressLine
from tca.device import autocast, choose_device, out_of_memory
from tca.errors import TcaError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import Features, random_rows
from tca.fusion.model.registry import build
from tca.fusion.model.variant import Variant
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss
from tca.fusion.train.step_memory import StepMemory


@dataclass(frozen=True)
class StepTime:
    """A training step of one variant.

    Attributes:
        seconds: median over the steps.
        ratio: to the first variant's in the same round, median.
        memory: measured, on a GPU; None elsewhere.
    """

    seconds: float
    ratio: float
    memory: StepMemory | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def time_steps(
    variants: Mapping[str, ModelConfig],
    shapes: FeatureShapes,
    classes: Sequence[str],
    train_config: TrainConfig,
    steps: int,
) -> dict[str, StepTime]:
    """Time `steps` training steps of every variant, on random rows that lie on the device.

    In every round each variant makes one step; every other round goes backwards, since whoever is
    next finds the processor's caches in another state. One step of each before them is not timed.

    Args:
        variants: by any name.
        shapes: of the store.
        classes: names of the classes to score.
        train_config: device, precision and batch size.
        steps: rounds.

    Raises:
        UsageError: as `build` and `choose_device`.
        TcaError: not enough memory.
    """
    try:
        return _timed(variants, shapes, classes, train_config, steps)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TcaError(
            f"not enough memory for {len(variants)} variants and {train_config.batch_size} rows at "
            "once; name fewer, or lower --batch-size."
        ) from None


def _timed(
    variants: Mapping[str, ModelConfig],
    shapes: FeatureShapes,
    classes: Sequence[str],
    train_config: TrainConfig,
    steps: int,
) -> dict[str, StepTime]:
    device = choose_device(train_config.device)
    semantic, motion = (
        None if rows is None else rows.to(device)
        for rows in random_rows(shapes, train_config.batch_size)
    )
    label = torch.arange(train_config.batch_size, device=device) % len(classes)
    contenders = {
        name: _Step(build(config, shapes, classes), (semantic, motion), label, train_config)
        for name, config in variants.items()
    }
    memory = {name: contender.memory() for name, contender in contenders.items()}
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    with ProgressLine("time", steps * len(contenders), "steps") as progress:
        for number in range(steps):
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                rounds[name].append(contenders[name].seconds())
                progress.advance()
    first = rounds[next(iter(rounds))]
    return {
        name: StepTime(
            statistics.median(taken),
            statistics.median(ours / theirs for ours, theirs in zip(taken, first, strict=True)),
            memory[name],
        )
        for name, taken in rounds.items()
    }


class _Step:
    """One variant in training, apart from the reading of its rows."""

    def __init__(
        self, model: Variant, features: Features, label: Tensor, config: TrainConfig
    ) -> None:
        self.device = label.device
        self.model = model.to(self.device).train()
        self.features, self.label, self.config = features, label, config
        self.loss = torch.compile(fusion_loss) if config.compile else fusion_loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, fused=True)

    def seconds(self) -> float:
        begin = self._now()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._forward())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return self._now() - begin

    def memory(self) -> StepMemory | None:
        """Make a step that is not timed and, on a GPU, measure what `step_memory` counts."""
        self.seconds()
        if self.device.type != "cuda":
            return None
        # Gradients stay where they are, so that they are not taken for activations.
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        loss = self._forward()
        kept = torch.cuda.memory_allocated(self.device)
        torch.autograd.backward(loss)
        peak = torch.cuda.max_memory_allocated(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        return StepMemory(kept - before, peak - before)

    def _forward(self) -> Tensor:
        with autocast(self.device, self.config.precision):
            loss: Tensor = self.loss(self.model, *self.features, self.label, self.config)
        return loss

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
