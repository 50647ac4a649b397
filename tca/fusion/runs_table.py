"""Runs side by side: what is in a folder of runs, and how some of them differ."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from tca.console import warn
from tca.errors import TcaError
from tca.fusion.curves import drawn, read_curves
from tca.fusion.run_folder import RunFolder
from tca.fusion.run_report import flat_settings, progress
from tca.page import page, table


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        name: its folder, from the folder of runs.
        path: its folder.
        state: finished, failed, or how far it is.
        finished: whether it is.
        written: seconds since 1970 when `run.json` was written.
        variant, parameters, split: of the model and its store; None where `run.json` lacks them.
        epochs, best_epoch, holdout_top1: so far; None before the first epoch or without a holdout.
        scores: top-1 that `tca evaluate` found of the best checkpoint, by split.
        settings: by full name.
    """

    name: str
    path: Path
    state: str
    finished: bool
    written: float
    variant: str | None
    parameters: int | None
    split: str | None
    epochs: int | None
    best_epoch: int | None
    holdout_top1: float | None
    scores: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return vars(self) | {"path": str(self.path)}


SORTS = ("name", "when", "top1", "parameters")


def list_runs(runs: Path, sort: str = "name") -> list[RunRecord]:
    """Return all runs under `runs`, those of sweeps and folds too; a damaged one is warned of.

    Args:
        runs: the folder.
        sort: one of `SORTS`; newest, best and largest come first.
    """
    found = []
    for file in sorted(runs.rglob("run.json")):
        try:
            found.append(read_run(file.parent, str(file.parent.relative_to(runs))))
        except TcaError as error:
            warn(f"left out: {error}")
    if sort == "when":
        found.sort(key=lambda run: -run.written)
    elif sort == "parameters":
        found.sort(key=lambda run: -(run.parameters or 0))
    elif sort == "top1":
        found.sort(key=lambda run: -1.0 if run.holdout_top1 is None else run.holdout_top1)
        found.reverse()
    return found


def read_run(path: Path, name: str) -> RunRecord:
    """Read one run.

    Raises:
        TcaError: there is none, or its `run.json` is damaged or another program's.
    """
    folder = RunFolder(path)
    info = folder.info()
    file = path / "run.json"
    if "finished" not in info and "variant" not in info:
        raise TcaError(f"{file} was not written by tca.")
    try:
        curves = read_curves(path)
        held = [epoch["holdout_top1"] for epoch in curves.epochs if "holdout_top1" in epoch]
        last = curves.epochs[-1] if curves.epochs else {}
        return RunRecord(
            name=name,
            path=path,
            state=progress(info, curves),
            finished=bool(info.get("finished")),
            written=file.stat().st_mtime,
            variant=info.get("variant"),
            parameters=info.get("parameters"),
            split=info.get("split"),
            epochs=info.get("epochs", last.get("epoch")),
            best_epoch=info.get("best_epoch", last.get("best_epoch")),
            holdout_top1=info.get("holdout_top1", max(held, default=None)),
            scores={score["split"]: score["top1"] for score in folder.scores("best")},
            settings=flat_settings(info),
        )
    except (AttributeError, LookupError, TypeError, ValidationError):
        raise TcaError(f"{file} is damaged; train again.") from None


def differences(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs, with each run's value."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: row for name, row in values.items() if any(one != row[0] for one in row)}


def results(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Return what came out of the runs, side by side: a name, and a text a run."""
    splits = list(dict.fromkeys(split for run in runs for split in run.scores))
    return [
        ("state", [run.state for run in runs]),
        ("variant", [run.variant or "-" for run in runs]),
        ("parameters", [millions(run.parameters) for run in runs]),
        ("epochs", [whole(run.epochs) for run in runs]),
        ("best epoch", [whole(run.best_epoch) for run in runs]),
        ("top-1 on the holdout", [share(run.holdout_top1) for run in runs]),
        *((f"top-1 on {name}", [share(run.scores.get(name)) for run in runs]) for name in splits),
    ]


def comparison_page(runs: Sequence[RunRecord]) -> str:
    """Return the runs side by side as an HTML document with their curves."""
    names = [run.name for run in runs]
    curves = [read_curves(run.path) for run in runs]
    charts = [
        drawn(
            title,
            "epoch",
            {
                name: [(e["epoch"], e[key]) for e in one.epochs if key in e]
                for name, one in zip(names, curves, strict=True)
            },
            top=top,
        )
        for title, key, top in (
            ("Training loss", "train_loss", None),
            ("Holdout loss", "holdout_loss", None),
            ("Holdout top-1", "holdout_top1", 1.0),
        )
    ]
    differ = [(name, *map(str, row)) for name, row in differences(runs).items()]
    sections = [
        ("", table(["", *names], [(name, *row) for name, row in results(runs)])),
        ("Curves", f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""),
        ("Settings that differ", table(["", *names], differ) if differ else "<p>None.</p>"),
        ("Folders", "".join(f"<p><code>{html.escape(str(run.path))}</code></p>" for run in runs)),
    ]
    return page("tca runs", [section for section in sections if section[1]])


def when(written: float) -> str:
    """Return a time as people write it, in their time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(written))


def share(value: float | None) -> str:
    """Return a share with three places, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def millions(value: int | None) -> str:
    """Return a count in millions, or a dash."""
    return "-" if value is None else f"{value / 1e6:.2f} M"


def whole(value: int | None) -> str:
    """Return a count, or a dash."""
    return "-" if value is None else str(value)
