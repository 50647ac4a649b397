"""What a training step holds in memory besides the model: activations kept, and the peak.

Counted is what is allocated above parameters, buffers, gradients of parameters and the batch: all
that grows with the batch, copies of weights in bfloat16, and in passing the gradient of one weight.
It is counted without numbers, operation by operation, as a device would allocate it; what a kernel
needs inside for a moment is not seen. On a GPU it can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

from tca.cache.layout import FeatureShapes
from tca.device import autocast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import hollow, random_rows
from tca.fusion.model.registry import build
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss

Kind = Literal["gpu", "cpu"]

KINDS: dict[Kind, str] = {
    "gpu": "fused attention",
    # torch has none with dropout there.
    "cpu": "plain attention",
}
"""Ways of computing a step, in words."""


def precision_of(kind: Kind, config: TrainConfig) -> str:
    """Return what `train.precision` comes to on such a device."""
    if config.precision == "auto":
        return "bfloat16" if kind == "gpu" else "float32"
    return config.precision


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step allocates beside the model, its gradients and the batch.

    Attributes:
        kept: at the end of the forward pass, for the backward pass.
        peak: most at any time of both.
    """

    kept: int
    peak: int


def step_memory(
    config: ModelConfig,
    shapes: FeatureShapes,
    classes: Sequence[str],
    train_config: TrainConfig,
    kind: Kind,
) -> StepMemory:
    """Count the memory of one step of `train_config.batch_size` rows; nothing is computed.

    Args:
        config: what to build.
        shapes: of the store.
        classes: names of the classes to score.
        train_config: batch size, precision and loss.
        kind: which way of computing.

    Raises:
        UsageError: as `build`.
    """
    with hollow(build(config, shapes, classes)) as model:
        model.train()
        batch = train_config.batch_size
        semantic, motion = random_rows(shapes, batch)
        label = torch.zeros(batch, dtype=torch.int64)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        tracker = MemTracker()
        given = [tensor for tensor in (semantic, motion, label) if tensor is not None]
        tracker.track_external(model, *given)
        with tracker, _fused_attention(kind == "gpu"):
            before = _total(tracker, "current")
            with autocast(torch.device("cpu"), precision_of(kind, train_config)):
                loss = fusion_loss(model, semantic, motion, label, train_config)
            kept = _total(tracker, "current")
            torch.autograd.backward(loss)
            peak = _total(tracker, "peak")
    return StepMemory(kept - before, peak - before)


def _total(tracker: MemTracker, when: str) -> int:
    by_device = tracker.get_tracker_snapshot(when)
    return sum(int(of_device["Total"]) for of_device in by_device.values())


@contextmanager
def _fused_attention(wanted: bool) -> Iterator[None]:
    """Have attention allocate what the memory-efficient kernel of GPUs does.

    Tensors without numbers have no GPU that the kernel could be chosen for, but its shapes are
    known. Exchanged is the function itself: modes are off while layers are made again.
    """
    name = F.scaled_dot_product_attention.__name__
    plain = F.scaled_dot_product_attention
    if wanted:
        setattr(F, name, _memory_efficient)
    try:
        yield
    finally:
        setattr(F, name, plain)


def _memory_efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if attn_mask is not None:
        # torch has the kernel read rows of eights.
        columns = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask.to(query.dtype), (0, -columns % 8))[..., :columns]
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    mixed: Tensor = kernel(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
    return mixed
