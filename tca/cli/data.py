"""`tca data`: what is wrong with a data set, before extracting it."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import chosen_splits, json_option, project_options, splits_option
from tca.project import load_project


@click.group("data")
def command() -> None:
    """Look at a data set before extracting it."""


@command.command("check")
@project_options
@splits_option
@click.option("--threads", type=click.IntRange(0), default=0, help="0: one a core.")
@json_option
def check(
    config: Path | None,
    overrides: tuple[str, ...],
    splits: tuple[str, ...],
    threads: int,
    as_json: bool,
) -> None:
    """Decode every video once and report missing, empty, broken and short ones.

    Also frame counts, rates, durations and resolutions, and classes without a video.

    \b
    Examples:
      tca data check
      tca data check --split validation --json > check.json
    """
    from tca.console import print_json
    from tca.extract.data_check import check_data
    from tca.extract.data_report import print_report

    project, _ = load_project(config, overrides)
    report = check_data(
        project.data,
        chosen_splits(splits, project.data.annotations),
        min_frames=project.extract.min_frames,
        threads=threads,
    )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
