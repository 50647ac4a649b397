"""What a sweep saves when its members train in one pass over the cache instead of one by one.

Eight members that differ in `train.seed.model` train as `tca ablate` does it (`train_together`,
from opening the store to the last weights), then as eight trainings one after the other in the same
process, so that starting Python and torch counts for neither. Every step's loss has to be the same
on both sides: to the bit on a CPU, to rounding on a GPU and where `--stack` makes one batched model
of them. Bytes are counted where rows leave the store's files, in `RowSource.read`, and held against
the rows that the settings ask for. Goals: half the time on a GPU, an eighth of the bytes.

Models: `concat`, so small that reading shows, and the default.

    python benchmarks/sweep_pass.py --markdown
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import torch
from counted_rows import CountedRows
from made_training import MOST_ROWS, rows_lasting, train_config, warm_store
from report import Report, common_options, run, working_folder
from step_clock import StepClock

from tca.cache.config import LoaderConfig
from tca.cache.formats import FORMATS
from tca.cache.order import Rows
from tca.cache.store import Store
from tca.device import choose_device
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variant import STREAMS
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.run import TrainingError
from tca.fusion.train.stack_choice import Choice
from tca.fusion.train.training import STATISTICS_ROWS

TIME_GOAL = 0.5
STAGES = ("before", "waiting", "steps", "after")


@dataclass
class Way:
    """What one way to train all members took.

    Attributes:
        stages: seconds by stage. before: opening, building, statistics; waiting: for batches;
            steps: all else up to the end of the last epoch; after: weights and reports.
        bytes: read from the store.
        losses: of every step, a list a member.
    """

    stages: dict[str, float]
    bytes: int
    losses: list[list[float]]

    @property
    def seconds(self) -> float:
        """All stages."""
        return sum(self.stages.values())

    def __add__(self, other: Way) -> Way:
        """Return what both took, one after the other."""
        stages = {name: self.stages[name] + other.stages[name] for name in STAGES}
        return Way(stages, self.bytes + other.bytes, self.losses + other.losses)


class Sweep:
    """Members that differ in the seed of their weights, and both ways to train them."""

    def __init__(
        self,
        store: Path,
        rows: Rows,
        model: ModelConfig,
        configs: list[TrainConfig],
        stack: Choice,
    ) -> None:
        self.store, self.rows, self.model, self.configs = store, rows, model, configs
        self.stack: Choice = stack
        self._turn = 0

    def together(self) -> Way:
        """Train all members in one pass."""
        return self._train(self.configs)

    def alone(self) -> Way:
        """Train one member after the other."""
        first, *others = (self._train([config]) for config in self.configs)
        return sum(others, first)

    def _train(self, configs: list[TrainConfig]) -> Way:
        began = time.perf_counter()
        self._turn += 1
        runs = self.store.parent / "runs" / f"{self.model.variant}-{self._turn}"
        clocks = [StepClock() for _ in configs]
        plans = [
            Plan(self.model, config, runs / f"{number}", {}, [clock])
            for number, (config, clock) in enumerate(zip(configs, clocks, strict=True))
        ]
        store = Store.open(self.store)
        source = CountedRows(store, STREAMS, LoaderConfig())
        for outcome in train_together(
            store, plans, rows=self.rows, source=source, stack=self.stack
        ):
            if isinstance(outcome, TrainingError):
                raise outcome
        ended = time.perf_counter()
        self._refuse_other_bytes(source)
        # The first to begin and the last to end: between them lie all steps of all members.
        start, done = min(c.began for c in clocks), max(c.done for c in clocks)
        waited = clocks[0].waited
        spent = (start - began, waited, done - start - waited, ended - done)
        stages = dict(zip(STAGES, spent, strict=True))
        return Way(stages, source.bytes, [clock.losses for clock in clocks])

    def _refuse_other_bytes(self, source: CountedRows) -> None:
        passes = self.configs[0].epochs * len(self.rows)
        wanted = (passes + min(STATISTICS_ROWS, len(self.rows))) * source.row_bytes
        # To see whether stacking pays, `auto` steps on the first rows of the sample once more.
        if source.bytes != wanted and not (self.stack == "auto" and source.bytes > wanted):
            raise ValueError(f"{source.bytes} bytes were read instead of {wanted}")


def furthest(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Return the largest relative difference between losses of the same step and member."""
    left, right = (torch.tensor(losses, dtype=torch.float64) for losses in (ours, theirs))
    return ((left - right).abs() / right.abs()).max().item()


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--rows", type=click.IntRange(1, MOST_ROWS), default=4096, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows a step.")
@click.option("--members", type=click.IntRange(2), default=8, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=2,
    show_default=True,
    help="About how long an epoch of one member takes at most, but for 4 steps at least.",
)
@click.option("--models", default="concat,gasm_cast", show_default=True, help="Variants.")
@click.option("--store", "store_format", type=click.Choice(list(FORMATS)), default="zarr")
@click.option(
    "--stack",
    type=click.Choice(get_args(Choice)),
    default="off",
    show_default=True,
    help="As `tca ablate --stack`.",
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--device", default="auto", show_default=True, help="As train.device.")
@common_options
def main(
    rows: int,
    batch: int,
    members: int,
    epochs: int,
    seconds: float,
    models: str,
    store_format: str,
    stack: Choice,
    rounds: int,
    device: str,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    place = choose_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    settings = {"device": name, "members": members, "batch": batch, "epochs": epochs}
    report = Report("sweep_pass", settings | {"stack": stack, "rounds": rounds})
    common = {"batch_size": batch, "epochs": epochs, "device": device}
    configs = [
        train_config(common | {"seed": {"data": 0, "model": seed}}) for seed in range(members)
    ]
    summary, stages = [], []
    with working_folder(folder, keep) as working:
        store = warm_store(working, rows, store_format)
        for variant in models.split(","):
            model = ModelConfig(variant=variant)
            chosen = rows_lasting(seconds, store, model, configs[0])
            sweep = Sweep(store.path, chosen, model, configs, stack)
            ways: dict[str, list[Way]] = {"one pass": [], f"{members} runs": []}
            for turn in range(rounds):
                works = list(zip(ways.values(), (sweep.together, sweep.alone), strict=True))
                for found, work in works[:: -1 if turn % 2 else 1]:
                    found.append(work())
            one, many = ways.values()
            apart = max(furthest(a.losses, b.losses) for a, b in zip(one, many, strict=True))
            if apart and place.type == "cpu" and stack == "off":
                raise ValueError(f"losses in one pass differ from those alone by {apart:g}")
            times, of_bytes = (
                statistics.median(a / b for a, b in pairs)
                for pairs in (
                    [(a.seconds, b.seconds) for a, b in zip(one, many, strict=True)],
                    [(a.bytes, b.bytes) for a, b in zip(one, many, strict=True)],
                )
            )
            taken = [statistics.median(way.seconds for way in found) for found in ways.values()]
            read = [found[0].bytes / 1e9 for found in ways.values()]
            summary.append([variant, len(chosen), *taken, times, times <= TIME_GOAL])
            summary[-1] += [*read, of_bytes, of_bytes <= 1 / members, apart]
            for way, found in ways.items():
                spent = [statistics.median(w.stages[stage] for w in found) for stage in STAGES]
                stages.append([variant, way, *spent])
    columns = ["model", "rows", "one pass, s", f"{members} runs, s", "ratio", f"≤ {TIME_GOAL}"]
    columns += ["read, GB", f"by {members} runs, GB", "ratio", f"≤ 1/{members}", "losses differ by"]
    report.table(f"{members} members in one pass, and one after the other", columns, summary)
    report.table("Where the time goes, s", ["model", "way", *STAGES], stages)
    report.show(output)


if __name__ == "__main__":
    run(main)
