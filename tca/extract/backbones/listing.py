"""What backbones there are and what each costs, without reading a weight."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tca.errors import TcaError, UsageError
from tca.extract.backbones.base import MotionBackbone, SemanticBackbone, first_line
from tca.extract.backbones.pair import Backbones
from tca.extract.backbones.registry import (
    Known,
    known_backbones,
    load_motion,
    load_semantic,
    named_by_default,
    weights_of,
)
from tca.extract.config import SEGMENTS, MotionConfig, SemanticConfig, Stage1Config

NO_WEIGHTS = "random:0"

ConfigT = TypeVar("ConfigT", SemanticConfig, MotionConfig)


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

    Of weights that go by a name, shapes are known without asking the hub; of others that cannot be
    reached, the line says so.

    Raises:
        UsageError: no such backbone, or settings that do not fit it.
    """
    semantic, motion = _unasked(config.semantic), _unasked(config.motion)
    found = []
    for stream, pair, weights in (
        ("semantic", (semantic, MotionConfig(weights=NO_WEIGHTS)), weights_of(config.semantic)),
        ("motion", (SemanticConfig(weights=NO_WEIGHTS), motion), weights_of(config.motion)),
    ):
        try:
            both = Backbones.load(*pair, folder, empty=True)
        except UsageError:
            raise
        except TcaError as error:
            found.append(Listed(stream, "", None, weights, problem=str(error)))
            continue
        backbone = both.semantic if stream == "semantic" else both.motion
        costs = cost(backbone, both.row_shapes[stream])
        found.append(Listed(stream, backbone.architecture, None, weights, costs))
    return found


def hollow_pair(config: Stage1Config, folder: Path) -> Backbones:
    """Return the two backbones that `config` means on no device, for their shapes.

    Raises:
        TcaError, UsageError: as `Backbones.load`.
    """
    return Backbones.load(_unasked(config.semantic), _unasked(config.motion), folder, empty=True)


def _unasked(config: ConfigT) -> ConfigT:
    """Return `config` so that a hub is not asked for what tca knows."""
    name = named_by_default(config)
    if name is None:
        return config
    return config.model_copy(update={"architecture": name, "weights": NO_WEIGHTS})


def _listed(known: Known) -> Listed:
    what = (known.stream, known.name, known.package, known.weights)
    options = {"architecture": known.name, "weights": NO_WEIGHTS}
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
