"""A run: one folder with everything one training made, readable without unpickling anything."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from tca.cache.files import write_atomic, writing_failed
from tca.errors import TcaError
from tca.fusion.tensor_file import read_tensors, write_tensors

CHECKPOINTS = ("best", "last")


def new_run_folder(runs: Path, name: str) -> Path:
    """Make the first of `runs/NAME-001`, `runs/NAME-002`, … that is not there yet; return it.

    Made and not only named, so that two trainings begun at once do not take the same.

    Raises:
        TcaError: it cannot be made.
    """
    number = 1
    while True:
        folder = runs / f"{name}-{number:03d}"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError as error:
            if not runs.is_dir():
                raise writing_failed(runs, error) from None
            number += 1
        except OSError as error:
            raise writing_failed(folder, error) from None
        else:
            return folder


@contextmanager
def dropped_if_empty(folder: Path) -> Iterator[None]:
    """Remove `folder` if what is inside fails before anything was written into it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other processes from training in it while the block lasts.

    Raises:
        TcaError: one does already, or the folder cannot be made.
    """
    try:
        # That it is a file is told later, and what it holds looked at.
        with suppress(FileExistsError):
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise writing_failed(folder, error) from None
    try:
        # The folder itself, so that no file is left; some network file systems lock files alone.
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TcaError(
                    f"{folder} is being trained by another process; wait for it to end, or name "
                    "another run folder."
                ) from None
        yield
    finally:
        os.close(descriptor)


def newest_run(runs: Path) -> Path:
    """Return the run in `runs` that was written last.

    Raises:
        TcaError: there is none.
    """
    found = newest_first(runs)
    if not found:
        raise TcaError(f"there is no run in {runs}; train one with `tca train-fusion`.")
    return found[0]


def newest_first(runs: Path) -> list[Path]:
    """Return the runs in `runs`, the one that was written last first."""
    infos = sorted(runs.glob("*/run.json"), key=lambda info: info.stat().st_mtime)
    return [info.parent for info in reversed(infos)]


def run_of_job(runs: Iterable[Path], job: str | None) -> Path | None:
    """Return the first of `runs` that `job` began (`World.job`), None if it began none."""
    for run in runs if job is not None else ():
        # Others may be damaged.
        with suppress(TcaError):
            if RunFolder(run).info().get("job") == job:
                return run
    return None


class RunFolder:
    """Names and formats of the files in a run folder.

    `config.yaml` resolved configuration, `run.json` what was trained on what, `best.safetensors`
    and `last.safetensors` weights, `log.jsonl` one JSON document a line, TensorBoard event files,
    and what `evaluate` adds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, resolved: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Make the folder; what an unfinished run left in it is replaced.

        Raises:
            TcaError: the folder holds a finished run, or something that is no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TcaError(f"{self.path} is a file; name another run folder.")
        if self.path.exists() and any(self.path.iterdir()):
            if not (self.path / "run.json").is_file():
                raise TcaError(
                    f"{self.path} is not empty and holds no run; name another run folder."
                )
            finished = self.info().get("finished")
            if finished is not False:
                what = "a finished run" if finished else "a run.json that tca did not write"
                raise TcaError(f"{self.path} holds {what}; name another run folder.")
            ours = {"log.jsonl", *(f"{name}.safetensors" for name in CHECKPOINTS)}
            for old in self.path.iterdir():
                if old.name in ours or old.name.startswith("events.out.tfevents"):
                    old.unlink()
                elif old.name in ("state", "epochs"):
                    shutil.rmtree(old)
        # First: killed after it, the folder is known as a run that may be replaced.
        self.write_info(info)
        write_config(self.path, resolved)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_json(self.path / "run.json", info)

    def info(self) -> dict[str, Any]:
        """Read `run.json`.

        Raises:
            TcaError: there is no such run, or the file is damaged.
        """
        file = self.path / "run.json"
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if (self.path / "folds.json").is_file():
                raise TcaError(
                    f"{self.path} holds a cross-validation, not one run; its scores are in "
                    f"folds.json, its runs are {self.path / 'fold-1'} and so on."
                ) from None
            raise TcaError(
                f"{self.path} is not a run folder: it has no run.json; "
                "give the folder that `tca train-fusion` printed."
            ) from None
        except OSError as error:
            raise TcaError(f"cannot read {file}: {error.strerror}; correct that.") from None
        except (ValueError, RecursionError):
            raise TcaError(f"{file} is damaged; train again.") from None
        if not isinstance(info, dict):
            raise TcaError(f"{file} is damaged; train again.")
        return info

    def outcome(self) -> dict[str, Any] | None:
        """Return what a finished run came to, named as in `TrainSummary`; None if it is not.

        What `run.json` does not tell is None.

        Raises:
            TcaError: as `info`, or the file is somebody else's.
        """
        info = self.info()
        finished = info.get("finished")
        if not isinstance(finished, bool):
            raise TcaError(
                f"{self.path} holds a run.json that tca did not write; name another run."
            )
        if not finished:
            return None
        names = ("variant", "parameters", "rows", "epochs", "best_epoch", "train_loss")
        holdout = info.get("holdout")
        return {
            "run": str(self.path),
            **{name: info.get(name) for name in names},
            "holdout_rows": holdout.get("rows") if isinstance(holdout, dict) else None,
            "holdout_top1": info.get("holdout_top1"),
            "seconds": None,
        }

    def save(self, checkpoint: str, state: Mapping[str, Tensor]) -> None:
        """Write the weights so that the file is whole or the former one."""
        write_tensors(self.path / f"{checkpoint}.safetensors", state)

    def load(self, checkpoint: str) -> dict[str, Tensor]:
        """Read the weights of `best` or `last`.

        Raises:
            TcaError: no such checkpoint, or the file is damaged.
        """
        file = self.path / f"{checkpoint}.safetensors"
        if not file.is_file():
            there = [name for name in CHECKPOINTS if (self.path / f"{name}.safetensors").is_file()]
            raise TcaError(
                f"{self.path} has no checkpoint {checkpoint!r}; it has "
                f"{' and '.join(there) or 'none yet: train first'}."
            )
        return read_tensors(file, "train again")

    def scores(self, checkpoint: str) -> list[dict[str, Any]]:
        """Return what `tca evaluate` found of a checkpoint, a split each: videos, top1, top5.

        Only told beside a model, so what cannot be read is left out.
        """
        found = []
        for file in sorted(self.path.glob("evaluation-*.json")):
            with suppress(OSError, ValueError, LookupError, TypeError):
                read = json.loads(file.read_text(encoding="utf-8"))
                top5 = None if read["top5"] is None else float(read["top5"])
                counts = {"videos": int(read["videos"]), "top1": float(read["top1"]), "top5": top5}
                if read["checkpoint"] == checkpoint:
                    found.append({"split": str(read["split"]), **counts})
        return found


def write_config(run: Path, resolved: Mapping[str, Any]) -> None:
    """Write a configuration into a run folder as `config.yaml`."""
    text = yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True)
    write_atomic(run / "config.yaml", [text.encode()])


def write_json(path: Path, document: Any) -> None:
    """Write indented UTF-8 JSON, whole or not at all."""
    write_atomic(path, [json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"])
