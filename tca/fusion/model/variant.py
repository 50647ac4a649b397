"""What every variant is made of: a stem a stream, what the variant does between, and a head.

A variant of your own is a subclass of `Variant` that an installed package names as an entry point;
see docs/model.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tca.cache.layout import FeatureShapes
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import Graph, GraphAttention
from tca.fusion.model.head import Head, Readout
from tca.fusion.model.stem import Moments, Stem
from tca.fusion.model.verbs import verb_groups

STREAMS = ("semantic", "motion")

Tokens = dict[str, Tensor]
"""Every stream that a variant reads, (B, T, P, D) each; P is 1 for segments."""


@dataclass(frozen=True)
class LayerScores:
    """What one layer's own head says, under `model.progressive`.

    Attributes:
        scores: logits (B, classes), or (B, verb groups).
        of_verbs: whether they are of verb groups: `Variant.verb_of` says which class is in which.
    """

    scores: Tensor
    of_verbs: bool


class Variant(nn.Module):
    """A fusion architecture; subclasses override `fuse`, and perhaps `make_head`.

    Args:
        config: sizes and switches.
        shapes: what the store holds.
        classes: names of the classes to score.
        layers: how many of the states that `fuse` returns may have heads of their own.

    Raises:
        UsageError: `config.pool` does not divide the grid, or `config.progressive` where there are
            less than two layers or verb groups.
    """

    streams: ClassVar[tuple[str, ...]] = STREAMS
    """What it reads, of "semantic" and "motion"."""

    verb_of: Tensor

    def __init__(
        self,
        config: ModelConfig,
        shapes: FeatureShapes,
        classes: Sequence[str],
        *,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if "semantic" in self.streams and any(side % config.pool for side in shapes.grid):
            raise UsageError(
                f"model.pool={config.pool} does not divide the store's grid of "
                f"{shapes.grid[0]}x{shapes.grid[1]} patches; choose a divisor of both."
            )
        self.config = config
        self.stems = nn.ModuleDict(
            {name: Stem.of_stream(name, config, shapes) for name in self.streams}
        )
        self.head = self.make_head(config, len(classes))
        self.layer_heads = nn.ModuleList()
        if config.progressive:
            names, verb_of = verb_groups(classes)
            if layers < 2:
                raise UsageError(
                    f"model.progressive needs layers to supervise, and {config.variant} with "
                    f"model.layers={config.layers} has none before its last; set it to false."
                )
            self.register_buffer("verb_of", torch.tensor(verb_of), persistent=False)
            self.layer_heads.extend(
                Head(
                    self.readouts(cells=1, energy_cells=1),
                    len(names) if layer == 0 else len(classes),
                    config.head_dropout,
                )
                for layer in range(layers - 1)
            )

    def fuse(self, tokens: Tokens) -> list[Tokens]:
        """Return the streams after every layer, as many as `layers`; the head reads the last."""
        return [tokens]

    def make_head(self, config: ModelConfig, classes: int) -> nn.Module:
        """Return what turns the tokens of the last layer into scores (B, classes)."""
        readouts = self.readouts(config.cells, config.energy_cells)
        return Head(readouts, classes, config.head_dropout)

    def forward(self, semantic: Tensor | None, motion: Tensor | None) -> Tensor:
        """Return class scores.

        Args:
            semantic: patches as stored, (B, P, D) or (B, T, P, D).
            motion: segments as stored, (B, T', D'). A stream that the variant does not read may
                be None.

        Returns:
            Logits (B, classes).
        """
        scores: Tensor = self.head(self.fuse(self.tokens(semantic, motion))[-1])
        return scores

    def supervised(
        self, semantic: Tensor | None, motion: Tensor | None
    ) -> tuple[Tensor, list[LayerScores]]:
        """Return class scores, and those of the layers' own heads: what a training supervises."""
        *earlier, last = self.fuse(self.tokens(semantic, motion))
        by_layer = zip(self.layer_heads, earlier, strict=False)
        return self.head(last), [
            LayerScores(head(tokens), number == 0) for number, (head, tokens) in enumerate(by_layer)
        ]

    def tokens(self, semantic: Tensor | None, motion: Tensor | None) -> Tokens:
        """Return every stream as it leaves its stem."""
        given = self._given(semantic, motion)
        return {name: stem(given[name]) for name, stem in self._stems()}

    def run_layer(self, layer: Callable[..., Any], *tensors: Tensor) -> Any:
        """Return what `layer` makes of `tensors`.

        Under `model.checkpointing` it is made again in the backward pass instead of being kept.
        """
        if self.config.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *tensors, use_reentrant=False)
        return layer(*tensors)

    @torch.no_grad()
    def graphs(
        self, semantic: Tensor | None, motion: Tensor | None, *, weights: bool = False
    ) -> dict[str, list[Graph]]:
        """Return the graph of every graph attention layer, by stream, as this batch makes it.

        In training too these are the graphs of scoring, which dropout does not touch.

        Args:
            semantic: as for `forward`.
            motion: as for `forward`.
            weights: also the attention along the edges, exact and zero elsewhere.
        """
        found: dict[str, list[Graph]] = {}
        hooks = []
        for path, module in self.named_modules():
            if isinstance(module, GraphAttention):
                name = next((part for part in path.split(".") if part in STREAMS), path)
                graphs = found.setdefault(name, [])

                def look(
                    layer: nn.Module, given: tuple[Tensor], graphs: list[Graph] = graphs
                ) -> None:
                    assert isinstance(layer, GraphAttention)
                    graphs.append(layer.graph(given[0], weights=weights))

                hooks.append(module.register_forward_pre_hook(look))
        in_training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            self.fuse(self.tokens(semantic, motion))
        finally:
            for module in in_training:
                module.training = True
            for hook in hooks:
                hook.remove()
        return found

    def fit_statistics(self, batches: Iterable[tuple[Tensor | None, Tensor | None]]) -> None:
        """Standardise each stream by the statistics of (semantic, motion) `batches`."""
        fit_statistics([self], batches)

    def readouts(self, cells: int, energy_cells: int) -> dict[str, Readout]:
        """Return what turns each stream into one vector; see `Readout`."""
        rank = self.config.rank
        return {
            name: Readout(stem.segments, stem.grid, stem.width, cells, rank, energy_cells)
            for name, stem in self._stems()
        }

    def width(self, stream: str) -> int:
        """Return the features of a token of `stream`."""
        return self._stem(stream).width

    def segments(self, stream: str) -> int:
        """Return T of `stream`."""
        return self._stem(stream).segments

    def grid(self, stream: str) -> tuple[int, int]:
        """Return the patches (vertically, horizontally) of a frame of `stream`."""
        return self._stem(stream).grid

    def _given(self, semantic: Tensor | None, motion: Tensor | None) -> Tokens:
        both = {"semantic": semantic, "motion": motion}
        missing = [name for name in self.streams if both[name] is None]
        if missing:
            raise ValueError(f"{self.config.variant} reads {missing[0]}, which is None")
        return {name: given for name, given in both.items() if given is not None}

    def _stem(self, stream: str) -> Stem:
        stem = self.stems[stream]
        assert isinstance(stem, Stem)
        return stem

    def _stems(self) -> Iterator[tuple[str, Stem]]:
        for name in self.streams:
            yield name, self._stem(name)


def fit_statistics(
    models: Sequence[Variant], batches: Iterable[tuple[Tensor | None, Tensor | None]]
) -> None:
    """Standardise the streams of all `models` by one pass over (semantic, motion) `batches`."""
    alike: dict[tuple[str, int], list[Stem]] = {}
    for model in models:
        for name, stem in model._stems():
            alike.setdefault((name, stem.pool), []).append(stem)
    # What is pooled alike is measured once.
    moments = {key: Moments() for key in alike}
    for pair in batches:
        for model in models:
            model._given(*pair)
        given = dict(zip(STREAMS, pair, strict=True))
        for (name, pool), stems in alike.items():
            features = given[name]
            assert features is not None
            stems[0].observe(features, moments[name, pool])
    for key, stems in alike.items():
        for stem in stems:
            stem.standardise(moments[key])
