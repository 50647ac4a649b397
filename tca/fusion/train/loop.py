"""From a store to a run: which rows, from where, on what, and what is written down of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tca.cache.config import LoaderConfig
from tca.cache.files import writing_failed
from tca.cache.residency import RowSource, open_source, require_streams
from tca.cache.store import Store
from tca.console import note, warn
from tca.device import choose_device, keep_freed_memory, out_of_memory
from tca.errors import TcaError, UsageError
from tca.fusion.features import require_same_features
from tca.fusion.inputs import require_inputs
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import parameters
from tca.fusion.model.variant import STREAMS
from tca.fusion.rows import Rows, labelled_rows, split_holdout, tell_incomplete
from tca.fusion.run_folder import RunFolder, dropped_if_empty, sole_trainer
from tca.fusion.train.checkpoints import saved_steps
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.hooks import Hook, make_hooks
from tca.fusion.train.member import Member
from tca.fusion.train.run import Run, TrainingError
from tca.fusion.train.run_info import described, require_same
from tca.fusion.train.stack_choice import Choice
from tca.fusion.train.training import Data, Training
from tca.fusion.train.wandb_hook import WandbHook
from tca.fusion.train.world import World


@dataclass(frozen=True)
class TrainSummary:
    """What one training came to; accuracies are shares, None without a holdout."""

    run: Path
    variant: str
    parameters: int
    rows: int
    holdout_rows: int
    epochs: int
    best_epoch: int
    train_loss: float
    holdout_top1: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return vars(self) | {"run": str(self.run)}


@dataclass(frozen=True)
class Plan:
    """One model to train, and where.

    Attributes:
        model: what to build.
        train: how to train it.
        run: folder to make; see `RunFolder`.
        resolved: configuration to keep in the run, enough to repeat it.
        hooks: who looks on beside `train.hooks`.
    """

    model: ModelConfig
    train: TrainConfig
    run: Path
    resolved: Mapping[str, Any]
    hooks: Sequence[Hook] = ()


def train(
    store: Store,
    model_config: ModelConfig,
    train_config: TrainConfig,
    run: Path,
    *,
    resolved: Mapping[str, Any],
    loader: LoaderConfig | None = None,
    selection: Store | None = None,
    rows: Rows | None = None,
    source: RowSource | None = None,
    resume: bool = False,
    world: World | None = None,
) -> TrainSummary:
    """Train one fusion model on the good, labelled rows of `store`; see `train_together`.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    (outcome,) = train_together(
        store,
        [Plan(model_config, train_config, run, resolved)],
        loader=loader,
        selection=selection,
        rows=rows,
        source=source,
        resume=resume,
        world=world,
    )
    if isinstance(outcome, TrainingError):
        raise outcome
    return outcome


