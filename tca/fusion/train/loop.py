"""From a store to a run: which rows, from where, on what, and what is written down of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tca
from tca.cache.config import LoaderConfig
from tca.cache.files import writing_failed
from tca.cache.residency import RowSource, open_source
from tca.cache.store import Store
from tca.device import choose_device, out_of_memory
from tca.errors import TcaError, UsageError
from tca.fusion.features import require_same_features
from tca.fusion.inputs import require_inputs
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import parameters
from tca.fusion.rows import Rows, labelled_rows, split_holdout, tell_incomplete
from tca.fusion.run_folder import RunFolder, dropped_if_empty
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.hooks import make_hooks
from tca.fusion.train.member import Member
from tca.fusion.train.training import Data, Run, Training
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
    """Train one fusion model on the good, labelled rows of `store`.

    Args:
        store: features of the training split.
        model_config: what to build.
        train_config: how to train it.
        run: folder to make; see `RunFolder`.
        resolved: configuration to keep in the run, enough to repeat it.
        loader: how features are read; the defaults if not given.
        selection: another split that chooses the best checkpoint, instead of a holdout.
        rows: train on these rows only (their good, labelled ones).
        source: where features of `store` come from, instead of one made with `loader`.
        resume: go on with what `run` holds, made with the same arguments.
        world: this process among those of the training; alone if not given.

    Raises:
        UsageError: the selection is the split that is trained on.
        TcaError: a stream that the variant reads and the store lacks, nothing to learn from, one
            class, too few videos for the holdout, a finished run in the folder, a selection store
            of other features, features or a loss that are no numbers, no memory, or no room on the
            disk.
    """
    started = time.monotonic()
    world = world or World(0, 1, choose_device(train_config.device))
    loader = loader or LoaderConfig()
    with dropped_if_empty(run), torch.random.fork_rng(), _explained(train_config, run):
        streams = require_inputs(store, model_config.variant)
        fit, held, chosen_by = _rows(store, train_config, selection, rows, streams, model_config)
        if source is None:
            read = np.union1d(fit, held) if chosen_by is store else fit
            source = open_source(store, read, streams, loader, world.device)
        held_source = source
        if chosen_by is not store:
            held_source = open_source(chosen_by, held, streams, loader, world.device)
        member = Member(model_config, train_config, store.shapes, store.classes, world)
        folder = RunFolder(run)
        hooks = make_hooks(train_config.hooks) if world.leads else []
        one = Run(member, folder, hooks)
        training = Training(Data(source, fit, held_source, held), [one], loader, world)
        info = _info(store, member, loader, fit, held, chosen_by, selection)
        if not (resume and training.resume()):
            training.start()
            if world.leads:
                folder.begin(resolved, info)
        training.go()
        progress = one.progress
        info |= {
            "finished": True,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "holdout_top1": progress.best_top1,
        }
        if world.leads:
            folder.write_info(info)
    return TrainSummary(
        run=run,
        variant=model_config.variant,
        parameters=info["parameters"],
        rows=len(fit),
        holdout_rows=len(held),
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        train_loss=progress.train_loss,
        holdout_top1=progress.best_top1,
        seconds=time.monotonic() - started,
    )


def _rows(
    store: Store,
    config: TrainConfig,
    selection: Store | None,
    rows: Rows | None,
    streams: Sequence[str],
    model_config: ModelConfig,
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
        require_inputs(selection, model_config.variant)
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


def _info(
    store: Store,
    member: Member,
    loader: LoaderConfig,
    fit: Rows,
    held: Rows,
    chosen_by: Store,
    selection: Store | None,
) -> dict[str, Any]:
    """Return `run.json` of a run that is not finished."""
    config = member.config
    return {
        "finished": False,
        "split": store.split,
        "variant": member.model_config.variant,
        "parameters": parameters(member.model),
        "model": member.model_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
        "loader": loader.model_dump(mode="json"),
        "shapes": vars(store.shapes),
        "classes": list(store.classes),
        "identity": store.identity,
        "rows": len(fit),
        "holdout": {
            "split": chosen_by.split,
            "share": None if selection is not None else config.holdout,
            "rows": len(held),
        },
        "seed": config.seed.model_dump(),
        "processes": member.world.size,
        "versions": {
            "tca": tca.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


@contextmanager
def _explained(config: TrainConfig, run: Path) -> Iterator[None]:
    """Turn what the machine runs out of into one sentence."""
    try:
        yield
    except OSError as error:
        raise writing_failed(run, error) from None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TcaError(
            f"not enough memory for {config.batch_size} rows at once; free some, or lower "
            "train.batch_size."
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
