"""Weights from a hub, a local folder or file, or a seed, without executing anybody's code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tca.errors import TcaError, UsageError


def random_seed(weights: str) -> int | None:
    """Return SEED of `random:SEED`, None for any other weights.

    Raises:
        UsageError: SEED is not a whole number.
    """
    scheme, colon, text = weights.partition(":")
    if scheme != "random":
        return None
    if not (colon and text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"weights {weights!r} need a whole number: random:SEED, as random:0.")
    return int(text)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw what is inside from `seed` and leave the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def looks_like_path(weights: str) -> bool:
    """Tell a path from a hub id `owner/name`."""
    return weights.startswith((".", "/", "~")) or weights.count("/") > 1


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file or a PyTorch checkpoint of plain tensors.

    Raises:
        TcaError: missing, damaged, or holding anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TcaError(
            f"cannot read the weights {file}: {error.strerror or error}; give the path of a "
            "local file."
        ) from None
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError):
        raise TcaError(
            f"{file} is damaged or holds more than tensors, which tca does not load; "
            "save a plain state_dict or safetensors."
        ) from None
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise TcaError(f"{file} is no state_dict: it must map names to tensors.")
    return dict(state)


def hub_problem(stream: str, weights: str, error: BaseException) -> TcaError:
    """Say in one sentence why a hub id could not be loaded and what to do."""
    causes = list(_chain(error))
    elsewhere = f"or point `{stream}.weights` to a local folder"
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return TcaError(
            f"the weights {weights} are gated: accept their licence on the model's page and log in "
            f"with `hf auth login`, {elsewhere}."
        )
    if any(isinstance(cause, RepositoryNotFoundError | HFValidationError) for cause in causes):
        return TcaError(
            f"the hub has no model {weights}, or it is private: correct the id, log in with "
            f"`hf auth login`, {elsewhere}."
        )
    return TcaError(
        f"the weights {weights} are not on this machine and the hub cannot be reached: "
        f"connect, download them elsewhere, {elsewhere} (random:0 tries things out)."
    )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, types, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
