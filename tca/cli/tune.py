"""`tca tune`: a search for settings that can be stopped, gone on with, and run several times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.candidates import configure_with, folder_name
from tca.cli.options import json_option, project_options

if TYPE_CHECKING:
    from tca.fusion.train.tuning import Tuning


@click.command("tune")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@project_options
@click.option("--name", help="Folder in runs/ for the trials.  [default: the file's name]")
@json_option
def command(
    file: Path, config: Path | None, overrides: tuple[str, ...], name: str | None, as_json: bool
) -> None:
    """Search the ranges in FILE for the best settings; hopeless trials are given up early.

    Trials are judged by the holdout of the training split alone; validation and test stay unseen.
    Run it again to go on where it was stopped, or several times at once to share the work.

    \b
    FILE, for example:
      ranges:
        train.lr: {low: 1e-5, high: 1e-2, log: true}
        model.layers: {low: 1, high: 4}
        model.bottleneck: {choices: [64, 128, 256]}
      trials: 40
      goal: holdout_top1     # or holdout_loss
      pruner: median         # or none

    \b
    Examples:
      tca tune ranges.yaml
      tca tune ranges.yaml --name long train.epochs=60
      tca train-fusion --config runs/ranges/best.yaml
    """
    from tca.config import check, read_yaml
    from tca.console import print_json
    from tca.errors import TcaError
    from tca.fusion.train.tune_config import TuneConfig

    wanted = check(TuneConfig, read_yaml(file), str(file))
    try:
        from tca.fusion.train.tuning import tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise TcaError(
            "`tca tune` needs Optuna; install it with: pip install 'tca[tune]'"
        ) from None

    tuning = tune(wanted, configure_with(file, config, overrides), folder_name(name, file))
    print_json(tuning.to_json()) if as_json else _show(tuning)


def _show(tuning: Tuning) -> None:
    from tca.console import note, print_table

    def shown(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    print_table(
        f"{tuning.place}: {tuning.goal}",
        ["trial", "state", "epochs", "value", "settings"],
        [
            (
                trial.run.removeprefix("trial-"),
                trial.state,
                trial.epochs,
                "" if trial.value is None else f"{trial.value:.4f}",
                ", ".join(f"{key}={shown(value)}" for key, value in trial.settings.items()),
            )
            for trial in tuning.trials
        ],
    )
    print_table(
        f"best: {tuning.best.run}",
        ["setting", "value", "importance"],
        [
            (
                name,
                shown(value),
                f"{tuning.importance[name]:.2f}" if name in tuning.importance else "",
            )
            for name, value in tuning.best.settings.items()
        ],
    )
    note(f"train with it: tca train-fusion --config {tuning.place / 'best.yaml'}")
