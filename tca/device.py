"""Which device the networks run on, and in which precision; both stages ask here."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch

from tca.errors import UsageError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3), as glibc's malloc.h has them."""


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
        if device.type == "meta":
            raise AssertionError("it holds no numbers")
    except (RuntimeError, AssertionError, ImportError):
        there = f"{torch.cuda.device_count()} CUDA GPUs" if torch.cuda.is_available() else "no GPU"
        raise UsageError(f"the device {name!r} is not here ({there}); use auto or cpu.") from None
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a model is trained; `auto` is bfloat16 on GPUs that have it."""
    if precision == "auto":
        has_it = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has_it else "float32"
    half = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=half, enabled=precision != "float32")


def likes_bfloat16(device: torch.device) -> bool:
    """Tell whether `device` multiplies matrices of bfloat16 faster than those of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # An older torch cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_freed_memory() -> None:
    """Have this process keep what networks on a CPU free, instead of asking for it again.

    glibc gives every large piece back at once, and the system has to clear its pages anew: up to a
    quarter of the time of a ViT-B/16 on 64 frames. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether `error` is torch's, for a GPU or this machine that is out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def device_names(gpus: str | None, device: str | None, workers: int | None = None) -> list[str]:
    """Return the torch devices to work on, one worker each.

    Args:
        gpus: GPU numbers as typed, "0,1", or "all".
        device: one torch device instead. With neither: the first GPU, else the CPU.
        workers: how many workers share the CPU; a GPU has one.

    Raises:
        UsageError: not a list of numbers, or a device that is not here; says what there is.
    """
    if gpus is None:
        chosen = choose_device(device or "auto")
        if chosen.type != "cpu" and workers not in (None, 1):
            raise UsageError(
                f"--workers {workers} share a CPU: a GPU has one worker; choose GPUs with --gpus, "
                "or add --device cpu."
            )
        return [str(chosen)] * (workers or 1)
    for name, value in (("--device", device), ("--workers", workers)):
        if value is not None:
            raise UsageError(f"--gpus and {name} exclude each other; leave one out.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        numbers = [*range(count)] if gpus == "all" else [int(number) for number in gpus.split(",")]
    except ValueError:
        raise UsageError(
            f"--gpus {gpus!r} must be GPU numbers with commas between, as 0,1, or all."
        ) from None
    if count == 0:
        raise UsageError(
            f"--gpus {gpus}: PyTorch {torch.__version__} sees no CUDA GPU on this machine; leave "
            "--gpus out to work on the CPU."
        )
    if len(set(numbers)) < len(numbers) or not all(0 <= number < count for number in numbers):
        there = ", ".join(f"{n} ({torch.cuda.get_device_name(n)})" for n in range(count))
        raise UsageError(f"--gpus {gpus}: name each of these at most once: {there}.")
    return [f"cuda:{number}" for number in numbers]
