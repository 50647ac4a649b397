"""`tca export` as it is typed."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from drawn_run import CLASSES, drawn_run
from huggingface_hub import HfApi

from tca.cli import run
from tca.fusion.model.fusion_model import FusionModel


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tca.yaml and two runs, of which b is the newest."""
    monkeypatch.chdir(tmp_path)
    annotations = "annotations: {train: t.json}"
    (tmp_path / "tca.yaml").write_text(
        f"data: {{videos: v, labels: l.json, {annotations}}}\nruns: runs\n"
    )
    for number, name in enumerate(("b", "a")):
        written = drawn_run(tmp_path / "runs" / name, "concat", "mean" if number else "frames")
        os.utime(written / "run.json", (1000 - number, 1000 - number))
    return tmp_path


def test_the_newest_run_is_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--out", "model"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("hub, 0.0 MB: model")
    assert "largest difference from the original: 0 in scores" in " ".join(shown.err.split())
    loaded = FusionModel.from_pretrained("model")
    assert loaded.saved.identity["keep"] == "frames"
    expected = FusionModel.from_run(folder / "runs/b").state_dict()
    assert all(torch.equal(expected[name], some) for name, some in loaded.state_dict().items())
    assert run(["export", "--out", "model"]) == 1
    assert "replace it with --force" in capsys.readouterr().err
    assert run(["export", "--out", "model", "--force"]) == 0


def test_a_run_by_name_needs_no_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tca.yaml").unlink()
    named = ["export", "--run", "runs/a", "--checkpoint", "last", "--json"]
    assert run([*named, "--out", "saved"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["checkpoint"]) == ("hub", "last")
    # What was saved is exported again.
    named[2] = "saved"
    assert run([*named, "--format", "torch", "--out", "model.pt2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"] == {"semantic": [16, 12], "motion": [8, 6]}
    assert found["largest_difference"] <= 1e-3 * found["largest_score"]
    assert found["bytes"] == (folder / "model.pt2").stat().st_size
    assert run(["export", "--run", "saved", "--out", "x"]) == 1
    assert "add --checkpoint last" in capsys.readouterr().err
    assert run(["export", "--out", "x"]) == 2
    assert "there is no tca.yaml here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say where with --out"),
        (["--format", "onnx", "--push", "a/b"], "--push uploads --format hub, not onnx"),
        (["--format", "gguf", "--out", "x"], "'gguf' is not one of 'hub', 'onnx', 'torch'"),
    ],
)
def test_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["export", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_run_is_pushed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_repo(api: HfApi, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(api: HfApi, *, folder_path: Path, **options: Any) -> str:
        shutil.copytree(folder_path, folder / "hub")
        return "address of the commit"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert run(["export", "--run", "runs/a", "--push", "someone/model"]) == 0
    assert capsys.readouterr().out == "uploaded: address of the commit\n"
    assert FusionModel.from_pretrained(folder / "hub").classes == CLASSES
