"""What `evaluate` leaves in the run folder: numbers, tables, predictions, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tca.cache.files import write_atomic
from tca.console import note
from tca.fusion.evaluate.scoring import Evaluation
from tca.fusion.run_folder import write_json

DRAWN_NAMES = 40
"""With more classes than this, names along the matrix cannot be read and are left out."""


def write_report(result: Evaluation) -> list[Path]:
    """Write the evaluation into its run folder and return the files, all named after the split.

    `evaluation-SPLIT.json` holds the numbers, `classes-SPLIT.csv` the per-class table,
    `confusion-SPLIT.csv` and `.png` the confusion matrix (a row a true class), and
    `predictions-SPLIT.csv` every video with the probability of every class. The picture needs
    matplotlib (`tca[plot]`) and is left out, with a note, where that is missing.
    """
    run, split = result.run, result.split
    names = [score.name for score in result.classes]
    summary = run / f"evaluation-{split}.json"
    write_json(summary, result.to_json())
    table = _csv(
        run / f"classes-{split}.csv",
        ["class", "videos", "precision", "recall", "f1"],
        ((s.name, s.videos, s.precision, s.recall, s.f1) for s in result.classes),
    )
    confusion = _csv(
        run / f"confusion-{split}.csv",
        ["true class", *names],
        ([name, *counts] for name, counts in zip(names, result.confusion.tolist(), strict=True)),
    )
    predictions = _csv(
        run / f"predictions-{split}.csv",
        ["id", "label", "prediction", *names],
        (
            [video, names[true], names[int(np.argmax(row))], *row]
            for video, true, row in zip(
                result.ids, result.label.tolist(), result.probability.tolist(), strict=True
            )
        ),
    )
    picture = _draw(run / f"confusion-{split}.png", result, names)
    return [summary, table, confusion, predictions, *picture]


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, [text.getvalue().encode()])
    return path


def _draw(path: Path, result: Evaluation, names: Sequence[str]) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("no picture of the confusion matrix: matplotlib is missing; pip install 'tca[plot]'.")
        return []
    side = min(14.0, 4.0 + 0.3 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    share = result.confusion / np.maximum(result.confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=f"{result.split}: top-1 {result.top1:.3f}")
    if len(names) <= DRAWN_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, [picture.getvalue()])
    return [path]
