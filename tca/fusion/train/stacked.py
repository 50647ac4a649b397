"""Members that step as one batched model: their weights stacked, one pass forward and back for all.

For small models most of a step is the starting of operations, and a stack starts as many as one
model. What comes out is what each member would come to alone, up to rounding: only the loss and its
gradient are taken together, and all that follows is the member's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tca.device import autocast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import OWN
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import Objective
from tca.fusion.train.member import Inputs, Member, Step, in_parts, step_seed
from tca.fusion.train.own_draws import OwnDraws

OF_THE_LOSS = ("precision", "accumulate", "label_smoothing", "layer_weight")
"""Settings of `train` in which the members of a stack agree, beside those of a pass."""


def obstacle(model: ModelConfig, train: TrainConfig) -> str | None:
    """Return which setting keeps a member out of any stack; None if there is none."""
    if model.variant not in OWN:
        return f"model.variant={model.variant}, which a package plugs in"
    if model.checkpointing:
        return "model.checkpointing=true"
    if train.compile:
        return "train.compile=true"
    return "train.precision=float16" if train.precision == "float16" else None


def alike(configs: Sequence[tuple[ModelConfig, TrainConfig]]) -> list[list[int]]:
    """Return which members of a pass can be stacked, by index: those of a stack together.

    They have the same `model` and agree in `OF_THE_LOSS`. Seed, learning rate, weight decay and
    what else the optimiser and the average follow may differ.
    """
    groups: dict[str, list[int]] = {}
    for index, (model, train) in enumerate(configs):
        if obstacle(model, train) is None:
            key = f"{model!r} {[getattr(train, name) for name in OF_THE_LOSS]}"
            groups.setdefault(key, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


class Stack:
    """Members whose weights lie in one tensor a parameter, (members, …).

    A member's model sees its own part of them, so that it is scored, saved and averaged as ever.

    Args:
        members: of one pass, as `alike` allows; all have begun, and are in no other stack.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.device, self.config = self.members[0].device, self.members[0].config
        objectives = [Objective(member.model, self.config) for member in self.members]
        self._objective = objectives[0]
        by_member = [dict(objective.named_parameters()) for objective in objectives]
        self._weights: dict[str, Tensor] = {}
        for name in by_member[0]:
            stacked = torch.stack([weights[name].detach() for weights in by_member])
            for weights, part in zip(by_member, stacked, strict=True):
                weights[name].data = part
            self._weights[name] = stacked.requires_grad_()
        self._parts = [[weights[name] for name in self._weights] for weights in by_member]

    def dissolve(self) -> None:
        """Give every member its weights back; the stack is of no use after it."""
        for parts in self._parts:
            for part in parts:
                part.data = part.data.clone()
        self._weights = {}

    def step(
        self, inputs: Inputs, target: Tensor, rows: int, number: int, steps: int
    ) -> list[Step]:
        """Have all members learn from a batch; see `Member.step`."""
        self._objective.train()
        seeds = [step_seed(member.config.seed.model, number, 0) for member in self.members]
        draws = OwnDraws(seeds, self.device)
        total = torch.zeros(len(self.members), device=self.device)
        for some in in_parts(len(target), self.config.accumulate):
            share = (some.stop - some.start) / rows
            semantic, motion = (None if given is None else given[some] for given in inputs)
            losses = self._losses(draws, semantic, motion, target[some])
            # No member's loss depends on another's weights: the gradient of the sum holds each.
            torch.autograd.backward(losses.sum() * share)
            total += losses.detach() * share
        self._hand_out_gradients()
        return [
            member.learn(loss, number, steps)
            for member, loss in zip(self.members, total, strict=True)
        ]

    def _losses(
        self, draws: OwnDraws, semantic: Tensor | None, motion: Tensor | None, target: Tensor
    ) -> Tensor:
        """Return the mean loss of every member, (members,)."""

        def loss(weights: dict[str, Tensor], member: Tensor) -> Tensor:
            draws.member = member
            # Statistics of the rows and tables are the first member's: they are the same in all.
            found: Tensor = functional_call(self._objective, weights, (semantic, motion, target))
            return found

        number = torch.arange(len(self.members), device=self.device)
        with draws, autocast(self.device, self.config.precision):
            losses: Tensor = vmap(loss, randomness="error")(self._weights, number)
        return losses

    def _hand_out_gradients(self) -> None:
        for index, stacked in enumerate(self._weights.values()):
            if stacked.grad is not None:
                for parts, gradient in zip(self._parts, stacked.grad, strict=True):
                    parts[index].grad = gradient
                stacked.grad = None
