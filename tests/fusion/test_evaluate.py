import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, moving_dot
from sklearn.metrics import classification_report
from torchmetrics.functional import accuracy, confusion_matrix

from tca.errors import TcaError
from tca.fusion.evaluate.report import write_report
from tca.fusion.evaluate.scoring import evaluate, load_model
from tca.fusion.model.config import ModelConfig
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loop import train

SMALL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=4)
ONE_EPOCH = TrainConfig(epochs=1, batch_size=16, holdout=0, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on six classes stopped early enough to be wrong now and then."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    model = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=4)
    config = TrainConfig(epochs=1, batch_size=16, lr=1e-3, holdout=0, device="cpu")
    train(moving_dot(96, classes=6, strength=0.9), model, config, folder, resolved={})
    return folder


def test_numbers_are_those_of_torchmetrics_and_sklearn_on_the_saved_predictions(run: Path) -> None:
    store = moving_dot(90, classes=6, seed=1, strength=0.9, split="validation")
    result = evaluate(run, store)
    files = {path.name: path for path in write_report(result)}
    with open(files["predictions-validation.csv"], newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "label", "prediction", *store.classes]
    assert [row[0] for row in rows] == store.ids
    label = torch.tensor([store.classes.index(row[1]) for row in rows])
    scores = torch.tensor([[float(cell) for cell in row[3:]] for row in rows])
    assert label.tolist() == store.label.tolist()
    assert 0.2 < result.top1 < 1.0

    numbers = json.loads(files["evaluation-validation.json"].read_text())
    for k, name in ((1, "top1"), (5, "top5")):
        theirs = accuracy(scores, label, "multiclass", num_classes=6, top_k=k, average="micro")
        assert numbers[name] == pytest.approx(theirs.item())
    matrix = confusion_matrix(scores, label, "multiclass", num_classes=6)
    assert result.confusion.tolist() == matrix.tolist()
    with open(files["confusion-validation.csv"], newline="") as file:
        assert [[int(n) for n in row[1:]] for row in list(csv.reader(file))[1:]] == matrix.tolist()
    report = classification_report(
        label, scores.argmax(1), target_names=store.classes, output_dict=True, zero_division=0
    )
    with open(files["classes-validation.csv"], newline="") as file:
        for row in csv.DictReader(file):
            theirs = report[row["class"]]
            assert float(row["precision"]) == pytest.approx(theirs["precision"])
            assert float(row["recall"]) == pytest.approx(theirs["recall"])
            assert float(row["f1"]) == pytest.approx(theirs["f1-score"])
            assert int(row["videos"]) == theirs["support"]


def test_views_of_a_video_are_averaged(run: Path) -> None:
    store = moving_dot(60, classes=6, seed=1)
    single = evaluate(run, store)
    store.video = np.arange(60, dtype=np.int32) // 12 * 6 + np.arange(60, dtype=np.int32) % 6
    both = evaluate(run, store)
    assert both.videos == 30
    expected = (single.probability[:6] + single.probability[6:12]) / 2
    np.testing.assert_allclose(both.probability[:6], expected)


def test_a_video_counts_once_with_the_mean_of_the_views_that_are_there(run: Path) -> None:
    store = moving_dot(168, classes=6, seed=1, strength=0.9)
    by_class = np.argsort(store.label, kind="stable")
    store.label = store.label[by_class]
    for features in (store.semantic, store.motion):
        features[:] = features[by_class]
    single = evaluate(run, store)
    assert single.videos == 168
    # Six views of each of 28 videos; every class has 28 rows, so some videos are of two.
    store.video = np.arange(168, dtype=np.int32) // 6
    store.view = (np.arange(168) % 6).astype(np.uint8)
    store.label = store.label[store.video * 6]
    store.ids = [f"video {number}" for number in store.video]
    # Some views have no features, those of one video none at all.
    store.status[[0, 7, 8, 167]] = 2
    store.status[30:36] = 1
    result = evaluate(run, store)
    wanted, labels = [], []
    for video in range(28):
        rows = np.flatnonzero((store.status == 0) & (store.video == video))
        if len(rows):
            wanted.append(single.probability[rows].mean(0))
            labels.append(store.label[rows[0]])
    assert result.videos == len(wanted) == 27
    np.testing.assert_allclose(result.probability, wanted)
    assert result.label.tolist() == labels
    assert result.top1 == np.mean(np.argmax(wanted, 1) == labels)
    assert result.ids == [f"video {video}" for video in range(28) if video != 5]


def test_mirrored_views_of_another_class_are_no_part_of_the_mean(run: Path) -> None:
    store = moving_dot(60, classes=6, seed=1)
    single = evaluate(run, store)
    store.video = np.arange(60, dtype=np.int32) // 3
    store.view = (np.arange(60) % 3).astype(np.uint8)
    # Of every video, view 1 is mirrored into the neighbouring class, view 2 shows the same class.
    own = store.label[::3]
    store.label = np.stack([own, own ^ 1, own], 1).ravel()
    store.status[3] = 2
    result = evaluate(run, store)
    assert result.label.tolist() == own.tolist()
    expected = single.probability.reshape(20, 3, 6)[:, [0, 2]].mean(1)
    expected[1] = single.probability[5]
    np.testing.assert_allclose(result.probability, expected)


def test_a_run_is_scored_on_other_views_than_it_was_trained_on(tmp_path: Path) -> None:
    plain = {"keep": "frames", "views": [{"crop": "whole", "offset": 0.0, "flip": False}]}
    trained = moving_dot(32, identity=plain | {"views": {"count": 3, "seed": 0}})
    scored = moving_dot(32, identity=plain, split="validation")
    train(trained, SMALL, ONE_EPOCH, tmp_path / "run", resolved={}, selection=scored)
    assert evaluate(tmp_path / "run", scored).videos == 32


def test_rows_without_features_or_label_are_left_out(run: Path) -> None:
    store = moving_dot(60, classes=6, seed=1)
    store.status[:10] = 1
    store.label[10:20] = -1
    assert evaluate(run, store).videos == 40
    store.label[:] = -1
    with pytest.raises(TcaError, match="no row has a label"):
        evaluate(run, store)


def test_other_features_are_refused_and_every_difference_is_named(run: Path) -> None:
    store = moving_dot(60, classes=6, identity={"keep": "mean", "dtype": "int8"})
    with pytest.raises(TcaError, match=r"keep: expected 'frames', found 'mean'; dtype: .*'int8'"):
        evaluate(run, store)


def test_another_stored_type_alone_is_put_right_by_a_conversion(tmp_path: Path) -> None:
    identity = {"keep": "frames", "dtype": "float16"}
    trained = moving_dot(32, identity=identity)
    train(trained, SMALL, ONE_EPOCH, tmp_path / "run", resolved={})
    store = moving_dot(20, identity=identity | {"dtype": "int8"}, split="validation")
    with pytest.raises(TcaError, match=r"`tca cache convert memory.zarr NEW --type float16`"):
        evaluate(tmp_path / "run", store)
    with pytest.raises(TcaError, match=r"`tca cache convert memory.zarr NEW --type float16`"):
        train(trained, SMALL, ONE_EPOCH, tmp_path / "b", resolved={}, selection=store)
    store.identity = {"keep": "mean", "dtype": "int8"}
    with pytest.raises(TcaError, match="with the configuration of the training split"):
        evaluate(tmp_path / "run", store)


@pytest.mark.parametrize(("read", "other"), [("semantic", "motion"), ("motion", "semantic")])
def test_a_variant_of_one_stream_compares_that_stream_alone(
    tmp_path: Path, read: str, other: str
) -> None:
    model = SMALL.model_copy(update={"variant": f"{read}_only"})

    def store(*streams: str, of: str = "a", sampling: int = 16, **changes: Any) -> MemoryStore:
        identity = {"sampling": sampling, **{name: {"weights": of} for name in streams}}
        made = moving_dot(32, identity=identity, **changes)
        made.streams = {name: made.streams[name] for name in streams}
        return made

    both, alone = store("semantic", "motion"), store(read)
    other_weights = store("semantic", "motion")
    other_weights.identity[other] = {"weights": "b"}
    for number, (trained, scored) in enumerate(
        [(both, alone), (alone, both), (both, other_weights), (other_weights, alone)]
    ):
        run = tmp_path / str(number)
        scored.split = "validation"
        train(trained, model, ONE_EPOCH, run, resolved={}, selection=scored)
        assert evaluate(run, scored).videos == 32
        trained.split = scored.split = "train"
    for refused, words in (
        (store(read, of="b"), rf"{read}\.weights: expected 'a', found 'b'"),
        (store(read, sampling=8), "sampling: expected 16, found 8"),
    ):
        with pytest.raises(TcaError, match=words):
            evaluate(tmp_path / "0", refused)
        refused.split = "validation"
        with pytest.raises(TcaError, match=words):
            train(both, model, ONE_EPOCH, tmp_path / "x", resolved={}, selection=refused)


def test_other_classes_are_refused(run: Path) -> None:
    store = moving_dot(60, classes=6)
    store.classes = [*store.classes[:4], store.classes[5], store.classes[4]]
    with pytest.raises(TcaError, match="classes: entry 4 is expected 'class 4', found 'class 5'"):
        evaluate(run, store)


def test_top5_needs_more_than_five_classes(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, holdout=0, device="cpu")
    store = moving_dot(32)
    train(store, ModelConfig(variant="concat"), config, tmp_path / "run", resolved={})
    assert evaluate(tmp_path / "run", store).top5 is None


def test_missing_and_damaged_checkpoints_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TcaError, match="is not a run folder"):
        load_model(tmp_path)
    with pytest.raises(TcaError, match=r"no checkpoint 'first'; it has best and last"):
        load_model(run, "first")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_bytes((run / "run.json").read_bytes())
    (copy / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:-100])
    with pytest.raises(TcaError, match="is damaged"):
        load_model(copy)


