"""`report.html`: what the demo did and what came out, for people who were not there."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tca
from tca.cache.files import write_atomic
from tca.charts import Line, line_chart
from tca.console import duration
from tca.demo.confusion import confusion_table
from tca.demo.motions import TEMPLATES, class_name
from tca.demo.settings import BACKBONES
from tca.demo.strips import film_strip
from tca.fusion.evaluate.scoring import Evaluation
from tca.page import page, table, tiles

if TYPE_CHECKING:
    from tca.demo.demo import DemoResult

WRONG_SHOWN = 6


def write_report(result: DemoResult) -> Path:
    """Write `report.html` into the demo's folder and return its path."""
    sections = [
        ("", _summary(result)),
        ("Seen right", _strips(result, right=True)),
        ("Seen wrong", _strips(result, right=False)),
        ("What it mistakes for what", _confusion(result.evaluation)),
        ("Training", _curves(result)),
        ("Every class", _classes(result.evaluation)),
        ("Earned by motion", _motion(result)),
        ("The pipeline", _pipeline(result)),
        ("Do it again", _again(result)),
    ]
    path = result.folder / "report.html"
    write_atomic(path, [page("tca demo", sections).encode()])
    return path


def _summary(result: DemoResult) -> str:
    evaluation = result.evaluation
    classes = len(evaluation.classes)
    failed = sum(part.rows - part.status.get("ok", 0) for part in result.extracted.values())
    rows = sum(part.status.get("ok", 0) for part in result.extracted.values())
    numbers = {
        f"top-1 on {evaluation.videos} held-out clips": f"{evaluation.top1:.1%}",
        "top-5": "-" if evaluation.top5 is None else f"{evaluation.top5:.1%}",
        f"chance with {classes} classes": f"{1 / classes:.1%}",
        "parameters trained": f"{result.training.parameters / 1e6:.2f} M",
        f"rows extracted, {failed} failed": f"{rows}",
        "from the first frame drawn to the score": duration(sum(result.seconds.values())),
    }
    return (
        '<p class="soft">Two frozen views of a clip, what is in it and how it moves, are extracted '
        "once and cached; a fusion model, GASM-CAST, learns on the cache which of "
        f"{classes} Something-Something-V2 templates a clip shows. The clips are rendered for this "
        "demo, and the held-out ones have shapes and textures that training never showed.</p>"
        f"{tiles(numbers)}"
        f'<p class="note">{html.escape(BACKBONES)}.</p>'
    )


