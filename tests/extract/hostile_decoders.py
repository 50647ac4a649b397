"""What a video may do to the process that decodes it; imported in decoders alone."""

import ctypes
import os
import signal
import time

import torch

from tca.extract import decoder
from tca.extract.batch_buffers import BatchBuffers
from tca.extract.decoder import Settings, Task


def draw(task: Task, buffers: BatchBuffers, settings: Settings) -> None:
    """Do what the video's name says, after soiling its places."""
    name = task.path.stem
    if name.isdigit():
        decoder.draw(task, buffers, settings)
        return
    for place, _ in task.views:
        for pixels in buffers.place(task.slot, place):
            pixels.fill_(77)
    if name == "segfault":
        ctypes.string_at(0)
    elif name == "abort":
        os.abort()
    elif name == "exit":
        os._exit(3)
    elif name == "raise":
        raise ArithmeticError("too odd")
    elif name == "hang":
        time.sleep(1000)
    elif name == "slow":
        print("slow", flush=True)
        time.sleep(2)
    elif name == "deaf":
        # Hangs inside a library, with the signals of Python off.
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})
        while True:
            pass
    elif name == "hungry":
        kept = [torch.zeros(2**24, dtype=torch.uint8) for _ in range(1000)]
        raise AssertionError(f"got {len(kept)} times 16 MB")
    elif name == "greedy":
        kept = [bytearray(2**24) for _ in range(1000)]
        raise AssertionError(f"got {len(kept)} times 16 MB")
    elif name == "unlucky":
        # The first of its decoders is killed by somebody else.
        mark = task.path.with_suffix(".seen")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        decoder.draw(task, buffers, settings)
    else:
        raise AssertionError(name)


def draw_after(seconds: float) -> decoder.Draw:
    """Take long to be loaded."""
    time.sleep(seconds)
    return decoder.draw
