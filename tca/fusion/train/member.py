"""One model in training: its weights, optimiser, average and learning rate, step by step.

A training has one member; those of a sweep that share a pass over the cache have one each. A member
knows nothing of where batches come from, and everything that its next step depends on is in
`state`: every step begins with a seed of its own, so that no generator has to be kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tca.cache.layout import FeatureShapes
from tca.device import autocast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import build
from tca.fusion.model.variant import STREAMS, Variant
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.decay import parameter_groups
from tca.fusion.train.loss import Objective
from tca.fusion.train.schedule import Plateau, rate
from tca.fusion.train.world import World

Inputs = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Step:
    """What one step came to; the tensors wait for nobody.

    Attributes:
        loss: this process's share of the mean over the batch, a scalar on the device; those of all
            processes add up to it.
        norm: length of the gradient before it was cut, a scalar on the device.
        lr: the learning rate.
    """

    loss: Tensor
    norm: Tensor
    lr: float


class Member:
    """One model and how it is trained."""

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        shapes: FeatureShapes,
        classes: Sequence[str],
        world: World,
    ) -> None:
        """Build the model from `seed.model` alone, whatever was drawn before.

        Raises:
            UsageError: settings that do not fit the store, or name no parameter.
        """
        self.config, self.model_config = config, model_config
        self.world, self.device = world, world.device
        # Weights are drawn on the CPU; without a list, every GPU is asked.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed.model)
            self.model: Variant = build(model_config, shapes, classes).to(self.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config), lr=config.lr, fused=True
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.plateau = Plateau(config)
        self.average: AveragedModel | None = None
        self._objective: nn.Module | None = None

    def begin(self) -> None:
        """Make what copies the model; its statistics are fitted by now."""
        if self.config.ema:
            average = get_ema_multi_avg_fn(self.config.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=average)
        objective: nn.Module = Objective(self.model, self.config)
        if self.world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            objective = DistributedDataParallel(objective, device_ids=ids)
        if self.config.compile:
            objective.compile()
        self._objective = objective

    @property
    def scored(self) -> Variant:
        """The model that is scored and kept: the average, where there is one."""
        if self.average is None:
            return self.model
        average = self.average.module
        assert isinstance(average, Variant)
        return average

    def reads(self, features: Mapping[str, Tensor]) -> Inputs:
        """Return those of a batch's features that the model reads."""
        semantic, motion = (
            features[name] if name in self.model.streams else None for name in STREAMS
        )
        return semantic, motion

    def step(self, inputs: Inputs, target: Tensor, rows: int, number: int, steps: int) -> Step:
        """Learn from a batch.

        Args:
            inputs: semantic and motion of this process's rows, on the device.
            target: as for `fusion_loss`.
            rows: of the batch, in all processes.
            number: of the step, from 0; decides the learning rate and what dropout draws.
            steps: how many there will be.
        """
        assert self._objective is not None
        self.model.train()
        torch.manual_seed(step_seed(self.config.seed.model, number, self.world.rank))
        loss = self._backward(self._objective, inputs, target, rows)
        return self.learn(loss, number, steps)

    def learn(self, loss: Tensor, number: int, steps: int) -> Step:
        """Do the second half of a step, with the gradient that the weights hold; see `step`."""
        lr = self.config.lr * rate(self.config, number, steps) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return Step(loss, norm, lr)

    def _backward(self, objective: nn.Module, inputs: Inputs, target: Tensor, rows: int) -> Tensor:
        """Leave the gradient of the mean loss of `rows` rows; return this process's share of it."""
        here = len(target)
        if here == 0:
            # Other processes have rows and wait for a gradient of this one: of nothing, zero.
            inputs = _zeros_row(inputs[0]), _zeros_row(inputs[1])
            target = target.new_zeros(1, *target.shape[1:])
        total = torch.zeros((), device=self.device)
        for some in in_parts(here, self.config.accumulate):
            share = (some.stop - some.start) / rows
            # Where processes share a gradient, the last part of each sends it.
            waits = self.world.size > 1 and some.stop < here
            if here == 0:
                some = slice(0, 1)
            with objective.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with autocast(self.device, self.config.precision):
                    loss = objective(_rows(inputs[0], some), _rows(inputs[1], some), target[some])
                # Processes' gradients are averaged, and the rows of all count alike.
                torch.autograd.backward(self.scaler.scale(loss * (share * self.world.size)))
            total += loss.detach() * share
        return total

    @torch.no_grad()
    def score(self, inputs: Inputs, label: Tensor) -> Tensor:
        """Return how many rows were right and the sum of their losses, (2,) float64."""
        model = self.scored.eval()
        with autocast(self.device, self.config.precision):
            scores = model(*inputs)
        exact = scores.float()
        right = (exact.argmax(-1) == label).sum()
        return torch.stack(
            (right.double(), F.cross_entropy(exact, label, reduction="sum").double())
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the next step depends on: tensors by name, and numbers as JSON."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average is not None:
            average = self.average.state_dict()
            tensors |= {f"average.{name}": value for name, value in average.items()}
        names = self._optimised()
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{what}": v for what, v in values.items()}
        plateau = self.plateau
        numbers = {
            "scaler": self.scaler.state_dict(),
            "plateau": [plateau.factor, _finite(plateau.best), plateau.waited],
        }
        return tensors, numbers

    def _optimised(self) -> list[str]:
        """Return the names of parameters in the optimiser's order, which `decay_rules` decides."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        groups = self.optimizer.param_groups
        return [names[id(parameter)] for group in groups for parameter in group["params"]]

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take over what `state` returned; `begin` has been called.

        Raises:
            KeyError, RuntimeError, ValueError: it is of another model or optimiser.
        """
        self.model.load_state_dict(_below("model", tensors))
        if self.average is not None:
            self.average.load_state_dict(_below("average", tensors))
        index = {name: number for number, name in enumerate(self._optimised())}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimizer", tensors).items():
            name, _, what = key.rpartition(".")
            states.setdefault(index[name], {})[what] = value
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict(whole | {"state": states})
        self.scaler.load_state_dict(numbers["scaler"])
        factor, best, waited = numbers["plateau"]
        self.plateau.factor, self.plateau.waited = factor, waited
        self.plateau.best = math.inf if best is None else best


def in_parts(rows: int, most: int) -> Iterator[slice]:
    """Yield `most` parts of a batch, or fewer if there are fewer rows; one of a batch without."""
    parts = max(1, min(most, rows))
    for part in range(parts):
        yield slice(part * rows // parts, (part + 1) * rows // parts)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return what a step's generator begins with; neighbours have nothing in common."""
    text = f"{seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def _rows(numbers: Tensor | None, some: slice) -> Tensor | None:
    return None if numbers is None else numbers[some]


def _zeros_row(numbers: Tensor | None) -> Tensor | None:
    return None if numbers is None else numbers.new_zeros(1, *numbers.shape[1:])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
