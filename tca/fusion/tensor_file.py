"""Weights on disk: safetensors, which can run no code, with a sum over what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from tca.cache.files import write_atomic
from tca.errors import TcaError

SUM = "sha256"
"""Key of the file's metadata: safetensors itself would not see a flipped bit in a weight."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors so that the file is whole or the former one.

    Raises:
        TcaError: the disk is full, or cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, [save(plain, {SUM: _sum(plain)})])


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read tensors; a file that another program wrote, without a sum, is taken as it is.

    Args:
        path: the file.
        remedy: what to do if it cannot be read, the end of a sentence.

    Raises:
        TcaError: it cannot be read, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(SUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise TcaError(f"cannot read {path} ({error.strerror or error}); {remedy}.") from None
    except SafetensorError as error:
        raise TcaError(f"{path} is damaged ({error}); {remedy}.") from None
    if expected is not None and expected != _sum(tensors):
        raise TcaError(f"{path} is damaged (its sum is another); {remedy}.")
    return tensors


def _sum(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
