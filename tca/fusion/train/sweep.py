"""What a sweep is made of: its members, their folders, and the passes they can share.

Members that agree in everything that concerns the rows train in one pass: each batch is read once
and feeds every model. A member comes out as if it had been trained alone, because all that its
steps depend on is its own; up to rounding, where members step as one batched model (`stacked.py`).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tca.config import Section, read_yaml
from tca.errors import TcaError, UsageError
from tca.fusion.train.candidate import deciding, differences, setting

SHARED = (
    "train.split",
    "train.select_on",
    "train.holdout",
    "train.views",
    "train.balanced",
    "train.augment",
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

LOOKED_AT = ("model.", "train.", "loader.", "stores")
"""What the names of settings begin with that a training looks at."""


MOST_MEMBERS = 10_000
"""More are a mistake, and would fill the memory before one is trained."""


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
        count = math.prod(map(len, self.grid.values())) + len(self.members)
        if count > MOST_MEMBERS:
            raise ValueError(f"the grid has {count:,} members; {MOST_MEMBERS:,} are the most")
        names = [*self.grid, *(name for member in self.members for name in member)]
        for name in names:
            if f"{name}." in LOOKED_AT:
                raise ValueError(f"{name} is a whole section; name its settings, as {name}.KEY")
            if not name.startswith(LOOKED_AT):
                raise ValueError(
                    f"{name} makes no difference to a training; a sweep varies settings of model, "
                    "train, loader and stores"
                )
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
        texts = [json.dumps(one, sort_keys=True, default=str) for one in found]
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise UsageError(f"the sweep has a member twice: {twice}.")
        return found

    def written_at(self) -> list[str]:
        """Return the key of the file that each of `settings` is under."""
        combinations = math.prod(map(len, self.grid.values())) if self.grid else 0
        return ["grid"] * combinations + [f"members.{n}" for n in range(len(self.members))]


def member_names(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a folder's name for the settings of each member, all of them different.

    Raises:
        UsageError: a name would be too long, or two the same.
    """
    short = [_name({key.rpartition(".")[2]: value for key, value in m.items()}) for m in members]
    names = [
        _name(member) if short.count(name) > 1 else name
        for member, name in zip(members, short, strict=True)
    ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two members of the sweep would be called {twice[0]}; leave one out.")
    return names


def _name(settings: Mapping[str, Any]) -> str:
    parts = [f"{key}={_plain(value)}" for key, value in settings.items()]
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
        key = json.dumps([setting(resolved, name) for name in SHARED], sort_keys=True)
        groups.setdefault(key, []).append(index)
    for group in groups.values():
        for first in range(0, len(group), most):
            yield group[first : first + most]


def outcome(run: Path) -> dict[str, Any] | None:
    """Return `run.json` of a member that has been trained or has failed, None of the others.

    Raises:
        TcaError: the file is damaged.
    """
    file = run / "run.json"
    if not file.is_file():
        return None
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ended = bool(info["finished"]) or "failed" in info
        needed = {"parameters", "failed" if "failed" in info else "holdout_top1"}
        if ended and not needed <= info.keys():
            raise LookupError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise TcaError(f"{file} is damaged; remove {run} and run the sweep again.") from None
    return info if ended else None


def require_same(run: Path, resolved: Mapping[str, Any]) -> None:
    """Refuse a member's folder with a run of other settings in it, or on another store.

    Raises:
        TcaError: it holds one, or one that does not say.
    """
    # Written in this order: killed between the two, a run was not begun.
    began = run / "config.yaml"
    if not began.is_file() and outcome(run) is None:
        return
    try:
        other = differences(deciding(read_yaml(began)), deciding(resolved))
    except (TcaError, LookupError, TypeError, AttributeError):
        raise TcaError(
            f"{began} is missing or damaged; remove {run} and run the sweep again."
        ) from None
    if other:
        raise TcaError(
            f"{run} was trained with other settings than these ({other}); give the sweep another "
            "--name, or remove that folder."
        )


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value, default=str)
