"""From a store and a batch of its loader to what a model takes."""

from __future__ import annotations

import torch
from torch import Tensor

from tca.cache.loader import Batch
from tca.cache.residency import require_streams
from tca.cache.store import Store
from tca.fusion.model.config import VariantName
from tca.fusion.model.gasm_cast import GasmCast
from tca.fusion.model.registry import VARIANTS, streams_of


def require_inputs(store: Store, variant: VariantName) -> tuple[str, ...]:
    """Return the names of the streams that a variant reads.

    Raises:
        TcaError: `store` does not hold all of them.
    """
    streams = streams_of(variant)
    only = " or ".join(
        f"model.variant={name}" for name in VARIANTS if set(streams_of(name)) <= set(store.streams)
    )
    require_streams(store, streams, f"; with these, choose {only} instead of {variant}")
    return streams


def batch_inputs(
    batch: Batch, model: GasmCast, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return (semantic, motion) on `device`; None for a stream that `model` does not read."""
    read = model.streams
    return (
        batch.features("semantic", device) if "semantic" in read else None,
        batch.features("motion", device) if "motion" in read else None,
    )
