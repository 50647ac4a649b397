"""`tca model` as a user types it, before extraction and after it."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_video import write_video

from tca.cache.layout import RowTable, Status, StoreSpec, Stream
from tca.cache.store import Store
from tca.cache.writer import StoreWriter
from tca.cli import run
from tca.fusion.model.registry import build, parameters
from tca.project import load_project

CONFIG = """
data:
  videos: videos
  labels: labels.json
  annotations: {train: train.json}
semantic:
  weights: random:0
  sizes: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
  size: 32
  keep: frames
motion: {weights: random:0, blocks: [1, 1, 1, 1], size: 16}
extract: {batch_size: 2, threads: 1}
model: {heads: 2, bottleneck: 8, rank: 4, layers: 1}
train: {device: cpu, batch_size: 4}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three videos in which nothing is extracted."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "videos").mkdir()
    names = ["Something left", "Something right"]
    entries = []
    for number in range(3):
        write_video(folder / f"videos/{number}.webm", 10)
        entries.append({"id": str(number), "template": names[number % 2]})
    (folder / "labels.json").write_text(json.dumps({name: n for n, name in enumerate(names)}))
    (folder / "train.json").write_text(json.dumps(entries))
    (folder / "tca.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert run(["model", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["model", *arguments]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    return shown


def test_before_extraction_and_after_it_the_same_model_is_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = document(capsys, "summary", "stores=elsewhere/{split}.zarr")
    assert before["store"] is None
    assert before["edges_of"] == "random rows"
    config = str(project / "tca.yaml")
    assert run(["extract", "--config", config, "--split", "train", "--device", "cpu"]) == 0
    after = document(capsys, "summary")
    assert after["edges_of"] == "rows of the store"
    store = Store.open(after["store"])
    assert before["shapes"] == after["shapes"] == json.loads(json.dumps(vars(store.shapes)))
    for same in ("parameters", "flops", "cross_flops", "training_flops", "memory", "frozen"):
        assert before[same] == after[same]
    model = build(load_project(None, ())[0].model, store.shapes, store.classes)
    assert after["parameters"] == parameters(model)
    assert after["parameters"] == sum(part["parameters"] for part in after["parts"])
    assert [part["part"] for part in after["parts"]] == [
        "stems",
        "graph attention, semantic",
        "graph attention, motion",
        "cross layers, semantic",
        "cross layers, motion",
        "head",
    ]


def test_the_frozen_backbones_stand_beside_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = ["semantic.weights=default", "semantic.sizes={}", "semantic.size=224"]
    published += ["motion.weights=default", "motion.blocks=[2,2,2,2]", "motion.size=112"]
    found = document(capsys, "summary", *published, "stores=elsewhere/{split}.zarr")
    assert [round(one["parameters"] / 1e6) for one in found["frozen"]] == [86, 33]
    assert found["shapes"] == {
        "segments": 8,
        "grid": [14, 14],
        "semantic_width": 768,
        "motion_segments": 8,
        "motion_width": 512,
    }


def test_flags_are_settings_by_another_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = document(capsys, "compare", "concat", "--batch-size", "16")
    assert flags == document(capsys, "compare", "concat", "train.batch_size=16")
    assert flags["batch_size"] == 16
    assert document(capsys, "summary", "--variant", "concat")["variant"] == "concat"


def test_tables_show_what_the_json_holds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "summary", "model.allow_large=false"]) == 0
    shown = capsys.readouterr()
    for words in (
        "cross layers, motion",
        "trained",
        "frozen: dinov3_vit",
        "frozen: r3d",
        "peak",
    ):
        assert words in shown.out
    assert "over 20 M" not in shown.err


def test_a_model_over_the_limit_is_counted_and_said_to_be_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["--variant", "gated_sum", "model.bottleneck=60000"]
    assert run(["model", "summary", *large]) == 0
    assert "over 20 M parameters are refused" in capsys.readouterr().err
    assert run(["model", "summary", *large, "model.allow_large=true"]) == 0
    assert "refused" not in capsys.readouterr().err


def test_variants_side_by_side(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "compare", "concat", "gasm_cast", "concat", "--steps", "2")
    assert [one["variant"] for one in found["variants"]] == ["concat", "gasm_cast"]
    concat, ours = found["variants"]
    assert concat["step"]["ratio"] == 1
    assert ours["step"]["seconds"] > 0
    assert concat["cross_flops"] == 0 < ours["cross_flops"]
    assert found["memory_of"] == "cpu"
    alone = document(capsys, "summary", "--variant", "gasm_cast")
    assert ours["memory"] == alone["memory"]["cpu"]
    assert ours["parts"] == alone["parts"]
    # Settings hold for every one; without --steps nothing is timed.
    (slim,) = document(capsys, "compare", "gasm_cast", "model.ratio=0")["variants"]
    assert slim["step"] is None
    assert slim["flops"] < ours["flops"]
    assert run(["model", "compare", "concat", "motion_only", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "of concat's" in shown
    assert "motion_only" in shown


def test_wrong_usage_is_one_sentence(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in ("summary model.variant=nothing", "compare gasm_cast nothing"):
        assert "'nothing' is none of gasm_cast, bcast" in complaint(capsys, *command.split())
    assert "does not divide" in complaint(capsys, "summary", "model.pool=3")
    assert "device 'cuda:77' is not here" in complaint(
        capsys, "compare", "concat", "train.device=cuda:77"
    )
    without = complaint(capsys, "summary", "data={}", "stores=elsewhere/{split}.zarr")
    assert "labels" in without
    monkeypatch.chdir(tmp_path)
    assert "there is no tca.yaml here" in complaint(capsys, "compare")


def test_a_store_without_a_stream_compares_what_it_can(
    project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = RowTable(["a", "b"], *(np.arange(2, dtype=kind) for kind in ("i4", "i4", "u1")))
    streams = {"motion": Stream((2, 8, 5), "float16")}
    spec = StoreSpec("train", table, streams, 8, ("left", "right"), {}, {}, (0, 0))
    writer = StoreWriter.open_or_create(tmp_path / "train.zarr", spec, None)
    features = {"motion": [np.ones((8, 5), np.float16)] * 2}
    writer.commit(0, features, np.full(2, Status.OK, dtype=np.uint8))
    stores = f"stores={tmp_path}/{{split}}.zarr"
    # Without names, all that can read it.
    found = document(capsys, "compare", stores)
    assert [one["variant"] for one in found["variants"]] == ["motion_only"]
    capsys.readouterr()
    assert run(["model", "summary", stores]) == 1
    assert "holds no semantic stream" in capsys.readouterr().err
