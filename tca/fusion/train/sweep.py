"""A sweep: a grid of settings, every combination a run, as few passes over the rows as can be.

Members that agree in everything that concerns the rows train in one pass: each batch is read once
and feeds every model. A member comes out as if it had been trained alone, because all that its
steps depend on is its own.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from tca.config import Section
from tca.errors import TcaError, UsageError

SHARED = (
    "train.split",
    "train.select_on",
    "train.holdout",
    "train.epochs",
    "train.batch_size",
    "train.save_steps",
    "train.device",
    "train.seed.data",
    "loader",
    "stores",
)
"""Settings in which the members of one pass agree."""

SEEDS = ("train.seed", "train.seed.data", "train.seed.model")
"""Settings that are averaged over in a table."""


class SweepConfig(Section):
    """What a sweep tries; a file of its own beside `tca.yaml`."""

    grid: dict[str, list[Any]] = Field(
        {}, description="lists of values by setting; every combination is a member"
    )
    members: list[dict[str, Any]] = Field(
        [], description="further members, each its settings by name"
    )

    @model_validator(mode="after")
    def _holds_something(self) -> SweepConfig:
        if not self.grid and not self.members:
            raise ValueError("neither grid nor members has anything in it")
        if empty := [key for key, values in self.grid.items() if not values]:
            raise ValueError(f"grid.{empty[0]} lists no value")
        return self

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of every member, in the order of the file.

        Raises:
            UsageError: two members are the same.
        """
        names = list(self.grid)
        product = itertools.product(*self.grid.values()) if names else ()
        found = [dict(zip(names, values, strict=True)) for values in product]
        found += self.members
        texts = [json.dumps(one, sort_keys=True) for one in found]
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise UsageError(f"the sweep has a member twice: {twice}.")
        return found


@dataclass(frozen=True)
class Scored:
    """One setting of a sweep, over its seeds.

    Attributes:
        settings: those that differ between members, seeds left out.
        runs: names of the run folders.
        top1: of each, on the holdout; None without one.
        scores: of each, on the split that was asked for; empty if none was.
        parameters: of the model.
    """

    settings: dict[str, Any]
    runs: list[str]
    top1: list[float | None]
    scores: list[float]
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with mean and standard deviation of what was scored."""
        return vars(self) | {
            "top1_mean": mean(self.top1),
            "top1_spread": spread(self.top1),
            "score_mean": mean(self.scores),
            "score_spread": spread(self.scores),
        }


def member_name(settings: Mapping[str, Any]) -> str:
    """Return a folder's name for settings: their last words and values."""
    parts = [f"{key.rpartition('.')[2]}={_plain(value)}" for key, value in settings.items()]
    name = re.sub(r"[^\w=.,+-]+", "_", ",".join(parts))
    if len(name.encode()) > 200:
        raise UsageError(
            f"the settings of a member are too long for a folder's name ({name[:60]}…); sweep "
            "fewer of them at once."
        )
    return name


def passes(members: Sequence[Mapping[str, Any]], most: int) -> Iterator[list[int]]:
    """Yield members that train together, by index; `most` at once.

    Args:
        members: each one's resolved configuration.
        most: how many at once.
    """
    groups: dict[str, list[int]] = {}
    for index, resolved in enumerate(members):
        key = json.dumps([_at(resolved, name) for name in SHARED], sort_keys=True)
        groups.setdefault(key, []).append(index)
    for group in groups.values():
        for first in range(0, len(group), most):
            yield group[first : first + most]


def is_finished(run: Path, resolved: Mapping[str, Any]) -> bool:
    """Tell whether a member has been trained.

    Raises:
        TcaError: the folder holds a run of other settings.
    """
    file = run / "run.json"
    if not file.is_file():
        return False
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        same = all(info[name] == resolved[name] for name in ("model", "train", "loader"))
    except (ValueError, LookupError, TypeError):
        raise TcaError(f"{file} is damaged; remove {run} and run the sweep again.") from None
    if not same:
        raise TcaError(
            f"{run} was trained with other settings; give the sweep another --name, or remove it."
        )
    return bool(info.get("finished"))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is not None, None of nothing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation between runs, None of fewer than two."""
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value)


def _at(tree: Mapping[str, Any], name: str) -> Any:
    node: Any = tree
    for part in name.split("."):
        node = node[part]
    return node
