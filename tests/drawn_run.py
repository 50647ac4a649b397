"""A run folder whose weights are drawn, without a training."""

from pathlib import Path
from typing import Any

import torch

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import build
from tca.fusion.run_folder import RunFolder

SHAPES = {
    "frames": FeatureShapes(8, (4, 4), 12, 8, 6),
    "mean": FeatureShapes(None, (4, 4), 12, 8, 6),
}
SETTINGS: dict[str, Any] = {"bottleneck": 16, "heads": 2, "layers": 2, "ratio": 1, "rank": 4}
CLASSES = ["pushing “it”", "pulling it", "class 2", "class 3"]


def drawn_run(
    folder: Path, variant: str = "gasm_cast", keep: str = "frames", **settings: Any
) -> Path:
    """Write `best` and `last`, all of whose weights and statistics are drawn: none is 0."""
    config = ModelConfig(variant=variant, **SETTINGS | settings)
    run = RunFolder(folder)
    info = {
        "finished": True,
        "split": "train",
        "model": config.model_dump(mode="json"),
        "train": {"precision": "float32", "lr": 0.001},
        "shapes": vars(SHAPES[keep]),
        "classes": CLASSES,
        "identity": {"keep": keep, "semantic": {"weights": "a"}, "motion": {"weights": "b"}},
        "holdout": {"split": "train", "share": 0.1, "rows": 3},
    }
    run.begin({}, info)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build(config, SHAPES[keep], CLASSES)
        for checkpoint in ("best", "last"):
            for name, tensor in model.state_dict().items():
                tensor.normal_(std=0.3)
                if name.endswith("deviation"):
                    tensor.abs_().add_(0.1)
            run.save(checkpoint, model.state_dict())
    return folder


def drawn_features(keep: str, videos: int) -> dict[str, torch.Tensor]:
    """Features of both streams, (B, …) float32."""
    shapes = SHAPES[keep]
    generator = torch.Generator().manual_seed(videos)
    frames = () if shapes.segments is None else (shapes.segments,)
    return {
        "semantic": torch.randn(videos, *frames, 16, 12, generator=generator),
        "motion": torch.randn(videos, 8, 6, generator=generator),
    }
