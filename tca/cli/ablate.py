"""`tca ablate`: many settings and seeds as one job that can be stopped and gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.candidates import configure_with, folder_name
from tca.cli.options import json_option, project_options, split_choice

if TYPE_CHECKING:
    from tca.fusion.train.ablation import Ablation
    from tca.fusion.train.stack_choice import Choice


@click.command("ablate")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@project_options
@click.option("--name", help="Folder in runs/ for the members.  [default: the file's name]")
@click.option(
    "--together",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Models that train in one pass over the rows, at most: they share a device's memory.",
)
@click.option(
    "--stack",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Members of a pass that differ in seed.model or the optimiser only step as one batched "
    "model; auto: where that is faster, which is measured first. Up to rounding it is the same.",
)
@click.option("--evaluate", "scored", type=split_choice, help="Score every member on this split.")
@json_option
def command(
    file: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    together: int,
    stack: Choice,
    scored: str | None,
    as_json: bool,
) -> None:
    """Train every combination of the settings in FILE, several models in one pass over the rows.

    FILE is YAML: `grid` has lists of values by setting, `members` lists further ones. Members that
    differ in train.seed.model, in the model or the optimiser share a pass, and each comes out as if
    trained alone; one that diverges does not end the others. Run it again to go on where it was
    stopped.

    \b
    FILE, for example:
      grid:
        model.variant: [gasm_cast, concat, semantic_only]
        train.seed.model: [0, 1, 2]

    \b
    Examples:
      tca ablate variants.yaml
      tca ablate variants.yaml --evaluate validation train.epochs=20
    """
    from tca.config import check, read_yaml
    from tca.console import print_json
    from tca.fusion.train.ablation import run_sweep
    from tca.fusion.train.sweep import SweepConfig

    ablation = run_sweep(
        check(SweepConfig, read_yaml(file), str(file)),
        configure_with(file, config, overrides),
        folder_name(name, file),
        together=together,
        stack=stack,
        scored=scored,
    )
    print_json(ablation.to_json()) if as_json else _show(ablation)


def _show(ablation: Ablation) -> None:
    from tca.console import print_table
    from tca.fusion.train.ablation import mean, spread

    def shown(values: Sequence[float | None]) -> str:
        middle, wide = mean(values), spread(values)
        text = "" if middle is None else f"{middle:.3f}"
        return text if wide is None else f"{text} ± {wide:.3f}"

    varied, split = ablation.varied, ablation.evaluated
    over = f"mean ± standard deviation over {' and '.join(varied)}" if varied else "one run each"
    columns = ["settings", "runs", "failed", "parameters", "holdout top-1"]
    rows: list[list[object]] = []
    for entry in ablation.settings:
        words = ", ".join(f"{key}={value}" for key, value in entry.settings.items())
        million = f"{entry.parameters / 1e6:.2f} M"
        counts = [len(entry.runs), len(entry.failed) or ""]
        scores = [shown(entry.scores)] if split else []
        rows.append([words or "as configured", *counts, million, shown(entry.top1), *scores])
    if split:
        columns.append(f"{split} top-1")
    print_table(f"{ablation.place}: {over}", columns, rows)
