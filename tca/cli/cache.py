"""`tca cache`: what is in a store, whether it is sound, and what to do if not."""

from __future__ import annotations

import click

from tca.cli.cache_convert import convert
from tca.cli.cache_info import info
from tca.cli.cache_merge import merge
from tca.cli.cache_repair import repair
from tca.cli.cache_verify import verify


@click.group("cache")
def command() -> None:
    """Look at stores, check, repair, convert and merge them."""


for part in (info, verify, repair, convert, merge):
    command.add_command(part)
