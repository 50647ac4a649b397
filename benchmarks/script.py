"""The script that a researcher writes, as `extract_script.py` measures it beside tca.

OpenCV seeks the 16 frames, the libraries' own transforms prepare them, one video after the other
goes through the networks in float32, one `.npy` a video and stream is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models.video import R3D_18_Weights
from transformers import BaseImageProcessor

from tca.extract.backbones.pair import Backbones

FRAMES = 16


def sampled_frames(video: Path) -> list[np.ndarray]:
    """Return 16 RGB frames, each sought by its number.

    The count comes from the header, as everybody takes it; WebM has one that is often wrong, and
    where a frame cannot be read the one before is taken again.
    """
    capture = cv2.VideoCapture(str(video))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames: list[np.ndarray] = []
    for i in range(FRAMES):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int((i + 0.5) * count / FRAMES))
        found, picture = capture.read()
        if found:
            frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        else:
            frames.append(frames[-1])
    capture.release()
    return frames


@torch.inference_mode()
def extract_by_script(
    videos: Sequence[Path], backbones: Backbones, processor: BaseImageProcessor, folder: Path
) -> None:
    """Write the features of `videos` into `folder`, the patches averaged over 8 frames."""
    transform = R3D_18_Weights.KINETICS400_V1.transforms(
        resize_size=[backbones.motion.size] * 2, crop_size=[backbones.motion.size] * 2
    )
    image_network, video_network = backbones.semantic.network, backbones.motion.network
    prefix = 1 + getattr(image_network.config, "num_register_tokens", 0)
    for video in videos:
        frames = sampled_frames(video)
        pixels = processor(images=frames[::2], return_tensors="pt")["pixel_values"]
        patches = image_network(pixels).last_hidden_state[:, prefix:].mean(0)
        clip = transform(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))[None]
        maps = video_network.stem(clip)
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            maps = getattr(video_network, stage)(maps)
        segments = maps.mean((-2, -1))[0].T
        np.save(folder / f"{video.stem}.semantic.npy", patches.numpy())
        np.save(folder / f"{video.stem}.motion.npy", segments.numpy())
