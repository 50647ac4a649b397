"""How things move: one feature vector a segment, from a frozen R3D-18.

R3D-18 (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018) as torchvision has
it. As published it halves time three times, 16 frames to 2. Its last two stages are dilated in time
instead, as segmentation networks do in space (Yu & Koltun 2016), which keeps 8 segments with the
published weights: outputs 0 and 4 equal the published network's two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models.video import R3D_18_Weights
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

from tca.errors import TcaError, UsageError
from tca.extract.backbones.weights import (
    looks_like_path,
    random_seed,
    read_state,
    seeded,
    state_sha256,
)
from tca.extract.config import FRAMES, SEGMENTS, MotionConfig

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
WIDTH = 512


class MotionBackbone(nn.Module):
    """Clips (B, 16, 3, S, S) uint8 to segments (B, 8, 512) float32, averaged over space.

    Attributes:
        architecture: "r3d_18", or "r3d" with other blocks than the published ones.
        segments, width: 8 and 512.
    """

    segments = SEGMENTS
    width = WIDTH
    _mean: Tensor
    _std: Tensor

    def __init__(self, network: VideoResNet, size: int) -> None:
        super().__init__()
        self.blocks = [
            len(stage) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)
        ]
        self.architecture = "r3d_18" if self.blocks == [2, 2, 2, 2] else "r3d"
        self.size = size
        network.fc = nn.Identity()
        self.network = network.eval().requires_grad_(False)
        keep_time(network)
        mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (KINETICS_MEAN, KINETICS_STD))
        self.register_buffer("_mean", 255 * mean, persistent=False)
        self.register_buffer("_std", 255 * std, persistent=False)

    @classmethod
    def load(cls, config: MotionConfig, folder: Path) -> MotionBackbone:
        """Load the backbone that `config` names; relative local files start at `folder`.

        Raises:
            TcaError: unreachable, missing or damaged weights, or weights of another network.
            UsageError: no such name.
        """
        seed = random_seed(config.weights)
        if seed is not None:
            with seeded(seed):
                return cls(_network(config.blocks), config.size)
        network = _network(config.blocks)
        state = {k: v for k, v in _state(config, folder).items() if not k.startswith("fc.")}
        try:
            wrong = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise TcaError(f"{_not_ours(config)}: {str(error).splitlines()[1].strip()}") from None
        missing = [key for key in wrong.missing_keys if not key.startswith("fc.")]
        if missing or wrong.unexpected_keys:
            what = f"lack {missing[0]}" if missing else f"have {wrong.unexpected_keys[0]} besides"
            raise TcaError(f"{_not_ours(config)}: they {what}.")
        return cls(network, config.size)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features: architecture, weights, size, normalisation."""
        return {
            "architecture": self.architecture,
            "blocks": self.blocks,
            "weights_sha256": state_sha256(self.network.state_dict()),
            "size": self.size,
            "frames": FRAMES,
            "mean": list(KINETICS_MEAN),
            "std": list(KINETICS_STD),
        }

    def forward(self, clips: Tensor) -> Tensor:
        """Return the segments of clips."""
        pixels = (clips.transpose(1, 2).float() - self._mean) / self._std
        net = self.network
        maps = net.layer4(net.layer3(net.layer2(net.layer1(net.stem(pixels)))))
        segments: Tensor = maps.mean((-2, -1)).transpose(1, 2)
        return segments.float()


def keep_time(network: VideoResNet) -> None:
    """Dilate the last two stages in time instead of halving it; changes `network`.

    The convolution that loses its stride keeps the dilation before it, those behind it double it.
    """
    dilation = 1
    for stage in (network.layer3, network.layer4):
        for module in stage.modules():
            if not isinstance(module, nn.Conv3d):
                continue
            halved = module.stride[0] == 2
            module.stride = (1, *module.stride[1:])
            if module.kernel_size[0] == 3:
                step = dilation if halved else 2 * dilation
                module.dilation = (step, *module.dilation[1:])
                module.padding = (step, *module.padding[1:])
        dilation *= 2


def _network(blocks: tuple[int, int, int, int]) -> VideoResNet:
    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, list(blocks), BasicStem)


def _state(config: MotionConfig, folder: Path) -> dict[str, Tensor]:
    weights = config.weights
    file = folder / os.path.expanduser(weights)
    if file.is_file() or looks_like_path(weights) or file.suffix in (".pth", ".pt", ".safetensors"):
        return read_state(file)
    if weights not in R3D_18_Weights.__members__:
        raise UsageError(
            f"motion.weights={weights!r} is no weights name; take "
            f"{', '.join(R3D_18_Weights.__members__)}, a local .pth or .safetensors file, or "
            "random:SEED."
        )
    try:
        return dict(R3D_18_Weights[weights].get_state_dict(check_hash=True, progress=False))
    except (URLError, OSError, RuntimeError):
        raise TcaError(
            f"the weights {weights} of R3D-18 are not on this machine and cannot be downloaded: "
            "connect, or download them elsewhere and point `motion.weights` to the local file "
            "(random:0 tries things out)."
        ) from None


def _not_ours(config: MotionConfig) -> str:
    return (
        f"the weights {config.weights} are not those of an R3D with {config.blocks} blocks "
        "(motion.blocks)"
    )
