import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from memory_store import moving_dot
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tca.cache.config import LoaderConfig
from tca.cache.loader import Batch, Loader
from tca.errors import TcaError, UsageError
from tca.fusion.evaluate.scoring import evaluate, load_model
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.variants.gasm_cast import GasmCast
from tca.fusion.run_folder import new_run_folder
from tca.fusion.train import judging, looking
from tca.fusion.train.checkpoints import Progress
from tca.fusion.train.config import SeedConfig, TrainConfig
from tca.fusion.train.cross_validation import cross_validate
from tca.fusion.train.hooks import EpochReport, Hook, StepReport
from tca.fusion.train.loop import TrainSummary, train
from tca.fusion.train.member import Step
from tca.fusion.train.world import World

MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
STORES = {"stores": "cache/{split}.zarr"}
TRAIN = TrainConfig(epochs=12, batch_size=16, lr=3e-3, holdout=0.2, patience=12, device="cpu")


def run_on(
    store, run: Path, model: ModelConfig = MODEL, config: TrainConfig = TRAIN
) -> TrainSummary:
    resolved = {"model": model.model_dump(mode="json"), "train": config.model_dump(mode="json")}
    return train(store, model, config, run, resolved=resolved)


def test_it_learns_order_and_place_and_leaves_a_complete_run(tmp_path: Path) -> None:
    summary = run_on(moving_dot(160), tmp_path / "run")
    assert summary.holdout_top1 > 0.9
    assert (summary.rows, summary.holdout_rows) == (128, 32)
    result = evaluate(tmp_path / "run", moving_dot(80, seed=1, split="validation"))
    assert result.top1 > 0.9

    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["finished"] is True
    assert info["best_epoch"] == summary.best_epoch
    assert info["identity"] == {"keep": "frames"}
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert ModelConfig(**config["model"]) == MODEL
    assert TrainConfig(**config["train"]) == TRAIN
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "train_loss" in line]
    steps = [line for line in lines if "step" in line]
    assert [line["epoch"] for line in epochs] == list(range(1, summary.epochs + 1))
    assert [line["step"] for line in steps] == list(range(1, 8 * summary.epochs + 1))
    best = max(epochs, key=lambda line: (line["holdout_top1"], -line["holdout_loss"]))
    assert best["epoch"] == summary.best_epoch
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {"train/loss", "train/lr", "holdout/top1", "holdout/loss"} <= set(
        board.Tags()["scalars"]
    )
    model = load_model(tmp_path / "run", "last", "cpu").network
    with safe_open(tmp_path / "run/last.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    assert not list(tmp_path.glob("run/.*"))


def test_shuffled_training_labels_come_out_at_chance(tmp_path: Path) -> None:
    run_on(moving_dot(160, shuffle_labels=True), tmp_path / "run")
    assert evaluate(tmp_path / "run", moving_dot(120, seed=1)).top1 < 0.45


def test_the_same_configuration_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    short = TRAIN.model_copy(update={"epochs": 3})
    for name, config in (
        ("a", short),
        ("b", short),
        ("c", short.model_copy(update={"seed": SeedConfig(model=1)})),
    ):
        torch.rand(3)  # What was drawn before does not matter.
        run_on(moving_dot(80), tmp_path / name, config=config)
    best, last = (
        [(tmp_path / n / f).read_bytes() for n in "abc"]
        for f in ("best.safetensors", "last.safetensors")
    )
    assert best[0] == best[1]
    assert last[0] == last[1]
    assert last[0] != last[2]


def test_training_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_on(moving_dot(80), tmp_path / "run", config=TRAIN.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


def test_failed_and_unlabelled_rows_are_never_trained_on(tmp_path: Path) -> None:
    store = moving_dot(120)
    poisoned = np.arange(0, 120, 5)
    store.semantic[poisoned] = np.nan
    store.status[poisoned[::2]] = 2
    store.label[poisoned[1::2]] = -1
    config = TRAIN.model_copy(update={"epochs": 1, "holdout": 0.0})
    summary = run_on(store, tmp_path / "run", config=config)
    assert summary.rows == 120 - len(poisoned)
    assert np.isfinite(summary.train_loss)


def test_a_split_named_by_the_user_chooses_the_checkpoint(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 2})
    other = moving_dot(40, seed=3, split="validation")
    summary = train(moving_dot(80), MODEL, config, tmp_path / "run", resolved={}, selection=other)
    assert (summary.rows, summary.holdout_rows) == (80, 40)
    assert json.loads((tmp_path / "run/run.json").read_text())["holdout"]["split"] == "validation"
    other.identity = {"keep": "mean"}
    with pytest.raises(TcaError, match="keep: expected 'frames', found 'mean'"):
        train(moving_dot(80), MODEL, config, tmp_path / "b", resolved={}, selection=other)


def test_without_a_holdout_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 2, "holdout": 0.0, "patience": 1})
    summary = run_on(moving_dot(80), tmp_path / "run", config=config)
    assert (summary.rows, summary.best_epoch, summary.holdout_top1) == (80, 2, None)
    contents = [(tmp_path / f"run/{name}.safetensors").read_bytes() for name in ("best", "last")]
    assert contents[0] == contents[1]


