import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _no_flushing() -> Iterator[None]:
    """No test cuts the power, and flushing is most of the time of these tests.

    That it happens, and before what, is tested in test_files.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
