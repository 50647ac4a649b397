"""Graph attention in every stream of a variant: patches of a frame, segments of a time line."""

from __future__ import annotations

from torch import Tensor, nn

from tca.fusion.model.graph_attention import GraphAttention
from tca.fusion.model.variant import Tokens, Variant


def graph_layers(model: Variant) -> nn.ModuleDict:
    """Return `model.graph_layers` layers of graph attention a stream."""
    return nn.ModuleDict(
        {
            name: nn.ModuleList(_layer(model, name) for _ in range(model.config.graph_layers))
            for name in model.streams
        }
    )


def along_graphs(model: Variant, layers: nn.ModuleDict, tokens: Tokens) -> Tokens:
    """Return the streams after their layers."""
    mixed = {}
    for name, of_stream in layers.items():
        assert isinstance(of_stream, nn.ModuleList)
        nodes = _turned(name, tokens[name])
        for layer in of_stream:
            nodes = model.run_layer(layer, nodes)
        mixed[name] = _turned(name, nodes)
    return tokens | mixed


def _layer(model: Variant, name: str) -> GraphAttention:
    config = model.config
    if name == "semantic":
        segments = model.segments(name)
        return GraphAttention(
            model.width(name),
            model.grid(name),
            segments if segments > 1 else None,
            radius=config.radius,
            similar=config.similar,
            config=config,
        )
    # A time line is a grid of one column, so that |dt| <= w is a Chebyshev distance too.
    return GraphAttention(
        model.width(name),
        (model.segments(name), 1),
        None,
        radius=config.window,
        similar=config.similar_segments,
        config=config,
    )


def _turned(name: str, tokens: Tensor) -> Tensor:
    """Return tokens with segments, not patches, as the nodes of the motion stream; and back."""
    return tokens if name == "semantic" else tokens.transpose(1, 2)
