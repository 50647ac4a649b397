"""What members that step as one draw: each from a generator of its own, what it would draw alone.

`torch.func.vmap` knows two ways to draw: the same for all, or from one generator for all. Here the
functions with which a model draws are exchanged while it runs. Any other that draws is refused by
`vmap` itself, so none can be forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override


class OwnDraws(TorchFunctionMode):
    """Has dropout, attention and stochastic depth draw for every member by itself.

    On a CPU the numbers are those that torch draws for a model alone. On a GPU they are other ones:
    its fused kernels do not say what they draw.

    Args:
        seeds: what the generator of every member begins with.
        device: where the model is.
    """

    member: Tensor
    """Which member it is: a number under `vmap`. To be set by the function that runs the model."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        instead: dict[Any, Callable[..., Any]] = {
            F.dropout: self._dropout,
            F.scaled_dot_product_attention: self._attention,
            Tensor.bernoulli_: self._bernoulli,
            F.adaptive_avg_pool2d: _pooled,
        }
        return instead.get(func, func)(*args, **(kwargs or {}))

    def _dropout(
        self, given: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return given
        return given * (self._bernoulli(given, 1 - p) / (1 - p))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
    ) -> Tensor:
        # Fused kernels cannot be told what to drop, and know nothing of members.
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if attn_mask is not None:
            scores = scores + attn_mask
        weights = self._dropout(scores.softmax(-1), dropout_p)
        return weights @ value

    def _bernoulli(self, like: Tensor, p: float) -> Tensor:
        """Return ones and, with probability `1 - p`, zeros."""
        drawn: Tensor = _Bernoulli.apply(self.member, like.shape, like.dtype, p, self._generators)
        return drawn


def _pooled(given: Tensor, output_size: tuple[int, int]) -> Tensor:
    # The one case in which torch's own does what `vmap` knows one by one only, with a warning.
    if output_size == (1, 1):
        return given.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(given, output_size)


class _Bernoulli(torch.autograd.Function):
    """Known to `vmap` alone, where it is told of all members at once."""

    @staticmethod
    @override
    def forward(*_: Any) -> Tensor:
        raise NotImplementedError("drawn under vmap only")

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is learned about what is drawn."""

    @staticmethod
    @override
    def vmap(
        info: Any,
        in_dims: Any,
        member: Tensor,
        shape: Sequence[int],
        dtype: torch.dtype,
        p: float,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, int]:
        """Return (members, *shape), and where the members are in it."""
        drawn = torch.empty(len(generators), *shape, dtype=dtype, device=member.device)
        for some, generator in zip(drawn, generators, strict=True):
            some.bernoulli_(p, generator=generator)
        return drawn, 0
