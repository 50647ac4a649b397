"""GASM-CAST: graph attention in each stream, B-CAST between them, one head.

Every branch that mixes tokens is residual behind a gate that starts at zero, so an untrained model
is its head alone, a low-rank linear readout, and training adds what helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from tca.cache.layout import FeatureShapes
from tca.errors import UsageError
from tca.fusion.model.bcast import BCast
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import GraphAttention
from tca.fusion.model.head import Head, Readout
from tca.fusion.model.stem import Moments, Stem

STREAMS = ("semantic", "motion")


class GasmCast(nn.Module):
    """The fusion model and, with parts left out, its simpler variants.

    Args:
        config: sizes.
        shapes: what the store holds.
        classes: class scores to give.
        streams: the streams that are read.
        graphs: whether each stream has graph attention.
        cross: whether the streams attend to each other.

    Raises:
        UsageError: `config.pool` does not divide the grid.
    """

    def __init__(
        self,
        config: ModelConfig,
        shapes: FeatureShapes,
        classes: int,
        *,
        streams: tuple[str, ...] = STREAMS,
        graphs: bool = True,
        cross: bool = True,
    ) -> None:
        super().__init__()
        self.streams = streams
        if "semantic" in streams and any(side % config.pool for side in shapes.grid):
            raise UsageError(
                f"model.pool={config.pool} does not divide the store's grid of "
                f"{shapes.grid[0]}x{shapes.grid[1]} patches; choose a divisor of both."
            )
        stems = {name: _stem(config, name, shapes) for name in streams}
        self.stems = nn.ModuleDict(stems)
        self.graphs = nn.ModuleDict(
            {name: _graph_layers(config, name, stems[name]) for name in streams if graphs}
        )
        self.layers = nn.ModuleList(
            BCast(
                stems["semantic"].width,
                stems["motion"].width,
                config.bottleneck,
                config.heads,
                config.ratio,
                config.dropout,
            )
            for _ in range(config.layers if cross else 0)
        )
        readouts = {
            name: Readout(
                stems[name].segments,
                stems[name].grid,
                stems[name].width,
                config.cells,
                config.rank,
            )
            for name in streams
        }
        self.head = Head(readouts, classes, config.head_dropout)

    def forward(self, semantic: Tensor | None, motion: Tensor | None) -> Tensor:
        """Return class scores.

        Args:
            semantic: patches as stored, (B, P, D) or (B, T, P, D).
            motion: segments as stored, (B, T', D'). A stream that the variant does not read may
                be None.

        Returns:
            Logits (B, classes).
        """
        given = self._given(semantic, motion)
        tokens = {name: stem(given[name]) for name, stem in self._stems()}
        for name, layers in self.graphs.items():
            tokens[name] = _along(name, layers, tokens[name])
        if self.layers:
            shapes = {name: tokens[name].shape for name in STREAMS}
            left, right = (tokens[name].flatten(1, 2) for name in STREAMS)
            for layer in self.layers:
                left, right = layer(left, right)
            tokens = {
                "semantic": left.view(shapes["semantic"]),
                "motion": right.view(shapes["motion"]),
            }
        scores: Tensor = self.head(tokens)
        return scores

    def fit_statistics(self, batches: Iterable[tuple[Tensor | None, Tensor | None]]) -> None:
        """Standardise each stream by the statistics of (semantic, motion) `batches`."""
        moments = {name: Moments() for name in self.stems}
        for pair in batches:
            given = self._given(*pair)
            for name, stem in self._stems():
                stem.observe(given[name], moments[name])
        for name, stem in self._stems():
            stem.standardise(moments[name])

    def _given(self, semantic: Tensor | None, motion: Tensor | None) -> dict[str, Tensor]:
        both = {"semantic": semantic, "motion": motion}
        return {name: given for name, given in both.items() if given is not None}

    def _stems(self) -> Iterator[tuple[str, Stem]]:
        for name, stem in self.stems.items():
            assert isinstance(stem, Stem)
            yield name, stem


def _stem(config: ModelConfig, name: str, shapes: FeatureShapes) -> Stem:
    if name == "semantic":
        segments, width = shapes.segments or 1, shapes.semantic_width
        return Stem(segments, shapes.grid, width, config.pool, config.max_width)
    return Stem(shapes.motion_segments, (1, 1), shapes.motion_width, 1, config.max_width)


def _graph_layers(config: ModelConfig, name: str, stem: Stem) -> nn.Sequential:
    """Return one stream's graph attention; a segment line is a grid of one column."""
    patches = name == "semantic"
    return nn.Sequential(
        *(
            GraphAttention(
                stem.width,
                stem.grid if patches else (stem.segments, 1),
                stem.segments if patches and stem.segments > 1 else None,
                config.heads,
                config.radius if patches else config.window,
                config.similar if patches else config.similar_segments,
                config.dropout,
            )
            for _ in range(config.graph_layers)
        )
    )


def _along(name: str, layers: nn.Module, tokens: Tensor) -> Tensor:
    """Run graph attention with segments, not patches, as the nodes of the motion stream."""
    turned = name != "semantic"
    mixed: Tensor = layers(tokens.transpose(1, 2) if turned else tokens)
    return mixed.transpose(1, 2) if turned else mixed
