"""Attention from the tokens of one stream to those of the other, and layers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from tca.fusion.model.config import ModelConfig
from tca.fusion.model.graph_attention import head_width
from tca.fusion.model.variant import STREAMS, Tokens, Variant


class CrossAttention(nn.Module):
    """Multi-head attention from tokens (B, N, D) to others (B, M, D'), both normed first."""

    def __init__(self, width: int, other_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size, self.dropout = heads, head_width(width, heads), dropout
        self.norm = nn.LayerNorm(width)
        self.other_norm = nn.LayerNorm(other_width)
        self.query = nn.Linear(width, heads * self.size)
        self.key_value = nn.Linear(other_width, 2 * heads * self.size)
        self.out = nn.Linear(heads * self.size, width)

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        """Return what `tokens` take from `other`, (B, N, D)."""
        taken: Tensor = self.out(self.mix(tokens, other))
        return taken

    def mix(self, tokens: Tensor, other: Tensor) -> Tensor:
        """Return the same before the last projection, `out`."""
        batch, count, _ = tokens.shape
        query = self.query(self.norm(tokens)).view(batch, count, self.heads, self.size)
        packed = self.key_value(self.other_norm(other))
        packed = packed.view(batch, other.shape[1], 2, self.heads, self.size)
        key, value = packed.permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, dropout_p=rate)
        return mixed.transpose(1, 2).flatten(-2)


class FeedForward(nn.Module):
    """Norm, widen by `model.ratio`, GELU, narrow again."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        hidden = max(1, round(config.ratio * width))
        self.widen = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.dropout)
        )
        self.narrow = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        fed: Tensor = self.narrow(self.widen(tokens))
        return fed


def cross_layers(
    model: Variant, layer: Callable[[int, int, ModelConfig], nn.Module]
) -> nn.ModuleList:
    """Return `model.layers` layers that take and give both streams, (B, N, D) and (B, M, D')."""
    semantic, motion = (model.width(name) for name in STREAMS)
    return nn.ModuleList(layer(semantic, motion, model.config) for _ in range(model.config.layers))


def across(model: Variant, layers: Iterable[nn.Module], tokens: Tokens) -> list[Tokens]:
    """Return both streams after every layer; all tokens of a video attend at once."""
    shapes = {name: tokens[name].shape for name in STREAMS}
    flat = [tokens[name].flatten(1, 2) for name in STREAMS]
    states = []
    for layer in layers:
        flat = model.run_layer(layer, *flat)
        states.append(
            {name: some.view(shapes[name]) for name, some in zip(STREAMS, flat, strict=True)}
        )
    return states
