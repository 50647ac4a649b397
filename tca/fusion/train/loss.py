"""What a training step lowers: the class's cross-entropy, and that of every layer's own head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tca.fusion.model.variant import Variant
from tca.fusion.train.config import TrainConfig


def fusion_loss(
    model: Variant,
    semantic: Tensor | None,
    motion: Tensor | None,
    label: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Return the loss of a batch, a scalar.

    Under `model.progressive` the mean loss of the layers' heads is added, `train.layer_weight`
    times: layer 1 is to tell the class's verb, every other layer the class.

    Args:
        model: any variant.
        semantic: as for `Variant.forward`.
        motion: as for `Variant.forward`.
        label: classes (B,), int64.
        config: label smoothing and the weight.
    """
    scores, by_layer = model.supervised(semantic, motion)
    loss = _cross_entropy(scores, label, config)
    if not by_layer:
        return loss
    of_layers = [
        _cross_entropy(layer.scores, model.verb_of[label] if layer.of_verbs else label, config)
        for layer in by_layer
    ]
    return loss + config.layer_weight * torch.stack(of_layers).mean()


def _cross_entropy(scores: Tensor, target: Tensor, config: TrainConfig) -> Tensor:
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.cross_entropy(exact, target, label_smoothing=config.label_smoothing)
