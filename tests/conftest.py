import os
from pathlib import Path

import pytest

# As the command line does, before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real videos, labels and weights that lie beside the checkout on CI; never in it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (real videos and weights), which is not here")
    return folder
