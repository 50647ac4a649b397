"""Several processes of one training on this machine, started as `torchrun` starts them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence

from tca.errors import TcaError


def launch(devices: Sequence[str], arguments: Sequence[str]) -> int:
    """Run `tca train-fusion` in as many processes as there are devices, and return the exit code.

    Args:
        devices: names of GPUs, each for one process, or "cpu" as often as there are processes.
        arguments: what follows `tca train-fusion`.

    Raises:
        TcaError: the system ended one of them.
        KeyboardInterrupt: and all processes have ended.
    """
    # Slow to import, and needed for several processes only.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if devices[0].startswith("cuda"):
        numbers = [device.removeprefix("cuda:") for device in devices]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_seen(number) for number in numbers)
    # torchrun would take one, and say so.
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # The processes say themselves why they end.
    logging.disable(logging.ERROR)
    launcher = ["--standalone", f"--nproc-per-node={len(devices)}"]
    try:
        # Without `--` torchrun takes our --run for its own --run-path. In this process: a child in
        # between would be killed by Ctrl-C before it has ended its own.
        given = parse_args(  # type: ignore[no-untyped-call]
            [*launcher, "-m", "--", "tca", "train-fusion", *arguments]
        )
        run(given)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return int(failure.exitcode)
        raise TcaError(
            f"the system ended process {rank} ({signal.Signals(-failure.exitcode).name}), and the "
            "others with it; look whether memory was short, and go on with --resume."
        ) from None
    except SignalException as error:
        if error.sigval != signal.SIGINT:
            return 128 + int(error.sigval)
        raise KeyboardInterrupt from None
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _seen(number: str) -> str:
    """Return what the system calls the GPU that this process sees under `number`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return number if not visible else visible.split(",")[int(number)]