def train_together(
    store: Store,
    plans: Sequence[Plan],
    *,
    loader: LoaderConfig | None = None,
    selection: Store | None = None,
    rows: Rows | None = None,
    source: RowSource | None = None,
    resume: bool = False,
    world: World | None = None,
    stack: Choice = "off",
) -> list[TrainSummary | TrainingError]:
    """Train fusion models on the good, labelled rows of `store`, in one pass over them.

    Args:
        store: features of the training split.
        plans: the models; they agree in all that concerns the rows (`sweep.SHARED`). Each comes
            out as if trained alone.
        loader: how features are read; the defaults if not given.
        selection: another split that chooses the best checkpoint, instead of a holdout.
        rows: train on these rows only (their good, labelled ones).
        source: where features of `store` come from, instead of one made with `loader`.
        resume: go on with what the run folders hold, made with the same arguments.
        world: this process among those of the training; alone if not given.
        stack: whether models that can step as one batched model do (`stacked.alike`): `auto` where
            that is faster, measured before the first step. Their results are equal up to rounding
            only. Several processes never do.

    Returns:
        What each came to, in the order of `plans`: a summary, or why its loss was no longer a
        number. One that fails does not end the others.

    Raises:
        TrainingError: no memory for them.
        UsageError: the selection is the split that is trained on.
        TcaError: a stream that a variant reads and the store lacks, nothing to learn from, one
            class, too few videos for the holdout, a finished run in a folder or without `resume`
            one that can go on, a selection store of other features, features that are no
            numbers, or no room on the disk.
    """
    started = time.monotonic()
    config = plans[0].train
    world = world or World(0, 1, choose_device(config.device))
    loader = loader or LoaderConfig()
    if world.device.type == "cpu":
        keep_freed_memory()
    if world.device.type == "cpu" and any(p.train.precision == "float16" for p in plans):
        warn("float16 is for GPUs; on a CPU float32 and bfloat16 are far faster (train.precision).")
    with ExitStack() as entered:
        for plan in plans:
            if not resume and saved_steps(plan.run):
                raise TcaError(
                    f"{plan.run} holds a run that is not finished; go on with --resume {plan.run}, "
                    "or remove it first."
                )
            # In this order: who is refused does not remove the folder of who trains in it.
            if world.leads:
                entered.enter_context(sole_trainer(plan.run))
            entered.enter_context(dropped_if_empty(plan.run))
        own = [world.device] if world.device.type == "cuda" else []
        entered.enter_context(torch.random.fork_rng(devices=own))
        entered.enter_context(_explained(plans))
        read = {name for plan in plans for name in require_inputs(store, plan.model.variant)}
        streams = [name for name in STREAMS if name in read]
        fit, held, chosen_by = training_rows(store, config, selection, rows, streams)
        if source is None:
            wanted = np.union1d(fit, held) if chosen_by is store else fit
            source = open_source(store, wanted, streams, loader, world.device)
        held_source = source
        if chosen_by is not store:
            held_source = open_source(chosen_by, held, streams, loader, world.device)
        data = Data(source, fit, held_source, held)
        runs = []
        for plan in plans:
            member = Member(plan.model, plan.train, store.shapes, store.classes, world)
            share = None if selection is not None else config.holdout
            info = described(data, member, loader, share, world)
            hooks = _hooks(plan) if world.leads else []
            runs.append(Run(member, RunFolder(plan.run), info, hooks))
        training = Training(data, runs, loader, world, stack)
        if resume:
            for run in runs:
                require_same(run, store)
        if not (resume and training.resume()):
            for run in runs:
                if resume and (run.folder.path / "run.json").is_file():
                    note(f"{run.name} has no state to go on from; it starts anew.")
            training.start()
            for plan, run in zip(plans, runs, strict=True):
                if world.leads:
                    run.folder.begin(plan.resolved, run.info)
        training.go()
    seconds = time.monotonic() - started
    return [
        run.failure
        or TrainSummary(
            run=run.folder.path,
            variant=run.member.model_config.variant,
            parameters=parameters(run.member.model),
            rows=len(fit),
            holdout_rows=len(held),
            epochs=run.progress.epoch,
            best_epoch=run.progress.best_epoch,
            train_loss=run.progress.train_loss,
            holdout_top1=run.progress.best_top1,
            seconds=seconds,
        )
        for run in runs
    ]


def _hooks(plan: Plan) -> list[Hook]:
    """Return who looks on beside the log."""
    # Before those of the user, which may stop the training.
    sent = [WandbHook(plan.train.wandb)] if plan.train.wandb is not None else []
    return [*sent, *make_hooks(plan.train.hooks), *plan.hooks]


def training_rows(
    store: Store,
    config: TrainConfig,
    selection: Store | None,
    rows: Rows | None,
    streams: Sequence[str],
) -> tuple[Rows, Rows, Store]:
    """Return the rows to train on, those that choose the best weights, and the store of these."""
    usable = labelled_rows(store)
    if rows is not None:
        usable = usable[np.isin(usable, rows)]
    else:
        tell_incomplete(store)
    fit, held, chosen_by = usable, usable[:0], store
    if selection is not None:
        _refuse_other_features(store, selection, streams)
        require_streams(selection, streams)
        held, chosen_by = labelled_rows(selection), selection
    elif config.holdout > 0:
        fit, held = split_holdout(store, usable, config.holdout, config.seed.data)
    present = np.unique(store.label[fit])
    if len(present) < 2:
        raise TcaError(
            f"the {len(fit)} training rows of {store.path} hold {len(present)} class; "
            "training needs at least two."
        )
    return fit, held, chosen_by


@contextmanager
def _explained(plans: Sequence[Plan]) -> Iterator[None]:
    """Turn what the machine runs out of into one sentence."""
    try:
        yield
    except OSError as error:
        raise writing_failed(plans[0].run, error) from None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        rows = f"{plans[0].train.batch_size} rows at once"
        if len(plans) > 1:
            rows += f" and {len(plans)} models together"
        fewer = "" if len(plans) == 1 else " or the number of models (--together)"
        raise TrainingError(
            f"not enough memory for {rows}; free some, or lower train.batch_size{fewer}."
        ) from None


def _refuse_other_features(store: Store, selection: Store, streams: Sequence[str]) -> None:
    if selection.split == store.split:
        raise UsageError(
            f"checkpoints cannot be chosen on {store.split}, the split that is trained on; name "
            "another one, or leave it to train.holdout."
        )
    require_same_features(
        selection,
        store.classes,
        store.identity,
        streams,
        f"cannot choose checkpoints for {store.path}, its features differ",
    )
