from pathlib import Path

import pytest

from tca.errors import UsageError
from tca.extract.annotations import read_annotations
from tca.extract.recognise import recognise


def lay_out(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def found(folder: Path) -> dict[str, str]:
    config = recognise(folder)
    places = {"videos": config.videos, "labels": config.labels, "answers": config.answers}
    places |= {"flip": config.flip, **config.annotations}
    return {
        name: path.relative_to(folder).as_posix()
        for name, path in places.items()
        if path is not None
    }


def test_real_ssv2(shared: Path) -> None:
    assert found(shared / "data/ssv2") == {
        "videos": "videos",
        "labels": "labels/labels.json",
        "train": "labels/train.csv",
        "validation": "labels/validation.json",
        "test": "labels/test.json",
        "answers": "labels/test-answers.csv",
        "flip": "labels/flip.json",
    }


def test_what_is_recognised_can_be_read(shared: Path) -> None:
    config = recognise(shared / "data/gestures")
    splits = [read_annotations(config, split) for split in ("train", "validation")]
    assert [len(split.videos) for split in splits] == [182, 55]
    assert not any(split.missing for split in splits)
    assert config.flip is not None


def test_the_folder_above_two_data_sets_is_refused(shared: Path) -> None:
    with pytest.raises(UsageError, match=r"several data sets \(gestures, ssv2\)"):
        recognise(shared / "data")


def test_official_names_and_folders(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        "20bn-something-something-v2/1.webm",
        "something-something-v2-labels.json",
        "something-something-v2-train.json",
        "something-something-v2-validation.json",
        "something-something-v2-test.json",
    )
    assert found(tmp_path) == {
        "videos": "20bn-something-something-v2",
        "labels": "something-something-v2-labels.json",
        "train": "something-something-v2-train.json",
        "validation": "something-something-v2-validation.json",
        "test": "something-something-v2-test.json",
    }


def test_labels_as_downloaded_beside_the_videos(tmp_path: Path) -> None:
    package = "20bn-something-something-download-package-labels/labels"
    lay_out(
        tmp_path,
        f"{package}/labels.json",
        f"{package}/train.json",
        f"{package}/test-answers.csv",
        "20bn-something-something-v2/1.webm",
    )
    assert found(tmp_path) == {
        "videos": "20bn-something-something-v2",
        "labels": f"{package}/labels.json",
        "train": f"{package}/train.json",
        "answers": f"{package}/test-answers.csv",
    }


def test_json_comes_before_csv_and_labels_before_the_folder(tmp_path: Path) -> None:
    lay_out(tmp_path, "labels/train.csv", "train.json", "labels/val.csv", "val.csv", "clips/1.mp4")
    assert found(tmp_path) == {
        "videos": "clips",
        "train": "train.json",
        "validation": "labels/val.csv",
    }


def test_kinetics(tmp_path: Path) -> None:
    lay_out(tmp_path, "train.csv", "val.csv", "train/a/1.mp4", "val/a/2.mp4", "labels.txt")
    # Videos of several folders: the one above them all.
    assert found(tmp_path) == {
        "videos": ".",
        "train": "train.csv",
        "validation": "val.csv",
        "labels": "labels.txt",
    }


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_a_folder_a_class(tmp_path: Path, validation: str) -> None:
    lay_out(
        tmp_path,
        "train/jump/1.mp4",
        "train/sit/2.mp4",
        f"{validation}/jump/3.mp4",
        "test/4.mp4",
        "docs/train.pdf",
    )
    places = found(tmp_path)
    assert {split: places.get(split) for split in ("train", "validation", "test")} == {
        "train": "train",
        "validation": validation,
        # Its videos lie in no class.
        "test": None,
    }
    classes = read_annotations(recognise(tmp_path), "train").classes
    assert classes == ["jump", "sit"]


def test_class_folders_below_videos(tmp_path: Path) -> None:
    lay_out(tmp_path, "videos/train/a/1.mp4", "videos/val/a/2.mp4")
    assert found(tmp_path) == {
        "videos": "videos",
        "train": "videos/train",
        "validation": "videos/val",
    }


def test_annotations_without_videos_point_to_where_these_belong(tmp_path: Path) -> None:
    lay_out(tmp_path, "labels/train.json", "labels/labels.json")
    assert found(tmp_path)["videos"] == "videos"


def test_hidden_files_are_not_seen(tmp_path: Path) -> None:
    lay_out(tmp_path, "train.csv", ".trash/1.mp4", "real/.2.mp4", "clips/3.mp4")
    assert found(tmp_path)["videos"] == "clips"


@pytest.mark.parametrize("names", [[], ["labels.json"], ["a/1.mp4"], ["x/y/z/train.json"]])
def test_nothing_recognised_says_what_was_looked_for(tmp_path: Path, names: list[str]) -> None:
    lay_out(tmp_path, *names)
    with pytest.raises(UsageError, match=r"train, validation.*\.json, \.csv.*train/CLASS/VIDEO"):
        recognise(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        recognise(tmp_path / "none")
