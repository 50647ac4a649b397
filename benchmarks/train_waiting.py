"""How much of a training step is spent waiting for data, from a warm cache.

Whole trainings as `tca train-fusion` makes them, on made rows of the usual size that are read from
files in the file cache (`loader.residency=disk`, the default), all in another order every epoch.
`waiting` is what `log.jsonl` calls so: the share of the steps' time for which the loop stood still
until the next batch was there. On a GPU, which works on while the loop waits, the share of the
clock is what counts, and it is still an upper bound. The first batch of a training is always waited
for: nothing is read ahead of it. Statistics are measured before the first step and are not in it.
Bar: 2 %.

    python benchmarks/train_waiting.py --markdown
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from made_training import MOST_ROWS, rows_lasting, train_config, warm_store
from report import Report, common_options, run, working_folder
from step_clock import StepClock

from tca.cache.config import LoaderConfig
from tca.cache.formats import FORMATS
from tca.cache.order import Rows
from tca.cache.store import Store
from tca.device import choose_device
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.run import TrainingError

BAR = 0.02
EPOCHS = 2
COLUMNS = [
    "model",
    "store",
    "checksum",
    "steps",
    "ms a step",
    "rows/s",
    "waiting, %",
    "for the first batch, %",
    "of the clock, %",
    f"≤ {BAR:.0%}",
]


def measured(
    store: Store, rows: Rows, model: ModelConfig, config: TrainConfig, loader: LoaderConfig
) -> list[float | int | bool]:
    """Train, and return the numbers of a line of the table."""
    clock = StepClock()
    run_folder = store.path.parent / "runs" / f"{store.path.suffix[1:]}-{loader.checksum}"
    plan = Plan(model, config, run_folder / model.variant, {}, [clock])
    (outcome,) = train_together(store, [plan], loader=loader, rows=rows)
    if isinstance(outcome, TrainingError):
        raise outcome
    steps = EPOCHS * len(rows) // config.batch_size
    if len(clock.losses) != steps:
        raise ValueError(f"{len(clock.losses)} steps were made instead of {steps}")
    waiting, of_clock = clock.waited / clock.seconds, clock.waited / clock.clock
    counted = of_clock if choose_device(config.device).type == "cuda" else waiting
    return [
        steps,
        1000 * clock.clock / steps,
        EPOCHS * len(rows) / clock.clock,
        100 * waiting,
        100 * clock.first_wait / clock.seconds,
        100 * of_clock,
        counted <= BAR,
    ]


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--rows", type=click.IntRange(1, MOST_ROWS), default=4096, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows a step.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=10,
    show_default=True,
    help=f"About how long an epoch takes at most; there are {EPOCHS}.",
)
@click.option("--models", default="gasm_cast,concat", show_default=True, help="Variants.")
@click.option("--stores", default=",".join(FORMATS), show_default=True)
@click.option("--checksums", default="always,first_epoch", show_default=True)
@click.option("--residency", default="disk", show_default=True, help="As loader.residency.")
@click.option("--device", default="auto", show_default=True, help="As train.device.")
@common_options
def main(
    rows: int,
    batch: int,
    seconds: float,
    models: str,
    stores: str,
    checksums: str,
    residency: str,
    device: str,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    place = choose_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    settings = {"device": name, "rows": rows, "batch": batch, "residency": residency}
    report = Report("train_waiting", settings)
    config = train_config({"batch_size": batch, "device": device, "epochs": EPOCHS})
    chosen: dict[str, Rows] = {}
    table = []
    with working_folder(folder, keep) as working:
        for store_format in stores.split(","):
            store = warm_store(working, rows, store_format)
            for variant in models.split(","):
                model = ModelConfig(variant=variant)
                if variant not in chosen:
                    chosen[variant] = rows_lasting(seconds, store, model, config)
                for checksum in checksums.split(","):
                    loader = LoaderConfig.model_validate(
                        {"checksum": checksum, "residency": residency}
                    )
                    found = measured(store, chosen[variant], model, config, loader)
                    table.append([variant, store_format, checksum, *found])
    report.table("Waiting for data", COLUMNS, table)
    report.show(output)


if __name__ == "__main__":
    run(main)
