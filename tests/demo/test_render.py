"""The rendered data set is one that SSv2's own readers would take."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from tca.demo.motions import TEMPLATES, class_name
from tca.demo.painter import paint
from tca.demo.render import encode, entries, render_data_set
from tca.extract.annotations import read_annotations
from tca.extract.config import DataConfig
from tca.extract.decoding import decode
from tca.extract.recognise import recognise
from tca.extract.video_error import VideoError


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    render_data_set(folder, train=14, validation=12, seed=5)
    return folder


def test_init_recognises_it_and_reads_every_split(rendered: Path) -> None:
    config = recognise(rendered)
    assert set(config.annotations) == {"train", "validation"}
    assert config.flip is not None
    for split, count in (("train", 14), ("validation", 12)):
        found = read_annotations(config, split)
        assert len(found.videos) == count
        expected = [class_name(entry.template) for entry in entries(split, count, seed=5)]
        assert [found.classes[video.label] for video in found.videos] == expected


def test_annotations_have_the_official_fields(rendered: Path) -> None:
    labels = json.loads((rendered / "labels/labels.json").read_text())
    assert list(labels) == sorted(map(class_name, TEMPLATES))
    assert list(labels.values()) == [str(number) for number in range(12)]
    for entry in json.loads((rendered / "labels/train.json").read_text()):
        assert set(entry) == {"id", "label", "template", "placeholders"}
        assert entry["template"].count("[") == len(entry["placeholders"]) > 0
        assert "[" not in entry["label"]
        assert all(name in entry["label"] for name in entry["placeholders"])


def test_the_templates_are_ssv2s_own(shared: Path) -> None:
    official = json.loads((shared / "data/ssv2/labels/labels.json").read_text())
    assert {class_name(template) for template in TEMPLATES} <= set(official)
    spelled = {
        entry["template"]
        for entry in json.loads((shared / "data/ssv2/labels/validation.json").read_text())
    }
    assert set(TEMPLATES) <= spelled


def test_flips_are_those_of_ssv2(rendered: Path, shared: Path) -> None:
    ours = json.loads((rendered / "labels/flip.json").read_text())["left/right"]
    official = json.loads((shared / "data/ssv2/labels/flip.json").read_text())["left/right"]
    assert ours.items() <= official.items()


def test_clips_are_vp9_of_ssv2s_size_and_rate(rendered: Path) -> None:
    for entry in entries("train", 14, seed=5)[:3]:
        with av.open(str(rendered / "videos" / f"{entry.id}.webm")) as container:
            stream = container.streams.video[0]
            count = sum(1 for _ in container.decode(stream))
            assert container.format.name == "matroska,webm"
            assert stream.codec_context.name in ("vp9", "libvpx-vp9")
            assert stream.average_rate == 12
            assert (stream.height, stream.width) == (240, entry.scene.width)
            assert count == entry.scene.frames


def test_one_video_is_missing_and_one_is_cut_off(rendered: Path) -> None:
    config = DataConfig(
        videos=rendered / "videos",
        labels=rendered / "labels/labels.json",
        annotations={s: rendered / f"labels/{s}.json" for s in ("train", "validation")},
    )
    train, validation = (read_annotations(config, split) for split in ("train", "validation"))
    assert [video.id for video in train.missing] == [entries("train", 14, seed=5)[-1].id]
    assert not validation.missing
    broken = []
    for video in validation.videos:
        try:
            decode(video.path)
        except VideoError:
            broken.append(video.id)
    assert broken == [entries("validation", 12, seed=5)[-1].id]
    # It is a piece of a video, not an empty file.
    assert (rendered / f"videos/{broken[0]}.webm").stat().st_size > 500


def test_a_seed_gives_the_same_clip_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (entries("train", 12, seed)[0] for seed in (7, 7, 8))
    assert first == again != other
    for name, entry in (("a", first), ("b", again), ("c", other)):
        encode(paint(entry.scene, TEMPLATES[entry.template]), tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_shuffled_clips_have_the_same_frames_in_another_order(tmp_path: Path) -> None:
    for name, shuffle in (("ordered", False), ("shuffled", True)):
        render_data_set(tmp_path / name, train=2, validation=2, seed=6, shuffle_frames=shuffle)
    entry = entries("train", 2, seed=6)[0]
    brightness = []
    for name in ("ordered", "shuffled"):
        with av.open(str(tmp_path / name / "videos" / f"{entry.id}.webm")) as container:
            frames = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
        brightness.append(np.stack([frame[::24, ::24].ravel() for frame in frames]).astype(float))
    ordered, shuffled = brightness
    distance = np.abs(ordered[:, None] - shuffled[None]).mean(-1)
    nearest = distance.argmin(1)
    assert len(ordered) == len(shuffled) == entry.scene.frames
    # Compression changes a frame a little; that of another time differs more.
    assert len(set(nearest.tolist())) > 0.8 * len(ordered)
    assert (nearest != np.arange(len(ordered))).mean() > 0.8
