"""Backbones by name: tca's own, and those that an installed package plugs in.

A package registers a function `load(config, folder)` as an entry point; see docs/backbones.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from tca.errors import TcaError, UsageError
from tca.extract.backbones import image_transformers, video_transformers
from tca.extract.backbones.base import MotionBackbone, SemanticBackbone, first_line
from tca.extract.backbones.image_transformers import load_image_transformer
from tca.extract.backbones.video_convolutions import NETWORKS, load_video_convolutions
from tca.extract.backbones.video_transformers import load_video_transformer
from tca.extract.config import DEFAULT_WEIGHTS, MotionConfig, SemanticConfig

GROUPS = {"semantic": "tca.semantic_backbones", "motion": "tca.motion_backbones"}
"""Groups of entry points, by stream."""

KINDS: dict[str, type[SemanticBackbone] | type[MotionBackbone]] = {
    "semantic": SemanticBackbone,
    "motion": MotionBackbone,
}
"""What a loader must return, by stream."""

Loader = Callable[..., SemanticBackbone | MotionBackbone]

OWN: dict[str, dict[str, Loader]] = {
    "semantic": dict.fromkeys(image_transformers.PUBLISHED, load_image_transformer),
    "motion": dict.fromkeys(NETWORKS, load_video_convolutions)
    | dict.fromkeys(video_transformers.PUBLISHED, load_video_transformer),
}
"""What loads tca's own backbones, by stream and name."""

DEFAULT: dict[str, str] = {
    **{
        name: published.weights
        for table in (image_transformers.PUBLISHED, video_transformers.PUBLISHED)
        for name, published in table.items()
    },
    **{name: network.weights["DEFAULT"].name for name, network in NETWORKS.items()},
}
"""Weights of tca's own backbones where none are configured, by name."""

OURS = "tca"


@dataclass(frozen=True)
class Known:
    """One backbone that can be named.

    Attributes:
        stream: "semantic" or "motion".
        name: what `semantic.architecture` or `motion.architecture` calls it.
        package: where it comes from.
        weights: those it has where none are configured; None: its package knows.
    """

    stream: str
    name: str
    package: str
    weights: str | None = None


def known_backbones() -> list[Known]:
    """Return all that can be named, tca's own first."""
    own = [
        Known(stream, name, OURS, DEFAULT[name]) for stream, names in OWN.items() for name in names
    ]
    plugged = [
        Known(stream, point.name, _package(point))
        for stream in OWN
        for point in sorted(entry_points(group=GROUPS[stream]), key=lambda point: point.name)
    ]
    return own + plugged


def weights_of(config: SemanticConfig | MotionConfig) -> str:
    """Return the weights that `config` means, by the name that it would be asked for by."""
    name = config.architecture or next(iter(OWN["semantic"]))
    if config.weights == DEFAULT_WEIGHTS:
        return DEFAULT.get(name, DEFAULT_WEIGHTS)
    return config.weights


def named_by_default(config: SemanticConfig | MotionConfig) -> str | None:
    """Return the name whose default weights `config` means, None if it means others."""
    weights = weights_of(config)
    names = [name for name, default in DEFAULT.items() if default == weights]
    return next((name for name in names if config.architecture in (None, name)), None)


def spoken(config: SemanticConfig | MotionConfig) -> str:
    """Return what a person is told of a backbone that is loaded: "r3d_18 KINETICS400_V1"."""
    return " ".join(filter(None, (config.architecture, weights_of(config))))


def load_semantic(config: SemanticConfig, folder: Path, *, empty: bool = False) -> SemanticBackbone:
    """Load the semantic backbone that `config` names on the CPU and try it on one frame.

    Args:
        config: which one.
        folder: where relative local weights start.
        empty: on no device, without its weights and untried, to count with.

    Raises:
        TcaError: gated, unreachable, missing, damaged or incomplete weights, with the remedy.
        UsageError: no such backbone, settings that do not fit it, or a network that gives no
            patches.
    """
    backbone = _load("semantic", config, folder, empty)
    assert isinstance(backbone, SemanticBackbone)
    return backbone


def load_motion(config: MotionConfig, folder: Path, *, empty: bool = False) -> MotionBackbone:
    """Load the motion backbone that `config` names; as `load_semantic`."""
    backbone = _load("motion", config, folder, empty)
    assert isinstance(backbone, MotionBackbone)
    return backbone


def _load(
    stream: str, config: SemanticConfig | MotionConfig, folder: Path, empty: bool
) -> SemanticBackbone | MotionBackbone:
    load = _loader(stream, config.architecture, empty)
    if empty:
        with torch.device("meta"):
            return load(config, folder)
    backbone = load(config, folder)
    backbone.prove()
    return backbone


def _loader(stream: str, name: str | None, empty: bool) -> Loader:
    points = [point for point in entry_points(group=GROUPS[stream]) if point.name == name]
    own = OWN[stream].get(name or "")
    if len(points) + (own is not None) > 1:
        packages = [*([OURS] if own else []), *map(_package, points)]
        raise UsageError(
            f"{' and '.join(packages)} each have a {stream} backbone {name!r}; uninstall one, or "
            "have it renamed."
        )
    if points:
        return partial(_load_plugged, stream, points[0], empty)
    if own is not None:
        return partial(own, empty=empty)
    if stream == "semantic":
        # Any image transformer goes by its model type, or by its weights alone.
        return partial(load_image_transformer, empty=empty)
    names = [known.name for known in known_backbones() if known.stream == stream]
    raise UsageError(f"motion.architecture={name!r} is none of {', '.join(names)}.")


def _load_plugged(
    stream: str, point: EntryPoint, empty: bool, config: Any, folder: Path
) -> SemanticBackbone | MotionBackbone:
    whose = f"the {stream} backbone {point.name!r} of the package {_package(point)}"
    try:
        load = point.load()
    except Exception as error:
        raise UsageError(
            f"{whose} cannot be imported from {point.value} ({first_line(error)}); repair or "
            "uninstall that package."
        ) from None
    if empty:
        # A package may reach for its weights while it loads.
        config = config.model_copy(update={"weights": "random:0"})
    try:
        backbone = load(config, folder)
    except TcaError:
        raise
    except Exception as error:
        raise UsageError(
            f"{whose} cannot be loaded ({type(error).__name__}: {first_line(error)}); correct its "
            f"settings, or repair that package."
        ) from None
    if not isinstance(backbone, KINDS[stream]):
        raise UsageError(
            f"{whose} is a {type(backbone).__name__}; {point.value} must return a "
            f"{KINDS[stream].__name__} of tca.extract.backbones.base."
        )
    return backbone


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
