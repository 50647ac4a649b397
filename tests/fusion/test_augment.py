"""What augmentation draws, and that it is the same for any processes, members and kills."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory_store import moving_dot
from safetensors.torch import load_file
from small_models import FORMS, awake, small
from small_models import features as small_features
from torch import Tensor, nn
from train_project import TORCHRUN, done, start, write_train_project

from tca.cache.config import LoaderConfig
from tca.cache.layout import Stream
from tca.cli import run as tca
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.run_folder import RunFolder
from tca.fusion.train.augment import Augmentation
from tca.fusion.train.config import AugmentConfig, SeedConfig, TrainConfig
from tca.fusion.train.hooks import Hook
from tca.fusion.train.loop import Plan, train, train_together
from tca.fusion.train.loss import fusion_loss
from tca.fusion.train.sweep import passes

NAMES = ("semantic", "motion")
ROWS = 400
STREAMS = {
    "semantic": Stream((ROWS, 8, 16, 12), "float16"),
    "motion": Stream((ROWS, 8, 6), "float16"),
}
EVERYTHING = AugmentConfig(token_dropout=0.2, mixup=0.4, noise=0.3, shift=2)


def features() -> dict[str, Tensor]:
    """Return features whose means and deviations differ from one to the next."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, stream in STREAMS.items():
        numbers = torch.randn(stream.shape, generator=generator)
        width = stream.shape[-1]
        found[name] = (numbers * torch.logspace(-2, 1, width) + torch.arange(width)).half()
    return found


def augmentation(config: AugmentConfig, seed: int = 0) -> Augmentation:
    made = Augmentation(config, seed, STREAMS, 4)
    made.fit([features()])
    return made


def label() -> Tensor:
    return torch.arange(ROWS) % 4


def test_off_it_changes_nothing() -> None:
    given = features()
    found, target = augmentation(AugmentConfig())(given, label(), 1, 0)
    assert all(found[name] is given[name] for name in given)
    assert torch.equal(target, label())


def test_the_share_of_tokens_is_the_mean_and_the_others_stay() -> None:
    given = features()
    found, target = augmentation(AugmentConfig(token_dropout=0.3))(given, label(), 1, 0)
    assert torch.equal(target, label())
    for name, numbers in given.items():
        tokens = numbers[..., 0].numel()
        mean = numbers.double().flatten(0, -2).mean(0).float()
        dropped = (found[name] - mean).abs().amax(-1) < 1e-6
        assert abs(dropped.sum() - 0.3 * tokens) < 5 * np.sqrt(tokens * 0.3 * 0.7)
        assert torch.equal(found[name][~dropped], numbers[~dropped].float())
        # Each place alike, and independently of its neighbour.
        rate = dropped.double().mean(0)
        assert (rate - 0.3).abs().max() < 5 * np.sqrt(0.3 * 0.7 / ROWS)
        both = (dropped[:, 1:] & dropped[:, :-1]).double().mean()
        assert both == pytest.approx(0.09, abs=0.02)


def test_noise_is_normal_in_units_of_each_features_deviation() -> None:
    given = features()
    found, _ = augmentation(AugmentConfig(noise=0.5))(given, label(), 1, 0)
    for name, numbers in given.items():
        deviation = numbers.double().flatten(0, -2).std(0, correction=0)
        noise = (found[name] - numbers.float()).double().flatten(0, -2) / deviation
        count = len(noise)
        assert noise.mean(0).abs().max() < 5 * 0.5 / np.sqrt(count)
        assert (noise.std(0) - 0.5).abs().max() < 5 * 0.5 / np.sqrt(2 * count)
        assert ((noise / 0.5).pow(4).mean() - 3).abs() < 0.2
        correlation = torch.corrcoef(noise.T) - torch.eye(noise.shape[1])
        assert correlation.abs().max() < 5 / np.sqrt(count)


def test_both_streams_move_alike_and_repeat_their_ends() -> None:
    given = features()
    found, _ = augmentation(AugmentConfig(shift=2))(given, label(), 1, 0)
    shifts = []
    for row in range(ROWS):
        fits = []
        for by in range(-2, 3):
            at = np.clip(np.arange(8) - by, 0, 7)
            if all(torch.equal(found[n][row], given[n][row][at]) for n in given):
                fits.append(by)
        assert len(fits) == 1
        shifts += fits
    counts = np.bincount(np.array(shifts) + 2)
    assert np.abs(counts - ROWS / 5).max() < 5 * np.sqrt(ROWS * 0.2 * 0.8)


