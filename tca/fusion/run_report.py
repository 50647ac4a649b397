"""`report.html` of a run: its curves, what came out and its settings, in one file to pass on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tca
from tca.cache.files import write_atomic
from tca.fusion.curves import Curves, drawn, read_curves
from tca.fusion.run_folder import RunFolder
from tca.page import page, table, tiles


def write_run_report(run: Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Raises:
        TcaError: no run there, or the file cannot be written.
    """
    info = RunFolder(run).info()
    curves = read_curves(run)
    sections = [
        ("", _summary(info, curves)),
        ("Curves", _charts(curves)),
        ("Epochs", _epochs(curves)),
        ("Settings", table(["setting", "value"], list(flat_settings(info).items()))),
    ]
    path = run / "report.html"
    text = page(f"Run {run.name}", [section for section in sections if section[1]])
    write_atomic(path, [text.encode()])
    return path


def flat_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a `run.json` by full name, as `train.seed.data`."""
    return {
        name: value
        for section in ("model", "train", "loader")
        for name, value in _flat(section, info.get(section, {}))
    }


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [entry for key, part in value.items() for entry in _flat(f"{name}.{key}", part)]
    return [] if value == {} else [(name, value)]


def progress(info: Mapping[str, Any], curves: Curves) -> str:
    """Say in a few words how far a run is."""
    if info.get("finished"):
        return "finished"
    if "failed" in info:
        return "failed"
    done = curves.epochs[-1]["epoch"] if curves.epochs else 0
    planned = info.get("train", {}).get("epochs", "?")
    return f"unfinished, {done} of {planned} epochs"


def _summary(info: Mapping[str, Any], curves: Curves) -> str:
    held = [epoch for epoch in curves.epochs if "holdout_top1" in epoch]
    best = max((e["holdout_top1"] for e in held), default=None)
    numbers = {
        "best top-1 on the holdout": "-" if best is None else f"{best:.1%}",
        "best epoch": str(curves.epochs[-1]["best_epoch"]) if curves.epochs else "-",
        "epochs": str(len(curves.epochs)),
        "last training loss": f"{curves.epochs[-1]['train_loss']:.3f}" if curves.epochs else "-",
        "parameters": f"{info.get('parameters', 0) / 1e6:.2f} M",
        "rows trained on": f"{info.get('rows', 0):,}",
    }
    waited = [s["waiting"] for s in curves.steps if "waiting" in s]
    facts = [
        ("state", progress(info, curves)),
        ("variant", info.get("variant", "-")),
        ("split", info.get("split", "-")),
        ("classes", len(info.get("classes", []))),
        ("rows held out", info.get("holdout", {}).get("rows", 0)),
        ("processes", info.get("processes", 1)),
        ("steps", len(curves.steps)),
        ("mean share of a step spent waiting for data", _mean_share(waited)),
        *((f"version of {name}", value) for name, value in info.get("versions", {}).items()),
    ]
    if "failed" in info:
        facts.insert(1, ("why", info["failed"]))
    made = f'<p class="soft">Written by tca {tca.__version__}.</p>'
    return tiles(numbers) + table(["", ""], facts) + made


def _mean_share(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1%}" if values else "-"


def _charts(curves: Curves) -> str:
    if not curves.epochs and not curves.steps:
        return "<p>No step was logged.</p>"
    epochs, steps = curves.epochs, curves.steps
    best = epochs[-1]["best_epoch"] if epochs else None

    def of(name: str) -> list[tuple[float, float]]:
        return [(e["epoch"], e[name]) for e in epochs if name in e]

    losses = {"training": of("train_loss"), "holdout": of("holdout_loss")}
    charts = [
        drawn("Loss", "epoch", losses, marked=best),
        drawn("Top-1", "epoch", {"holdout": of("holdout_top1")}, top=1.0, marked=best),
        drawn("Loss of steps", "step", {"training": [(s["step"], s["loss"]) for s in steps]}),
        drawn("Learning rate", "step", {"lr": [(s["step"], s["lr"]) for s in steps]}),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _epochs(curves: Curves) -> str:
    if not curves.epochs:
        return ""
    names = ("train_loss", "holdout_loss", "holdout_top1")
    rows = [
        (e["epoch"], *(f"{e[name]:.4f}" if name in e else "-" for name in names))
        for e in curves.epochs
    ]
    columns = ["epoch", "training loss", "holdout loss", "holdout top-1"]
    return f"<details><summary>All epochs</summary>{table(columns, rows)}</details>"
