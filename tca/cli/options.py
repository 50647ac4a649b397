"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tca.errors import UsageError
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


def chosen_splits(splits: Sequence[str], annotations: Collection[str]) -> list[str]:
    """Return the splits that were asked for, each once; without any, all with annotations.

    Raises:
        UsageError: there is none.
    """
    chosen = list(dict.fromkeys(splits or annotations))
    if not chosen:
        raise UsageError(
            "no split has annotations; name a file in data.annotations of the configuration."
        )
    return chosen


split_choice = click.Choice(SPLITS)

splits_option = click.option(
    "--split",
    "splits",
    type=split_choice,
    multiple=True,
    help="Split to work on; may be repeated.  [default: every split with annotations]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
