"""Tuning: Optuna searches ranges of settings, every trial a run, on the holdout of training alone.

The study is a journal in the tuning's folder that several processes may write. A trial belongs to
the process that holds its lock; the system drops the lock when the process dies, and whoever comes
next goes on with the trial from its last state. What a trial tries is drawn with a seed of its own
number, so that a tuning that was stopped tries what an undisturbed one would have tried.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from typing_extensions import override

from tca.cache.files import locked, write_atomic
from tca.cache.store import Store
from tca.config import dump_yaml
from tca.console import note
from tca.errors import TcaError, UsageError
from tca.fusion.model.registry import find_variant
from tca.fusion.model.variant import Variant
from tca.fusion.run_folder import write_json
from tca.fusion.train.candidate import Candidate, Configure, deciding, setting
from tca.fusion.train.checkpoints import saved_steps
from tca.fusion.train.hooks import EpochReport, Hook
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.run import TrainingError
from tca.fusion.train.study import open_study
from tca.fusion.train.tune_config import Range, TuneConfig

ATTEMPTS = 3
"""Times that a trial may die at one step before it counts as failed."""


@dataclass(frozen=True)
class TrialResult:
    """One trial; `value` is that of its best checkpoint, None before its first epoch.

    `state` is complete, pruned, failed or running, and `reason` says why it failed.
    """

    run: str
    state: str
    value: float | None
    epochs: int
    settings: dict[str, Any]
    reason: str | None


@dataclass(frozen=True)
class Tuning:
    """What a tuning came to so far.

    Attributes:
        place: its folder.
        goal: see `TuneConfig`.
        best: the trial that reached most.
        trials: all of them.
        importance: share of each setting in how the trials differ; empty where it cannot be told.
    """

    place: Path
    goal: str
    best: TrialResult
    trials: list[TrialResult]
    importance: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "tuning": self.place.name,
            "goal": self.goal,
            "best": vars(self.best),
            "trials": [vars(trial) for trial in self.trials],
            "importance": self.importance,
        }


def tune(config: TuneConfig, configure: Configure, name: str) -> Tuning:
    """Try settings until there are `trials` of them; writes `runs/NAME/`.

    Args:
        config: what is tried.
        configure: makes a candidate of a trial's settings.
        name: of the folder in `runs/`: `study.journal`, `trial-0000` and so on, `tune.json`, and
            `best.yaml`, the whole configuration of the best trial.

    Raises:
        UsageError: a setting that is not allowed, or no holdout to look at.
        TcaError: as `train_together`; a study of other ranges or settings in the folder, or no
            trial that could be trained.
    """
    base = configure({}, "")
    find_variant(base.model.variant)
    _require_holdout(base)
    distributions = {
        key: _distribution(key, one, base, configure) for key, one in config.ranges.items()
    }
    place = base.runs / name
    Store.open(base.store(base.train.split))
    told = {
        "ranges": {
            key: optuna.distributions.distribution_to_json(d) for key, d in distributions.items()
        },
        "goal": config.goal,
        "settings": deciding(base.resolved),
    }
    study = open_study(place, config, base.train, told)
    while True:
        with ExitStack() as stack:
            trial = _next(study, distributions, config.trials, place, base, stack)
            if trial is None:
                break
            _run(study, trial, configure, place, config)
    # Two processes that end together would write the same files.
    with locked(place / "locks/study", wait=True):
        tuning = _summed_up(study, place, config.goal)
        chosen = configure(tuning.best.settings, "ranges").resolved
        write_json(place / "tune.json", tuning.to_json())
        write_atomic(place / "best.yaml", [dump_yaml(chosen).encode()])
    return tuning


class Watcher(Hook):
    """Tells a study of a trial's epochs, and ends the training if the study gives it up.

    What is told is the value of the checkpoint that is the best so far: the one that is kept.

    Args:
        trial: of the study.
        told: values of earlier epochs, of a trial that goes on.
        goal: see `TuneConfig`.
    """

    def __init__(self, trial: Trial, told: Mapping[int, float], goal: str) -> None:
        self._trial, self._told, self._goal = trial, dict(told), goal
        self.pruned = False

    @override
    def epoch(self, report: EpochReport, model: Variant) -> bool:
        if report.epoch not in self._told:
            if report.best_epoch == report.epoch:
                value = getattr(report, self._goal)
                assert isinstance(value, float)
            else:
                value = self._told[report.best_epoch]
            self._trial.report(value, report.epoch)
            self._told[report.epoch] = value
        self.pruned = self._trial.should_prune()
        return self.pruned


def _require_holdout(base: Candidate) -> None:
    if base.train.select_on is not None or base.train.folds is not None:
        raise UsageError(
            "tuning looks at a holdout of the training split alone, so that the other splits stay "
            "unseen; leave train.select_on and train.folds out."
        )
    if base.train.holdout == 0:
        raise UsageError("tuning looks at a holdout; set train.holdout above 0.")


def _distribution(key: str, one: Range, base: Candidate, configure: Configure) -> BaseDistribution:
    """Return what Optuna draws from; its ends are checked before the first trial."""
    for value in one.ends():
        find_variant(configure({key: value}, "ranges").model.variant)
    if one.choices is not None:
        return CategoricalDistribution(one.choices)
    low, high = one.low, one.high
    assert low is not None
    assert high is not None
    whole = all(isinstance(number, int) for number in (low, high, one.step or 1))
    if whole and not isinstance(setting(base.resolved, key), float):
        return IntDistribution(int(low), int(high), one.log, int(one.step or 1))
    return FloatDistribution(low, high, one.log, one.step)


def _next(
    study: optuna.Study,
    distributions: dict[str, BaseDistribution],
    most: int,
    place: Path,
    base: Candidate,
    stack: ExitStack,
) -> Trial | None:
    """Return a trial to train and leave its lock to `stack`: one that was left, or a new one."""
    with locked(place / "locks/study", wait=True):
        trials = study.get_trials(deepcopy=False)
        for left in trials:
            if left.state != TrialState.RUNNING:
                continue
            if not stack.enter_context(locked(_lock_file(place, left.number), wait=False)):
                continue
            # Only now is it sure that nobody is about to finish it.
            left = study.get_trials(deepcopy=False)[left.number]
            if left.state != TrialState.RUNNING:
                continue
            # Optuna has no other way to a trial that another process began.
            trial = Trial(study, left._trial_id)
            if _attempts(left, place) < ATTEMPTS:
                note(f"going on with {_folder(place, left.number).name}.")
                _draw(study, trial, distributions, base)
                return trial
            _fail(study, trial, f"the process died {ATTEMPTS} times at the same step")
        if len(trials) >= most:
            return None
        trial = study.ask()
        stack.enter_context(locked(_lock_file(place, trial.number), wait=False))
        _draw(study, trial, distributions, base)
        return trial


def _draw(
    study: optuna.Study, trial: Trial, distributions: dict[str, BaseDistribution], base: Candidate
) -> None:
    """Draw the settings of a trial, or those that a process which died had not drawn yet."""
    # A sampler of its own: what it draws depends on the trials before and on nothing else.
    seed = np.random.SeedSequence([base.train.seed.data, trial.number]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(seed))
    frozen = study.get_trials(deepcopy=False)[trial.number]
    for name, distribution in distributions.items():
        if name not in frozen.params:
            trial._suggest(name, distribution)
        elif not distribution.single():
            # Or the next one would get the chance of this one.
            study.sampler.sample_independent(study, frozen, name, distribution)


def _attempts(trial: FrozenTrial, place: Path) -> int:
    step, count = trial.user_attrs.get("attempts", (0, 0))
    return int(count) if step == _step(place, trial.number) else 0


def _run(
    study: optuna.Study, trial: Trial, configure: Configure, place: Path, config: TuneConfig
) -> None:
    frozen = study.get_trials(deepcopy=False)[trial.number]
    run = _folder(place, trial.number)
    attempts = _attempts(frozen, place)
    words = ", ".join(f"{key}={_short(value)}" for key, value in frozen.params.items())
    note(f"{run.name} of {config.trials}: {words}")
    if "attempts" not in frozen.user_attrs and run.exists():
        raise TcaError(
            f"{run} is there, but study.journal does not say that it was begun; remove it, or give "
            "the tuning another --name."
        )
    trial.set_user_attr("attempts", [_step(place, trial.number), attempts + 1])
    watcher = Watcher(trial, frozen.intermediate_values, config.goal)
    try:
        candidate = configure(frozen.params, "ranges")
        if _is_finished(run):
            # Killed before it was told: what it was then decided by is in the journal.
            watcher.pruned = trial.should_prune()
        else:
            plan = Plan(candidate.model, candidate.train, run, candidate.resolved, (watcher,))
            store = Store.open(candidate.store(candidate.train.split))
            (outcome,) = train_together(store, [plan], loader=candidate.loader, resume=True)
            if isinstance(outcome, TrainingError):
                raise outcome
    except KeyboardInterrupt:
        # No fault of the trial's.
        trial.set_user_attr("attempts", [_step(place, trial.number), attempts])
        raise
    except (TrainingError, UsageError) as error:
        # Settings that each are allowed may not go together, or be too much for the device.
        _fail(study, trial, str(error))
        return
    if watcher.pruned:
        study.tell(trial, state=TrialState.PRUNED)
        return
    told = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if not told:
        raise TcaError(
            f"study.journal does not say what {run} came to: it is damaged; remove {run} and run "
            "the command again."
        )
    study.tell(trial, told[max(told)])


def _fail(study: optuna.Study, trial: Trial, reason: str) -> None:
    note(f"trial-{trial.number:04d} failed: {reason}")
    trial.set_user_attr("reason", reason)
    study.tell(trial, state=TrialState.FAIL)


def _is_finished(run: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads((run / "run.json").read_text(encoding="utf-8")).get("finished"))
    return False


def _summed_up(study: optuna.Study, place: Path, goal: str) -> Tuning:
    trials = [
        TrialResult(
            run=_folder(place, trial.number).name,
            state="failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
            value=trial.intermediate_values[max(trial.intermediate_values)]
            if trial.intermediate_values
            else None,
            epochs=len(trial.intermediate_values),
            settings=dict(trial.params),
            reason=trial.user_attrs.get("reason"),
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        reasons = [trial.reason for trial in trials if trial.reason]
        raise TcaError(
            f"no trial of {place} is complete yet; "
            + (f"the first one failed: {reasons[0]}" if reasons else "another process trains them.")
        )
    best = trials[study.best_trial.number]
    importance: dict[str, float] = {}
    # Too few trials, or all of them alike.
    with suppress(ValueError, RuntimeError, ZeroDivisionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study)
        importance = {key: float(value) for key, value in found.items() if np.isfinite(value)}
    return Tuning(place, goal, best, trials, importance)


def _folder(place: Path, number: int) -> Path:
    return place / f"trial-{number:04d}"


def _lock_file(place: Path, number: int) -> Path:
    return place / f"locks/trial-{number:04d}"


def _step(place: Path, number: int) -> int:
    return max(saved_steps(_folder(place, number)), default=0)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
