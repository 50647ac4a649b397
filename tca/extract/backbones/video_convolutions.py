"""How things move: one feature vector a segment, from torchvision's frozen video networks.

R3D-18, MC3-18 and R(2+1)D-18 (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR
2018) and S3D (Xie et al., ECCV 2018). As published, all but MC3 turn 16 frames into 2 steps. What
halves time last is dilated in time instead, as segmentation networks do in space (Yu & Koltun
2016), which keeps 8 segments with the published weights: outputs 0 and 4 equal the published two.
MC3-18 keeps all 16 steps; two neighbours are averaged to a segment.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.video import (
    MC3_18_Weights,
    R2Plus1D_18_Weights,
    R3D_18_Weights,
    S3D_Weights,
    s3d,
)
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv2Plus1D,
    Conv3DNoTemporal,
    Conv3DSimple,
    R2Plus1dStem,
    VideoResNet,
)
from typing_extensions import override

from tca.errors import TcaError, UsageError
from tca.extract.backbones.base import MotionBackbone
from tca.extract.backbones.dilation import keep_time
from tca.extract.backbones.normalise import KINETICS, Normalise
from tca.extract.backbones.weights import (
    looks_like_path,
    random_seed,
    read_state,
    seeded,
    state_sha256,
)
from tca.extract.config import DEFAULT_WEIGHTS, FRAMES, SEGMENTS, MotionConfig

Blocks = tuple[int, int, int, int]

PUBLISHED_BLOCKS: Blocks = (2, 2, 2, 2)


@dataclass(frozen=True)
class Network:
    """One of torchvision's video networks.

    Attributes:
        build: makes it of residual blocks a stage; S3D has none and takes no notice.
        weights: those that torchvision publishes.
        size: pixels of the square frames that it is made for.
        width: features a segment.
        residual: it is made of residual blocks.
    """

    build: Callable[[Blocks], nn.Module]
    weights: type[WeightsEnum]
    size: int = 112
    width: int = 512
    residual: bool = True


def _residual(convolutions: list[Any], stem: type[nn.Module]) -> Callable[[Blocks], nn.Module]:
    return lambda blocks: VideoResNet(BasicBlock, convolutions, list(blocks), stem)


NETWORKS = {
    "r3d_18": Network(_residual([Conv3DSimple] * 4, BasicStem), R3D_18_Weights),
    "mc3_18": Network(
        _residual([Conv3DSimple] + [Conv3DNoTemporal] * 3, BasicStem), MC3_18_Weights
    ),
    "r2plus1d_18": Network(_residual([Conv2Plus1D] * 4, R2Plus1dStem), R2Plus1D_18_Weights),
    "s3d": Network(lambda _: s3d(), S3D_Weights, size=224, width=1024, residual=False),
}

HEAD = ("avgpool", "fc", "classifier")
"""Parts of torchvision's networks that come after the features."""


class VideoConvolutions(MotionBackbone):
    """One of torchvision's networks as the motion backbone, averaged over space.

    Attributes:
        blocks: residual blocks a stage, None for S3D.
    """

    segments = SEGMENTS

    def __init__(self, name: str, trunk: nn.Sequential, blocks: Blocks | None, size: int) -> None:
        super().__init__()
        self.blocks = blocks
        # With other blocks it has no longer 18 layers.
        own = blocks in (None, PUBLISHED_BLOCKS)
        self.architecture = name if own else name.removesuffix("_18")
        self.size, self.width = size, NETWORKS[name].width
        self.network = trunk.eval().requires_grad_(False)
        # S3D's trunk has one part, its features; those of the others are their stages.
        only = trunk[0] if len(trunk) == 1 else None
        keep_time(only if isinstance(only, nn.Sequential) else trunk)
        self.normalise = Normalise(KINETICS)

    @property
    @override
    def identity(self) -> dict[str, Any]:
        blocks = {} if self.blocks is None else {"blocks": list(self.blocks)}
        return {
            "architecture": self.architecture,
            **blocks,
            "weights_sha256": state_sha256(self.network.state_dict()),
            "size": self.size,
            "frames": FRAMES,
            "mean": list(KINETICS.mean),
            "std": list(KINETICS.std),
        }

    @override
    def forward(self, clips: Tensor) -> Tensor:
        maps: Tensor = self.network(self.normalise(clips).transpose(1, 2))
        steps = maps.mean((-2, -1)).transpose(1, 2)
        return steps.reshape(len(steps), SEGMENTS, -1, self.width).mean(2).float()


