"""`tca train-fusion`: a store in, a run folder out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import load_project, resolved

if TYPE_CHECKING:
    from tca.fusion.train.cross_validation import FoldSummary
    from tca.fusion.train.loop import TrainSummary


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
@click.option(
    "--resume",
    metavar="RUN",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Go on with a run or a cross-validation that was stopped, with its own configuration.",
)
@click.option("--gpus", help="GPUs to train on together, one process each: 0,1 or all.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that train together on CPUs instead."
)
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    split: str | None,
    select_on: str | None,
    folds: int | None,
    run: Path | None,
    resume: Path | None,
    gpus: str | None,
    workers: int | None,
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
      tca train-fusion --resume runs/gasm_cast-001
      tca train-fusion --resume runs/gasm_cast-001 train.device=cuda:1
      tca train-fusion --gpus 0,1
      torchrun --nproc-per-node 2 -m -- tca train-fusion --run runs/both
    """
    from tca.cache.store import Store
    from tca.cli import SPOKEN_FOR
    from tca.console import hush, note, print_json
    from tca.device import device_names
    from tca.errors import UsageError
    from tca.fusion.model.registry import find_variant
    from tca.fusion.run_folder import RunFolder, new_run_folder, newest_first, run_of_job
    from tca.fusion.train.candidate import DECIDE_NOTHING
    from tca.fusion.train.cross_validation import cross_validate
    from tca.fusion.train.launch import launch
    from tca.fusion.train.loop import train
    from tca.fusion.train.world import joined

    flags = {"split": split, "select_on": select_on, "folds": folds}
    given = [f"train.{name}={value}" for name, value in flags.items() if value is not None]
    if resume is not None:
        deciding = [one for one in overrides if one.partition("=")[0] not in DECIDE_NOTHING]
        if run is not None or config is not None or deciding or given:
            raise UsageError(
                f"--resume goes on with the configuration of {resume}; leave --run, --config and "
                f"all settings out but {', '.join(DECIDE_NOTHING)}."
            )
        if not (resume / "config.yaml").is_file():
            # It says what else this is.
            RunFolder(resume).info()
        config, run = resume / "config.yaml", resume
    project, _ = load_project(config, (*overrides, *given))
    settings = project.train
    if resume is not None and settings.folds is not None and (resume / "run.json").is_file():
        raise UsageError(f"{resume} is one fold of a cross-validation; --resume {resume.parent}.")
    find_variant(project.model.variant)
    if gpus is not None:
        devices = device_names(gpus, None, workers)
    else:
        devices = device_names(None, "cpu" if workers is not None else settings.device, workers)
    if len(devices) == 1 and (gpus, workers) != (None, None):
        settings = settings.model_copy(update={"device": devices[0]})
    if len(devices) > 1:
        _refuse_folds(settings.folds)
        options = {"--config": config, "--run": run}
        if resume is not None:
            options = {"--resume": resume}
        flat = [str(part) for pair in options.items() if pair[1] is not None for part in pair]
        device = f"train.device={devices[0].partition(':')[0]}"
        mine = [*overrides, *given, device]
        os.environ[SPOKEN_FOR] = "1"
        raise SystemExit(launch(devices, [*flat, *(["--json"] if as_json else []), *mine]))
    with joined(settings.device) as world:
        if not world.leads:
            hush()
        if world.size > 1:
            _refuse_folds(settings.folds)
        begun = resume
        if world.again and resume is None and world.leads:
            # Also a run that --run names may be one of another job.
            named = newest_first(project.runs) if run is None else [run]
            begun = run_of_job(named, world.job)
        goes_on = world.told(begun is not None)
        # Of a cross-validation the folds tell.
        single = None if settings.folds is not None else begun
        outcome = world.told(None if single is None else RunFolder(single).outcome())
        if outcome is not None:
            note(
                f"{outcome['run']} is finished; score it with: tca evaluate --run {outcome['run']}"
            )
            if as_json and world.leads:
                print_json(outcome)
            return
        store = Store.open(project.store(settings.split))
        chooser = settings.select_on
        selection = None if chooser is None else Store.open(project.store(chooser))
        run = run or begun
        if run is None and world.leads:
            run = new_run_folder(project.runs, project.model.variant)
        run = world.told(run)
        assert run is not None
        if settings.folds is not None:
            folded = cross_validate(
                store,
                project.model,
                settings,
                settings.folds,
                run,
                resolved=resolved(project),
                loader=project.loader,
                resume=resume is not None,
            )
            print_json(folded.to_json()) if as_json else _show_folds(folded, settings.split)
            return
        summary = train(
            store,
            project.model,
            settings,
            run,
            resolved=resolved(project),
            loader=project.loader,
            selection=selection,
            resume=goes_on,
            world=world,
        )
        if world.leads:
            print_json(summary.to_json()) if as_json else _show(summary)


def _refuse_folds(folds: int | None) -> None:
    from tca.errors import UsageError

    if folds is not None:
        raise UsageError(
            "train.folds trains one model after the other in one process; leave several "
            "processes out."
        )


def _show_folds(folded: FoldSummary, split: str) -> None:
    from tca.console import print_table

    rows = [(f"fold {number}", f"{top1:.3f}") for number, top1 in enumerate(folded.folds, 1)]
    rows += [("mean top-1", f"{folded.mean:.3f}"), ("spread", f"{folded.spread:.3f}")]
    title = f"{len(folded.folds)}-fold cross-validation of {split}: {folded.run}"
    print_table(title, ["", ""], rows)


def _show(summary: TrainSummary) -> None:
    from tca.console import duration, note, print_table

    top1 = "no holdout" if summary.holdout_top1 is None else f"{summary.holdout_top1:.3f}"
    print_table(
        f"run {summary.run}",
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
    note(f"score it with: tca evaluate --run {summary.run}")
