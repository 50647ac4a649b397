"""What is in a frame: one feature vector a patch, from any image transformer of transformers.

Default: DINOv3 ViT-B/16 (Siméoni et al. 2025). By name also DINOv2 (Oquab et al. 2023), CLIP
(Radford et al. 2021), SigLIP and SigLIP 2 (Zhai et al. 2023, Tschannen et al. 2025).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from tca.errors import UsageError
from tca.extract.backbones.base import SemanticBackbone
from tca.extract.backbones.normalise import CLIP, HALF, IMAGENET, Normalise
from tca.extract.backbones.outline import Outline, Published, outline
from tca.extract.backbones.weights import state_sha256
from tca.extract.config import SemanticConfig

DINOV3_VITB16 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_register_tokens": 4,
}

# DINOv2's positions are those of 518 pixels; its processor and its users show it 224.
DINOV2_VITB14 = {"image_size": 518, "patch_size": 14}

PUBLISHED = {
    "dinov3_vit": Published("facebook/dinov3-vitb16-pretrain-lvd1689m", IMAGENET, DINOV3_VITB16),
    "dinov2": Published("facebook/dinov2-base", IMAGENET, DINOV2_VITB14, 224),
    "dinov2_with_registers": Published(
        "facebook/dinov2-with-registers-base", IMAGENET, DINOV2_VITB14, 224
    ),
    "clip": Published("openai/clip-vit-base-patch16", CLIP, {"patch_size": 16}),
    "siglip": Published("google/siglip-base-patch16-224", HALF),
    "siglip2": Published("google/siglip2-base-patch16-naflex", HALF),
}
"""The first is the default."""


NORMED_FOR_CLASS_TOKEN = {
    f"{name}_vision_model" for name in ("clip", "metaclip_2", "altclip", "chinese_clip")
}
"""Architectures whose patches leave transformers before the final norm."""


class ImageTransformer(SemanticBackbone):
    """A transformers network as the semantic backbone.

    Its last hidden state after the final norm, without class and register tokens. CLIP and its kin
    norm the class token alone; their patches go through the same norm here.
    """

    def __init__(self, found: Outline, network: PreTrainedModel) -> None:
        super().__init__()
        self.architecture = found.config.model_type
        self.size, self.normalisation = found.size, found.normalisation
        self.patch = _patch(found.config)
        self.width = found.config.hidden_size
        if any(self.size % side for side in self.patch):
            raise UsageError(
                f"semantic.size={self.size} is no multiple of the {_sides(self.patch)}-pixel "
                f"patches of {self.architecture}."
            )
        self.grid = (self.size // self.patch[0], self.size // self.patch[1])
        self.normalise = Normalise(found.normalisation)
        self.network = network
        normed = self.architecture not in NORMED_FOR_CLASS_TOKEN
        self.norm = nn.Identity() if normed else network.get_submodule("post_layernorm")
        # Class, distillation and register tokens come first; where others lie is not known.
        self._most_others = 2 + (getattr(found.config, "num_register_tokens", None) or 0)
        # Networks that take other sizes only when told so: left alone at their own.
        interpolates = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        other = self.size != getattr(found.config, "image_size", self.size)
        self._options = {"interpolate_pos_encoding": True} if interpolates and other else {}
        self._takes_patches = found.config.model_type == "siglip2_vision_model"

    @property
    @override
    def identity(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "weights_sha256": state_sha256(self.network.state_dict()),
            "size": self.size,
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
        }

    @override
    def forward(self, frames: Tensor) -> Tensor:
        pixels = self.normalise(frames)
        if self._takes_patches:
            tokens = self._of_patches(pixels)
        else:
            tokens = self.network(pixel_values=pixels, **self._options).last_hidden_state
        count = self.grid[0] * self.grid[1]
        others = tokens.shape[1] - count
        if not 0 <= others <= self._most_others:
            raise ValueError(f"it gives {tokens.shape[1]} tokens for {count} patches")
        patches = tokens[:, others:]
        normed: Tensor = self.norm(patches)
        return normed.float()

    def _of_patches(self, pixels: Tensor) -> Tensor:
        """Return the tokens of a network that wants pictures cut into patches, and their grid."""
        (height, width), (rows, columns) = self.patch, self.grid
        cut = pixels.reshape(len(pixels), 3, rows, height, columns, width)
        patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), rows * columns, -1)
        # One grid for all; on the CPU, or a GPU would be waited for to check it.
        grid = torch.tensor([self.grid], device="cpu")
        tokens: Tensor = self.network(
            pixel_values=patches, pixel_attention_mask=None, spatial_shapes=grid
        ).last_hidden_state
        return tokens


def load_image_transformer(
    config: SemanticConfig, folder: Path, *, empty: bool = False
) -> ImageTransformer:
    """Load the image transformer that `config` names; relative local folders start at `folder`.

    Args:
        config: which one.
        folder: of the configuration.
        empty: without its weights, to count with.

    Raises:
        TcaError: gated, unreachable, missing, damaged or incomplete weights, with the remedy.
        UsageError: no such architecture, or sizes that do not fit it.
    """
    found = outline("semantic", config, folder, PUBLISHED)
    _patch(found.config)
    return ImageTransformer(found, found.network(empty=empty))


def _patch(config: Any) -> tuple[int, int]:
    """Return the pixels of a patch (vertically, horizontally)."""
    patch = getattr(config, "patch_size", None)
    sides = (patch, patch) if isinstance(patch, int) else patch
    match sides:
        case (int(height), int(width)) if min(height, width) > 0:
            if isinstance(getattr(config, "hidden_size", None), int):
                return height, width
    raise UsageError(
        f"{config.model_type} is no image transformer with one grid of patches; take one that "
        "`tca backbones` lists, or another."
    )


def _sides(patch: tuple[int, int]) -> str:
    return str(patch[0]) if patch[0] == patch[1] else f"{patch[0]}x{patch[1]}"
