"""The main job on a rendered data set: render, check, extract, train, evaluate, report.

The steps are the functions that the commands call, on a `tca.yaml` that is left in the folder, so
that each can be run again by hand. The room therefore sits above extract and fusion, beside the
commands.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tca.cache.files import write_atomic
from tca.cache.store import Store
from tca.console import ProgressLine, note
from tca.demo.one_frame import middle_frame_top1
from tca.demo.render import render_data_set
from tca.demo.report import write_report
from tca.demo.settings import BACKBONES, SETTINGS, TRAIN_CLIPS, VALIDATION_CLIPS
from tca.errors import UsageError
from tca.extract.data_check import check_data
from tca.extract.data_state import DataReport
from tca.extract.run import ExtractSummary, extract
from tca.fusion.evaluate.report import write_report as write_evaluation
from tca.fusion.evaluate.scoring import Evaluation, evaluate
from tca.fusion.run_folder import new_run_folder
from tca.fusion.train.loop import TrainSummary, train
from tca.project import CONFIG_FILE, Project, load_project, resolved

SPLITS = ("train", "validation")
MARKER = "made-by-tca-demo"
"""A file that tells a folder of the demo from one that must not be touched."""

_MADE = ("videos", "labels", "cache", "runs", CONFIG_FILE, "report.html")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    Attributes:
        folder: where everything lies.
        clips: rendered, by split; the missing one included.
        check: what `tca data check` found.
        extracted: one summary a split.
        training: of the one run.
        evaluation: of its best checkpoint on validation.
        middle_frame_top1: of a linear probe on one frame of each clip, on validation.
        seconds: wall time of each stage, in order.
    """

    folder: Path
    clips: dict[str, int]
    check: DataReport
    extracted: dict[str, ExtractSummary]
    training: TrainSummary
    evaluation: Evaluation
    middle_frame_top1: float
    seconds: dict[str, float]

    @property
    def rates(self) -> dict[str, float]:
        """Videos a second in each stage; in training, every epoch counts its videos again."""
        clips = sum(self.clips.values())
        counts = {
            "render": clips,
            "data check": sum(part.found for part in self.check.splits),
            "extract": sum(part.done for part in self.extracted.values()),
            "train-fusion": self.training.rows * self.training.epochs,
            "evaluate": self.evaluation.videos,
        }
        return {stage: count / self.seconds[stage] for stage, count in counts.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what `tca demo --json` prints."""
        ok = {split: part.status.get("ok", 0) for split, part in self.extracted.items()}
        return {
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
            "backbones": BACKBONES,
            "classes": len(self.evaluation.classes),
            "top1": self.evaluation.top1,
            "top5": self.evaluation.top5,
            "middle_frame_top1": self.middle_frame_top1,
            "chance": 1 / len(self.evaluation.classes),
            "variant": self.training.variant,
            "parameters": self.training.parameters,
            "rows": {
                split: {"extracted": ok[split], "failed": part.rows - ok[split]}
                for split, part in self.extracted.items()
            },
            "videos_per_second": self.rates,
            "seconds": self.seconds | {"total": sum(self.seconds.values())},
            "run": str(self.training.run),
        }


def run_demo(
    folder: Path,
    *,
    train_clips: int = TRAIN_CLIPS,
    validation_clips: int = VALIDATION_CLIPS,
    seed: int = 0,
) -> DemoResult:
    """Render a data set into `folder` and run the whole job on it.

    Args:
        folder: made if it is not there; what an earlier demo left in it is replaced.
        train_clips: how many to render for training.
        validation_clips: how many to render for evaluation.
        seed: of the clips; the networks' seeds are in the configuration.

    Raises:
        UsageError: the folder holds something that no demo made.
    """
    _clear(folder)
    clock = _Clock()
    clips = {"train": train_clips, "validation": validation_clips}
    note(f"rendering {train_clips} training and {validation_clips} validation clips in {folder}")
    with ProgressLine("render", sum(clips.values()) - 1, "clips") as line:
        clock.time(
            "render",
            lambda: render_data_set(
                folder,
                train=train_clips,
                validation=validation_clips,
                seed=seed,
                report=line.advance,
            ),
        )
    text = yaml.safe_dump(SETTINGS, sort_keys=False)
    write_atomic(folder / CONFIG_FILE, [_HEADER.encode(), text.encode()])
    project, _ = load_project(folder / CONFIG_FILE, ())
    check = clock.time(
        "data check",
        lambda: check_data(project.data, SPLITS, project.extract).report,
    )
    note(f"backbones: {BACKBONES}.")
    extracted = clock.time("extract", lambda: {s: _extract(s, project, folder) for s in SPLITS})
    train_store, validation_store = (Store.open(project.store(split)) for split in SPLITS)
    run = new_run_folder(project.runs, project.model.variant)
    training = clock.time(
        "train-fusion",
        lambda: train(train_store, project.model, project.train, run, resolved=resolved(project)),
    )
    evaluation = clock.time(
        "evaluate", lambda: evaluate(run, validation_store, device=project.train.device)
    )
    write_evaluation(evaluation)
    result = DemoResult(
        folder=folder,
        clips=clips,
        check=check,
        extracted=extracted,
        training=training,
        evaluation=evaluation,
        middle_frame_top1=middle_frame_top1(train_store, validation_store),
        seconds=clock.seconds,
    )
    write_report(result)
    return result


def _extract(split: str, project: Project, folder: Path) -> ExtractSummary:
    return extract(
        split,
        project.local_store(split),
        project,
        devices=["cpu"],
        folder=folder,
        allow_missing=True,
    )


def _clear(folder: Path) -> None:
    """Make an empty folder, or empty that of an earlier demo."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"{folder} holds files that no demo made; name another folder with --folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / MARKER, [b"`tca demo` replaces what it made here.\n"])
    for name in _MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], ResultT]) -> ResultT:
        started = time.monotonic()
        result = work()
        self.seconds[stage] = time.monotonic() - started
        return result


_HEADER = """\
# Made by `tca demo`. Its steps by hand, from this folder:
#   tca data check
#   tca extract --allow-missing
#   tca train-fusion
#   tca evaluate
"""
