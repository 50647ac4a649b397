"""`tca init`: a configuration for a data set."""

from __future__ import annotations

from pathlib import Path

import click

from tca.project import CONFIG_FILE, write_project


@click.command("init")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the data set: SSv2's layout, or a folder a class for each split.",
)
@click.option("--force", is_flag=True, help=f"Replace a {CONFIG_FILE} that is there.")
@click.option("--full", is_flag=True, help="Write every key with its default and description.")
def command(data: Path, force: bool, full: bool) -> None:
    """Write a tca.yaml here that names the videos and annotations found in a folder.

    \b
    Example:
      tca init --data /data/something-something-v2
    """
    from tca.console import note

    project = write_project(Path(CONFIG_FILE), data, force=force, full=full)
    splits = ", ".join(project.data.annotations)
    note(f"{CONFIG_FILE} written: {splits} of {data}. Next: tca data check")