def _strips(result: DemoResult, *, right: bool) -> str:
    evaluation = result.evaluation
    predicted = evaluation.probability.argmax(1)
    sure = evaluation.probability.max(1)
    chosen: list[int] = []
    if right:
        for name in _ordered(evaluation):
            label = _names(evaluation).index(name)
            hits = np.flatnonzero((evaluation.label == label) & (predicted == label))
            # Of ordinary sureness: neither the easiest clip nor the luckiest.
            chosen += hits[np.argsort(sure[hits])][len(hits) // 2 :][:1].tolist()
    else:
        misses = np.flatnonzero(predicted != evaluation.label)
        chosen = misses[np.argsort(-sure[misses])][:WRONG_SHOWN].tolist()
        if not chosen:
            return "<p>No held-out clip was taken for another.</p>"
    figures = []
    for place in chosen:
        true, guess = (_names(evaluation)[n] for n in (evaluation.label[place], predicted[place]))
        verdict = (
            f'<span class="right">✓ right, {sure[place]:.0%} sure</span>'
            if right
            else f'<span class="wrong">✗ taken for “{html.escape(guess)}”, {sure[place]:.0%} sure'
            "</span>"
        )
        strip = film_strip(result.folder / "videos" / f"{evaluation.ids[place]}.webm")
        figures.append(
            f'<figure class="strip"><figcaption><span>{html.escape(true)}</span>{verdict}'
            f'</figcaption><img src="{strip}" alt="Eight frames of clip '
            f'{evaluation.ids[place]}, in order"></figure>'
        )
    lead = (
        "<p>One held-out clip a class, the 8 frames that the semantic stream sees, in order.</p>"
        if right
        else f"<p>{len(misses)} of {evaluation.videos} held-out clips were taken for another "
        "template; these are the surest mistakes.</p>"
    )
    return lead + "".join(figures)


def _confusion(evaluation: Evaluation) -> str:
    names = _names(evaluation)
    order = [names.index(name) for name in _ordered(evaluation)]
    matrix = evaluation.confusion[np.ix_(order, order)]
    return (
        "<p>Held-out clips, a row a true class. Classes 1 to 10 stand in pairs that differ in the "
        "order of frames alone.</p>" + confusion_table(matrix, [names[n] for n in order])
    )


def _curves(result: DemoResult) -> str:
    lines = (result.training.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [entry for entry in map(json.loads, lines) if "train_loss" in entry]
    losses = [Line("training", "var(--blue)", [(e["epoch"], e["train_loss"]) for e in epochs])]
    held = [e for e in epochs if "holdout_top1" in e]
    best = result.training.best_epoch
    charts = []
    if held:
        losses.append(
            Line("holdout", "var(--orange)", [(e["epoch"], e["holdout_loss"]) for e in held])
        )
        top1 = Line("holdout", "var(--orange)", [(e["epoch"], e["holdout_top1"]) for e in held])
        charts.append(line_chart("Top-1", [top1], "epoch", 1.0, best))
    highest = max(y for line in losses for _, y in line.points)
    charts.insert(0, line_chart("Loss", losses, "epoch", 0.8 * np.ceil(highest / 0.8), best))
    held_out = (
        f" The dashed line is the best epoch on {result.training.holdout_rows} clips held out of "
        "training, whose weights are scored; the validation split had no part in choosing it. The "
        "training loss is higher than the holdout's because of dropout and label smoothing."
        if held
        else ""
    )
    return (
        f"<p>{result.training.rows} clips, {result.training.epochs} epochs.{held_out}</p>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _classes(evaluation: Evaluation) -> str:
    scores = {score.name: score for score in evaluation.classes}
    return table(
        ["class", "clips", "precision", "recall", "F1"],
        [
            (s.name, s.videos, f"{s.precision:.2f}", f"{s.recall:.2f}", f"{s.f1:.2f}")
            for s in (scores[name] for name in _ordered(evaluation))
        ],
    )


def _motion(result: DemoResult) -> str:
    return (
        "<p>Textures, shapes, colours, sizes, places, speed and background of a clip are drawn "
        "before its class is. A class decides only how the scene changes before and after the "
        "middle of the clip, so the middle frame tells nothing: a linear probe on its features "
        f"scores <b>{result.middle_frame_top1:.1%}</b> on the held-out clips. Ten of the classes "
        "are five pairs of reversals, which have the same frames in another order.</p>"
    )


def _pipeline(result: DemoResult) -> str:
    what = {
        "render": "draw the clips and write them as VP9 in WebM, with SSv2's JSON files",
        "data check": "decode every file, find missing and broken ones",
        "extract": "decode, run both frozen backbones, write the Zarr stores",
        "train-fusion": "train GASM-CAST on the stores; videos are counted once an epoch",
        "evaluate": "score the held-out split",
    }
    stages = table(
        ["stage", "seconds", "videos/s", "what it does"],
        [
            (stage, f"{seconds:.1f}", f"{result.rates[stage]:.0f}", what[stage])
            for stage, seconds in result.seconds.items()
        ],
    )
    stores = table(
        ["store", "rows", "extracted", "failed", "why"],
        [
            (
                part.store.name,
                part.rows,
                part.status.get("ok", 0),
                part.rows - part.status.get("ok", 0),
                ", ".join(f"{n} {name}" for name, n in part.status.items() if name != "ok") or "-",
            )
            for part in result.extracted.values()
        ],
    )
    return (
        f"{stages}<p>One training clip is missing and one validation clip is cut off, on purpose. "
        f"A failure costs its row and nothing else.</p>{stores}"
    )


def _again(result: DemoResult) -> str:
    folder = html.escape(result.folder.name)
    return (
        "<p>These are the steps of a user with videos of his own; with <code>tca init --data "
        "FOLDER</code> they start from his data set. Settings are in the folder's "
        "<code>tca.yaml</code>.</p>"
        f"<pre>cd {folder}\ntca data check\ntca extract --allow-missing\ntca train-fusion\n"
        "tca evaluate</pre>"
        f'<p class="soft">tca {tca.__version__}, run {html.escape(result.training.run.name)}, '
        f"variant {html.escape(result.training.variant)}.</p>"
    )


def _names(evaluation: Evaluation) -> list[str]:
    return [score.name for score in evaluation.classes]


def _ordered(evaluation: Evaluation) -> list[str]:
    """Return the class names with reversals side by side."""
    known = [class_name(template) for template in TEMPLATES]
    return [name for name in known if name in set(_names(evaluation))]
