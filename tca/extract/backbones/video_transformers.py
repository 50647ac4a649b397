"""How things move: one feature vector a segment, from transformers' frozen video encoders.

VideoMAE (Tong et al. 2022) and V-JEPA 2 (Assran et al. 2025) cut a clip into tubes of 2 frames and
16×16 pixels. 16 frames give 8 steps of such tokens; each step is averaged over space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from tca.errors import UsageError
from tca.extract.backbones.base import MotionBackbone
from tca.extract.backbones.normalise import IMAGENET, Normalise
from tca.extract.backbones.outline import Outline, Published, outline
from tca.extract.backbones.weights import state_sha256
from tca.extract.config import FRAMES, MotionConfig

PUBLISHED = {
    "videomae": Published("MCG-NJU/videomae-base-finetuned-kinetics", IMAGENET),
    "vjepa2": Published("facebook/vjepa2-vitl-fpc64-256", IMAGENET),
}


class VideoTransformer(MotionBackbone):
    """A transformers network as the motion backbone: its last hidden state, averaged over space."""

    def __init__(self, found: Outline, network: nn.Module) -> None:
        super().__init__()
        self.architecture = found.config.model_type
        self.size, self.normalisation = found.size, found.normalisation
        self.segments = FRAMES // found.config.tubelet_size
        self.width = found.config.hidden_size
        self.normalise = Normalise(found.normalisation)
        self.network = network

    @property
    @override
    def identity(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "weights_sha256": state_sha256(self.network.state_dict()),
            "size": self.size,
            "frames": FRAMES,
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
        }

    @override
    def forward(self, clips: Tensor) -> Tensor:
        tokens: Tensor = self.network(self.normalise(clips)).last_hidden_state
        # Time comes first among the tokens of a clip.
        return tokens.reshape(len(tokens), self.segments, -1, self.width).mean(2).float()


def load_video_transformer(
    config: MotionConfig, folder: Path, *, empty: bool = False
) -> VideoTransformer:
    """Load the video transformer that `config` names; relative local folders start at `folder`.

    Args:
        config: which one.
        folder: of the configuration.
        empty: without its weights, to count with.

    Raises:
        TcaError: unreachable, missing, damaged or incomplete weights, with the remedy.
        UsageError: weights of another architecture, or sizes that do not fit it.
    """
    if config.blocks != MotionConfig().blocks:
        raise UsageError(
            f"{config.architecture} is not made of residual blocks; remove motion.blocks."
        )
    found = outline("motion", config, folder, PUBLISHED)
    name, sizes = found.config.model_type, found.config
    patch = sizes.patch_size
    if isinstance(patch, int) and found.size % patch:
        raise UsageError(
            f"motion.size={found.size} is no multiple of the {patch}-pixel patches of {name}."
        )
    if FRAMES % sizes.tubelet_size:
        raise UsageError(
            f"{name} takes {sizes.tubelet_size} frames to a segment, which does not divide the "
            f"{FRAMES} of a video; take other weights."
        )
    if name == "videomae":
        _require_as_trained(found)
    else:
        # Where a token lies is reckoned from this, not from the clip.
        sizes.crop_size = found.size
    network: Any = found.network(empty=empty)
    # V-JEPA 2's predictor serves its training only.
    return VideoTransformer(found, network.encoder if name == "vjepa2" else network)


def _require_as_trained(found: Outline) -> None:
    """Refuse what VideoMAE's fixed positions cannot stand for.

    Raises:
        UsageError: another size or number of frames than it was trained with.
    """
    trained = found.config.image_size
    if found.size not in (trained, *(trained if isinstance(trained, list | tuple) else ())):
        raise UsageError(
            f"videomae takes no frames but those of {trained} pixels, on which its positions are "
            f"fixed; leave motion.size={found.size} out."
        )
    if found.config.num_frames != FRAMES:
        raise UsageError(
            f"these weights of videomae take clips of {found.config.num_frames} frames, and a "
            f"video has {FRAMES}; take other weights."
        )