def test_training_stops_when_the_holdout_no_longer_improves(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 200, "patience": 2})
    assert run_on(moving_dot(80), tmp_path / "run", config=config).epochs < 200


def test_a_loss_that_is_not_a_number_stops_with_the_remedy(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"lr": 1e30})
    with pytest.raises(TcaError, match=r"the loss is nan in epoch 1.*lower train\.lr"):
        run_on(moving_dot(80), tmp_path / "run", config=config)


@pytest.mark.parametrize(
    ("holdout", "what"), [(0.2, "the loss on the holdout is nan"), (0.0, "weights are no numbers")]
)
def test_what_only_the_last_step_has_spoiled_is_no_finished_run(
    tmp_path: Path, holdout: float, what: str
) -> None:
    # One step an epoch: its loss is that of the first weights.
    changes = {"lr": 1e38, "batch_size": 100, "epochs": 1, "holdout": holdout}
    with pytest.raises(TcaError, match=rf"{what} after epoch 1.*no weights were kept"):
        run_on(moving_dot(80), tmp_path / "run", config=TRAIN.model_copy(update=changes))
    assert json.loads((tmp_path / "run/run.json").read_text())["finished"] is False
    assert "NaN" not in (tmp_path / "run/log.jsonl").read_text()


def test_features_that_are_no_numbers_are_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    store = moving_dot(80)
    store.motion[3, 0] = np.inf
    with pytest.raises(TcaError, match=r"memory\.zarr holds features that are no finite numbers"):
        run_on(store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_out_of_memory_names_the_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(GasmCast, "forward", full)
    with pytest.raises(TcaError, match=r"not enough memory for 16 rows.*lower train\.batch_size"):
        run_on(moving_dot(80), tmp_path / "run")


def test_a_split_does_not_choose_checkpoints_for_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be chosen on train, the split that is trained on"):
        train(moving_dot(80), MODEL, TRAIN, tmp_path / "a", resolved={}, selection=moving_dot(40))


def test_at_equal_shares_the_lower_loss_is_the_better_epoch_even_at_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(0.0, 1.0), (0.0, 3.0), (0.0, 2.0)])
    monkeypatch.setattr(judging.Judge, "score", lambda *_: [next(scores)])
    config = TRAIN.model_copy(update={"epochs": 3})
    assert run_on(moving_dot(80), tmp_path / "run", config=config).best_epoch == 1


def test_a_store_that_is_not_complete_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = moving_dot(80)
    store.status[60:] = 255
    run_on(store, tmp_path / "run", config=TRAIN.model_copy(update={"epochs": 1}))
    assert "20 of 80 rows are not extracted yet" in " ".join(capsys.readouterr().err.split())


