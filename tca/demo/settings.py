"""The demo's configuration: the real architectures, small enough for a CPU and a few minutes."""

from __future__ import annotations

from typing import Any

TRAIN_CLIPS = 540
VALIDATION_CLIPS = 180

SETTINGS: dict[str, Any] = {
    "data": {
        "videos": "videos",
        "labels": "labels/labels.json",
        "flip": "labels/flip.json",
        "annotations": {"train": "labels/train.json", "validation": "labels/validation.json"},
    },
    "semantic": {
        "weights": "random:0",
        "architecture": "dinov3_vit",
        "sizes": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
        },
        "size": 128,
        "keep": "frames",
        "pool": 2,
    },
    "motion": {"weights": "random:0", "blocks": [1, 1, 1, 1], "size": 24},
    "model": {"variant": "gasm_cast", "heads": 4, "bottleneck": 64, "ratio": 2},
    "train": {"epochs": 12, "device": "cpu"},
    "stores": "cache/{split}.zarr",
    "runs": "runs",
}
"""What is written into the demo's `tca.yaml`; everything else has its default."""

BACKBONES = (
    "DINOv3 ViT and R3D in their true architecture, but small and with random weights: this shows "
    "the machinery, not the accuracy of pretrained networks"
)
"""Said in the output and in the report."""