def test_without_matplotlib_only_the_picture_is_missing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = moving_dot(60, classes=6, split="test")
    with_picture = {path.name for path in write_report(evaluate(run, store))}
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    without = {path.name for path in write_report(evaluate(run, store))}
    assert with_picture - without == {"confusion-test.png"}


@pytest.mark.parametrize("text", ["[]", "{}", '{"shapes": {}}'])
def test_a_run_json_that_is_not_tcas_is_one_sentence(run: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    (tmp_path / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    with pytest.raises(TcaError, match="damaged"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_model_is_one_sentence(run: Path, tmp_path: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    info["model"]["rank"] += 1
    (tmp_path / "run.json").write_text(json.dumps(info))
    (tmp_path / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    with pytest.raises(TcaError, match="not of its best checkpoint"):
        load_model(tmp_path)


def test_scores_that_say_less_than_they_seem_to_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(**changes: object) -> str:
        info = json.loads((run / "run.json").read_text()) | changes
        (tmp_path / "run.json").write_text(json.dumps(info))
        evaluate(tmp_path, moving_dot(60, classes=6, seed=1, split="validation"))
        return " ".join(capsys.readouterr().err.split())

    (tmp_path / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    assert told() == ""
    assert "is not finished" in told(finished=False)
    assert "was trained on validation" in told(split="validation")
    assert "was chosen on validation" in told(holdout={"split": "validation"})


def test_scores_that_are_no_numbers_are_refused(run: Path) -> None:
    store = moving_dot(60, classes=6, seed=1, split="validation")
    store.motion[7] = np.nan
    with pytest.raises(TcaError, match=r"no finite scores for row 7 \(id v7\)"):
        evaluate(run, store)
