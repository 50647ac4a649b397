"""Dilating in time instead of halving it, so that 16 frames give 8 segments and not 2.

What halves time keeps its kernel and loses its stride; what comes behind it skips steps, and so
sees the steps that it saw before. The outputs of the published network are all still there, four
apart; those between are what it says of the steps between.
"""

from __future__ import annotations

import math

from torch import nn


def keep_time(stages: nn.Sequential) -> None:
    """Halve time once in `stages`, and dilate instead from then on; changes them.

    The convolution or pooling that loses its stride keeps the dilation before it; all behind it
    double it.
    """
    halvings, dilation = 0, 1
    for name, stage in stages.named_children():
        behind = dilation
        if any(_halves(module) for module in stage.modules()):
            halvings += 1
            behind *= 2 if halvings > 1 else 1
        if behind > 1:
            setattr(stages, name, _dilated(stage, dilation, behind))
        dilation = behind


def _halves(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv3d | nn.MaxPool3d) and _triple(module.stride)[0] == 2


def _dilated(module: nn.Module, before: int, behind: int) -> nn.Module:
    """Return `module` without its stride in time, or what takes its place."""
    for name, child in module.named_children():
        setattr(module, name, _dilated(child, before, behind))
    step = before if _halves(module) else behind
    if isinstance(module, nn.Conv3d):
        module.stride = (1, *module.stride[1:])
        if module.kernel_size[0] > 1:
            padding = _triple(module.padding)
            module.dilation = (step, *module.dilation[1:])
            module.padding = (step * padding[0], *padding[1:])
    if isinstance(module, nn.MaxPool3d):
        return _dilated_pool(module, step)
    return module


def _dilated_pool(pool: nn.MaxPool3d, step: int) -> nn.Module:
    """Return a pooling that gives as many steps as it gets; torch pads too little for that."""
    kernel, stride, padding = map(_triple, (pool.kernel_size, pool.stride, pool.padding))
    first = step * padding[0]
    last = step * (kernel[0] - 1) - first
    return nn.Sequential(
        nn.ConstantPad3d((0, 0, 0, 0, first, last), -math.inf),
        nn.MaxPool3d(kernel, (1, *stride[1:]), (0, *padding[1:]), (step, 1, 1)),
    )


def _triple(value: object) -> tuple[int, int, int]:
    """Return what torch holds as a number or as one for each of time, height and width."""
    if isinstance(value, tuple):
        time, height, width = value
        return time, height, width
    assert isinstance(value, int)
    return value, value, value
