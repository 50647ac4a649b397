"""`tca train-fusion`: a store in, a run folder out."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import load_project, resolved


@click.command("train-fusion")
@project_options
@click.option("--split", type=split_choice, help="The same as train.split=SPLIT.")
@click.option(
    "--select-on",
    type=split_choice,
    help="Choose the best checkpoint on this split instead of a part held out of training; the "
    "same as train.select_on=SPLIT.",
)
@click.option(
    "--folds",
    type=click.IntRange(2),
    help="Cross-validate inside the split instead; the same as train.folds=N.",
)
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder to make.  [default: runs/VARIANT-N]"
)
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    split: str | None,
    select_on: str | None,
    folds: int | None,
    run: Path | None,
    as_json: bool,
) -> None:
    """Train a fusion model on cached features; no video is touched.

    The best checkpoint and early stopping look at a part held out of training (train.holdout), so
    that the split you report stays unseen. Curves: tensorboard --logdir runs.

    \b
    Examples:
      tca train-fusion
      tca train-fusion model.variant=concat train.epochs=10 train.seed=1
      tca train-fusion --folds 5 train.holdout=0
      tca train-fusion loader.residency=auto loader.checksum=first_epoch
    """
    from tca.cache.store import Store
    from tca.console import duration, note, print_json, print_table
    from tca.fusion.run_folder import new_run_folder
    from tca.fusion.train.cross_validation import cross_validate
    from tca.fusion.train.loop import train

    flags = {"split": split, "select_on": select_on, "folds": folds}
    given = [f"train.{name}={value}" for name, value in flags.items() if value is not None]
    project, _ = load_project(config, (*overrides, *given))
    settings = project.train
    store = Store.open(project.store(settings.split))
    chooser = settings.select_on
    selection = None if chooser is None else Store.open(project.store(chooser))
    run = run or new_run_folder(project.runs, project.model.variant)
    if settings.folds is not None:
        folded = cross_validate(
            store,
            project.model,
            settings,
            settings.folds,
            run,
            resolved=resolved(project),
            loader=project.loader,
        )
        if as_json:
            print_json(folded.to_json())
            return
        rows: list[tuple[str, object]] = [
            (f"fold {number}", f"{top1:.3f}") for number, top1 in enumerate(folded.folds, 1)
        ]
        rows += [("mean top-1", f"{folded.mean:.3f}"), ("spread", f"{folded.spread:.3f}")]
        print_table(
            f"{settings.folds}-fold cross-validation of {settings.split}: {run}", ["", ""], rows
        )
        return
    summary = train(
        store,
        project.model,
        settings,
        run,
        resolved=resolved(project),
        loader=project.loader,
        selection=selection,
    )
    if as_json:
        print_json(summary.to_json())
        return
    top1 = "no holdout" if summary.holdout_top1 is None else f"{summary.holdout_top1:.3f}"
    print_table(
        f"run {run}",
        ["", ""],
        [
            ("variant", summary.variant),
            ("parameters", f"{summary.parameters / 1e6:.2f} M"),
            ("rows trained on", summary.rows),
            ("rows held out", summary.holdout_rows),
            ("best epoch", f"{summary.best_epoch} of {summary.epochs}"),
            ("top-1 on the holdout", top1),
            ("time", duration(summary.seconds)),
        ],
    )
    note(f"score it with: tca evaluate --run {run}")
