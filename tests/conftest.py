import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# As the command line does, before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


Mount = Callable[[str], Path]


@pytest.fixture
def train_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tca.yaml and a small store, which this process works in."""
    # Not for everybody: it imports torch.
    from train_project import write_train_project

    write_train_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real videos, labels and weights that lie beside the checkout on CI; never in it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (real videos and weights), which is not here")
    return folder


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system in memory; its options can be changed by calling again."""
    place = tmp_path / "small"
    place.mkdir()

    def mounted(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tca-test", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs the mount command")
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
        return place

    yield mounted
    # Mapped shards keep it busy, and what was killed may not be gone yet.
    gc.collect()
    while place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)
