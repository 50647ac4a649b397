"""One training under way: AdamW, warm-up and cosine, a checkpoint chosen on held-out videos."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tca.cache.config import LoaderConfig
from tca.cache.loader import Batch, Loader
from tca.cache.residency import RowSource
from tca.console import ProgressLine, note
from tca.device import autocast, choose_device
from tca.errors import TcaError
from tca.fusion.inputs import batch_inputs
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import build
from tca.fusion.model.variant import Variant
from tca.fusion.rows import Rows
from tca.fusion.run_folder import RunFolder
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss

STATISTICS_ROWS = 4096
"""Enough rows for the mean and deviation of a feature; each has hundreds of tokens."""

CHECK_EVERY = 20
"""Steps between looks at the loss: each look makes a GPU wait."""


class Training:
    """State of one training: the model, the optimiser and the best epoch so far."""

    def __init__(
        self,
        source: RowSource,
        fit: Rows,
        held_source: RowSource,
        held: Rows,
        model_config: ModelConfig,
        config: TrainConfig,
        loader: LoaderConfig,
    ) -> None:
        """Build the model and measure the features it is to standardise.

        Args:
            source: where training rows come from.
            fit: rows to train on.
            held_source: where rows that choose the best checkpoint come from.
            held: these rows; may be empty.
            model_config: what to build.
            config: how to train it.
            loader: in what order rows come.

        Raises:
            TcaError: features that are no finite numbers, or a row that cannot be read.
        """
        self.config = config
        self.device = choose_device(config.device)
        store = source.store
        self.model = build(model_config, store.shapes, store.classes).to(self.device)
        self._loss = torch.compile(fusion_loss) if config.compile else fusion_loss
        self.fit, self.held = fit, held
        shuffled = partial(Loader, seed=config.seed, config=loader)
        in_order = partial(shuffled, shuffle=False)
        self.loader = shuffled(store, fit, min(config.batch_size, len(fit)), source=source)
        self.held_loader = in_order(held_source.store, held, config.batch_size, source=held_source)
        generator = np.random.default_rng(config.seed)
        sample = np.sort(generator.permutation(fit)[:STATISTICS_ROWS])
        batches = in_order(store, sample, config.batch_size, source=source).epoch(0)
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
        label = batch.label.to(self.device, non_blocking=True)
        with autocast(self.device, self.config.precision):
            loss: Tensor = self._loss(self.model, *self._inputs(batch), label, self.config)
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


def _groups(model: Variant, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: norms, gates and scales are vectors, biases are called so."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (free if parameter.dim() < 2 or name.endswith("bias") else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _line(log: Any, document: Mapping[str, Any]) -> None:
    log.write(json.dumps(document) + "\n")
    log.flush()
