"""`tca backbones`: the frozen networks that can be named, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.options import json_option, project_options
from tca.project import CONFIG_FILE, load_project

if TYPE_CHECKING:
    from tca.extract.backbones.listing import Listed


@click.command("backbones")
@project_options
@json_option
def command(config: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the frozen networks by name: what each sees, gives and costs.

    Those of installed packages are listed too. In a folder with a tca.yaml, also the two that it
    configures. No weights are read. A multiplication and its addition count as 2 FLOPs.

    \b
    Examples:
      tca backbones
      tca backbones semantic.architecture=dinov2 motion.architecture=vjepa2
      tca backbones --json > backbones.json
    """
    from tca.console import print_json, print_table, warn
    from tca.extract.backbones.listing import list_backbones, list_configured

    here = config is not None or bool(overrides) or Path(CONFIG_FILE).is_file()
    configured = list_configured(*load_project(config, overrides)) if here else []
    listed = list_backbones()
    if as_json:
        print_json(
            {
                "backbones": [one.to_json() for one in listed],
                "configured": [one.to_json() for one in configured],
            }
        )
        return
    for stream in ("semantic", "motion"):
        _print(f"{stream}.architecture", [one for one in listed if one.stream == stream])
    print_table(
        "weights where none are configured",
        ["", ""],
        [(one.name, one.weights or f"up to the package {one.package}") for one in listed],
    )
    if configured:
        _print("this project", configured)
    for one in (*listed, *configured):
        if one.problem is not None:
            warn(f"{one.name or one.stream}: {one.problem}")


def _print(title: str, listed: Sequence[Listed]) -> None:
    from tca.console import print_table

    columns = ["name", "pixels", "features", "parameters", "GFLOPs a video"]
    print_table(title, columns, [(one.name or one.stream, *_numbers(one)) for one in listed])


def _numbers(one: Listed) -> list[str]:
    if one.cost is None:
        return ["", "", "", "cannot be made"]
    return [
        f"{one.cost.size}",
        "×".join(map(str, one.cost.row)),
        f"{one.cost.parameters / 1e6:.1f} M",
        f"{one.cost.flops / 1e9:,.0f}",
    ]
