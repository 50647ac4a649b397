"""How fast variants train, by cache shape, and how much of the processor's matrix rate that is.

Rows lie on the device and are random; reading them is measured elsewhere (`cache_to_gpu.py`), and
nothing is evaluated. The matrix rate is that of one large product in the type that is trained in,
measured in the same run.

    python benchmarks/train_step.py --variants gasm_cast,concat --batch 256 --markdown
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from report import Report, run

from tca.cache.layout import FeatureShapes
from tca.device import autocast, choose_device
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import model_cost
from tca.fusion.model.registry import OWN
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.step_time import time_steps

FORMS = {
    "mean": FeatureShapes(None, (14, 14), 768, 8, 512),
    "pool2": FeatureShapes(8, (7, 7), 768, 8, 512),
    "frames": FeatureShapes(8, (14, 14), 768, 8, 512),
}
SSV2_ROWS = 168_913
CLASSES = [f"class {number}" for number in range(174)]


def matrix_rate(device: torch.device, precision: str) -> float:
    """Return FLOP/s of a product of two large matrices."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    taken = []
    with torch.no_grad(), autocast(device, precision):
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
            left, right = left.to(dtype), right.to(dtype)
        for _ in range(8):
            _finish(device)
            begin = time.perf_counter()
            torch.mm(left, right)
            _finish(device)
            taken.append(time.perf_counter() - begin)
    return 2 * side**3 / statistics.median(taken)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--variants", default=",".join(OWN), show_default=True)
@click.option("--forms", default=",".join(FORMS), show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows a step.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True)
@click.option("--precision", default="auto", show_default=True, help="As train.precision.")
@click.option("--compile", "compiled", is_flag=True, help="As train.compile.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "output", flag_value="json", help="Print JSON instead of tables.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown.")
def command(
    variants: str,
    forms: str,
    batch: int,
    steps: int,
    precision: str,
    compiled: bool,
    device: str,
    output: str | None,
) -> None:
    place = choose_device(device)
    train = TrainConfig.model_validate(
        {"batch_size": batch, "precision": precision, "compile": compiled, "device": device}
    )
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    rate = matrix_rate(place, precision)
    settings = {"device": name, "batch": batch, "steps": steps, "precision": precision}
    report = Report("train_step", settings | {"matrix_gflops": round(rate / 1e9)})
    table = []
    for form in forms.split(","):
        shapes = FORMS[form]
        chosen = {
            variant: ModelConfig(variant=variant, allow_large=True)
            for variant in variants.split(",")
        }
        found = time_steps(chosen, shapes, CLASSES, train, steps)
        for variant, taken in found.items():
            flops = model_cost(chosen[variant], shapes, CLASSES).training_flops
            speed = batch / taken.seconds
            achieved = flops * speed
            epoch = SSV2_ROWS / speed
            table.append([form, variant, speed, achieved / 1e9, achieved / rate, epoch])
    columns = ["cache", "variant", "rows/s", "GFLOP/s", "of the matrix rate", "SSv2 epoch, s"]
    report.table("Training steps", columns, table)
    report.show(output)


if __name__ == "__main__":
    run(command)
