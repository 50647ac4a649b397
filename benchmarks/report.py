"""What surrounds every measurement: options, a folder of its own, and the tables it prints."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tca.console import note, print_json, print_table
from tca.errors import TcaError


@contextmanager
def working_folder(folder: Path | None, keep: bool, size: int = 0) -> Iterator[Path]:
    """Yield a folder of our own under `folder`, deleted at the end unless `keep`.

    Raises:
        TcaError: fewer than `size` bytes are free there.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="tca-benchmark-", dir=folder))
    try:
        free = shutil.disk_usage(made).free
        if free < size:
            raise TcaError(
                f"{size / 1e9:.1f} GB are needed at {made.parent}, and {free / 1e9:.1f} GB are "
                "free; choose another --folder or fewer --rows."
            )
        yield made
    finally:
        if keep:
            note(f"kept: {made}")
        else:
            shutil.rmtree(made, ignore_errors=True)


def run(command: Callable[[], None]) -> None:
    """Run a benchmark; what a user can put right is told in one sentence."""
    try:
        command()
    except TcaError as error:
        sys.exit(f"error: {error}")


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all benchmarks of the cache have."""
    for option in (
        click.option("--json", "output", flag_value="json", help="Print JSON instead of tables."),
        click.option(
            "--markdown",
            "output",
            flag_value="markdown",
            help="Print the tables as docs/benchmarks.md has them.",
        ),
        click.option("--keep", is_flag=True, help="Do not delete what was written."),
        click.option(
            "--folder",
            type=click.Path(path_type=Path),
            help="Where to write; on the disk to be measured.  [default: the temporary folder]",
        ),
    ):
        command = option(command)
    return command


class Numbers(click.ParamType):
    """Whole numbers with commas between them: 196,768."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not like 196,768", param, ctx)


@dataclass
class Report:
    """The tables of one benchmark."""

    what: str
    settings: dict[str, Any]
    tables: list[tuple[str, list[str], list[list[Any]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""
        self.tables.append((title, list(columns), [list(row) for row in rows]))

    def show(self, output: str | None) -> None:
        """Print everything as tables, "markdown" or "json"; numbers in JSON are not rounded."""
        if output == "json":
            print_json(self._document())
        elif output == "markdown":
            click.echo("\n\n".join(self._markdown()))
        else:
            for title, columns, rows in self.tables:
                print_table(title, columns, [[shown(cell) for cell in row] for row in rows])
            for line in self.notes:
                note(line)

    def _document(self) -> dict[str, Any]:
        return {
            "benchmark": self.what,
            "settings": self.settings,
            "machine": machine(),
            "tables": [
                {"title": title, "rows": [dict(zip(columns, r, strict=True)) for r in rows]}
                for title, columns, rows in self.tables
            ],
            "notes": self.notes,
        }

    def _markdown(self) -> Iterator[str]:
        here = machine()
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        yield (
            f"{here['cores']} cores of {here['processor']}, {here['memory_gib']} GiB, "
            f"Python {here['python']}; {settings}"
        )
        for title, columns, rows in self.tables:
            sides = ["--:" if _numbers(cells) else "---" for cells in zip(*rows, strict=True)]
            lines = [columns, sides or ["---"] * len(columns)]
            lines += [[shown(cell) for cell in row] for row in rows]
            yield f"**{title}**"
            yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
        if self.notes:
            yield "\n".join(f"- {line}" for line in self.notes)


def _numbers(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, int | float) for cell in cells)


def shown(cell: Any) -> str:
    """Return a cell as a person reads it: three digits that matter."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "**no**"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else str(cell)
    if abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.3g}" if abs(cell) < 0.01 else f"{cell:.1f}" if cell >= 10 else f"{cell:.2f}"


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of this machine; no names."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
