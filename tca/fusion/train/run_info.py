"""What `run.json` says of a run from its start, and what one that goes on has to find again."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import torch

import tca
from tca.cache.config import LoaderConfig
from tca.cache.store import Store
from tca.console import warn
from tca.errors import TcaError
from tca.fusion.model.registry import parameters
from tca.fusion.rows import Rows
from tca.fusion.run_report import flat_settings
from tca.fusion.train.candidate import DECIDE_NOTHING
from tca.fusion.train.checkpoints import saved_steps
from tca.fusion.train.member import Member
from tca.fusion.train.run import Run
from tca.fusion.train.training import Data
from tca.fusion.train.world import World

OF_THE_ROWS = {
    "split": "another split",
    "shapes": "features of other shapes",
    "classes": "other classes",
    "identity": "other backbones or settings of extract",
    "rows": "another number of rows",
    "holdout": "another holdout",
    "digest": "other videos or labels",
}
"""What `run.json` says of the rows, and what is told where a run that goes on finds it changed."""


def described(
    data: Data, member: Member, loader: LoaderConfig, share: float | None, world: World
) -> dict[str, Any]:
    """Return `run.json` of a run that is not finished.

    Args:
        data: the rows that it is trained on.
        member: the model.
        loader: how rows are read.
        share: of the rows in the holdout; None where another split chooses the checkpoint.
        world: the processes that train.
    """
    store, config = data.source.store, member.config
    held = data.held_source.store
    return {
        "finished": False,
        "split": store.split,
        "variant": member.model_config.variant,
        "parameters": parameters(member.model),
        "model": member.model_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
        "loader": loader.model_dump(mode="json"),
        "shapes": vars(store.shapes),
        "classes": list(store.classes),
        "identity": store.identity,
        "rows": len(data.fit),
        "holdout": {"split": held.split, "share": share, "rows": len(data.held)},
        "digest": rows_digest(store, data.fit) + rows_digest(held, data.held),
        "seed": config.seed.model_dump(),
        "processes": world.size,
        "job": world.job,
        "versions": {
            "tca": tca.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def require_same(run: Run, store: Store) -> None:
    """Refuse to go on with other rows than a run began with, and tell of other settings.

    Raises:
        TcaError: the rows of `store` are others.
    """
    if not saved_steps(run.folder.path):
        return
    began, now = run.folder.info(), json.loads(json.dumps(run.info))
    if "digest" not in began:
        raise TcaError(f"{run.folder.path} was begun by an older tca; train anew.")
    differ = [words for name, words in OF_THE_ROWS.items() if began.get(name) != now[name]]
    if differ:
        raise TcaError(
            f"{run.folder.path} cannot go on: {store.path} is no longer what it began with "
            f"({' and '.join(differ)}); train anew."
        )
    before, settings = flat_settings(began), flat_settings(now)
    for name in dict.fromkeys((*before, *settings)):
        if name not in DECIDE_NOTHING and settings.get(name) != before.get(name):
            warn(
                f"{run.name} began with {name}={before.get(name)} and goes on with "
                f"{settings.get(name)}: it will be neither's."
            )


def rows_digest(store: Store, rows: Rows) -> str:
    """Return 16 hexadecimal digits of which rows these are: video, view and label of each."""
    found = hashlib.blake2b(digest_size=8)
    for column in (rows, store.view[rows], store.label[rows]):
        found.update(column.astype("<i8").tobytes())
    found.update("\0".join(store.ids[row] for row in rows.tolist()).encode())
    return found.hexdigest()
