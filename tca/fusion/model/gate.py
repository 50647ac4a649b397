"""Residual branches that start closed and can be dropped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class Gate(nn.Module):
    """Adds a branch to a residual stream: times a learned scalar that starts at zero.

    Zero here and nothing but here: with the branch's last projection at zero too, neither would get
    a gradient. As ReZero (Bachlechner et al. 2021).

    Args:
        drop_path: share of videos for which a training step leaves the branch out, the others
            scaled up (stochastic depth, Huang et al. 2016).
    """

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))
        self.drop = StochasticDepth(drop_path, "row") if drop_path else nn.Identity()

    def forward(self, stream: Tensor, branch: Tensor, last: nn.Linear | None = None) -> Tensor:
        """Return both added, (B, …) each.

        Args:
            stream: what the branch is added to.
            branch: the branch, or what its last projection takes.
            last: that projection. Its weights are scaled instead of every token of the branch,
                which then need not be kept for the backward pass.
        """
        if last is None:
            gated = self.gate * branch
        else:
            gated = F.linear(branch, self.gate * last.weight, self.gate * last.bias)
        added: Tensor = stream + self.drop(gated)
        return added
