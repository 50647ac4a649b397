"""One of many configurations that a sweep or a tuning may train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.cache.config import LoaderConfig
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig


@dataclass(frozen=True)
class Candidate:
    """A configuration, checked, with all that training it needs.

    Attributes:
        model, train, loader: its settings.
        store: gives the place of a split's store.
        runs: folder of run folders.
        resolved: every setting as JSON, to be kept in the run.
    """

    model: ModelConfig
    train: TrainConfig
    loader: LoaderConfig
    store: Callable[[str], Path | str]
    runs: Path
    resolved: Mapping[str, Any]


Configure = Callable[[Sequence[str]], Candidate]
"""Makes a candidate of `section.key=value` overrides, which are the last to count."""


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return settings by name as `section.key=value`."""
    # What YAML knows and JSON does not, such as a date, is no value of a setting: its text is told.
    return [f"{name}={json.dumps(value, default=str)}" for name, value in settings.items()]


def setting(resolved: Mapping[str, Any], name: str) -> Any:
    """Return the value of `section.key` in a resolved configuration.

    Raises:
        KeyError, TypeError: there is none of this name.
    """
    node: Any = resolved
    for part in name.split("."):
        node = node[part]
    return node
