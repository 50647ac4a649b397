"""What a training step lowers: the class's cross-entropy, and that of every layer's own head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tca.fusion.model.variant import Variant
from tca.fusion.train.config import TrainConfig


class Objective(nn.Module):
    """A variant and its loss as one module, which is what is compiled and shared out.

    Args:
        model: any variant.
        config: label smoothing and the layers' weight.
    """

    def __init__(self, model: Variant, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, semantic: Tensor | None, motion: Tensor | None, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar; see `fusion_loss`."""
        return fusion_loss(self.model, semantic, motion, target, self.config)


def fusion_loss(
    model: Variant,
    semantic: Tensor | None,
    motion: Tensor | None,
    target: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Return the mean loss of a batch, a scalar.

    Under `model.progressive` the mean loss of the layers' heads is added, `train.layer_weight`
    times: layer 1 is to tell the class's verb, every other layer the class.

    Args:
        model: any variant.
        semantic: as for `Variant.forward`.
        motion: as for `Variant.forward`.
        target: classes (B,), int64, or each one's probability (B, classes).
        config: label smoothing and the weight.
    """
    scores, by_layer = model.supervised(semantic, motion)
    loss = _cross_entropy(scores, target, config)
    if not by_layer:
        return loss
    of_layers = []
    for layer in by_layer:
        wanted = _verbs(target, model.verb_of, layer.scores.shape[1]) if layer.of_verbs else target
        of_layers.append(_cross_entropy(layer.scores, wanted, config))
    return loss + config.layer_weight * torch.stack(of_layers).mean()


def _verbs(target: Tensor, verb_of: Tensor, verbs: int) -> Tensor:
    if target.dim() == 1:
        return verb_of[target]
    shares = torch.zeros(len(target), verbs, dtype=target.dtype, device=target.device)
    return shares.index_add(1, verb_of, target)


def _cross_entropy(scores: Tensor, target: Tensor, config: TrainConfig) -> Tensor:
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.cross_entropy(exact, target, label_smoothing=config.label_smoothing)
