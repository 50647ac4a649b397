"""Nothing but motion can give the class away: how scenes and actions are drawn."""

from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kruskal

from tca.demo.motions import PAIRS, TEMPLATES, class_name
from tca.demo.render import Entry, entries
from tca.demo.scenes import SHAPES, Scene, draw_scene
from tca.demo.textures import FAMILIES

SPLITS = ("train", "validation")
CLIPS = 1200


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Entry]]:
    return {split: entries(split, CLIPS, seed=0) for split in SPLITS}


def numbers(scene: Scene) -> dict[str, float]:
    """Every drawn number of a scene, by its place in it."""
    found: dict[str, float] = {}

    def visit(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                visit(f"{name}.{key}", part)
        elif isinstance(value, (tuple, list)):
            for place, part in enumerate(value):
                visit(f"{name}.{place}", part)
        elif isinstance(value, (int, float)):
            found[name] = float(value)

    visit("scene", asdict(scene))
    return found


def words(scene: Scene) -> dict[str, str]:
    named = {f"family {n}": look.family for n, look in enumerate(scene.looks)}
    return named | {f"shape {n}": shape for n, shape in enumerate(scene.shapes)}


@pytest.mark.parametrize("split", SPLITS)
def test_no_drawn_number_depends_on_the_class(drawn: dict[str, list[Entry]], split: str) -> None:
    table = [numbers(entry.scene) for entry in drawn[split]]
    names = [name for name in table[0] if len({row[name] for row in table}) > 1]
    assert len(names) > 30
    label = np.array([entry.template for entry in drawn[split]])
    p = {
        name: kruskal(*(column[label == t] for t in TEMPLATES)).pvalue
        for name in names
        for column in [np.array([row[name] for row in table])]
    }
    # Under independence one of so many falls under 0.01 / len(p) in one of a hundred seeds.
    assert min(p.values()) > 0.01 / len(p), min(p.items(), key=lambda item: item[1])


@pytest.mark.parametrize("split", SPLITS)
def test_no_texture_or_shape_depends_on_the_class(
    drawn: dict[str, list[Entry]], split: str
) -> None:
    table = [words(entry.scene) for entry in drawn[split]]
    for name in table[0]:
        kinds = sorted({row[name] for row in table})
        counts = [
            [
                sum(
                    row[name] == kind and e.template == template
                    for row, e in zip(table, drawn[split], strict=True)
                )
                for kind in kinds
            ]
            for template in TEMPLATES
        ]
        assert chi2_contingency(counts).pvalue > 0.001, name


def test_a_test_of_independence_would_notice_a_class_that_is_drawn_larger(
    drawn: dict[str, list[Entry]],
) -> None:
    label = np.array([entry.template for entry in drawn["train"]])
    size = np.array([entry.scene.middle.mover.size for entry in drawn["train"]])
    size[label == "Moving [something] up"] *= 1.1
    assert kruskal(*(size[label == t] for t in TEMPLATES)).pvalue < 1e-6


def test_a_scene_is_the_same_whatever_its_class_turns_out_to_be() -> None:
    few, many = (entries("train", count, seed=3) for count in (24, 48))
    assert [e.scene for e in few] == [e.scene for e in many[:24]]
    assert [e.template for e in few] != [e.template for e in many[:24]]


def test_splits_share_no_texture_no_shape_no_scene_and_no_id(
    drawn: dict[str, list[Entry]],
) -> None:
    train, validation = (drawn[split] for split in SPLITS)
    for kinds in (FAMILIES, SHAPES):
        assert not set(kinds["train"]) & set(kinds["validation"])
    for split in SPLITS:
        seen = {name for e in drawn[split] for name in words(e.scene).values()}
        assert seen == set(FAMILIES[split]) | set(SHAPES[split])
    for value in (
        lambda e: e.id,
        lambda e: e.scene.middle.mover.x,
        lambda e: e.scene.looks[0].seed,
        lambda e: e.scene.reach,
    ):
        assert not {value(e) for e in train} & {value(e) for e in validation}


def test_every_class_has_its_share(drawn: dict[str, list[Entry]]) -> None:
    for split in SPLITS:
        names = [entry.template for entry in drawn[split]]
        assert {names.count(template) for template in TEMPLATES} == {CLIPS // len(TEMPLATES)}


def test_every_class_shows_the_scene_as_drawn_in_the_middle() -> None:
    scene = replace(draw_scene("train", np.random.default_rng(1)), frames=33)
    assert scene.progress(16) == 0
    for motion in TEMPLATES.values():
        assert asdict(motion(scene.middle, 0.0, scene.reach)) == asdict(scene.middle)
        assert asdict(motion(scene.middle, 0.7, scene.reach)) != asdict(scene.middle)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_a_pair_differs_in_the_order_of_time_alone(pair: tuple[str, str]) -> None:
    first, second = (
        next(m for t, m in TEMPLATES.items() if class_name(t) == name) for name in pair
    )
    middle = draw_scene("train", np.random.default_rng(2)).middle
    for progress, reach in product(np.linspace(-1, 1, 9), (0.8, 1.2)):
        forward, backward = first(middle, progress, reach), second(middle, -progress, reach)
        assert numbers_of(forward) == pytest.approx(numbers_of(backward))


def numbers_of(state: object) -> list[float]:
    found = asdict(state)
    return [*found["mover"].values(), *found["other"].values(), found["zoom"]]


def test_progress_is_as_likely_forward_as_backward() -> None:
    # Before and after the middle, stillness is drawn alike: a reversed clip could have been drawn.
    scenes = [draw_scene("train", np.random.default_rng([4, n])) for n in range(2000)]
    before, after = np.array([scene.holds for scene in scenes]).T
    spread = np.sqrt(before.var() / 2000 + after.var() / 2000)
    assert abs(before.mean() - after.mean()) < 4 * spread
    still = replace(scenes[0], frames=32, holds=(0.1, 0.1))
    forward = [still.progress(frame) for frame in range(32)]
    assert forward == pytest.approx([-p for p in reversed(forward)])
    assert forward == sorted(forward)
    assert (forward[0], forward[-1]) == (-1, 1)
