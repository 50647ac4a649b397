"""Progressive supervision: layer 1 tells verbs, others classes, scoring knows none of it."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import FORMS, awake, features, small

from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import build
from tca.fusion.model.verbs import verb_groups, verb_of_name
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss

SHAPES = FORMS["pooled"]
LABEL = torch.tensor([4, 0, 2])


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("Pushing [something] from left to right", "pushing"),
        ("[Something] falling like a rock", "falling"),
        ("Something colliding with something and both are being deflected", "colliding"),
        ("Pretending or failing to wipe something off of something", "pretending"),
        ("Touching (without moving) part of [something]", "touching"),
        ("[Something] being deflected from [something]", "being"),
        ("(Wringing) something", "wringing"),
        ("Nothing, thing and [something] spinning", "spinning"),
        ("shake hands", "shake"),
        ("brush_hair", "brush_hair"),
        ("  ", ""),
    ],
)
def test_a_verb_is_the_first_word_in_ing_or_the_first_word(name: str, verb: str) -> None:
    assert verb_of_name(name) == verb


def test_something_somethings_174_classes_fall_into_their_verbs(shared: Path) -> None:
    file = shared / "data/ssv2/labels/labels.json"
    classes = list(json.loads(file.read_text()))
    assert len(classes) == 174
    names, verb_of = verb_groups(classes)
    assert names == sorted(set(names))
    assert len(names) == 52
    assert all(name.endswith("ing") for name in names)
    assert "something" not in names
    sizes = {name: verb_of.count(number) for number, name in enumerate(names)}
    # Counted by the names' first words, where that is a verb; 5 begin with what it happens to.
    for verb, size in sizes.items():
        begin = sum(name.split()[0].lower() == verb for name in classes)
        happen = sum(name.lower().startswith(f"something {verb}") for name in classes)
        assert size == begin + happen, verb
    assert (sizes["pretending"], sizes["putting"], sizes["moving"]) == (22, 19, 14)
    assert (sizes["falling"], sizes["colliding"], sizes["being"]) == (2, 2, 1)


def test_the_gestures_fall_into_three_verbs(shared: Path) -> None:
    classes = list(json.loads((shared / "data/gestures/labels/labels.json").read_text()))
    names, verb_of = verb_groups(classes)
    assert names == ["drawing", "moving", "swiping"]
    assert [verb_of.count(number) for number in range(3)] == [6, 1, 4]
    assert [names[verb] for verb in verb_of] == [name.split()[0].lower() for name in classes]


@pytest.mark.parametrize("variant", ["gasm_cast", "bcast", "cross_attention"])
def test_layer_1_has_a_head_for_verbs_and_the_others_for_classes(variant: str) -> None:
    model = awake(small(SHAPES, 5, variant=variant, layers=3, progressive=True))
    scores, by_layer = model.supervised(*features(SHAPES))
    assert scores.shape == (3, 5)
    assert [(tuple(one.scores.shape), one.of_verbs) for one in by_layer] == [
        ((3, 3), True),  # pulling, pushing, lifting
        ((3, 5), False),
    ]
    # Classes of small_models are Pushing, Pulling, Lifting, Pushing, …; verbs are in order.
    assert model.verb_of.tolist() == [2, 1, 0, 2, 1]


def test_scoring_knows_nothing_of_the_layers_heads() -> None:
    plain = awake(small(SHAPES, 5, layers=3))
    supervised = small(SHAPES, 5, layers=3, progressive=True).eval()
    missing, unexpected = supervised.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(name.startswith("layer_heads.") for name in missing)
    inputs = features(SHAPES)
    expected = plain(*inputs)
    assert torch.equal(supervised(*inputs), expected)
    assert torch.equal(supervised.supervised(*inputs)[0], expected)
    with torch.no_grad():
        for parameter in supervised.layer_heads.parameters():
            parameter.fill_(float("nan"))
    assert torch.equal(supervised(*inputs), expected)


def test_the_loss_is_the_classs_and_half_the_mean_of_the_layers() -> None:
    model = awake(small(SHAPES, 5, layers=3, progressive=True))
    inputs = features(SHAPES)
    config = TrainConfig(label_smoothing=0.2, layer_weight=0.7)
    found = fusion_loss(model, *inputs, LABEL, config)
    scores, (first, second) = model.supervised(*inputs)
    verbs = torch.tensor([1, 2, 0])
    expected = F.cross_entropy(scores, LABEL, label_smoothing=0.2) + 0.7 * (
        0.5 * F.cross_entropy(first.scores, verbs, label_smoothing=0.2)
        + 0.5 * F.cross_entropy(second.scores, LABEL, label_smoothing=0.2)
    )
    torch.testing.assert_close(found, expected)
    without = fusion_loss(model, *inputs, LABEL, TrainConfig(label_smoothing=0.2, layer_weight=0))
    torch.testing.assert_close(without, F.cross_entropy(scores, LABEL, label_smoothing=0.2))
    plain = awake(small(SHAPES, 5, layers=3))
    torch.testing.assert_close(
        fusion_loss(plain, *inputs, LABEL, TrainConfig(label_smoothing=0)),
        F.cross_entropy(plain(*inputs), LABEL),
    )


def test_a_layers_head_teaches_its_own_layer_and_those_before() -> None:
    model = awake(small(SHAPES, 5, layers=3, progressive=True))
    _, (first, second) = model.supervised(*features(SHAPES))
    F.cross_entropy(first.scores, model.verb_of[LABEL]).backward(retain_graph=True)

    def taught(module: torch.nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())

    assert [taught(layer) for layer in model.layers] == [True, False, False]
    assert taught(model.graph_layers)
    assert not taught(model.head)
    model.zero_grad()
    F.cross_entropy(second.scores, LABEL).backward()
    assert [taught(layer) for layer in model.layers] == [True, True, False]
    assert [taught(head) for head in model.layer_heads] == [False, True]


def test_an_untrained_model_can_learn_through_every_head() -> None:
    model = small(SHAPES, 5, progressive=True)
    fusion_loss(model, *features(SHAPES), LABEL, TrainConfig()).backward()
    for head in (model.head, *model.layer_heads):
        assert head.classify.weight.grad.any()


def test_what_cannot_be_supervised_is_refused() -> None:
    one_verb = ["Swiping left", "Swiping right"]
    with pytest.raises(UsageError, match=r"all 2 classes have the same, 'swiping'; set it to fal"):
        build(ModelConfig(progressive=True), SHAPES, one_verb)
    two_verbs = ["Swiping left", "Moving right"]
    with pytest.raises(UsageError, match=r"gasm_cast with model\.layers=1 has none before its las"):
        build(ModelConfig(progressive=True, layers=1), SHAPES, two_verbs)
    for variant in ("attentive_probe", "concat", "gated_sum", "semantic_only", "motion_only"):
        with pytest.raises(UsageError, match=rf"{variant} .*has none before its last; set it to"):
            build(ModelConfig(progressive=True, variant=variant), SHAPES, two_verbs)
