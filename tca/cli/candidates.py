"""What `tca ablate` and `tca tune` share: a project in many versions, and the name of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tca.config import FileOverrides
from tca.errors import UsageError
from tca.project import load_project, resolved

if TYPE_CHECKING:
    from tca.fusion.train.candidate import Candidate, Configure


def configure_with(file: Path, config: Path | None, overrides: Sequence[str]) -> Configure:
    """Return what makes candidates of the project, of overrides and of settings from `file`.

    Args:
        file: of the sweep or the tuning; what is wrong with its settings is blamed on it.
        config: of the project.
        overrides: of the command line.
    """
    from tca.fusion.train.candidate import Candidate, as_overrides

    def configure(settings: Mapping[str, Any], below: str) -> Candidate:
        last = FileOverrides(file, below, as_overrides(settings))
        project, _ = load_project(config, overrides, last)
        return Candidate(
            project.model,
            project.train,
            project.loader,
            project.store,
            project.runs,
            resolved(project),
        )

    return configure


def folder_name(name: str | None, file: Path) -> str:
    """Return the name of a folder in `runs/`: `name`, or that of `file` if there is none.

    Raises:
        UsageError: it names no folder, or one elsewhere.
    """
    found = file.stem if name is None else name
    if found in ("", ".", "..") or "/" in found or "\0" in found:
        raise UsageError(f"{found!r} is not the name of one folder in runs/; give one with --name.")
    return found
