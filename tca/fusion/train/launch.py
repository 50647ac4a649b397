"""Several processes of one training on this machine, started as `torchrun` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def launch(devices: Sequence[str], arguments: Sequence[str]) -> int:
    """Run `tca train-fusion` in as many processes as there are devices, and return the exit code.

    Args:
        devices: names of GPUs, each for one process, or "cpu" as often as there are processes.
        arguments: what follows `tca train-fusion`.
    """
    environment = dict(os.environ)
    if devices[0].startswith("cuda"):
        numbers = [device.removeprefix("cuda:") for device in devices]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(_seen(number) for number in numbers)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(devices)}"]
    # Without `--` torchrun takes our --run for its own --run-path.
    command = [sys.executable, *launcher, "-m", "--", "tca", "train-fusion", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def _seen(number: str) -> str:
    """Return what the system calls the GPU that this process sees under `number`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return number if not visible else visible.split(",")[int(number)]
