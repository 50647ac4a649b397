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


def document(script: str, folder: Path, *options: str, without: str | None = None) -> Any:
    """Run a script with `--json`, perhaps as if a module were not installed.

    Fails if it fails, or leaves something in `folder`.
    """
    command = [sys.executable, str(BENCHMARKS / script)]
    if without is not None:
        command[1:] = ["-c", WITHOUT, without, str(BENCHMARKS), str(BENCHMARKS / script)]
    command += ["--json", "--folder", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


def column(table: Any, name: str) -> list[Any]:
    return [row[name] for row in table["rows"]]
