"""The whole of a `tca.yaml`: every component's settings, and where stores and runs lie.

Relative paths in it start at its folder, so that commands work from anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator

from tca.cache.config import LoaderConfig
from tca.cache.files import write_atomic
from tca.cache.formats import existing_path
from tca.cache.remote import as_place
from tca.config import FileOverrides, dump_commented, dump_yaml, load_config
from tca.errors import UsageError
from tca.extract.config import DataConfig, MotionConfig, SemanticConfig, Stage1Config
from tca.extract.recognise import recognise
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig

CONFIG_FILE = "tca.yaml"


class Project(Stage1Config):
    """Settings of both stages and the places of what they make."""

    model: ModelConfig = Field(ModelConfig(), description="the fusion model")
    train: TrainConfig = Field(TrainConfig(), description="how it is trained")
    loader: LoaderConfig = Field(LoaderConfig(), description="how features are read")
    stores: str = Field(
        "cache/{split}.zarr", description="path or URL of a store; {split} is replaced by the split"
    )
    runs: Path = Field(Path("runs"), description="folder of run folders")

    @field_validator("stores")
    @classmethod
    def _names_the_split(cls, value: str) -> str:
        if "{split}" not in value:
            raise ValueError("it must contain {split}, or all splits would share one store")
        return value

    def store(self, split: str) -> Path | str:
        """Return where one split's store lies: a path, or a URL as text.

        Where there is none of this name, one beside it in the other format is it.
        """
        place = as_place(self.stores.replace("{split}", split))
        return existing_path(place) if isinstance(place, Path) else place

    def local_store(self, split: str) -> Path:
        """Return where to write one split's store.

        Raises:
            UsageError: that is a URL.
        """
        store = self.store(split)
        if not isinstance(store, Path):
            raise UsageError(
                f"stores is {self.stores}, and extract writes to disks only; name a path, and "
                "copy the store there when it is complete."
            )
        return store


def load_project(
    file: Path | None, overrides: Iterable[str], last: FileOverrides | None = None
) -> tuple[Project, Path]:
    """Read `file`, or `tca.yaml` here, and apply overrides, as `load_config` does.

    Returns:
        The project, its relative paths turned to start at the file's folder, and that folder.

    Raises:
        UsageError: no such file, or something in it that the schema does not allow.
    """
    if file is None:
        file = Path(CONFIG_FILE)
        if not file.is_file():
            raise UsageError(
                "there is no tca.yaml here; write one with `tca init --data FOLDER`, or name one "
                "with --config FILE."
            )
    project = load_config(Project, file, overrides, last)
    return _anchored(project, file.parent), file.parent


def resolved(project: Project) -> dict[str, Any]:
    """Return every setting as JSON, paths absolute: what repeats a run from anywhere."""
    return _anchored(project, Path.cwd()).model_dump(mode="json")


def _anchored(project: Project, folder: Path) -> Project:
    data = project.data
    paths: dict[str, Any] = {
        name: None if path is None else folder / _at_home(path)
        for name, path in {
            "videos": data.videos,
            "labels": data.labels,
            "answers": data.answers,
            "flip": data.flip,
        }.items()
    }
    paths["annotations"] = {
        split: folder / _at_home(path) for split, path in data.annotations.items()
    }
    return project.model_copy(
        update={
            "data": DataConfig(**paths),
            "semantic": _with_local_weights(project.semantic, folder),
            "motion": _with_local_weights(project.motion, folder),
            "stores": _anchored_stores(project.stores, folder),
            "runs": folder / _at_home(project.runs),
        }
    )


def _anchored_stores(stores: str, folder: Path) -> str:
    place = as_place(stores)
    return place if isinstance(place, str) else str(folder / _at_home(place))


WeightsT = TypeVar("WeightsT", SemanticConfig, MotionConfig)


def _with_local_weights(config: WeightsT, folder: Path) -> WeightsT:
    """Return `config` with weights that lie under `folder` named by their absolute path."""
    local = folder / _at_home(Path(config.weights))
    if not os.path.exists(local):
        return config
    return config.model_copy(update={"weights": str(local.absolute())})


def _at_home(path: Path) -> Path:
    # Path.expanduser() raises for a user that does not exist; this leaves `~nobody` as it is.
    return Path(os.path.expanduser(path))


def write_project(file: Path, data: Path, *, force: bool, full: bool) -> Project:
    """Write a configuration for the data set in the folder `data` and return it.

    Args:
        file: where.
        data: folder of the data set.
        force: replace a file that is there.
        full: write every key with its default and description, not only those often changed.

    Raises:
        UsageError: nothing recognised there, or a configuration is there already.
        TcaError: the file cannot be written.
    """
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; edit it, or replace it with --force.")
    found = recognise(data)
    base = file.absolute().parent

    def shown(path: Path) -> str:
        path = path.absolute()
        return str(path.relative_to(base) if path.is_relative_to(base) else path)

    places: dict[str, Any] = {"videos": shown(found.videos)}
    for name, path in (("labels", found.labels), ("answers", found.answers), ("flip", found.flip)):
        if path is not None:
            places[name] = shown(path)
    places["annotations"] = {split: shown(path) for split, path in found.annotations.items()}
    if full:
        text = dump_commented(Project.model_validate({"data": places}))
    else:
        text = _TEMPLATE.format(data=dump_yaml({"data": places}))
    write_atomic(file, [text.encode()])
    return load_project(file, ())[0]


_TEMPLATE = """\
# What tca works on. Relative paths start at this file's folder; anything can also be set on the
# command line, as in `tca train-fusion train.epochs=10`. All keys: `tca init --full`.
{data}
semantic:                # what is in a frame
  weights: facebook/dinov3-vitb16-pretrain-lvd1689m   # hub id, local folder, or random:SEED
  keep: mean             # mean: 196x768 a video; frames: 8x196x768, knows the order of things
  pool: 1                # 2 averages patches 2x2: a quarter of the bytes

motion:                  # how it moves; `tca backbones` lists other networks for both
  architecture: r3d_18
  weights: default       # the published ones; or a torchvision name, hub id, file, random:SEED

stores: cache/{{split}}.zarr
runs: runs
"""
