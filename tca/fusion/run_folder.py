"""A run: one folder with everything one training made, readable without unpickling anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from tca.cache.files import write_atomic
from tca.errors import TcaError

CHECKPOINTS = ("best", "last")


def new_run_folder(runs: Path, name: str) -> Path:
    """Return the first of `runs/NAME-001`, `runs/NAME-002`, … that is not there yet."""
    number = 1
    while (runs / f"{name}-{number:03d}").exists():
        number += 1
    return runs / f"{name}-{number:03d}"


def newest_run(runs: Path) -> Path:
    """Return the run in `runs` that was written last.

    Raises:
        TcaError: there is none.
    """
    infos = sorted(runs.glob("*/run.json"), key=lambda info: info.stat().st_mtime)
    if not infos:
        raise TcaError(f"there is no run in {runs}; train one with `tca train-fusion`.")
    return infos[-1].parent


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
        if self.path.exists() and any(self.path.iterdir()):
            if not (self.path / "run.json").is_file():
                raise TcaError(
                    f"{self.path} is not empty and holds no run; name another run folder."
                )
            if self.info().get("finished"):
                raise TcaError(f"{self.path} holds a finished run; name another run folder.")
            for old in self.path.iterdir():
                if old.name.startswith("events.out") or old.suffix in (".jsonl", ".safetensors"):
                    old.unlink()
        text = yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True)
        write_atomic(self.path / "config.yaml", [text.encode()])
        self.write_info(info)

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
        except OSError:
            raise TcaError(
                f"{self.path} is not a run folder: it has no run.json; "
                "give the folder that `tca train-fusion` printed."
            ) from None
        except ValueError:
            raise TcaError(f"{file} is damaged; train again.") from None
        assert isinstance(info, dict)
        return info

    def save(self, checkpoint: str, state: Mapping[str, Tensor]) -> None:
        """Write the weights so that the file is whole or the former one."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_atomic(self.path / f"{checkpoint}.safetensors", [save(tensors)])

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
        try:
            return load_file(file)
        except safetensors.SafetensorError as error:
            raise TcaError(f"{file} is damaged ({error}); train again.") from None


def write_json(path: Path, document: Any) -> None:
    """Write indented UTF-8 JSON, whole or not at all."""
    write_atomic(path, [json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"])
