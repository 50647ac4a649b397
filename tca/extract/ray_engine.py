"""The ray engine: the workers of the local engine as Ray actors, over one machine or a cluster.

All nodes write into one store on a file system that they share. An actor that dies is replaced,
wherever Ray has room for it; the driver, which is the process of the command, hands out the shards.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tca.cache.writer import StoreWriter
from tca.errors import TcaError, UsageError
from tca.extract.crew import Worker, lead
from tca.extract.engine import shared_out
from tca.extract.handout import Handout
from tca.extract.serve import STOP, Answer, Ask, Failed, Message, Stopped, Work, serve
from tca.extract.worker import Job, Report, work

SETTLING_S = 60.0
"""How long a network file system may take to show here what another node wrote."""

LOOKED_AT = 8
"""Videos that a node must see before it begins."""

MEMORY_BYTES = 256 << 20
"""Ray's own store of objects, where we start Ray: it carries a list of files, and no features."""


@dataclass(frozen=True)
class RayCluster:
    """Actors-to-be on a cluster that this process is connected to.

    Attributes:
        devices: the name of each actor's device; an actor each.
        on_cpu: whether they are CPUs.
        nodes: machines in the cluster.
    """

    devices: list[str]
    on_cpu: bool
    nodes: int

    def run(self, job: Job, shards: list[int], devices: list[str], report: Report) -> None:
        """Make and commit `shards`; see `engine.run_local`.

        Raises:
            TcaError: as there, or a node that does not see the store or the videos.
            KeyboardInterrupt: Ctrl-C, after the current batch.
        """
        import ray

        count = min(len(devices), len(shards))
        a_node = -(-len(devices) // self.nodes)
        # Large, and the same for all: sent once.
        shared = ray.put(shared_out(job, a_node))
        threads = max(1, torch.get_num_threads() // a_node) if self.on_cpu else None

        def hire(number: int) -> Worker:
            return _Remote(number, shared, threads)

        writer = StoreWriter(job.store)
        lead(Handout(writer, shards), count, hire, _wait, report)
        _await_commits(writer, shards)


@contextmanager
def ray_cluster(address: str | None, workers: int | None, *, on_cpu: bool) -> Iterator[RayCluster]:
    """Connect to a cluster, or start one on this machine for as long as the block lasts.

    Args:
        address: of a running cluster; None: $RAY_ADDRESS, or else a new one.
        workers: how many actors; None: one a GPU, and one where there is no GPU.
        on_cpu: leave GPUs alone.

    Raises:
        UsageError: Ray is not installed, or the cluster is smaller than that.
        TcaError: no cluster there.
    """
    # Read when Ray is imported: nothing is sent to its makers, no change of GPUs is announced.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray needs Ray, which is not installed; install it with `pip install "
            "'tca[ray]'`, on every node."
        ) from None
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": MEMORY_BYTES}
        if workers is not None:
            options["num_cpus"] = max(workers, len(os.sched_getaffinity(0)))
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise TcaError(
            f"cannot connect to a Ray cluster at {address} ({_first_line(error)}); start one with "
            "`ray start --head`, give its token in $RAY_AUTH_TOKEN if it wants one, or leave "
            "--ray-address out to use this machine alone."
        ) from None
    try:
        yield _cluster(workers, on_cpu)
    finally:
        ray.shutdown()


def _cluster(workers: int | None, on_cpu: bool) -> RayCluster:
    import ray

    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    on_cpu = on_cpu or not gpus
    what, most = ("CPU", int(there.get("CPU", 0))) if on_cpu else ("GPU", gpus)
    count = workers or (1 if on_cpu else gpus)
    if count > most:
        raise UsageError(
            f"--workers {count}: the Ray cluster has {most} {what}s, and a worker takes one; ask "
            "for fewer, or add nodes."
        )
    nodes = sum(node["Alive"] for node in ray.nodes())
    if on_cpu:
        return RayCluster(["cpu"] * count, on_cpu, nodes)
    name = ray.remote(num_gpus=1)(torch.cuda.get_device_name)
    return RayCluster(ray.get([name.remote() for _ in range(count)]), on_cpu, nodes)


class _Actor:
    """A worker, on whatever node Ray put it; its methods run side by side."""

    def __init__(self, work: Work, job: Job, threads: int | None, folder: str) -> None:
        self._work, self._job, self._threads, self._folder = work, job, threads, folder
        self._sent: queue.Queue[Message | None] = queue.Queue()
        self._told: queue.Queue[Answer] = queue.Queue()

    def run(self) -> None:
        """Make shards until there are no more; then the last message is None."""
        try:
            _require_sight(self._job, self._folder)
            device = "cpu" if self._threads is not None else "cuda"
            serve(
                self._work,
                self._job,
                device,
                self._threads,
                self._sent.put,
                self._asked,
                self._check,
            )
        except TcaError as error:
            self._sent.put(Failed(error))
        except OSError as error:
            # What `serve` raises it sends itself; this is a folder that may not be searched.
            self._sent.put(Failed(_unseen(error.filename or self._folder, error)))
        finally:
            self._sent.put(None)

    def messages(self) -> list[Message | None]:
        """Return what was sent since the last call; waits until there is something."""
        found = [self._sent.get()]
        while not self._sent.empty():
            found.append(self._sent.get())
        return found

    def tell(self, answer: Answer) -> None:
        """Take an answer."""
        self._told.put(answer)

    def _asked(self, idle: bool) -> Answer:
        self._sent.put(Ask(idle))
        return self._answer()

    def _answer(self) -> Answer:
        found = self._told.get()
        if found == STOP:
            raise Stopped
        return found

    def _check(self) -> None:
        if not self._told.empty():
            self._answer()


class _Remote:
    """The driver's end of an actor."""

    def __init__(self, number: int, job: Any, threads: int | None) -> None:
        import ray

        self.name = f"Ray actor {number}"
        resources = {"num_cpus": 1, "num_gpus": 1 if threads is None else 0}
        # Threads for `run` and `messages`, which wait, and for `tell`.
        actor = ray.remote(max_concurrency=3, scheduling_strategy="SPREAD", **resources)(_Actor)
        self._actor = actor.remote(work, job, threads, os.getcwd())
        self._actor.run.remote()
        self.pending: Any = self._actor.messages.remote()
        self._ended: str | None = None

    def messages(self) -> list[Message]:
        import ray

        found: list[Message] = []
        while self.pending is not None and ray.wait([self.pending], timeout=0)[0]:
            try:
                some = ray.get(self.pending)
            except ray.exceptions.RayActorError:
                self._ended, self.pending = "died (killed, out of memory, or with its node)", None
                break
            found += [message for message in some if message is not None]
            if None in some:
                self._ended, self.pending = "", None
            else:
                self.pending = self._actor.messages.remote()
        return found

    def tell(self, answer: Answer) -> None:
        # Of a dead actor `messages` will say so.
        self._actor.tell.remote(answer)

    def ended(self) -> str | None:
        return self._ended

    def kill(self) -> None:
        import ray

        ray.kill(self._actor)


def _wait(workers: Collection[Any], seconds: float) -> None:
    import ray

    pending = [worker.pending for worker in workers if worker.pending is not None]
    if len(pending) == len(workers):
        ray.wait(pending, timeout=seconds)


def _require_sight(job: Job, folder: str) -> None:
    """Say whether this node sees the store and the videos; `folder` is where paths start.

    Raises:
        OSError: it does not; names what.
    """
    os.chdir(folder)
    job.store.stat()
    files = [file for file in job.files if file is not None]
    for file in files[:: max(1, len(files) // LOOKED_AT)]:
        file.stat()


def _unseen(path: str, error: OSError) -> TcaError:
    import ray

    return TcaError(
        f"the Ray node {ray.util.get_node_ip_address()} does not see {path} ({error.strerror}); "
        "mount it at the same path on every node of the cluster: videos, and the folder of the "
        "store, belong on a file system that all of them share."
    )


def _await_commits(writer: StoreWriter, shards: list[int]) -> None:
    """Wait until this machine sees the shards that the nodes say they have committed.

    Raises:
        TcaError: it never does.
    """
    end = time.monotonic() + SETTLING_S
    while missing := set(shards) - writer.committed():
        if time.monotonic() > end:
            raise TcaError(
                f"{len(missing)} shards that Ray nodes have made are not in {writer.path} here: "
                "nodes have a folder of their own at that path; put the store on a file system "
                "that all of them share."
            )
        time.sleep(1.0)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
