"""Hooks of a user: they see every step and epoch, and what goes wrong in one is told as theirs."""

from pathlib import Path

import pytest
from test_resume_training import TRAIN, run_once

from tca.errors import TcaError, UsageError
from tca.fusion.train.hooks import Hook, make_hooks


class Offline(Hook):
    def step(self, report: object) -> None:
        raise ConnectionError("no line to the chat")


def test_what_goes_wrong_in_a_hook_is_told_as_the_hooks(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"hooks": [f"{__name__}:Offline"]})
    # An error of the system's, as a full disk is one.
    with pytest.raises(
        TcaError, match=r"the hook Offline failed .*no line to the chat; .*py, line"
    ):
        run_once(tmp_path / "run", config)


def test_a_module_that_is_not_found_is_told_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"PYTHONPATH=\."):
        make_hooks(["nowhere_to_be_found:Hook"])
