"""`tca evaluate`: a run and a store in, numbers out."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import load_project


@click.command("evaluate")
@project_options
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="Run folder, or the folder of a saved model.  [default: the newest in runs/]",
)
@click.option("--split", type=split_choice, default="validation", show_default=True)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True
)
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    run: Path | None,
    split: str,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Score a run on a split: top-1, top-5, every class, confusion matrix.

    Tables, predictions and a picture are written into the run folder.

    \b
    Examples:
      tca evaluate
      tca evaluate --run runs/gasm_cast-001 --split validation --checkpoint last
    """
    from tca.cache.store import Store
    from tca.console import note, print_json, print_table
    from tca.fusion.evaluate.report import write_report
    from tca.fusion.evaluate.scoring import evaluate
    from tca.fusion.run_folder import newest_run

    project, _ = load_project(config, overrides)
    run = run or newest_run(project.runs)
    result = evaluate(
        run,
        Store.open(project.store(split)),
        checkpoint,
        device=project.train.device,
        loader=project.loader,
    )
    files = write_report(result)
    if as_json:
        print_json(result.to_json())
        return
    print_table(
        f"{run.name} on {split}, by class",
        ["class", "videos", "precision", "recall", "f1"],
        [
            (c.name, c.videos, f"{c.precision:.2f}", f"{c.recall:.2f}", f"{c.f1:.2f}")
            for c in result.classes
            if c.videos
        ],
    )
    print_table(
        f"{run.name} ({checkpoint}) on {split}",
        ["", ""],
        [
            ("videos", result.videos),
            ("top-1", f"{result.top1:.3f}"),
            ("top-5", "-" if result.top5 is None else f"{result.top5:.3f}"),
        ],
    )
    note(f"written into {run}: {', '.join(file.name for file in files)}")
