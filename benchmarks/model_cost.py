"""What the bottleneck saves: GASM-CAST beside the same model with vanilla cross-attention.

    python benchmarks/model_cost.py --markdown

The peer, `cross_attention`, has each B-CAST layer exchanged for pre-norm two-way cross-attention in
the streams' own widths with the same feed-forward ratio, and everything else alike. FLOPs and
memory are counted (`tca model compare`), times are measured in turns.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
from report import Numbers, Report, run

from tca.cache.layout import FeatureShapes
from tca.device import choose_device
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import model_cost
from tca.fusion.model.registry import OWN
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.step_memory import KINDS, step_memory
from tca.fusion.train.step_time import time_steps

OURS, PEER = "gasm_cast", "cross_attention"
GOALS = {"FLOPs": 0.5, "memory": 0.7, "time": 0.8}
"""Of the peer's at most: cross-modal FLOPs, peak activation memory, time of a training step."""

RATIOS = {"with": 4.0, "without": 0.0}
"""Feed-forward: its width over the width it follows."""


@click.command()
@click.option("--grid", type=Numbers(), default="14,14", show_default=True, help="Patches.")
@click.option(
    "--widths", type=Numbers(), default="768,512", show_default=True, help="Semantic, motion."
)
@click.option("--classes", type=click.IntRange(2), default=174, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--timed-videos",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Videos of a step that is timed, an eighth of it where 8 frames are kept.",
)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "output", flag_value="json", help="Print JSON instead of tables.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown.")
def command(
    grid: tuple[int, int],
    widths: tuple[int, int],
    classes: int,
    batch: int,
    timed_videos: int,
    steps: int,
    device: str,
    output: str | None,
) -> None:
    """Print what every variant costs, and GASM-CAST beside its peer."""
    patches = grid[0] * grid[1]
    forms = {
        f"{patches}": FeatureShapes(None, grid, widths[0], 8, widths[1]),
        f"8×{patches}": FeatureShapes(8, grid, widths[0], 8, widths[1]),
    }
    names = [f"class {number}" for number in range(classes)]
    report = Report(
        "model_cost",
        {
            "widths": widths,
            "classes": classes,
            "batch": batch,
            "timed_on": choose_device(device).type,
            "timed_videos": timed_videos,
            "steps": steps,
        },
    )
    report.table(
        "one video, GFLOPs forward",
        [
            "patches",
            "variant",
            "parameters, M",
            "graphs",
            "cross-modal",
            "all",
            "useful",
            "training",
        ],
        [[form, *_variant(name, shapes, names)] for form, shapes in forms.items() for name in OWN],
    )
    report.table(
        f"{OURS} beside {PEER}",
        ["patches", "feed-forward", "what", OURS, PEER, "ratio", "goal", "met"],
        [
            [form, words, what, ours, theirs, ours / theirs, goal, ours / theirs <= goal]
            for form, shapes in forms.items()
            for words, ratio in RATIOS.items()
            for what, ours, theirs, goal in _beside(
                shapes,
                names,
                ratio,
                TrainConfig(batch_size=batch),
                TrainConfig(
                    batch_size=max(1, timed_videos // (shapes.segments or 1)), device=device
                ),
                steps,
            )
        ],
    )
    report.show(output)


def _variant(name: str, shapes: FeatureShapes, classes: list[str]) -> list[str | float]:
    cost = model_cost(_config(name), shapes, classes)
    graphs = cost.groups().get("graph attention", 0)
    counts = (graphs, cost.cross_flops, cost.flops, cost.useful_flops, cost.training_flops)
    return [name, cost.parameters / 1e6, *(count / 1e9 for count in counts)]


def _beside(
    shapes: FeatureShapes,
    classes: list[str],
    ratio: float,
    counted: TrainConfig,
    timed: TrainConfig,
    steps: int,
) -> Iterator[tuple[str, float, float, float]]:
    """Yield what, ours, the peer's and the goal."""
    pair = {name: _config(name, ratio) for name in (PEER, OURS)}
    theirs, ours = (
        model_cost(config, shapes, classes).cross_flops / 1e9 for config in pair.values()
    )
    yield "cross-modal GFLOPs of a video", ours, theirs, GOALS["FLOPs"]
    for kind in KINDS:
        theirs, ours = (
            step_memory(config, shapes, classes, counted, kind).peak / 1e6
            for config in pair.values()
        )
        yield f"peak activations as on a {kind.upper()}, MB", ours, theirs, GOALS["memory"]
    times = time_steps(pair, shapes, classes, timed, steps)
    seconds, measured = times[PEER].seconds, [times[name].memory for name in pair]
    if measured[0] is not None and measured[1] is not None:
        theirs, ours = measured[0].peak / 1e6, measured[1].peak / 1e6
        yield "peak activations while timing, MB", ours, theirs, GOALS["memory"]
    # Of neighbours in time, so that not quite the ratio of both medians.
    yield "a training step, ms", 1000 * seconds * times[OURS].ratio, 1000 * seconds, GOALS["time"]


def _config(name: str, ratio: float = RATIOS["with"]) -> ModelConfig:
    return ModelConfig(variant=name, ratio=ratio, allow_large=True)


if __name__ == "__main__":
    run(command)
