"""What is in a frame: one feature vector a patch, from a frozen image transformer.

Default: DINOv3 ViT-B/16 (Siméoni et al. 2025) as transformers has it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel

from tca.errors import TcaError, UsageError
from tca.extract.backbones.weights import (
    hub_problem,
    looks_like_path,
    random_seed,
    seeded,
    state_sha256,
)
from tca.extract.config import SemanticConfig

DINOV3_VITB16 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_register_tokens": 4,
}
"""Where the published ViT-B/16 differs from the defaults of transformers' DINOv3ViTConfig."""

NOT_READ = ("pooler", "mask_token")
"""Parts of a network that the patches do not depend on; a checkpoint may lack them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SemanticBackbone(nn.Module):
    """Frames (B, 3, S, S) uint8 to patches (B, P, D) float32.

    The last hidden state after the final norm, without class and register tokens.

    Attributes:
        architecture: transformers' model type.
        grid: patches (vertically, horizontally).
        width: D.
        mean, std: of the normalisation, for pixels in [0, 1].
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        network: PreTrainedModel,
        size: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        config = network.config
        patch = getattr(config, "patch_size", None)
        width = getattr(config, "hidden_size", None)
        if not isinstance(patch, int) or not isinstance(width, int) or patch < 1:
            raise UsageError(
                f"{config.model_type} is no image transformer with one grid of patches; take "
                "dinov3_vit, dinov2 or another."
            )
        if size % patch:
            raise UsageError(
                f"semantic.size={size} is no multiple of the {patch}-pixel patches of "
                f"{config.model_type}."
            )
        self.network: nn.Module = network.train(False).requires_grad_(False)
        self.architecture: str = config.model_type
        self.size = size
        self.grid = (size // patch, size // patch)
        self.width = width
        self.mean, self.std = tuple(mean), tuple(std)
        # In pixels of 0 to 255, so that normalising is one subtraction and one division.
        self.register_buffer("_mean", 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("_std", 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    @classmethod
    def load(cls, config: SemanticConfig, folder: Path) -> SemanticBackbone:
        """Load the backbone that `config` names; relative local folders start at `folder`.

        Raises:
            TcaError: gated, unreachable, missing, damaged or incomplete weights, with the remedy.
            UsageError: no such architecture, sizes that do not fit it, or a network that gives no
                patches.
        """
        seed = random_seed(config.weights)
        if seed is not None:
            return cls(_random(config, seed), config.size)._proved()
        if config.sizes or config.architecture != SemanticConfig().architecture:
            raise UsageError(
                "semantic.architecture and semantic.sizes shape random weights only; remove them, "
                "or set semantic.weights=random:SEED."
            )
        local = folder / os.path.expanduser(config.weights)
        if local.is_file():
            raise TcaError(
                f"{local} is a file; give the folder with it and its config.json as "
                "semantic.weights."
            )
        if looks_like_path(config.weights) and not local.is_dir():
            raise TcaError(f"there is no folder of weights at {local}; correct semantic.weights.")
        source = str(local) if local.is_dir() else config.weights
        try:
            # Seeded: a part that is not read may be drawn anew, and the sha256 must not change.
            with seeded(0):
                network, report = AutoModel.from_pretrained(
                    source, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
                )
        except Exception as error:
            # What a damaged folder brings transformers to has no type in common.
            if local.is_dir() or not isinstance(error, OSError | HFValidationError):
                raise TcaError(
                    f"{source} cannot be loaded as a transformers model "
                    f"({_first_line(error)}); it must hold config.json and model.safetensors."
                ) from None
            raise hub_problem(config.weights, error) from None
        missing = sorted(
            name
            for name in report["missing_keys"]
            if not any(part in NOT_READ for part in name.split("."))
        )
        if missing:
            raise TcaError(
                f"the weights {source} lack {missing[0]} and {len(missing) - 1} more that "
                f"{network.config.model_type} needs; give the folder of a whole model."
            )
        return cls(network, config.size, *_normalisation(source))._proved()

    @torch.inference_mode()
    def _proved(self) -> SemanticBackbone:
        """Return this backbone if it gives the patches that it promises, tried on one frame."""
        try:
            frame = torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)
            shape = tuple(self(frame).shape)
        except Exception as error:
            raise UsageError(
                f"{self.architecture} cannot take frames of semantic.size={self.size}: "
                f"{_first_line(error)}."
            ) from None
        expected = (1, self.grid[0] * self.grid[1], self.width)
        if shape != expected:
            raise UsageError(
                f"{self.architecture} gives features of shape {shape[1:]} a frame instead of "
                f"{expected[1:]}; take an image transformer with one grid of patches."
            )
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features: architecture, weights, size, normalisation."""
        return {
            "architecture": self.architecture,
            "weights_sha256": state_sha256(self.network.state_dict()),
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def forward(self, frames: Tensor) -> Tensor:
        """Return the patches of frames, row by row, top left first."""
        pixels = (frames.float() - self._mean) / self._std
        tokens: Tensor = self.network(pixel_values=pixels).last_hidden_state
        # Class and register tokens come first.
        return tokens[:, tokens.shape[1] - self.grid[0] * self.grid[1] :].float()


def _random(config: SemanticConfig, seed: int) -> PreTrainedModel:
    try:
        known = AutoConfig.for_model(config.architecture)
    except ValueError:
        raise UsageError(
            f"semantic.architecture={config.architecture!r} is no transformers model type; "
            "take dinov3_vit, dinov2 or another."
        ) from None
    unknown = [name for name in config.sizes if not hasattr(known, name)]
    if unknown:
        raise UsageError(
            f"semantic.sizes has an unknown key {unknown[0]!r}; take those of transformers' "
            f"{type(known).__name__}."
        )
    try:
        published = DINOV3_VITB16 if config.architecture == "dinov3_vit" else {}
        sizes = AutoConfig.for_model(config.architecture, **(published | config.sizes))
        with seeded(seed):
            network: PreTrainedModel = AutoModel.from_config(sizes)  # type: ignore[no-untyped-call]
    except Exception as error:
        # Zero heads, a size that is a word: each fails in a way of its own.
        raise UsageError(
            f"semantic.sizes does not fit {config.architecture}: {_first_line(error)}."
        ) from None
    return network


def _normalisation(source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation that came with the weights, else ImageNet's."""
    try:
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, trust_remote_code=False
        )
        return tuple(processor.image_mean), tuple(processor.image_std)
    except (OSError, ValueError, ImportError, TypeError, AttributeError):
        return IMAGENET_MEAN, IMAGENET_STD


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
