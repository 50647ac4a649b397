"""`tca runs`: the runs of a project, listed or side by side."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option
from tca.project import load_project


@click.command("runs")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file.  [default: ./tca.yaml]"
)
@click.option(
    "--sort",
    type=click.Choice(["name", "when", "top1", "parameters"]),
    default="name",
    show_default=True,
    help="Order of the list; the newest, best or largest first.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison with its curves into this file too.",
)
@json_option
def command(
    names: tuple[str, ...], config: Path | None, sort: str, page: Path | None, as_json: bool
) -> None:
    """List the runs of a project, those of sweeps and folds too, or compare those that are named.

    A RUN is a folder, or its name in the list.

    \b
    Examples:
      tca runs --sort top1
      tca runs gasm_cast-001 concat-001 --html compared.html
    """
    from tca.cache.files import write_atomic
    from tca.console import note, print_json, print_table
    from tca.errors import UsageError
    from tca.fusion.runs_table import (
        comparison_page,
        differences,
        list_runs,
        millions,
        read_run,
        results,
        share,
        when,
        whole,
    )

    if len(names) == 1:
        raise UsageError("one run cannot be compared; name two or more, or none to list them.")
    if not names:
        if page is not None:
            raise UsageError("--html writes a comparison; name the runs to compare.")
        runs = load_project(config, ())[0].runs
        found = list_runs(runs, sort)
        if as_json:
            print_json([run.to_json() for run in found])
            return
        if not found:
            note(f"there is no run in {runs}; train one with `tca train-fusion`.")
            return
        splits = list(dict.fromkeys(split for run in found for split in run.scores))
        columns = ["run", "variant", "size", "split", "best epoch", "holdout"]
        rows = [
            (
                run.name,
                run.variant or "-",
                millions(run.parameters),
                run.split or "-",
                f"{whole(run.best_epoch)} of {whole(run.epochs)}",
                share(run.holdout_top1),
                *(share(run.scores.get(split)) for split in splits),
                run.state,
                when(run.written),
            )
            for run in found
        ]
        print_table(f"runs in {runs}", [*columns, *splits, "state", "written"], rows)
        return
    chosen = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            path = load_project(config, ())[0].runs / name
        chosen.append(read_run(path, name))
    differ = differences(chosen)
    if page is not None:
        write_atomic(page, [comparison_page(chosen).encode()])
    if as_json:
        print_json({"runs": [run.to_json() for run in chosen], "differences": differ})
    else:
        print_table("results", ["", *names], [(name, *row) for name, row in results(chosen)])
        rows = [(name, *map(str, row)) for name, row in differ.items()]
        print_table("settings that differ", ["", *names], rows or [("none", *[""] * len(names))])
    if page is not None:
        note(f"written: {page}")
