"""Which parameters decay, and how much: matrices do, what scales or shifts does not."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tca.errors import UsageError
from tca.fusion.train.config import TrainConfig


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the parameters for an optimiser, those of equal weight decay together.

    Raises:
        UsageError: a pattern of `decay_rules` that fits no parameter.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    unused = set(config.decay_rules)
    for name, parameter in model.named_parameters():
        pattern = next((p for p in config.decay_rules if fnmatchcase(name, p)), None)
        unused.discard(pattern or "")
        if pattern is not None:
            decay = config.decay_rules[pattern]
        else:
            # Norms, gates and scales are vectors or less.
            plain = parameter.dim() < 2 or name.endswith("bias")
            decay = 0.0 if plain else config.weight_decay
        groups.setdefault(decay, []).append(parameter)
    if unused:
        parts = sorted({name.partition(".")[0] for name, _ in model.named_parameters()})
        raise UsageError(
            f"train.decay_rules: no parameter is called {sorted(unused)[0]!r}; the model's begin "
            f"with {', '.join(f'{part}.' for part in parts)}."
        )
    return [{"params": some, "weight_decay": decay} for decay, some in groups.items()]
