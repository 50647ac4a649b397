"""The training loop: AdamW, warm-up and cosine, a checkpoint chosen on held-out videos."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import tca
from tca.cache.files import writing_failed
from tca.cache.layout import differences
from tca.cache.loader import Batch, Loader
from tca.cache.store import Store
from tca.console import ProgressLine, note
from tca.device import autocast, choose_device, out_of_memory
from tca.errors import TcaError, UsageError
from tca.fusion.inputs import batch_inputs
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.gasm_cast import GasmCast
from tca.fusion.model.registry import build, parameters
from tca.fusion.rows import Rows, labelled_rows, split_holdout, tell_incomplete
from tca.fusion.run_folder import RunFolder, dropped_if_empty
from tca.fusion.train.config import TrainConfig

STATISTICS_ROWS = 4096
"""Enough rows for the mean and deviation of a feature; each has hundreds of tokens."""

CHECK_EVERY = 20
"""Steps between looks at the loss: each look makes a GPU wait."""


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
    selection: Store | None = None,
    rows: Rows | None = None,
) -> TrainSummary:
    """Train one fusion model on the good, labelled rows of `store`.

    Args:
        store: features of the training split.
        model_config: what to build.
        train_config: how to train it.
        run: folder to make; see `RunFolder`.
        resolved: configuration to keep in the run, enough to repeat it.
        selection: another split that chooses the best checkpoint, instead of a holdout.
        rows: train on these rows only (their good, labelled ones).

    Raises:
        UsageError: the selection is the split that is trained on.
        TcaError: nothing to learn from, one class, too few videos for the holdout, a finished run
            in the folder, a selection store of other features, features or a loss that are no
            numbers, no memory, or no room on the disk.
    """
    with dropped_if_empty(run):
        return _train(store, model_config, train_config, run, resolved, selection, rows)


def _train(
    store: Store,
    model_config: ModelConfig,
    train_config: TrainConfig,
    run: Path,
    resolved: Mapping[str, Any],
    selection: Store | None,
    rows: Rows | None,
) -> TrainSummary:
    started = time.monotonic()
    usable = labelled_rows(store)
    if rows is not None:
        usable = usable[np.isin(usable, rows)]
    else:
        tell_incomplete(store)
    chosen_by = store
    if selection is not None:
        _refuse_other_features(store, selection)
        fit, held, chosen_by = usable, labelled_rows(selection), selection
    elif train_config.holdout > 0:
        fit, held = split_holdout(store, usable, train_config.holdout, train_config.seed)
    else:
        fit, held = usable, usable[:0]
    present = np.unique(store.label[fit])
    if len(present) < 2:
        raise TcaError(
            f"the {len(fit)} training rows of {store.path} hold {len(present)} class; "
            "training needs at least two."
        )
    with torch.random.fork_rng():
        torch.manual_seed(train_config.seed)
        with _explained(train_config, run):
            training = _Training(store, fit, chosen_by, held, model_config, train_config)
        folder = RunFolder(run)
        info: dict[str, Any] = {
            "finished": False,
            "split": store.split,
            "variant": model_config.variant,
            "parameters": parameters(training.model),
            "model": model_config.model_dump(mode="json"),
            "train": train_config.model_dump(mode="json"),
            "shapes": vars(store.shapes),
            "classes": list(store.classes),
            "identity": store.identity,
            "rows": len(fit),
            "holdout": {
                "split": chosen_by.split,
                "share": None if selection is not None else train_config.holdout,
                "rows": len(held),
            },
            "seed": train_config.seed,
            "versions": {
                "tca": tca.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        folder.begin(resolved, info)
        with _explained(train_config, run):
            training.go(folder)
    info |= {
        "finished": True,
        "epochs": training.epoch,
        "best_epoch": training.best_epoch,
        "holdout_top1": training.best_top1,
    }
    folder.write_info(info)
    return TrainSummary(
        run=run,
        variant=model_config.variant,
        parameters=info["parameters"],
        rows=len(fit),
        holdout_rows=len(held),
        epochs=training.epoch,
        best_epoch=training.best_epoch,
        train_loss=training.train_loss,
        holdout_top1=training.best_top1,
        seconds=time.monotonic() - started,
    )


class _Training:
    """State of one training: the model, the optimiser and the best epoch so far."""

    def __init__(
        self,
        store: Store,
        fit: Rows,
        chosen_by: Store,
        held: Rows,
        model_config: ModelConfig,
        config: TrainConfig,
    ) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.model = build(model_config, store.shapes, len(store.classes)).to(self.device)
        streams = self.model.streams
        self.loader = Loader(
            store, fit, min(config.batch_size, len(fit)), seed=config.seed, streams=streams
        )
        self.fit, self.held = fit, held
        self.held_loader = Loader(
            chosen_by, held, config.batch_size, seed=config.seed, shuffle=False, streams=streams
        )
        generator = np.random.default_rng(config.seed)
        sample = np.sort(generator.permutation(fit)[:STATISTICS_ROWS])
        batches = Loader(
            store, sample, config.batch_size, seed=config.seed, shuffle=False, streams=streams
        ).epoch(0)
        self.model.fit_statistics(self._inputs(batch) for batch in batches)
        if not all(bool(torch.isfinite(buffer).all()) for buffer in self.model.buffers()):
            raise TcaError(
                f"{store.path} holds features that are no finite numbers; extract it again, with "
                "extract.dtype=float32 if they are too large for float16."
            )
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, config.weight_decay), lr=config.lr, fused=True
        )
        self.steps = config.epochs * len(self.loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.epoch = 0
        self.step = 0
        self.best_epoch = 0
        self.best_top1: float | None = None
        self.best_loss = math.inf
        self.train_loss = math.nan

    def go(self, folder: RunFolder) -> None:
        """Run all epochs, or stop early; writes checkpoints and logs into `folder`."""
        config = self.config
        what = f"train {folder.path.name}"
        with (
            open(folder.path / "log.jsonl", "w", encoding="utf-8") as log,
            SummaryWriter(str(folder.path)) as board,
            ProgressLine(what, config.epochs * len(self.fit), "rows") as progress,
        ):
            while self.epoch < config.epochs:
                losses = self._one_epoch(progress)
                for number, (loss, lr) in enumerate(losses, self.step - len(losses) + 1):
                    _line(log, {"epoch": self.epoch, "step": number, "loss": loss, "lr": lr})
                    board.add_scalar("train/loss", loss, number)
                    board.add_scalar("train/lr", lr, number)
                self.train_loss = float(np.mean([loss for loss, _ in losses]))
                report: dict[str, Any] = {"epoch": self.epoch, "train_loss": self.train_loss}
                better = True
                if len(self.held):
                    top1, held_loss = self._score()
                    report |= {"holdout_top1": top1, "holdout_loss": held_loss}
                    board.add_scalar("holdout/top1", top1, self.step)
                    board.add_scalar("holdout/loss", held_loss, self.step)
                    # Equal shares are common on small holdouts; the loss tells them apart.
                    best = -1.0 if self.best_top1 is None else self.best_top1
                    better = (top1, -held_loss) > (best, -self.best_loss)
                    if better:
                        self.best_top1, self.best_loss = top1, held_loss
                _line(log, report)
                if better:
                    self.best_epoch = self.epoch
                    if len(self.held):
                        folder.save("best", self.model.state_dict())
                if self.epoch - self.best_epoch >= config.patience:
                    note(
                        f"{what}: no better epoch than {self.best_epoch} in the last "
                        f"{config.patience}; stopped early."
                    )
                    break
        folder.save("last", self.model.state_dict())
        if not len(self.held):
            folder.save("best", self.model.state_dict())

    def _one_epoch(self, progress: ProgressLine) -> list[tuple[float, float]]:
        """Return loss and learning rate of every step."""
        self.epoch += 1
        self.model.train()
        losses: list[Tensor] = []
        rates: list[float] = []
        for batch in self.loader.epoch(self.epoch):
            rates.append(self.optimizer.param_groups[0]["lr"])
            losses.append(self._one_step(batch))
            if len(losses) % CHECK_EVERY == 0:
                self._stop_if_broken(losses[-1])
            progress.advance(len(batch.label), f"epoch {self.epoch}/{self.config.epochs}")
        self._stop_if_broken(torch.stack(losses).sum())
        return list(zip(torch.stack(losses).tolist(), rates, strict=True))

    def _one_step(self, batch: Batch) -> Tensor:
        with autocast(self.device, self.config.precision):
            scores = self.model(*self._inputs(batch))
        label = batch.label.to(self.device, non_blocking=True)
        loss = F.cross_entropy(scores.float(), label, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def _score(self) -> tuple[float, float]:
        """Return top-1 and cross-entropy on the held-out rows."""
        self.model.eval()
        right, loss = 0, 0.0
        for batch in self.held_loader.epoch(0):
            with autocast(self.device, self.config.precision):
                scores = self.model(*self._inputs(batch)).float()
            label = batch.label.to(self.device)
            right += int((scores.argmax(-1) == label).sum())
            loss += float(F.cross_entropy(scores, label, reduction="sum"))
        return right / len(self.held), loss / len(self.held)

    def _inputs(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        return batch_inputs(batch, self.model, self.device)

    def _rate(self, step: int) -> float:
        """Return the share of the full learning rate: linear warm-up, then half a cosine."""
        warm = max(1, round(self.config.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def _stop_if_broken(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise TcaError(
                f"the loss is {float(loss)} in epoch {self.epoch}: training has diverged; lower "
                f"train.lr (now {self.config.lr:g}) or set train.precision=float32."
            )


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


def _groups(model: GasmCast, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: norms, gates and scales are vectors, biases are called so."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (free if parameter.dim() < 2 or name.endswith("bias") else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _refuse_other_features(store: Store, selection: Store) -> None:
    if selection.split == store.split:
        raise UsageError(
            f"checkpoints cannot be chosen on {store.split}, the split that is trained on; name "
            "another one, or leave it to train.holdout."
        )
    different = differences(
        {"classes": store.classes, **store.identity},
        {"classes": selection.classes, **selection.identity},
    )
    if different:
        raise TcaError(
            f"{selection.path} cannot choose checkpoints for {store.path}, its features differ: "
            f"{'; '.join(different)}; extract both with one configuration."
        )


def _line(log: Any, document: Mapping[str, Any]) -> None:
    log.write(json.dumps(document) + "\n")
    log.flush()
