"""What a variant costs by part: parameters, FLOPs that are executed, FLOPs that its graphs need.

Nothing is estimated: the model is run on tensors without numbers, and every FLOP is charged to the
innermost module that was at work. A multiplication and its addition count as 2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import GraphAttention
from tca.fusion.model.registry import build
from tca.fusion.model.variant import STREAMS, Variant

Features = tuple[Tensor | None, Tensor | None]
"""Semantic and motion rows as `Variant.forward` takes them."""

EXAMPLES = 2
"""Rows whose edges are counted; their number differs by a percent or so from video to video."""

WORDS = {
    "stems": "stems",
    "graph_layers": "graph attention",
    "layers": "cross layers",
    "head": "head",
    "layer_heads": "layer heads",
}
"""The parts of tca's own variants in their order, by the attribute that holds them."""


@dataclass(frozen=True)
class PartCost:
    """One part of a model.

    Attributes:
        part: "stems", "graph attention, semantic", "cross layers, motion", "head", …; what a
            plugged-in variant has besides goes by its attribute.
        parameters: trained ones.
        flops: executed for one video, forward.
        useful_flops: the same with attention along the edges of the graphs alone, and without
            looking for similar patches.
    """

    part: str
    parameters: int
    flops: int
    useful_flops: int


@dataclass(frozen=True)
class ModelCost:
    """What a variant costs.

    Attributes:
        variant: its name.
        parts: in the order of the model.
        training_flops: of one video in a training step, forward and backward.
    """

    variant: str
    parts: list[PartCost]
    training_flops: int

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        """Executed for one video, forward, heads of the layers included."""
        return sum(part.flops for part in self.parts)

    @property
    def useful_flops(self) -> int:
        """What of `flops` the graphs need."""
        return sum(part.useful_flops for part in self.parts)

    @property
    def cross_flops(self) -> int:
        """What the streams tell each other costs: all of the cross layers, projections too."""
        return sum(part.flops for part in self.parts if part.part.startswith(WORDS["layers"]))

    def groups(self) -> dict[str, int]:
        """Return `flops` by part, both streams together, parts without any left out."""
        groups: Counter[str] = Counter()
        for part in self.parts:
            groups[part.part.split(",")[0]] += part.flops
        return {group: flops for group, flops in groups.items() if flops}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        totals = ("parameters", "flops", "useful_flops", "cross_flops")
        return asdict(self) | {name: getattr(self, name) for name in totals}


def model_cost(
    config: ModelConfig,
    shapes: FeatureShapes,
    classes: Sequence[str],
    features: Features | None = None,
) -> ModelCost:
    """Count what a model costs.

    Args:
        config: what to build.
        shapes: of the store.
        classes: names of the classes to score.
        features: rows on which an untrained model makes the graphs whose edges are counted; random
            ones if not given.

    Raises:
        UsageError: as `build`.
    """
    model = build(config, shapes, classes)
    with hollow(model) as counted:
        one = random_rows(shapes, 1)
        executed = _flops_by_module(counted, one)
        training = _training_flops(counted, one)
    useful = dict(executed)
    if any(isinstance(module, GraphAttention) for module in model.modules()):
        useful.update(_along_edges(model, features or random_rows(shapes, EXAMPLES)))
    parts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    order = list(WORDS)
    for path, module in sorted(
        model.named_modules(),
        # What a plugged-in variant has besides comes before the head.
        key=lambda item: order.index(top) if (top := item[0].split(".")[0]) in order else 2.5,
    ):
        counts = parts[part_of(path)]
        counts[0] += sum(parameter.numel() for parameter in module.parameters(recurse=False))
        counts[1] += executed[path]
        counts[2] += useful.get(path, 0)
    return ModelCost(
        config.variant,
        [PartCost(part, *counts) for part, counts in parts.items() if any(counts)],
        training,
    )


def part_of(path: str) -> str:
    """Return the part that a module is in, by its path in the model."""
    top, *inner = path.split(".")
    words = WORDS.get(top, top or "between the parts")
    if top in ("graph_layers", "layers"):
        stream = next((name for name in inner if name in STREAMS), None)
        return f"{words}, {stream}" if stream else words
    return words


@contextmanager
def hollow(model: Variant) -> Iterator[Variant]:
    """Yield a copy of `model` without numbers, and let all tensors that are made have none.

    Only shapes are computed then: neither time nor memory depends on sizes.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        tensors = chain(model.parameters(), model.buffers())
        yield deepcopy(model, {id(tensor): fake.from_tensor(tensor) for tensor in tensors})


def random_rows(shapes: FeatureShapes, count: int) -> Features:
    """Return the features of `count` rows, the same at every call; float16, as stores hold them."""
    generator = torch.Generator().manual_seed(0)
    frames = () if shapes.segments is None else (shapes.segments,)
    rows = [
        (*frames, shapes.grid[0] * shapes.grid[1], shapes.semantic_width),
        (shapes.motion_segments, shapes.motion_width),
    ]
    semantic, motion = (
        torch.randn(count, *row, generator=generator).half() if row[-1] else None for row in rows
    )
    return semantic, motion


def _flops_by_module(model: Variant, features: Features) -> Counter[str]:
    """Return the FLOPs that each module executes itself, outside of the modules in it."""
    with _counting() as counter, _charging(model, counter) as charged:
        model.eval().supervised(*features)
    return charged


def _training_flops(model: Variant, features: Features) -> int:
    with _counting() as counter:
        scores, by_layer = model.train().supervised(*features)
        torch.autograd.backward([scores.sum(), *(layer.scores.sum() for layer in by_layer)])
    return counter.get_total_flops()


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    # Fused attention is one step that the counter does not know on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


@contextmanager
def _charging(model: nn.Module, counter: FlopCounterMode) -> Iterator[Counter[str]]:
    """Yield what the modules of `model` come to, by path, complete at the end."""
    charged: Counter[str] = Counter()
    at_work = [""]
    seen = 0

    def charge() -> None:
        nonlocal seen
        total = counter.get_total_flops()
        charged[at_work[-1]] += total - seen
        seen = total

    def enter(path: str) -> None:
        charge()
        at_work.append(path)

    def leave() -> None:
        charge()
        at_work.pop()

    hooks = []
    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, path=path: enter(path)))
        hooks.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield charged
        charge()
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _along_edges(model: Variant, features: Features) -> Counter[str]:
    """Return the FLOPs of one video's attention along edges, by graph attention layer."""
    model.eval().fit_statistics([features])
    useful: Counter[str] = Counter()

    def look(path: str, layer: GraphAttention, tokens: Tensor) -> None:
        graph = layer.graph(tokens)
        videos, segments, nodes, _ = graph.edges.shape
        frame = int(graph.edges.sum()) / videos * layer.frame_heads
        tube = 0 if graph.tube is None else segments * nodes * graph.tube * layer.tube_heads
        # Query times key, and weight times value: a multiplication and an addition a feature each.
        useful[path] += round(4 * layer.size * (frame + tube))

    for path, module in model.named_modules():
        if isinstance(module, GraphAttention):
            module.register_forward_pre_hook(
                lambda layer, given, path=path: look(path, layer, given[0])
            )
    model.fuse(model.tokens(*features))
    return useful
