"""The demo's score comes from motion: it is there, and it goes where motion is taken away.

Bounds: with n validation clips a score at chance p spreads by sqrt(p (1 - p) / n), 0.025 for
twelve classes and 119 clips, 0.05 for a choice of two and 100 clips. Every bound below is over
four such spreads away from chance.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demo_data import DemoData, trained

from tca.cache.store import Store
from tca.demo.demo import DemoResult, run_demo
from tca.demo.motions import PAIRS
from tca.demo.one_frame import middle_frame_top1
from tca.demo.render import entries
from tca.fusion.evaluate.scoring import Evaluation


def right_within_pairs(evaluation: Evaluation) -> tuple[float, int]:
    """Share of the pairs' clips where the true class beats its reversal, and their number."""
    names = [score.name for score in evaluation.classes]
    hits = []
    for pair in PAIRS:
        columns = [names.index(name) for name in pair]
        for label, row in zip(evaluation.label, evaluation.probability, strict=True):
            if label in columns:
                hits.append(columns[int(row[columns].argmax())] == label)
    return float(np.mean(hits)), len(hits)


def right_pair(evaluation: Evaluation) -> float:
    """Share of the pairs' clips that are seen as of their pair."""
    names = [score.name for score in evaluation.classes]
    pair_of = {names.index(name): n for n, pair in enumerate(PAIRS) for name in pair}
    seen = evaluation.probability.argmax(1)
    return float(
        np.mean(
            [
                pair_of.get(guess) == pair_of[label]
                for label, guess in zip(evaluation.label.tolist(), seen.tolist(), strict=True)
                if label in pair_of
            ]
        )
    )


def relabel(store: Store, label: np.ndarray) -> None:
    """Give the extracted rows of an opened store other labels; its files stay."""
    changed = store.label.copy()
    changed[store.ready()] = label
    store.spec = replace(store.spec, rows=replace(store.spec.rows, label=changed))


def test_fewer_clips_teach_the_motions_already(demo: DemoResult) -> None:
    assert demo.evaluation.videos == 119
    assert demo.evaluation.top1 > 0.4
    right, clips = right_within_pairs(demo.evaluation)
    assert clips >= 99
    assert right > 0.7


def test_the_middle_frame_tells_nothing(demo: DemoResult, ordered: DemoData) -> None:
    assert demo.middle_frame_top1 < 0.25
    assert middle_frame_top1(ordered.train, ordered.validation) == demo.middle_frame_top1


def test_the_one_frame_probe_reads_what_a_frame_does_tell(ordered: DemoData) -> None:
    train, validation = (Store.open(store.path) for store in (ordered.train, ordered.validation))
    for store in (train, validation):
        scenes = {entry.id: entry.scene for entry in entries(store.split, store.rows, seed=0)}
        grounds = [scenes[store.ids[row]].looks[2] for row in store.ready()]
        relabel(store, np.array([ground.colours[0][2] > 0.5 for ground in grounds]))
    # Light or dark ground: the share of the commoner one is about a half.
    assert middle_frame_top1(train, validation) > 0.9


def test_shuffled_labels_teach_nothing(ordered: DemoData, tmp_path: Path) -> None:
    store = Store.open(ordered.train.path)
    rows = store.ready()
    relabel(store, np.random.default_rng(0).permutation(store.label[rows]))
    assert trained(ordered, store, tmp_path / "run", epochs=8).top1 < 0.2


def test_shuffled_frames_make_a_pair_indistinguishable(
    disordered: DemoData, tmp_path: Path
) -> None:
    evaluation = trained(disordered, disordered.train, tmp_path / "run")
    right, clips = right_within_pairs(evaluation)
    assert clips >= 99
    assert 0.3 < right < 0.7
    # What moves, and along which line, can still be seen: chance is 1/6.
    assert right_pair(evaluation) > 0.33


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_demo_scores_over_070(seed: int, tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", seed=seed)
    assert result.evaluation.top1 >= 0.70
    assert result.middle_frame_top1 < 0.25
    assert right_within_pairs(result.evaluation)[0] > 0.85
