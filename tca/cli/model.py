"""`tca model`: what fusion models cost, before one is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.options import json_option, project_options, split_choice
from tca.project import Project, load_project

if TYPE_CHECKING:
    from tca.fusion.model.config import ModelConfig
    from tca.fusion.model.cost import ModelCost
    from tca.fusion.train.step_memory import Kind

split_option = click.option("--split", type=split_choice, help="The same as train.split=SPLIT.")
batch_option = click.option(
    "--batch-size", type=click.IntRange(1), help="The same as train.batch_size=N."
)


@click.group("model")
def command() -> None:
    """Tell what fusion models cost: parameters, FLOPs, memory, time.

    \b
    Examples:
      tca model summary
      tca model compare gasm_cast cross_attention --steps 5
    """


@command.command("summary")
@project_options
@click.option("--variant", help="The same as model.variant=NAME.")
@split_option
@batch_option
@json_option
def summary(
    config: Path | None,
    overrides: tuple[str, ...],
    variant: str | None,
    split: str | None,
    batch_size: int | None,
    as_json: bool,
) -> None:
    """Count what the configured model costs.

    Part by part, and nothing is trained. Shapes and classes are the store's, or before extraction
    those of the configured backbones and annotations. FLOPs are of one video, forward, a
    multiplication and its addition counting as 2. "useful" leaves out what attention computes off
    the graphs' edges and the search for similar patches. Memory is what a training step allocates
    besides model, gradients and batch.

    \b
    Examples:
      tca model summary
      tca model summary --variant bcast semantic.keep=frames
      tca model summary --batch-size 128 model.checkpointing=true --json
    """
    from tca.cli.model_subject import subject_of
    from tca.console import print_json, print_table, warn
    from tca.extract.backbones.listing import list_configured
    from tca.fusion.model.cost import model_cost
    from tca.fusion.model.registry import PARAMETER_LIMIT
    from tca.fusion.train.step_memory import KINDS, step_memory

    project, folder = _load(config, overrides, variant, split, batch_size)
    model = project.model.model_copy(update={"allow_large": True})
    subject = subject_of(project, folder, [model.variant])
    cost = model_cost(model, subject.shapes, subject.classes, subject.features)
    memory = {
        kind: step_memory(model, subject.shapes, subject.classes, project.train, kind)
        for kind in KINDS
    }
    frozen = list_configured(project, folder)
    if as_json:
        print_json(
            {
                **subject.to_json(),
                **cost.to_json(),
                "frozen": [one.to_json() for one in frozen],
                "batch_size": project.train.batch_size,
                "memory": {kind: vars(found) for kind, found in memory.items()},
            }
        )
        return
    rows = [
        (part.part, _millions(part.parameters), _giga(part.flops), _giga(part.useful_flops))
        for part in cost.parts
    ]
    rows.append(
        ("trained", _millions(cost.parameters), _giga(cost.flops), _giga(cost.useful_flops))
    )
    rows += [
        (f"frozen: {one.name}", _millions(one.cost.parameters), _giga(one.cost.flops), "")
        for one in frozen
        if one.cost is not None
    ]
    print_table(
        f"{cost.variant} on {subject.words}", ["", "parameters", "GFLOPs a video", "useful"], rows
    )
    print_table(
        f"a training step of {project.train.batch_size} videos: "
        f"{_giga(cost.training_flops * project.train.batch_size)} GFLOPs, and in memory",
        ["", *(_computed(kind, project) for kind in KINDS)],
        [
            ("activations kept", *(_mega(found.kept) for found in memory.values())),
            ("peak", *(_mega(found.peak) for found in memory.values())),
        ],
    )
    for one in frozen:
        if one.problem is not None:
            warn(f"the {one.stream} backbone is not listed: {one.problem}")
    if cost.parameters > PARAMETER_LIMIT and not project.model.allow_large:
        warn(
            f"over {PARAMETER_LIMIT / 1e6:.0f} M parameters are refused in training; lower "
            "model.bottleneck, model.rank or model.layers, or set model.allow_large=true."
        )


@command.command("compare")
@click.argument("words", nargs=-1, metavar="[NAME]... [SECTION.KEY=VALUE]...")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file.  [default: ./tca.yaml]",
)
@split_option
@batch_option
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Also time this many training steps of each, in turns, on train.device.",
)
@json_option
def compare(
    words: tuple[str, ...],
    config: Path | None,
    split: str | None,
    batch_size: int | None,
    steps: int | None,
    as_json: bool,
) -> None:
    """Put variants side by side.

    Those named, or all that the store has the streams for. Counted as in `tca model summary`,
    memory as train.device needs it; over 20 M parameters are allowed here. Times of steps are held
    against those of the first variant beside them.

    \b
    Examples:
      tca model compare
      tca model compare gasm_cast cross_attention --steps 5
      tca model compare gasm_cast cross_attention model.ratio=0 semantic.keep=frames
    """
    from tca.cli.model_subject import subject_of
    from tca.console import ProgressLine, print_json, print_table
    from tca.device import choose_device
    from tca.fusion.model.cost import WORDS, model_cost
    from tca.fusion.train.step_memory import step_memory
    from tca.fusion.train.step_time import time_steps

    names = list(dict.fromkeys(word for word in words if "=" not in word))
    given = tuple(word for word in words if "=" in word)
    project, folder = _load(config, given, None, split, batch_size)
    subject = subject_of(project, folder, names)
    models: dict[str, ModelConfig] = {
        name: project.model.model_copy(update={"variant": name, "allow_large": True})
        for name in names or subject.variants
    }
    shape = subject.shapes, subject.classes
    kind: Kind = "cpu" if choose_device(project.train.device).type == "cpu" else "gpu"
    costs: dict[str, ModelCost] = {}
    memory = {}
    with ProgressLine("count", len(models), "variants") as progress:
        for name, model in models.items():
            costs[name] = model_cost(model, *shape, subject.features)
            memory[name] = step_memory(model, *shape, project.train, kind)
            progress.advance()
    times = time_steps(models, *shape, project.train, steps) if steps is not None else {}
    if as_json:
        print_json(
            {
                **subject.to_json(),
                "batch_size": project.train.batch_size,
                "memory_of": kind,
                "variants": [
                    {
                        **costs[name].to_json(),
                        "memory": vars(memory[name]),
                        "step": times[name].to_json() if name in times else None,
                    }
                    for name in models
                ],
            }
        )
        return
    there = {group for cost in costs.values() for group in cost.groups()}
    groups = [group for group in WORDS.values() if group in there]
    groups += sorted(there.difference(groups))
    print_table(
        f"GFLOPs a video, forward, on {subject.words}",
        ["", "parameters", *groups, "all", "useful"],
        [
            (
                name,
                _millions(cost.parameters),
                *(_giga(cost.groups().get(group, 0)) for group in groups),
                _giga(cost.flops),
                _giga(cost.useful_flops),
            )
            for name, cost in costs.items()
        ],
    )
    columns = ["", "GFLOPs", "kept", "peak"]
    rows = [
        [
            name,
            _giga(cost.training_flops * project.train.batch_size),
            _mega(memory[name].kept),
            _mega(memory[name].peak),
        ]
        for name, cost in costs.items()
    ]
    if times:
        columns += ["step", f"of {next(iter(times))}'s"]
        for row in rows:
            time = times[row[0]]
            row += [f"{1000 * time.seconds:,.0f} ms", f"{time.ratio:.2f}"]
    if any(time.memory for time in times.values()):
        columns.append("peak, measured")
        for row in rows:
            measured = times[row[0]].memory
            row.append("" if measured is None else _mega(measured.peak))
    print_table(
        f"a training step of {project.train.batch_size} videos, and activations in memory "
        f"({_computed(kind, project)})",
        columns,
        rows,
    )


def _load(
    config: Path | None,
    overrides: Sequence[str],
    variant: str | None,
    split: str | None,
    batch_size: int | None,
) -> tuple[Project, Path]:
    flags = {"model.variant": variant, "train.split": split, "train.batch_size": batch_size}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return load_project(config, (*overrides, *given))


def _computed(kind: Kind, project: Project) -> str:
    """Say how a step is computed for which memory is counted."""
    from tca.fusion.train.step_memory import KINDS, precision_of

    return f"{kind}: {KINDS[kind]}, {precision_of(kind, project.train)}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _giga(count: int) -> str:
    return f"{count / 1e9:,.3f}"


def _mega(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