def load_video_convolutions(
    config: MotionConfig, folder: Path, *, empty: bool = False
) -> VideoConvolutions:
    """Load the network of torchvision that `config` names; relative local files start at `folder`.

    Args:
        config: which one.
        folder: of the configuration.
        empty: without its weights, to count with.

    Raises:
        TcaError: unreachable, missing or damaged weights, or weights of another network.
        UsageError: no such weights, or settings that it does not have.
    """
    name = config.architecture
    network = NETWORKS[name]
    if config.sizes:
        raise UsageError(f"motion.sizes shapes transformers only, and {name} is none; remove it.")
    if not network.residual and config.blocks != PUBLISHED_BLOCKS:
        raise UsageError(f"{name} is not made of residual blocks; remove motion.blocks.")
    seed = random_seed(config.weights)
    with seeded(seed or 0):
        trunk = _trunk(network.build(config.blocks))
    if seed is None and not empty:
        _read(trunk, config, folder)
    blocks = config.blocks if network.residual else None
    return VideoConvolutions(name, trunk, blocks, config.size or network.size)


def _trunk(network: nn.Module) -> nn.Sequential:
    """Return a network without its head; names of its tensors stay."""
    parts = [(name, part) for name, part in network.named_children() if name not in HEAD]
    return nn.Sequential(OrderedDict(parts))


def _read(trunk: nn.Module, config: MotionConfig, folder: Path) -> None:
    state = {k: v for k, v in _state(config, folder).items() if k.split(".")[0] not in HEAD}
    try:
        wrong = trunk.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise TcaError(f"{_not_ours(config)}: {str(error).splitlines()[1].strip()}") from None
    if wrong.missing_keys or wrong.unexpected_keys:
        missing = wrong.missing_keys
        what = f"lack {missing[0]}" if missing else f"have {wrong.unexpected_keys[0]} besides"
        raise TcaError(f"{_not_ours(config)}: they {what}.")


def _state(config: MotionConfig, folder: Path) -> dict[str, Tensor]:
    name, weights = config.architecture, config.weights
    published = NETWORKS[name].weights
    if weights == DEFAULT_WEIGHTS:
        weights = published["DEFAULT"].name
    file = folder / os.path.expanduser(weights)
    if file.is_file() or looks_like_path(weights) or file.suffix in (".pth", ".pt", ".safetensors"):
        return read_state(file)
    if weights not in published.__members__:
        raise UsageError(
            f"motion.weights={weights!r} is no weights name of {name}; take "
            f"{', '.join(w for w in published.__members__ if w != 'DEFAULT')}, a local .pth or "
            ".safetensors file, or random:SEED, or name the architecture that these weights are "
            "of in motion.architecture."
        )
    try:
        return dict(published[weights].get_state_dict(check_hash=True, progress=False))
    except (URLError, OSError, RuntimeError):
        raise TcaError(
            f"the weights {weights} of {name} are not on this machine and cannot be downloaded: "
            "connect, or download them elsewhere and point `motion.weights` to the local file "
            "(random:0 tries things out)."
        ) from None


def _not_ours(config: MotionConfig) -> str:
    name = config.architecture
    shape = f" with {config.blocks} blocks (motion.blocks)" if NETWORKS[name].residual else ""
    default = config.weights == DEFAULT_WEIGHTS
    weights = NETWORKS[name].weights["DEFAULT"].name if default else config.weights
    return f"the weights {weights} are not those of {name}{shape}"
