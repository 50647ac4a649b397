"""A demo's data set after extraction, and trainings on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tca.cache.store import Store
from tca.fusion.evaluate.scoring import Evaluation, evaluate
from tca.fusion.train.loop import train
from tca.project import Project, load_project


@dataclass(frozen=True)
class DemoData:
    folder: Path
    project: Project
    train: Store
    validation: Store

    @classmethod
    def open(cls, folder: Path) -> "DemoData":
        project, _ = load_project(folder / "tca.yaml", ())
        stores = (Store.open(project.store(split)) for split in ("train", "validation"))
        return cls(folder, project, *stores)


def trained(data: DemoData, store: Store, run: Path, **changes: Any) -> Evaluation:
    """Train the demo's model on `store` and score it on validation."""
    settings = data.project.train.model_copy(update={"holdout": 0.0} | changes)
    train(store, data.project.model, settings, run, resolved={})
    return evaluate(run, data.validation, device="cpu")