def test_a_time_average_stays_where_segments_move() -> None:
    streams = STREAMS | {"semantic": Stream((ROWS, 16, 12), "float16")}
    given = features()
    given["semantic"] = given["semantic"].mean(1)
    found, _ = Augmentation(AugmentConfig(shift=1), 0, streams, 4)(given, label(), 1, 0)
    assert torch.equal(found["semantic"], given["semantic"])
    assert not torch.equal(found["motion"], given["motion"])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_neighbours_are_mixed_by_beta_and_so_are_their_targets(alpha: float) -> None:
    given = features()
    some = {name: numbers.float() for name, numbers in given.items()}
    shares = []
    for epoch in range(20):
        found, target = augmentation(AugmentConfig(mixup=alpha))(given, label(), epoch, 0)
        # Classes of neighbours differ, so that the target tells how much of a row stayed.
        share = target[torch.arange(ROWS), label()]
        partner = torch.arange(ROWS) ^ 1
        torch.testing.assert_close(target[torch.arange(ROWS), label()[partner]], 1 - share)
        torch.testing.assert_close(target.sum(1), torch.ones(ROWS))
        for name, numbers in some.items():
            kept = share.view(-1, *[1] * (numbers.dim() - 1))
            expected = numbers * kept + numbers[partner] * (1 - kept)
            torch.testing.assert_close(found[name], expected)
        shares.append(share.double().numpy())
    drawn = np.concatenate(shares)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=5 * np.sqrt(variance / len(drawn)))
    assert drawn.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_mixed_loss_is_the_mix_of_the_losses(smoothing: float, progressive: bool) -> None:
    shapes = FORMS["frames"]
    model = awake(small(shapes, progressive=progressive))
    config = TrainConfig(label_smoothing=smoothing)
    inputs = tuple(given.float() for given in small_features(shapes, batch=4))
    one, other = torch.tensor([0, 1, 2, 3]), torch.tensor([3, 4, 0, 1])
    share = 0.3
    mixed = share * F.one_hot(one, 5) + (1 - share) * F.one_hot(other, 5)
    found = fusion_loss(model, *inputs, mixed, config)
    parts = [fusion_loss(model, *inputs, target, config) for target in (one, other)]
    torch.testing.assert_close(found, share * parts[0] + (1 - share) * parts[1])
    assert abs(parts[0] - parts[1]) > 1e-3
    if not progressive:
        own = nn.CrossEntropyLoss(label_smoothing=smoothing)(model(*inputs), mixed)
        torch.testing.assert_close(found, own)


@pytest.mark.parametrize("cuts", [[8], [4, 20, 22], [16, 17, 33]])
def test_a_slice_gets_what_it_gets_in_the_whole(cuts: list[int]) -> None:
    given = {name: numbers[:40] for name, numbers in features().items()}
    made = augmentation(EVERYTHING)
    whole, target = made(given, label()[:40], 3, 100)
    bounds = [0, *cuts, 40]
    for first, end in pairwise(bounds):
        part = {name: numbers[first:end] for name, numbers in given.items()}
        found, wanted = made(part, label()[first:end], 3, 100 + first)
        # Only a row whose neighbour is elsewhere is left unmixed.
        same = torch.tensor([first <= (place ^ 1) < end for place in range(first, end)])
        assert int((~same).sum()) == first % 2 + end % 2
        for name in given:
            assert torch.equal(found[name][same], whole[name][first:end][same])
        assert torch.equal(wanted[same], target[first:end][same])
        alone = F.one_hot(label()[first:end][~same], 4).float()
        assert torch.equal(wanted[~same], alone)


def test_what_is_drawn_depends_on_seed_epoch_and_place_and_not_on_the_other_stream() -> None:
    given = {name: numbers[:8] for name, numbers in features().items()}

    def drawn(seed: int = 0, epoch: int = 1, first: int = 0, names: tuple[str, ...] = NAMES):
        some = {name: given[name] for name in names}
        return augmentation(EVERYTHING, seed)(some, label()[:8], epoch, first)[0]

    before = {name: numbers.clone() for name, numbers in given.items()}
    usual = drawn()
    assert all(torch.equal(given[name], before[name]) for name in given)
    for name in NAMES:
        assert torch.equal(drawn(names=(name,))[name], usual[name])
        for other in (drawn(seed=1), drawn(epoch=2), drawn(first=8)):
            assert not torch.equal(other[name], usual[name])
    torch.manual_seed(5)
    assert all(torch.equal(drawn()[name], usual[name]) for name in NAMES)


def test_an_empty_slice_stays_one() -> None:
    nothing = {name: numbers[:0] for name, numbers in features().items()}
    found, target = augmentation(EVERYTHING)(nothing, label()[:0], 1, 7)
    assert {name: n.shape for name, n in found.items()} == {n: v.shape for n, v in nothing.items()}
    assert target.shape == (0, 4)


@pytest.mark.parametrize(
    ("segments", "shift", "says"),
    [((8, 2), 1, "8 of semantic and 2 of motion"), ((8, 8), 8, "8 segments out of sight")],
)
def test_a_shift_that_fits_no_stream_is_refused(
    segments: tuple[int, int], shift: int, says: str
) -> None:
    streams = {
        "semantic": Stream((9, segments[0], 16, 12), "float16"),
        "motion": Stream((9, segments[1], 6), "float16"),
    }
    with pytest.raises(UsageError, match=says):
        Augmentation(AugmentConfig(shift=shift), 0, streams, 4)


