"""What a store is made with: its rows, the shapes of its streams, and where they come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import torch
import torchvision
import transformers

import tca
from tca.cache.layout import StoreSpec, Stream, differences, rows_per_shard
from tca.console import warn
from tca.extract.annotations import Annotations
from tca.extract.backbones.pair import Backbones
from tca.extract.config import FRAMES, SEGMENTS, ExtractConfig, Stage1Config
from tca.extract.plan import Part
from tca.extract.rows import Rows

ROUNDS = ("precision", "decoder", "device", "versions")
"""Keys of `record` that features depend on, by their rounding."""


def bare_spec(annotations: Annotations, rows: Rows, workers: int) -> StoreSpec:
    """Return what is known of a store before its backbones are; it has no streams."""
    return StoreSpec(
        split=annotations.split,
        rows=rows.table,
        streams={},
        rows_per_shard=rows_per_shard(len(rows.table), workers),
        classes=annotations.classes,
        identity={},
        record={},
        grid=(0, 0),
    )


def store_spec(
    annotations: Annotations,
    rows: Rows,
    config: Stage1Config,
    folder: Path,
    devices: list[str],
    part: Part | None,
) -> StoreSpec:
    """Return what the store is made with; the backbones are loaded for it, and let go.

    The parts of one store must agree on `rows_per_shard`, so that it depends on their number alone.
    """
    backbones = Backbones.load(config.semantic, config.motion, folder)
    bare = bare_spec(annotations, rows, len(devices) if part is None else part.count)
    return replace(
        bare,
        streams={
            name: Stream((len(rows.table), *shape), config.extract.dtype)
            for name, shape in backbones.row_shapes.items()
        },
        identity=_identity(backbones, rows, config.extract),
        record=_record(annotations, config.extract, devices),
        grid=backbones.grid,
    )


def tell_other_record(store: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn if rows to come will be computed in another way than those that are there.

    Args:
        store: its path.
        begun: `record` of the store.
        now: that of this call.
    """
    different = differences(
        {key: begun[key] for key in ROUNDS if key in begun},
        {key: now[key] for key in ROUNDS if key in begun},
    )
    if different:
        warn(
            f"{store} was begun otherwise ({'; '.join(different)}): its rows will differ as these "
            "round; go back to those, or begin another store, where that matters."
        )


def _identity(backbones: Backbones, rows: Rows, config: ExtractConfig) -> dict[str, Any]:
    return backbones.identity | {
        "sampling": {"frames": FRAMES, "segments": SEGMENTS, "min_frames": config.min_frames},
        "geometry": config.geometry,
        "views": rows.identity,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
    }


def _record(annotations: Annotations, config: ExtractConfig, devices: list[str]) -> dict[str, Any]:
    return {
        "versions": {
            "tca": tca.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "transformers": transformers.__version__,
            "av": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
        },
        "device": sorted({_device_name(device) for device in devices}),
        "precision": config.precision,
        "decoder": config.decoder,
        "annotations": annotations.sources,
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
