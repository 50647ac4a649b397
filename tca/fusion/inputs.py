"""From a store and a batch of its loader to what a model takes."""

from __future__ import annotations

import torch
from torch import Tensor

from tca.cache.loader import Batch
from tca.cache.residency import require_streams
from tca.cache.store import Store
from tca.fusion.model.registry import OWN, find_variant
from tca.fusion.model.variant import Variant


def require_inputs(store: Store, variant: str) -> tuple[str, ...]:
    """Return the names of the streams that a variant reads.

    Raises:
        UsageError: there is no such variant.
        TcaError: `store` does not hold all of them.
    """
    streams = find_variant(variant).streams
    only = " or ".join(
        f"model.variant={name}"
        for name, known in OWN.items()
        if set(known.streams) <= set(store.streams)
    )
    require_streams(store, streams, f"; with these, choose {only} instead of {variant}")
    return streams


def batch_inputs(
    batch: Batch, model: Variant, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return (semantic, motion) on `device`; None for a stream that `model` does not read."""
    read = model.streams
    return (
        batch.features("semantic", device) if "semantic" in read else None,
        batch.features("motion", device) if "motion" in read else None,
    )
