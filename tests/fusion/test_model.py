import pytest
import torch
from small_models import FORMS, SMALL, awake, features, small

from tca.cache.layout import FeatureShapes
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.head import MotionEnergy
from tca.fusion.model.registry import OWN, build, parameters

NAMES = [f"class {number}" for number in range(174)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", OWN)
def test_every_variant_scores_every_form_of_store(variant: str, form: str) -> None:
    torch.manual_seed(0)
    model = awake(build(ModelConfig(variant=variant, **SMALL), FORMS[form], NAMES[:7]))
    semantic, motion = features(FORMS[form])
    scores = model(semantic, motion)
    assert scores.shape == (3, 7)
    assert scores.isfinite().all()
    # A video's scores do not depend on what else is in the batch.
    torch.testing.assert_close(model(semantic[1:2], motion[1:2]), scores[1:2], atol=1e-4, rtol=1e-4)
    # Every stream that is read matters, one that is not may be left out.
    for name, changed in (
        ("semantic", (semantic.flip(-1), motion)),
        ("motion", (semantic, -motion)),
    ):
        assert torch.equal(model(*changed), scores) == (name not in model.streams)
    alone = [
        x if n in model.streams else None
        for n, x in zip(("semantic", "motion"), (semantic, motion), strict=True)
    ]
    assert torch.equal(model(*alone), scores)


def test_streams_wider_than_the_limit_are_projected_to_it() -> None:
    shapes = FeatureShapes(None, (2, 2), 100, 4, 60)
    model = build(ModelConfig(max_width=40, **SMALL), shapes, NAMES[:3])
    assert [stem.width for stem in model.stems.values()] == [40, 40]
    assert model(*features(shapes)).shape == (3, 3)


@pytest.mark.parametrize("segments", [None, 8])
def test_default_has_about_ten_million_parameters_for_ssv2(segments: int | None) -> None:
    shapes = FeatureShapes(segments, (14, 14), 768, 8, 512)
    assert 9e6 < parameters(build(ModelConfig(), shapes, NAMES[:174])) < 13e6


def test_over_twenty_million_parameters_only_when_asked_for() -> None:
    shapes = FeatureShapes(None, (2, 2), 768, 8, 512)
    with pytest.raises(UsageError, match=r"over the limit of 20 M.*allow_large"):
        build(ModelConfig(layers=12), shapes, NAMES[:174])
    assert parameters(build(ModelConfig(layers=12, allow_large=True), shapes, NAMES[:174])) > 20e6


def test_pool_must_divide_the_grid_and_equals_averaging_before() -> None:
    with pytest.raises(UsageError, match=r"model.pool=4 does not divide"):
        build(ModelConfig(pool=4), FORMS["frames"], NAMES[:3])
    torch.manual_seed(0)
    pooling = awake(build(ModelConfig(pool=2, **SMALL), FORMS["frames"], NAMES[:3]))
    torch.manual_seed(0)
    given = awake(build(ModelConfig(**SMALL), FORMS["pooled"], NAMES[:3]))
    semantic, motion = features(FORMS["frames"])
    pooled = torch.nn.functional.avg_pool2d(
        semantic.float().reshape(24, 6, 6, 48).permute(0, 3, 1, 2), 2
    )
    pooled = pooled.permute(0, 2, 3, 1).reshape(3, 8, 9, 48)
    torch.testing.assert_close(pooling(semantic, motion), given(pooled, motion))


def test_gates_start_at_zero_and_what_is_behind_them_does_not_so_that_they_learn() -> None:
    torch.manual_seed(0)
    model = build(ModelConfig(**SMALL), FORMS["frames"], NAMES[:5])
    gates = [p for name, p in model.named_parameters() if name.endswith("gate")]
    assert len(gates) == 2 + 2 * SMALL["layers"]
    assert all(gate.item() == 0.0 for gate in gates)
    for name, parameter in model.named_parameters():
        if name.endswith((".up.weight", ".out.weight")):
            assert parameter.abs().max() > 0.01, name
    with torch.no_grad():
        model.head.classify.weight.normal_()
    model(*features(FORMS["frames"])).square().sum().backward()
    assert all(gate.grad.item() != 0 for gate in gates)


def test_an_untrained_model_is_its_head_alone() -> None:
    torch.manual_seed(0)
    full = build(ModelConfig(**SMALL), FORMS["frames"], NAMES[:5])
    bare = build(ModelConfig(variant="concat", **SMALL), FORMS["frames"], NAMES[:5])
    with torch.no_grad():
        full.head.classify.weight.normal_()
    bare.head.load_state_dict(full.head.state_dict())
    inputs = features(FORMS["frames"])
    torch.testing.assert_close(full.eval()(*inputs), bare.eval()(*inputs))


def test_the_head_knows_the_order_of_segments_and_the_place_of_patches() -> None:
    torch.manual_seed(0)
    model = awake(build(ModelConfig(variant="concat", **SMALL), FORMS["frames"], NAMES[:5]))
    semantic, motion = features(FORMS["frames"])
    scores = model(semantic, motion)
    for turned in (semantic.flip(1), semantic.flip(2)):
        assert (model(turned, motion) - scores).abs().max() > 0.1


def test_statistics_bring_training_features_to_mean_zero_and_deviation_one() -> None:
    shapes = FORMS["frames"]
    model = build(ModelConfig(**SMALL), shapes, NAMES[:5])
    generator = torch.Generator().manual_seed(0)
    semantic = torch.randn(40, 8, 36, 48, generator=generator) * torch.logspace(-1, 2, 48) + 30
    semantic[..., 3] = 4.0  # A feature that never changes must not be blown up.
    motion = torch.rand(40, 8, 32, generator=generator)
    model.fit_statistics([(semantic[:25], motion[:25]), (semantic[25:], motion[25:])])
    stem = model.stems["semantic"]
    with torch.no_grad():
        stem.positions.scale.zero_()
    tokens = stem(semantic).flatten(0, 2)
    steady = torch.arange(48) == 3
    torch.testing.assert_close(tokens.mean(0), torch.zeros(48), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokens[:, ~steady].std(0), torch.ones(47), atol=1e-3, rtol=0)
    assert tokens[:, steady].abs().max() < 1e-3


def test_motion_energy_does_not_depend_on_what_moves() -> None:
    energy = MotionEnergy(8, (6, 6), cells=3)
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(1, 1, 36, 48, generator=generator).expand(1, 8, 36, 48)
    move = torch.zeros(1, 8, 36, 48)
    move[0, 5, 34:] = torch.randn(48, generator=generator)  # In the last corner's cell.
    here, opposite = energy(still + move), energy(still - move)
    torch.testing.assert_close(here, opposite, atol=1e-3, rtol=1e-3)
    of_average, shares, of_step, _ = here[0].split([72, 72, 63, 63])
    assert int(of_average.argmax()) == 5 * 9 + 8
    # All that changes in the frame changes there: nine times an even share.
    assert shares[5 * 9 + 8] == pytest.approx(10 * (9 - 1), rel=1e-3)
    assert sorted(of_step.topk(2).indices.tolist()) == [4 * 9 + 8, 5 * 9 + 8]
    assert energy(still).abs().max() < 1e-3
    assert energy.features == here.shape[1]


def test_time_averages_do_not_pass_for_frames() -> None:
    model = small(FORMS["frames"])
    semantic, motion = features(FORMS["frames"], 8)
    with pytest.raises(ValueError, match=r"\(8, .*are not .* with 8 segments of 36 patches"):
        model(semantic[:, 0], motion[:1])
