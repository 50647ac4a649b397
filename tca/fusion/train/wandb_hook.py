"""Curves on Weights & Biases, for those who keep their runs there; the package is an extra."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from typing_extensions import override

from tca.cache.files import write_atomic
from tca.errors import TcaError, UsageError
from tca.fusion.model.variant import Variant
from tca.fusion.train.hooks import EpochReport, Hook, StepReport


class WandbHook(Hook):
    """Sends what `log.jsonl` holds; a run that is resumed goes on in the same run there.

    Args:
        project: where, on the server that `wandb` is set up for.

    Raises:
        UsageError: the package is missing.
    """

    def __init__(self, project: str) -> None:
        self._project, self._wandb = project, _package()
        self._run: Any = None

    @override
    def begin(self, run: Path, model: Variant, step: int) -> None:
        file = run / "wandb.json"
        if step == 0 or not file.is_file():
            # Not before `begin` of the folder: what an earlier start left there is another run.
            document = {"project": self._project, "id": uuid.uuid4().hex[:12]}
            write_atomic(file, [json.dumps(document).encode()])
        identity = json.loads(file.read_text(encoding="utf-8"))["id"]
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        try:
            self._run = self._wandb.init(
                project=self._project,
                id=identity,
                resume="allow",
                name=run.name,
                dir=str(run),
                config=config,
                # Members of a sweep train side by side, each with a run of its own.
                reinit="create_new",
                # It would write between the lines of our own screen.
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        # Nobody logged in, no network, an unknown WANDB_MODE: each has a class of its own, not all
        # of them the package's.
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise TcaError(
                f"train.wandb: Weights & Biases does not take the run ({reason}); log in with "
                "`wandb login`, keep the curves on this disk with WANDB_MODE=offline, or set "
                "train.wandb=null."
            ) from None

    @override
    def step(self, report: StepReport) -> None:
        names = ("loss", "lr", "norm", "rows_per_s", "waiting", "epoch")
        values = {f"train/{name}": getattr(report, name) for name in names}
        self._run.log(values, step=report.step)

    @override
    def epoch(self, report: EpochReport, model: Variant) -> None:
        held = {"holdout/top1": report.holdout_top1, "holdout/loss": report.holdout_loss}
        values = {name: value for name, value in held.items() if value is not None}
        self._run.log({"train/epoch_loss": report.train_loss, **values}, step=report.step)

    @override
    def end(self, run: Path) -> None:
        if self._run is not None:
            self._run.finish()


def _package() -> ModuleType:
    try:
        import wandb
    except ImportError:
        raise UsageError(
            "train.wandb needs the package wandb; install it with pip install 'tca[wandb]', or set "
            "train.wandb=null."
        ) from None
    return wandb
