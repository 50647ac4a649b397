"""One of many configurations that a sweep or a tuning may train."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.cache.config import LoaderConfig
from tca.cache.remote import as_place
from tca.errors import TcaError
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_report import flat_settings
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


Configure = Callable[[Mapping[str, Any], str], Candidate]
"""Makes a candidate of settings by name, which are the last to count, and of the key that they are
under in the file of the sweep or the tuning."""

DECIDE_NOTHING = (
    "train.device",
    "train.hooks",
    "train.keep",
    "train.save_steps",
    "train.wandb",
    "loader.checksum",
    "loader.prefetch",
    "loader.residency",
)
"""Settings that what comes out of a training does not depend on."""

HOLDERS = {
    "run.json": "a run",
    "folds.json": "a cross-validation",
    "sweep.json": "a sweep",
    "study.journal": "a tuning",
}
"""What a folder in `runs/` is, by the file that only it has."""


def require_no_other(place: Path, ours: str) -> None:
    """Refuse a folder that holds something else than what has the file `ours`.

    Raises:
        TcaError: it does.
    """
    for file, what in HOLDERS.items():
        if file != ours and (place / file).exists():
            raise TcaError(f"{place} holds {what}; give this one another --name.")


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


def deciding(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide what comes out of a training, by name.

    Args:
        resolved: a configuration; places in it may be written in several ways.

    Raises:
        LookupError, TypeError: it is not whole.
    """
    found = flat_settings(resolved)
    for name in DECIDE_NOTHING:
        found.pop(name, None)
    stores = as_place(resolved["stores"])
    found["stores"] = os.path.realpath(stores) if isinstance(stores, Path) else stores
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in a few words how settings differ from former ones; empty if they do not."""
    absent = object()
    names = [
        name
        for name in dict.fromkeys((*now, *before))
        if before.get(name, absent) != now.get(name, absent)
    ]
    told = [f"{name}={now[name]!s:.80}" if name in now else f"without {name}" for name in names[:3]]
    return ", ".join(told) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
