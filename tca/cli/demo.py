"""`tca demo`: the whole job on a small rendered data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from tca.cli.options import json_option


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where; an earlier demo in it is replaced.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the clips.")
@json_option
def command(folder: Path, seed: int, as_json: bool) -> None:
    """Render a small data set in SSv2's format and run the whole job on it, on a CPU.

    Data check, extract, train-fusion and evaluate are the functions that the commands of those
    names call. The backbones have the true architectures, small sizes and random weights, so the
    demo shows the machinery and not what DINOv3 can do. Takes some minutes on 2 cores; ends with a
    table and a report.html. The folder has a tca.yaml: every other command works in it.

    \b
    Examples:
      tca demo
      tca demo --folder /tmp/demo --json
    """
    from tca.console import note, print_json, print_table
    from tca.demo.demo import run_demo

    result = run_demo(folder, seed=seed)
    if as_json:
        print_json(result.to_json())
        return
    evaluation, training = result.evaluation, result.training
    counts: Counter[str] = Counter()
    for summary in result.extracted.values():
        counts.update(summary.status)
    extracted = counts.pop("ok", 0)
    reasons = ", ".join(f"{count} {status}" for status, count in counts.items())
    print_table(
        "tca demo",
        ["", ""],
        [
            ("classes, told apart by motion", len(evaluation.classes)),
            ("top-1 on validation", f"{evaluation.top1:.3f}"),
            ("top-5 on validation", "-" if evaluation.top5 is None else f"{evaluation.top5:.3f}"),
            ("chance", f"{1 / len(evaluation.classes):.3f}"),
            ("parameters trained", f"{training.parameters / 1e6:.2f} M"),
            ("rows extracted", extracted),
            ("rows failed, as they should", f"{counts.total()}: {reasons}"),
        ],
    )
    print_table(
        "stages",
        ["stage", "seconds", "videos/s"],
        [
            (stage, f"{result.seconds[stage]:.1f}", f"{rate:.1f}")
            for stage, rate in result.rates.items()
        ],
    )
    note(f"the report: {folder / 'report.html'}; go on by hand in {folder}, which has a tca.yaml.")
