"""A sweep from its file to its table: trains what is missing, in as few passes as can be.

What shares a pass is in `sweep.py`. A member whose loss is no longer a number leaves its pass, and
the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.store import Store
from tca.console import note, warn
from tca.errors import TcaError, UsageError
from tca.fusion.evaluate.scoring import evaluate
from tca.fusion.model.registry import find_variant
from tca.fusion.run_folder import dropped_if_empty, sole_trainer, write_json
from tca.fusion.train.candidate import Candidate, Configure, require_no_other
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.stack_choice import Choice
from tca.fusion.train.stacked import OF_THE_LOSS, alike, obstacle
from tca.fusion.train.sweep import (
    SEEDS,
    SweepConfig,
    member_names,
    outcome,
    passes,
    require_same,
)
from tca.fusion.train.world import launched


@dataclass(frozen=True)
class Scored:
    """One setting of a sweep, over its seeds.

    Attributes:
        settings: those that differ between members, seeds left out.
        parameters: of the model.
        runs: names of the run folders that were trained.
        top1: of each, on the holdout; None without one.
        scores: of each, on the split that was asked for; empty if none was.
        failed: why the others were not, by name of the run folder.
    """

    settings: dict[str, Any]
    parameters: int
    runs: list[str] = field(default_factory=list)
    top1: list[float | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with mean and standard deviation of what was scored."""
        return vars(self) | {
            "top1_mean": mean(self.top1),
            "top1_spread": spread(self.top1),
            "score_mean": mean(self.scores),
            "score_spread": spread(self.scores),
        }


@dataclass(frozen=True)
class Ablation:
    """What a sweep came to.

    Attributes:
        place: the folder of its runs.
        varied: the seeds over which it averages.
        evaluated: the split that every member was scored on, if any.
        settings: one entry for what differs beside the seeds.
    """

    place: Path
    varied: list[str]
    evaluated: str | None
    settings: list[Scored]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "sweep": self.place.name,
            "varied": self.varied,
            "evaluated": self.evaluated,
            "settings": [entry.to_json() for entry in self.settings],
        }


@dataclass(frozen=True)
class _Member:
    settings: dict[str, Any]
    candidate: Candidate
    run: Path

    @property
    def outcome(self) -> dict[str, Any] | None:
        return outcome(self.run)


def run_sweep(
    sweep: SweepConfig,
    configure: Configure,
    name: str,
    *,
    together: int,
    stack: Choice = "off",
    scored: str | None = None,
) -> Ablation:
    """Train every member that has not been, and score all; writes `runs/NAME/sweep.json`.

    Args:
        sweep: its members.
        configure: makes a candidate of a member's settings.
        name: of the folder in `runs/` that holds the members.
        together: models that train in one pass over the rows, at most.
        stack: whether models of a pass that can be one batched model are; see `train_together`.
        scored: a split to score every member on.

    Raises:
        UsageError: a member's settings are not allowed, it would cross-validate, or `torchrun`
            started this process.
        TcaError: as `train_together`; a folder holds a run of other settings, a store is missing,
            or no member could be trained.
    """
    if launched():
        raise UsageError(
            "a sweep trains in one process; leave torchrun out (one sweep a GPU: "
            "train.device=cuda:1 and a --name of its own)."
        )
    members = _members(sweep, configure, name)
    place = members[0].run.parent
    require_no_other(place, "sweep.json")
    _open_stores(members, scored)
    shared = list(passes([member.candidate.resolved for member in members], together))
    if stack == "on":
        _require_stacks([[members[number].candidate for number in group] for group in shared])
    # Two at once would begin the same members.
    with sole_trainer(place), dropped_if_empty(place):
        for member in members:
            require_same(member.run, member.candidate.resolved)
        return _trained(members, shared, stack, scored)


