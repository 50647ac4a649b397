"""`tca ablate`: many settings and seeds as one job that can be stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import load_project, resolved


@click.command("ablate")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@project_options
@click.option("--name", help="Folder in runs/ for the members.  [default: the file's name]")
@click.option(
    "--together",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Models that train in one pass over the rows, at most: they share a device's memory.",
)
@click.option("--evaluate", "scored", type=split_choice, help="Score every member on this split.")
@json_option
def command(
    file: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    together: int,
    scored: str | None,
    as_json: bool,
) -> None:
    """Train every combination of the settings in FILE, several models in one pass over the rows.

    FILE is YAML: `grid` has lists of values by setting, `members` lists further ones. Members that
    differ in train.seed.model, in the model or the optimiser share a pass, and each comes out as if
    trained alone. Run it again to go on where it was stopped.

    \b
    FILE, for example:
      grid:
        model.variant: [gasm_cast, concat, semantic_only]
        train.seed.model: [0, 1, 2]

    \b
    Examples:
      tca ablate variants.yaml
      tca ablate variants.yaml --evaluate validation train.epochs=20
    """
    import json

    from tca.cache.store import Store
    from tca.config import check, read_yaml
    from tca.console import note, print_json, print_table
    from tca.errors import UsageError
    from tca.fusion.evaluate.scoring import evaluate
    from tca.fusion.model.registry import find_variant
    from tca.fusion.run_folder import RunFolder, write_json
    from tca.fusion.train.loop import Plan, train_together
    from tca.fusion.train.sweep import (
        SEEDS,
        Scored,
        SweepConfig,
        is_finished,
        mean,
        member_name,
        passes,
        spread,
    )

    sweep = check(SweepConfig, read_yaml(file), str(file))
    settings = sweep.settings()
    projects = [
        load_project(config, (*overrides, *(f"{k}={json.dumps(v)}" for k, v in one.items())))[0]
        for one in settings
    ]
    for project in projects:
        find_variant(project.model.variant)
        if project.train.folds is not None:
            raise UsageError(
                "a sweep cannot cross-validate; leave train.folds out, or sweep train.seed.data."
            )
    place = projects[0].runs / (name or file.stem)
    trees = [resolved(project) for project in projects]
    runs = [place / member_name(one) for one in settings]
    left = [
        n
        for n, (run, tree) in enumerate(zip(runs, trees, strict=True))
        if not is_finished(run, tree)
    ]
    if len(left) < len(runs):
        note(f"{len(runs) - len(left)} of {len(runs)} members are there already.")
    place.mkdir(parents=True, exist_ok=True)
    groups = list(passes([trees[n] for n in left], together))
    for number, group in enumerate(groups, 1):
        members = [left[index] for index in group]
        first = projects[members[0]]
        note(f"pass {number} of {len(groups)}: {len(members)} members")
        chooser = first.train.select_on
        train_together(
            Store.open(first.store(first.train.split)),
            [Plan(projects[n].model, projects[n].train, runs[n], trees[n]) for n in members],
            loader=first.loader,
            selection=None if chooser is None else Store.open(first.store(chooser)),
            resume=True,
        )
    found: dict[str, Scored] = {}
    for one, run, project in zip(settings, runs, projects, strict=True):
        plain = {key: value for key, value in one.items() if key not in SEEDS}
        info = RunFolder(run).info()
        key = json.dumps(plain)
        entry = found.setdefault(key, Scored(plain, [], [], [], info["parameters"]))
        entry.runs.append(run.name)
        entry.top1.append(info["holdout_top1"])
        if scored is not None:
            entry.scores.append(evaluate(run, Store.open(project.store(scored))).top1)
    varied = [key for key in SEEDS if any(key in one for one in settings)]
    document = {
        "sweep": place.name,
        "varied": varied,
        "evaluated": scored,
        "settings": [entry.to_json() for entry in found.values()],
    }
    write_json(place / "sweep.json", document)
    if as_json:
        print_json(document)
        return

    def shown(values: list[float | None] | list[float]) -> str:
        middle, wide = mean(values), spread(values)
        text = "" if middle is None else f"{middle:.3f}"
        return text if wide is None else f"{text} ± {wide:.3f}"

    over = f"mean ± standard deviation over {' and '.join(varied)}" if varied else "one run each"
    columns = ["settings", "runs", "parameters", "holdout top-1"]
    rows = []
    for entry in found.values():
        words = ", ".join(f"{key}={value}" for key, value in entry.settings.items())
        million = f"{entry.parameters / 1e6:.2f} M"
        row = [words or "as configured", len(entry.runs), million, shown(entry.top1)]
        rows.append([*row, shown(entry.scores)] if scored else row)
    print_table(f"{place}: {over}", [*columns, f"{scored} top-1"] if scored else columns, rows)