def test_runs_named_at_once_are_different_and_one_that_fails_leaves_no_folder(
    tmp_path: Path,
) -> None:
    first, second = (new_run_folder(tmp_path / "runs", "concat") for _ in range(2))
    assert [first.name, second.name] == ["concat-001", "concat-002"]
    single = moving_dot(40)
    single.label[:] = 2
    with pytest.raises(TcaError, match="hold 1 class"):
        run_on(single, first)
    assert not first.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(TcaError, match="cannot write"):
        new_run_folder(tmp_path / "file", "concat")


def test_somebody_elses_files_are_not_taken_for_an_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"mine": true}')
    (tmp_path / "data.jsonl").write_text("precious")
    with pytest.raises(TcaError, match=r"a run\.json that tca did not write"):
        run_on(moving_dot(80), tmp_path)
    assert (tmp_path / "data.jsonl").read_text() == "precious"
    with pytest.raises(TcaError, match=r"data\.jsonl is a file"):
        run_on(moving_dot(80), tmp_path / "data.jsonl")


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    empty = moving_dot(40)
    empty.status[:] = 255
    with pytest.raises(TcaError, match="no row has been extracted"):
        run_on(empty, tmp_path / "a")
    unlabelled = moving_dot(40)
    unlabelled.label[:] = -1
    with pytest.raises(TcaError, match="no row has a label"):
        run_on(unlabelled, tmp_path / "b")
    single = moving_dot(40)
    single.label[:] = 2
    with pytest.raises(TcaError, match="hold 1 class"):
        run_on(single, tmp_path / "c")
    with pytest.raises(TcaError, match=r"train\.holdout=0\.01 of 40 videos leaves 0"):
        run_on(moving_dot(40), tmp_path / "d", config=TRAIN.model_copy(update={"holdout": 0.01}))
    with pytest.raises(UsageError, match="device 'cuda:77' is not here"):
        run_on(
            moving_dot(40), tmp_path / "e", config=TRAIN.model_copy(update={"device": "cuda:77"})
        )


def test_a_finished_run_is_not_overwritten_and_an_unfinished_one_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TRAIN.model_copy(update={"epochs": 1})
    run = new_run_folder(tmp_path, "gasm_cast")
    assert run.name == "gasm_cast-001"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GasmCast, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_on(moving_dot(80), run, config=config)
    run_on(moving_dot(80), run, config=config)
    with pytest.raises(TcaError, match="holds a finished run"):
        run_on(moving_dot(80), run, config=config)
    assert new_run_folder(tmp_path, "gasm_cast").name == "gasm_cast-002"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    with pytest.raises(TcaError, match="is not empty and holds no run"):
        run_on(moving_dot(80), tmp_path / "mine", config=config)


def test_a_cross_validation_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TRAIN.model_copy(update={"epochs": 4, "save_steps": 1})
    whole = cross_validate(moving_dot(60), MODEL, config, 3, tmp_path / "whole", resolved={})
    stopping = config.model_copy(update={"hooks": [f"{__name__}:Stopper"]})
    with pytest.raises(KeyboardInterrupt):
        cross_validate(moving_dot(60), MODEL, stopping, 3, tmp_path / "cv", resolved=STORES)
    first = tmp_path / "cv/fold-1/last.safetensors"
    before = first.stat().st_mtime_ns
    assert not (tmp_path / "cv/fold-2/last.safetensors").exists()
    with pytest.raises(TcaError, match="is not empty; name another run folder, or --resume it"):
        cross_validate(moving_dot(60), MODEL, config, 3, tmp_path / "cv", resolved={"a": 2})
    assert yaml.safe_load((tmp_path / "cv/config.yaml").read_text()) == STORES
    again = cross_validate(
        moving_dot(60), MODEL, config, 3, tmp_path / "cv", resolved=STORES, resume=True
    )
    assert again.folds == whole.folds
    assert first.stat().st_mtime_ns == before
    for number in (1, 2, 3):
        ours, theirs = (
            load_file(tmp_path / f"{place}/fold-{number}/last.safetensors")
            for place in ("cv", "whole")
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_finished_folds_of_other_rows_or_settings_are_not_taken_over(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 1})
    cross_validate(moving_dot(60), MODEL, config, 2, tmp_path / "cv", resolved=STORES)
    other = STORES | {"train": {"lr": 1.0}}
    with pytest.raises(TcaError, match=r"fold-1 was trained with other .*train.lr=1.0"):
        cross_validate(
            moving_dot(60), MODEL, config, 2, tmp_path / "cv", resolved=other, resume=True
        )
    shuffled = config.model_copy(update={"seed": SeedConfig(data=4)})
    with pytest.raises(TcaError, match="fold-1 learnt from other rows"):
        cross_validate(
            moving_dot(60), MODEL, shuffled, 2, tmp_path / "cv", resolved=STORES, resume=True
        )


