"""What other runtimes make of an exported model."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from drawn_run import CLASSES, drawn_features, drawn_run

from tca.errors import TcaError
from tca.fusion import export as exporting
from tca.fusion.export import export
from tca.fusion.model.fusion_model import FusionModel
from tca.fusion.model.registry import OWN

FEW = [("gasm_cast", "frames"), ("attentive_probe", "mean"), ("motion_only", "mean")]
EVERY = [(variant, keep) for variant in OWN for keep in ("frames", "mean")]
SAMPLE = [
    pytest.param(*pair, marks=[] if pair in FEW else pytest.mark.long, id="-".join(pair))
    for pair in EVERY
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FusionModel:
    return FusionModel.from_run(drawn_run(tmp_path_factory.mktemp("export") / "run", "concat"))


def original(model: FusionModel, given: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return model(given["semantic"], given["motion"]).numpy()


@pytest.mark.parametrize(("variant", "keep"), SAMPLE)
def test_onnxruntime_gives_the_same_scores(tmp_path: Path, variant: str, keep: str) -> None:
    model = FusionModel.from_run(drawn_run(tmp_path / "run", variant, keep, layers=1))
    out = tmp_path / "deep/model.onnx"
    exported = export(model, "onnx", out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    assert tuple(names) == model.network.streams
    assert [len(given.shape) for given in session.get_inputs()] == [
        1 + len(model.input_shapes[name]) for name in names
    ]
    for videos in (1, 3, 4):
        given = drawn_features(keep, videos)
        (found,) = session.run(["scores"], {name: given[name].numpy() for name in names})
        expected = original(model, given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == CLASSES
    assert json.loads(known["identity"])["motion"] == {"weights": "b"}
    assert json.loads(known["shapes"])["grid"] == [4, 4]
    assert exported.bytes == out.stat().st_size
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]
    # The exporter would write where its code lies.
    assert str(Path(exporting.__file__).parent).encode() not in out.read_bytes()
    assert onnx.load(out).graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(CLASSES)


@pytest.mark.parametrize(("variant", "keep"), SAMPLE)
def test_a_torch_program_needs_no_tca(tmp_path: Path, variant: str, keep: str) -> None:
    model = FusionModel.from_run(drawn_run(tmp_path / "run", variant, keep, layers=1))
    out = tmp_path / "model.pt2"
    export(model, "torch", out)
    extra = {"tca.json": ""}
    program = torch.export.load(out, extra_files=extra).module()
    for videos in (1, 3, 4):
        given = drawn_features(keep, videos)
        with torch.no_grad():
            found = program(*(given[name] for name in model.network.streams)).numpy()
        expected = original(model, given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert json.loads(json.loads(extra["tca.json"])["classes"]) == CLASSES
    assert str(Path(exporting.__file__).parent).encode() not in out.read_bytes()


def test_a_folder_is_whole_and_leaves_other_files_alone(tmp_path: Path, model: FusionModel) -> None:
    out = tmp_path / "model"
    exported = export(model, "hub", out)
    assert exported.largest_difference == 0 < exported.largest_score
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert exported.bytes == sum(file.stat().st_size for file in out.iterdir())
    (out / "notes.txt").write_text("mine")
    (out / "README.md").write_text("old")
    with pytest.raises(TcaError, match="is there already; name another place"):
        export(model, "hub", out)
    export(model, "hub", out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "README.md").read_text() != "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_what_is_there_is_not_replaced_by_something_else(
    tmp_path: Path, model: FusionModel
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(TcaError, match="folder is a folder, and torch makes a file"):
        export(model, "torch", tmp_path / "folder", force=True)
    with pytest.raises(TcaError, match="file is a file, and hub makes a folder"):
        export(model, "hub", tmp_path / "file", force=True)
    for form in ("hub", "torch"):
        with pytest.raises(TcaError, match="cannot write"):
            export(model, form, tmp_path / "file/out")
    assert (tmp_path / "file").read_text() == "x"


def off_by(amount: float, model: FusionModel) -> Any:
    """What torch.export.load gives, with other scores."""

    def program(*features: torch.Tensor) -> torch.Tensor:
        return model(*features) + amount

    return lambda file: SimpleNamespace(module=lambda: program)


@pytest.mark.parametrize("amount", [0.3, float("nan")])
def test_a_copy_that_differs_is_refused(
    tmp_path: Path, model: FusionModel, monkeypatch: pytest.MonkeyPatch, amount: float
) -> None:
    out = tmp_path / "model.pt2"
    out.write_text("the former one")
    monkeypatch.setattr(torch.export, "load", off_by(amount, model))
    with pytest.raises(TcaError, match="differs from the original by"):
        export(model, "torch", out, force=True)
    assert out.read_text() == "the former one"
    monkeypatch.setattr(torch.export, "load", off_by(1e-6, model))
    assert 0 < export(model, "torch", out, force=True).largest_difference < 1e-4


def test_a_folder_that_differs_is_refused(
    tmp_path: Path, model: FusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FusionModel.from_run(drawn_run(tmp_path / "run", "concat"), "last")
    monkeypatch.setattr(FusionModel, "from_pretrained", lambda folder: other)
    with pytest.raises(TcaError, match="the hub model differs from the original"):
        export(model, "hub", tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_onnx_is_an_extra(
    tmp_path: Path, model: FusionModel, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(TcaError, match=rf"needs {library}, .* pip install 'tca\[onnx\]'"):
        export(model, "onnx", tmp_path / "model.onnx")


def test_a_plugged_in_variant_that_cannot_be_traced_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FusionModel.from_run(drawn_run(tmp_path / "run", "concat"))
    fuse = model.network.fuse

    def by_content(tokens: dict[str, torch.Tensor]) -> Any:
        return fuse(tokens)[: 1 + bool(tokens["motion"].sum() > 0)]

    monkeypatch.setattr(model.network, "fuse", by_content)
    monkeypatch.delitem(OWN, "concat")
    with pytest.raises(TcaError) as caught:
        export(model, "torch", tmp_path / "model.pt2")
    assert str(caught.value).startswith("the variant 'concat' cannot be exported to torch (")
    assert "\n" not in str(caught.value)
