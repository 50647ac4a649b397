"""Runs a script of `benchmarks/` as a user does and returns what it printed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

SMALL_ROWS = ("--semantic", "8,16", "--motion", "2,16")

WITHOUT = """
import runpy, sys
sys.modules[sys.argv[1]] = None
sys.path.insert(0, sys.argv[2])
script = sys.argv[3]
sys.argv = sys.argv[3:]
runpy.run_path(script, run_name="__main__")
"""


def printed(script: str, *options: str, without: str | None = None) -> str:
    """Run a script, perhaps as if a module were not installed; fails if it fails."""
    command = [sys.executable, str(BENCHMARKS / script)]
    if without is not None:
        command[1:] = ["-c", WITHOUT, without, str(BENCHMARKS), str(BENCHMARKS / script)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(script: str, folder: Path, *options: str, without: str | None = None) -> Any:
    """Run a script with `--json`; nothing may be left in `folder`."""
    text = printed(script, "--json", "--folder", str(folder), *options, without=without)
    assert list(folder.iterdir()) == []
    return json.loads(text)


def column(table: Any, name: str) -> list[Any]:
    return [row[name] for row in table["rows"]]