def test_batches_are_let_go_when_their_step_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[object]] = []
    most = 0
    finished = Loader._finished

    def watched(self: Loader, *arguments: Any) -> Batch:
        nonlocal most
        batch = finished(self, *arguments)
        made.append(weakref.ref(batch))
        most = max(most, sum(one() is not None for one in made))
        return batch

    monkeypatch.setattr(Loader, "_finished", watched)
    config = TRAIN.model_copy(update={"epochs": 2, "batch_size": 4, "holdout": 0})
    run_on(moving_dot(80), tmp_path / "run", config=config)
    # Read ahead, under way, in use, and the one before until the next is there.
    assert len(made) >= 40
    assert most <= LoaderConfig().prefetch + 3


def test_time_that_a_device_takes_later_is_the_steps_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(looking.time, "perf_counter", lambda: now)
    told: list[StepReport] = []
    scaler = SimpleNamespace(is_enabled=lambda: False)
    run = SimpleNamespace(
        failure=None,
        member=SimpleNamespace(scaler=scaler),
        progress=Progress(),
        told=told.extend,
    )
    looks = looking.Looks(moving_dot(4), World(0, 1, torch.device("cpu")), None)
    zero = Step(torch.zeros(()), torch.zeros(()), 0.1)
    for seconds in (1.0, 3.0):
        now += seconds
        looks.add(looking.Unseen(1, 1, np.arange(2), 2, [zero], seconds, 0.5))
    # The device is done four seconds after the second step was handed to it.
    now += 4.0
    looks.look([run])
    assert [report.seconds for report in told] == [2.0, 6.0]
    assert [report.waited for report in told] == [0.5, 0.5]


class Stopper(Hook):
    """Stops a cross-validation in the second epoch of its second fold."""

    def epoch(self, report: EpochReport, model: object) -> None:
        if report.epoch == 2 and self.run.name == "fold-2":
            raise KeyboardInterrupt

    def begin(self, run: Path, model: object, step: int) -> None:
        self.run = run


def test_cross_validation_scores_every_video_once_without_having_seen_it(tmp_path: Path) -> None:
    config = TRAIN.model_copy(update={"epochs": 8})
    summary = cross_validate(moving_dot(120), MODEL, config, 3, tmp_path / "cv", resolved={})
    assert summary.videos == 120
    assert summary.mean == pytest.approx(np.mean(summary.folds))
    assert summary.spread == pytest.approx(np.std(summary.folds))
    assert summary.mean > 0.8
    assert json.loads((tmp_path / "cv/folds.json").read_text())["folds"] == summary.folds
    for number in (1, 2, 3):
        info = json.loads((tmp_path / f"cv/fold-{number}/run.json").read_text())
        assert info["rows"] + info["holdout"]["rows"] == 80
    with pytest.raises(TcaError, match="choose 2 to 30 folds"):
        cross_validate(moving_dot(120), MODEL, config, 31, tmp_path / "x", resolved={})
