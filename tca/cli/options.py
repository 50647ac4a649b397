"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tca.extract.config import SPLITS

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def project_options(command: CommandT) -> CommandT:
    """Add `--config FILE` and `section.key=value` overrides to a command."""
    command = click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        help="Configuration file.  [default: ./tca.yaml]",
    )(command)
    return click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")(command)


split_choice = click.Choice(SPLITS)

splits_option = click.option(
    "--split",
    "splits",
    type=split_choice,
    multiple=True,
    help="Split to work on; may be repeated.  [default: every split with annotations]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
