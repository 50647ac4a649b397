"""The curves of a run, read back from its `log.jsonl`, and drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.charts import Line, line_chart

POINTS = 300
"""Points of a drawn curve at most; more are averaged."""

COLOURS = ("var(--blue)", "var(--orange)", "var(--good)", "var(--bad)", "var(--ink)", "var(--soft)")


@dataclass(frozen=True)
class Curves:
    """What a run logged: a document a step, a document an epoch."""

    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def read_curves(run: Path) -> Curves:
    """Read them; lines that a crash or another program spoiled are left out.

    So is what is not there.
    """
    curves = Curves([], [])
    try:
        text = (run / "log.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return curves
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if not isinstance(document, dict) or "epoch" not in document:
            continue
        # The length of a gradient that overflowed is no number.
        known = [value for name, value in document.items() if (name, value) != ("norm", None)]
        if all(isinstance(value, int | float) for value in known):
            (curves.epochs if "train_loss" in document else curves.steps).append(document)
    return curves


def drawn(
    title: str,
    x_name: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    top: float | None = None,
    marked: float | None = None,
) -> str:
    """Return a chart of named lines, empty if none has a point.

    Args:
        title: above it.
        x_name: below it.
        lines: points (x, y) by name; those that are no finite numbers are left out.
        top: of the vertical range; the highest point if not given.
        marked: where a vertical line stands.
    """
    shown = []
    for number, (name, points) in enumerate(lines.items()):
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if finite:
            shown.append(Line(name, COLOURS[number % len(COLOURS)], _thinned(finite)))
    if not shown:
        return ""
    highest = max(y for line in shown for _, y in line.points)
    return line_chart(title, shown, x_name, top or highest * 1.05 or 1.0, marked)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return means of neighbours, so that a long run's curve stays small."""
    width = math.ceil(len(points) / POINTS)
    parts = [points[first : first + width] for first in range(0, len(points), width)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts
    ]
