"""Every precision that training takes is the one computed in, and a model of it can be loaded."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from drawn_run import drawn_run

from tca.device import autocast
from tca.fusion.model.fusion_model import FusionModel
from tca.fusion.train.config import TrainConfig

PRECISIONS = get_args(TrainConfig.model_fields["precision"].annotation)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_matrices_are_multiplied_in_it(precision: str) -> None:
    with autocast(torch.device("cpu"), precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    expected = "float32" if precision == "auto" else precision
    assert product.dtype == getattr(torch, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_trained_in_it_is_kept_and_loaded(tmp_path: Path, precision: str) -> None:
    run = drawn_run(tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    info["train"]["precision"] = precision
    (run / "run.json").write_text(json.dumps(info))
    FusionModel.from_run(run).save_pretrained(tmp_path / "model")
    assert FusionModel.from_pretrained(tmp_path / "model").saved.precision == precision
