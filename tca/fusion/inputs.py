"""From a batch of the loader to what a model takes."""

from __future__ import annotations

import torch
from torch import Tensor

from tca.cache.loader import Batch
from tca.fusion.model.gasm_cast import GasmCast


def batch_inputs(
    batch: Batch, model: GasmCast, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return (semantic, motion) on `device`; None for a stream that `model` does not read."""
    semantic = batch.semantic if "semantic" in model.streams else None
    motion = batch.motion if "motion" in model.streams else None
    return (
        None if semantic is None else semantic.to(device, non_blocking=True),
        None if motion is None else motion.to(device, non_blocking=True),
    )
