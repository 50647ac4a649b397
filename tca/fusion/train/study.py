"""The study of a tuning: Optuna's journal on disk, safe against kills and for several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from typing_extensions import override

from tca.cache.files import locked, writing_failed
from tca.errors import TcaError
from tca.fusion.train.candidate import differences, require_no_other
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.tune_config import TuneConfig

TOLD = "tca"
"""The attribute of a study that says what it is of."""


def open_study(
    place: Path, config: TuneConfig, train: TrainConfig, told: Mapping[str, Any]
) -> optuna.Study:
    """Open the study in `place`, or make it.

    Args:
        place: folder of the tuning.
        config: goal and pruner.
        train: trials are given up after a fifth of its epochs, at the earliest.
        told: all that trials have in common, as JSON; a study of something else is refused.

    Raises:
        TcaError: the folder cannot be written, or holds a study of something else or a damaged one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = place / "study.journal"
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if config.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=train.epochs // 5)
    require_no_other(place, file.name)
    with locked(place / "locks/study", wait=True):
        try:
            study = optuna.create_study(
                storage=JournalStorage(_Journal(file, place / "locks/journal")),
                study_name="tca",
                direction="maximize" if config.goal == "holdout_top1" else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except OSError as error:
            raise writing_failed(file, error) from None
        # Optuna takes every line for one of its own, and fails where it does not look like one.
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError):
            raise TcaError(
                f"{file} is damaged; give the tuning another --name, or remove {place}."
            ) from None
        now = json.loads(json.dumps(told))
        before = study.user_attrs.get(TOLD)
        if before is None:
            study.set_user_attr(TOLD, now)
        elif before != now:
            differ = [key for key in now if before.get(key) != now[key]]
            how = ""
            if "settings" in differ:
                how = f" than these ({differences(before['settings'], now['settings'])})"
            raise TcaError(
                f"{place} holds a tuning of other {' and '.join(differ)}{how}; give this one "
                "another --name, or remove the folder."
            )
    return study


class _Journal(JournalFileBackend):
    """Says in one sentence what the disk refuses."""

    def __init__(self, file: Path, lock: Path) -> None:
        self._journal = file
        # Its reader trips over half a line too.
        with locked(lock, wait=True):
            _cut_torn_line(file)
        super().__init__(str(file), lock_obj=_Lock(file, lock))

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise writing_failed(self._journal, error) from None


class _Lock(JournalFileOpenLock):
    """Held by the system, which drops it when the process is killed; Optuna's own would stay."""

    def __init__(self, journal: Path, path: Path) -> None:
        super().__init__(str(path))
        self._journal, self._path = journal, path
        self._held = ExitStack()

    @override
    def acquire(self) -> bool:
        held = self._held.enter_context(locked(self._path, wait=True))
        # Another process may have died, or its disk been full, in the middle of one.
        try:
            _cut_torn_line(self._journal)
        except BaseException:
            self._held.close()
            raise
        return held

    @override
    def release(self) -> None:
        self._held.close()


def _cut_torn_line(file: Path) -> None:
    """Drop the end of a journal whose last line is not whole: Optuna would refuse all of it."""
    if not file.is_file():
        return
    with file.open("rb") as journal:
        size = journal.seek(0, os.SEEK_END)
        journal.seek(max(0, size - 1))
        if journal.read() in (b"", b"\n"):
            return
        journal.seek(0)
        whole = journal.read().rfind(b"\n") + 1
    os.truncate(file, whole)
