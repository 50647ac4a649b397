"""An engine that works in this process, where a test can put faults into the worker."""

from tca.extract.backbones.pair import Backbones
from tca.extract.worker import Job, Report, work


def in_process(job: Job, shards: list[int], devices: list[str], report: Report) -> None:
    work(job, Backbones.load(job.config.semantic, job.config.motion, job.folder), shards, report)
