"""What a worker of any engine does: load the backbones, then ask for shards and make them.

An engine is a way to start such workers and to carry these few messages; see `crew` for the other
end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch

from tca.errors import TcaError
from tca.extract.backbones.pair import Backbones
from tca.extract.decoders import NoDecodersError
from tca.extract.worker import Job, Progress, Report


@dataclass(frozen=True)
class Ready:
    """The backbones are loaded."""


@dataclass(frozen=True)
class Ask:
    """A shard is wanted; answered by its number, or None for none.

    Attributes:
        idle: all that was handed out before is committed.
    """

    idle: bool


@dataclass(frozen=True)
class Lost:
    """The device or the decoders failed; a new process may have more luck.

    Attributes:
        how: the end of a sentence that begins with the worker's name.
    """

    how: str


@dataclass(frozen=True)
class Failed:
    """The run cannot go on.

    Attributes:
        error: why; it survives the way to another process.
    """

    error: Exception


Message = Ready | Ask | Progress | Lost | Failed
Answer = int | None

STOP = -1
"""Answer to whatever comes next: end after the current batch."""


class Stopped(Exception):  # noqa: N818 - no error
    """The worker was told to stop."""


Work = Callable[[Job, Backbones, Iterator[int], Report], None]


def serve(
    work: Work,
    job: Job,
    device: str,
    threads: int | None,
    send: Callable[[Message], None],
    asked: Callable[[bool], Answer],
    check: Callable[[], None],
) -> None:
    """Make shards until there are no more.

    Args:
        work: the shard worker.
        job: what to make.
        device: torch device name.
        threads: of the networks, on a CPU.
        send: carries a message to the engine.
        asked: sends `Ask` and returns the answer; told whether all before is committed. Raises
            `Stopped`.
        check: raises `Stopped` if the engine has said so.
    """
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        backbones = Backbones.load(job.config.semantic, job.config.motion, job.folder)
        backbones.to(torch.device(device))
        send(Ready())

        def report(progress: Progress) -> None:
            send(progress)
            check()

        while (shard := asked(True)) is not None:
            work(job, backbones, chain([shard], iter(lambda: asked(False), None)), report)
    except Stopped:
        return
    except NoDecodersError as error:
        send(Lost(f"lost its decoders ({error.why})"))
    except Exception as error:
        send(Lost(f"lost its device ({_line(error)})") if _of_device(error) else _failed(error))


def _of_device(error: Exception) -> bool:
    """Tell a device that failed from a mistake of ours; after it, the process is of no use."""
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError)
        and any(name in str(error) for name in ("CUDA error", "cuDNN error", "CUBLAS_STATUS"))
    )


def _failed(error: Exception) -> Failed:
    if isinstance(error, TcaError):
        return Failed(error)
    # Not every error can be carried to another process, and none with its traceback.
    import traceback

    return Failed(RuntimeError("in a worker:\n" + "".join(traceback.format_exception(error))))


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