def _trained(
    members: Sequence[_Member], shared: Sequence[Sequence[int]], stack: Choice, scored: str | None
) -> Ablation:
    """Do what `run_sweep` says, with the folder of the sweep in hand; `shared` are its passes."""
    place = members[0].run.parent
    groups = [
        [members[number] for number in group if members[number].outcome is None] for group in shared
    ]
    groups = [group for group in groups if group]
    if there := len(members) - sum(map(len, groups)):
        note(f"{there} of {len(members)} members are there already.")
    for number, group in enumerate(groups, 1):
        note(f"pass {number} of {len(groups)}: {len(group)} member{'s' * (len(group) > 1)}")
        _train(group, stack)
    failed = {m.run: m.outcome["failed"] for m in members if m.outcome and "failed" in m.outcome}
    for run, reason in failed.items():
        warn(f"{run.name} failed: {reason} Remove {run} to try it again.")
    if len(failed) == len(members):
        raise TcaError(f"no member of {place} could be trained; see the warnings above.")
    found = _scored(members, scored)
    varied = [key for key in SEEDS if any(key in member.settings for member in members)]
    ablation = Ablation(place, varied, scored, found)
    write_json(place / "sweep.json", ablation.to_json())
    return ablation


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is not None, None of nothing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation between runs, None of fewer than two."""
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _members(sweep: SweepConfig, configure: Configure, name: str) -> list[_Member]:
    settings = sweep.settings()
    candidates = [configure(*one) for one in zip(settings, sweep.written_at(), strict=True)]
    for candidate in candidates:
        find_variant(candidate.model.variant)
        if candidate.train.folds is not None:
            raise UsageError(
                "a sweep cannot cross-validate; leave train.folds out, or sweep train.seed.data."
            )
    place = candidates[0].runs / name
    names = member_names(settings)
    parts = zip(settings, candidates, names, strict=True)
    return [_Member(one, candidate, place / folder) for one, candidate, folder in parts]


def _open_stores(members: Sequence[_Member], scored: str | None) -> None:
    """Find out before hours of training whether a store is missing."""
    places = set()
    for member in members:
        train, store = member.candidate.train, member.candidate.store
        places |= {store(split) for split in (train.split, train.select_on, scored) if split}
    for place in sorted(places, key=str):
        Store.open(place)


def _require_stacks(shared: Sequence[Sequence[Candidate]]) -> None:
    """Refuse to stack where no two members of a pass can be stacked."""
    configs = [[(one.model, one.train) for one in group] for group in shared]
    if any(alike(group) for group in configs):
        return
    obstacles = [obstacle(*config) for group in configs for config in group]
    reason = next((one for one in obstacles if one), None)
    if reason is None:
        reason = f"no two agree in model and in {', '.join(f'train.{n}' for n in OF_THE_LOSS)}"
    raise UsageError(
        f"--stack on: no two members of a pass can be one batched model ({reason}); leave it to "
        "--stack auto."
    )


def _train(group: Sequence[_Member], stack: Choice) -> None:
    first = group[0].candidate
    chooser = first.train.select_on
    train_together(
        Store.open(first.store(first.train.split)),
        [Plan(m.candidate.model, m.candidate.train, m.run, m.candidate.resolved) for m in group],
        loader=first.loader,
        selection=None if chooser is None else Store.open(first.store(chooser)),
        resume=True,
        stack=stack,
    )


def _scored(members: Sequence[_Member], split: str | None) -> list[Scored]:
    found: dict[str, Scored] = {}
    for member in members:
        info = member.outcome
        assert info is not None
        plain = {key: value for key, value in member.settings.items() if key not in SEEDS}
        key = json.dumps(plain, sort_keys=True, default=str)
        entry = found.setdefault(key, Scored(plain, info["parameters"]))
        if "failed" in info:
            entry.failed[member.run.name] = info["failed"]
            continue
        entry.runs.append(member.run.name)
        entry.top1.append(info["holdout_top1"])
        if split is not None:
            candidate = member.candidate
            result = evaluate(
                member.run,
                Store.open(candidate.store(split)),
                device=candidate.train.device,
                loader=candidate.loader,
            )
            entry.scores.append(result.top1)
    return list(found.values())
