"""Which device the networks run on, and in which precision; both stages ask here."""

from __future__ import annotations

import torch

from tca.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is a GPU where there is one.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        there = f"{torch.cuda.device_count()} CUDA GPUs" if torch.cuda.is_available() else "no GPU"
        raise UsageError(
            f"the device {name!r} is not here ({there}); use device=auto or device=cpu."
        ) from None
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which the model runs; `auto` is bfloat16 on GPUs that have it."""
    wanted = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)