MODEL = ModelConfig(bottleneck=16, heads=2, layers=1, ratio=1, rank=8, similar=2, radius=1)
TRAIN = TrainConfig(
    epochs=3,
    batch_size=16,
    lr=3e-3,
    holdout=0.2,
    device="cpu",
    save_steps=1,
    augment=EVERYTHING,
    views="one",
    balanced=True,
)


def store_of_views():
    store = moving_dot(160)
    # Views of a video are neighbours and of one class; classes are of different sizes.
    label = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])[np.arange(80) % 10]
    store.video = np.repeat(np.arange(80, dtype=np.int32), 2)
    store.view = np.tile(np.array([0, 1], dtype=np.uint8), 80)
    store.label = np.repeat(label, 2).astype(np.int32)
    store.ids = [f"v{number}" for number in store.video]
    return store


def curve(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["norm"]) for line in lines if "step" in line]


def same_runs(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    ours, theirs = (load_file(run / "last.safetensors") for run in (one, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class Killer(Hook):
    """Ends the training after a step, as nothing that may be caught would."""

    after = 0

    def step(self, report) -> None:
        if report.step == Killer.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_a_training_goes_on_exactly_with_everything_on(tmp_path: Path, shuffle: str) -> None:
    loader = LoaderConfig(shuffle=shuffle, block_rows=8, buffer_blocks=3)

    def run_once(name: str, config: TrainConfig = TRAIN, *, resume: bool = False) -> Path:
        run = tmp_path / name
        store = store_of_views()
        train(store, MODEL, config, run, resolved={}, loader=loader, resume=resume)
        return run

    whole = run_once("whole")
    # 64 videos are left for training: 4 steps an epoch.
    assert len(curve(whole)) == 12
    plain = run_once("plain", TRAIN.model_copy(update={"augment": AugmentConfig()}))
    assert curve(plain) != curve(whole)
    for after in (2, 4, 7):
        Killer.after = after
        stopping = TRAIN.model_copy(update={"hooks": [f"{__name__}:Killer"]})
        with pytest.raises(KeyboardInterrupt):
            run_once(f"cut-{after}", stopping)
        same_runs(run_once(f"cut-{after}", resume=True), whole)


def test_members_of_a_pass_are_as_if_trained_alone(tmp_path: Path) -> None:
    members = {
        "plain": (MODEL, TRAIN),
        "seed": (MODEL, TRAIN.model_copy(update={"seed": SeedConfig(model=5)})),
        "pooled": (MODEL.model_copy(update={"pool": 2}), TRAIN),
        "motion": (MODEL.model_copy(update={"variant": "motion_only"}), TRAIN),
        "parts": (MODEL, TRAIN.model_copy(update={"accumulate": 2, "lr": 1e-3})),
    }
    plans = [Plan(*member, tmp_path / f"all/{name}", {}) for name, member in members.items()]
    train_together(store_of_views(), plans)
    for name, member in members.items():
        train(store_of_views(), *member, tmp_path / f"one/{name}", resolved={})
        same_runs(tmp_path / f"all/{name}", tmp_path / f"one/{name}")


def test_other_augmentation_takes_another_pass() -> None:
    def tree(**changes):
        return {"train": TRAIN.model_copy(update=changes).model_dump(), "loader": {}, "stores": "x"}

    trees = [
        tree(),
        tree(lr=1.0),
        tree(augment=AugmentConfig()),
        tree(views="all"),
        tree(balanced=False),
    ]
    assert list(passes(trees, 8)) == [[0, 1], [2], [3], [4]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("processes", "more"),
    [
        # 77 rows: slices hold whole pairs, and the last row is alone; one process has none then.
        (2, ["train.batch_size=4"]),
        # Slices of 9, 8 and 8 rows would part pairs.
        (3, ["train.batch_size=25", "train.augment.mixup=0"]),
    ],
)
def test_the_loss_curve_of_several_processes_is_that_of_one(
    tmp_path: Path, processes: int, more: list[str]
) -> None:
    project = write_train_project(tmp_path)
    settings = [
        "model.dropout=0",
        "model.head_dropout=0",
        "train.epochs=1",
        "train.views=one",
        "train.balanced=true",
        "train.augment={token_dropout: 0.2, mixup: 0.4, noise: 0.3, shift: 2}",
        *more,
    ]
    done(start(project, "--run", "one", *settings))
    launcher = [*TORCHRUN, "--nproc-per-node", str(processes)]
    done(start(project, "--run", "several", *settings, launcher=launcher))
    ours, theirs = curve(project / "several"), curve(project / "one")
    assert RunFolder(project / "one").info()["rows"] == 77
    assert len(ours) == len(theirs) == -(-77 // int(more[0].rpartition("=")[2]))
    for got, expected in zip(ours, theirs, strict=True):
        assert got == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_settings_are_shown_and_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_train_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert tca(["train-fusion", "train.augment.shift=9"]) == 2
    said = capsys.readouterr().err
    assert "shift=9 would move 8 segments out of sight; set it below 8." in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    assert tca(["train-fusion", "train.augment.token_dropout=1"]) == 2
    assert "train.augment.token_dropout" in capsys.readouterr().err
