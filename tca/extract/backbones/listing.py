"""What backbones there are and what each costs, without reading a weight."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tca.errors import TcaError
from tca.extract.backbones.base import MotionBackbone, SemanticBackbone, first_line
from tca.extract.backbones.pair import Backbones
from tca.extract.backbones.registry import (
    Known,
    known_backbones,
    load_motion,
    load_semantic,
    weights_of,
)
from tca.extract.config import SEGMENTS, MotionConfig, SemanticConfig, Stage1Config


@dataclass(frozen=True)
class Cost:
    """What one backbone sees, gives and takes.

    Attributes:
        size: pixels of the square frames that it sees.
        row: shape of the features of a frame or of a video's segments; of a project, what its
            stores keep of a video.
        parameters: of the network, its head left out.
        flops: of one video; a multiplication and its addition are two.
    """

    size: int
    row: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Listed:
    """One line of `tca backbones`.

    Attributes:
        stream: "semantic" or "motion".
        name: what `semantic.architecture` or `motion.architecture` calls it.
        package: where it comes from, None for what a project configures.
        weights: those of the project, or those it has where none are configured.
        cost: None where it cannot be made.
        problem: why not.
    """

    stream: str
    name: str
    package: str | None
    weights: str | None
    cost: Cost | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        fields = asdict(self)
        return fields | (fields.pop("cost") or {})


def list_backbones() -> list[Listed]:
    """Return every backbone that can be named; one that fails says why and costs no other."""
    return [_listed(known) for known in known_backbones()]


def list_configured(config: Stage1Config, folder: Path) -> list[Listed]:
    """Return the two backbones that `config` means; no weights are read.

    Raises:
        TcaError: a hub id or folder whose configuration cannot be read.
        UsageError: no such backbone, or settings that do not fit it.
    """
    pair = Backbones.load(config.semantic, config.motion, folder, empty=True)
    return [
        Listed(stream, found.architecture, None, weights, cost(found, pair.row_shapes[stream]))
        for stream, found, weights in (
            ("semantic", pair.semantic, weights_of(config.semantic)),
            ("motion", pair.motion, weights_of(config.motion)),
        )
    ]


def _listed(known: Known) -> Listed:
    what = (known.stream, known.name, known.package, known.weights)
    options = {"architecture": known.name, "weights": "random:0"}
    try:
        backbone: SemanticBackbone | MotionBackbone
        if known.stream == "semantic":
            backbone = load_semantic(SemanticConfig.model_validate(options), Path(), empty=True)
        else:
            backbone = load_motion(MotionConfig.model_validate(options), Path(), empty=True)
        return Listed(*what, cost=cost(backbone, backbone.row_shape))
    except TcaError as error:
        return Listed(*what, problem=str(error))
    except Exception as error:
        # A package of somebody else's; the others are still to be listed.
        return Listed(*what, problem=f"{type(error).__name__}: {first_line(error)}")


def cost(backbone: SemanticBackbone | MotionBackbone, row: tuple[int, ...]) -> Cost:
    """Count what `backbone`, made on no device, takes for one video.

    Raises:
        UsageError: it gives another shape than it promises.
    """
    # Fused attention is one step that the counter does not know on every device.
    with (
        torch.device("meta"),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        backbone.prove()
    pictures = SEGMENTS if isinstance(backbone, SemanticBackbone) else 1
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Cost(backbone.size, row, parameters, pictures * counter.get_total_flops())
