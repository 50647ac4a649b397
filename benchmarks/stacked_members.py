"""What it gives to step members of a sweep as one batched model, by size, batch and their number.

A step of all members one by one and one of their stack take turns, as `tca ablate --stack auto`
measures it before a training: forward, backward, gradients cut, AdamW. Rows lie on the device and
are random. Members differ in their seed, and drop out as configured.

    python benchmarks/stacked_members.py --markdown
    python benchmarks/stacked_members.py --device cuda --sizes default --batches 32,256 --markdown
"""

from __future__ import annotations

import statistics

import click
import torch
from report import Report, run

from tca.cache.layout import FeatureShapes
from tca.device import choose_device
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import random_rows
from tca.fusion.model.registry import parameters
from tca.fusion.train.config import SeedConfig, TrainConfig
from tca.fusion.train.member import Member
from tca.fusion.train.stack_choice import Trial, seconds_each_way
from tca.fusion.train.world import World

SHAPES = FeatureShapes(None, (14, 14), 768, 8, 512)
CLASSES = [f"class {number}" for number in range(174)]
SIZES = {
    "tiny": {"pool": 7, "max_width": 32, "bottleneck": 16, "heads": 2, "layers": 1, "rank": 8},
    "small": {"pool": 2, "max_width": 128, "bottleneck": 64, "heads": 4, "layers": 2, "rank": 16},
    "default": {},
}


@click.command(help=__doc__.replace("    python", "\b\n    python", 1))
@click.option("--variants", default="gasm_cast,concat", show_default=True)
@click.option("--sizes", default=",".join(SIZES), show_default=True)
@click.option("--batches", default="8,32", show_default=True, help="Rows a step.")
@click.option("--members", default="2,4,8", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="As train.precision.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "output", flag_value="json", help="Print JSON instead of tables.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown.")
def command(
    variants: str,
    sizes: str,
    batches: str,
    members: str,
    precision: str,
    device: str,
    output: str | None,
) -> None:
    place = choose_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    settings = {"device": name, "threads": torch.get_num_threads(), "precision": precision}
    report = Report("stacked_members", settings)
    counts = [int(count) for count in members.split(",")]
    table = []
    for variant in variants.split(","):
        for size in sizes.split(","):
            model = ModelConfig(variant=variant, **SIZES[size])
            for batch in map(int, batches.split(",")):
                train = TrainConfig(batch_size=batch, precision=precision, device=device)
                times = []
                for count in counts:
                    made = _members(model, train, place, count)
                    rounds = seconds_each_way(made, _trial(made[0], batch))
                    times.append(statistics.median(one / other for one, other in rounds))
                alone = statistics.median(separate for separate, _ in rounds) / count
                million = parameters(made[0].model) / 1e6
                table.append([variant, f"{size}, {million:.2f} M", batch, 1e3 * alone, *times])
    columns = ["variant", "size", "rows", "a step of one, ms", *(f"{n} members" for n in counts)]
    report.table("How many times as fast a step of all members is as one", columns, table)
    report.show(output)


def _members(model: ModelConfig, train: TrainConfig, device: torch.device, count: int):
    world = World(0, 1, device)
    found = []
    for seed in range(count):
        config = train.model_copy(update={"seed": SeedConfig(model=seed)})
        found.append(Member(model, config, SHAPES, CLASSES, world))
        found[-1].begin()
    return found


def _trial(member: Member, batch: int) -> Trial:
    semantic, motion = (
        rows.to(member.device) if rows is not None and name in member.model.streams else None
        for name, rows in zip(("semantic", "motion"), random_rows(SHAPES, batch), strict=True)
    )
    label = torch.arange(batch, device=member.device) % len(CLASSES)
    return Trial((semantic, motion), label)


if __name__ == "__main__":
    run(command)
