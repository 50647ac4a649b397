from io import StringIO
from pathlib import Path

import pytest
import torch
from memory_store import moving_dot
from rich.console import Console

from tca.fusion.model.config import ModelConfig
from tca.fusion.train import screen
from tca.fusion.train.config import SeedConfig, TrainConfig
from tca.fusion.train.hooks import EpochReport, StepReport
from tca.fusion.train.loop import Plan, train_together
from tca.fusion.train.screen import Screen

MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
TRAIN = TrainConfig(epochs=2, batch_size=16, lr=3e-3, holdout=0.2, device="cpu")


def drawn(shown: Screen) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(shown.table())
    return console.file.getvalue()


def test_the_table_tells_what_was_told() -> None:
    shown = Screen(["one", "two"], 4, 400, 0, torch.device("cpu"))
    assert "waiting" not in drawn(shown)
    shown._live = object()  # As on a terminal, or every step would be a line.
    for _ in range(2):
        shown.advance(3, 50)
        shown.timed(seconds=2.0, waited=0.5)
    shown.told("two", StepReport(3, 9, 1.25, 0.5, 3e-4, 2.0, 0.5, 50))
    shown.told_epoch("two", EpochReport(2, 8, 1.0, 0.625, 0.9, 1))
    text = drawn(shown)
    for part in ("train one and 1 more", "epoch 3/4", "100/400", "waiting for data 25%", "GB"):
        assert part in text
    (one, two) = (line for line in text.splitlines() if "│ one" in line or "│ two" in line)
    assert all(cell in two for cell in ("1.250", "0.0003", "0.625"))
    assert "1.250" not in one


def test_no_more_runs_than_fit_on_a_screen() -> None:
    text = drawn(Screen([f"r{n}" for n in range(20)], 1, 1, 0, torch.device("cpu")))
    assert "│ r11" in text
    assert "│ r12" not in text
    assert "and 8 more" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_sees_a_table_and_a_log_gets_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    console = Console(file=StringIO(), force_terminal=terminal, width=160, soft_wrap=True)
    monkeypatch.setattr("tca.console.err", console)
    monkeypatch.setattr(screen, "err", console)
    plans = [
        Plan(MODEL, TRAIN.model_copy(update={"seed": SeedConfig(model=n)}), tmp_path / f"m{n}", {})
        for n in range(2)
    ]
    train_together(moving_dot(80), plans)
    text = console.file.getvalue()
    assert ("holdout top-1" in text) is terminal
    assert ("│ m1" in text) is terminal
    assert "train m0 and 1 more" in text
    assert "epoch 2/2" in text
    assert "waiting for data" in text
    if not terminal:
        assert "128/128 rows" in text
        assert "\x1b" not in text
