import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tca.errors import TcaError, UsageError
from tca.extract.annotations import (
    Annotations,
    Video,
    read_annotations,
    read_classes,
    read_flip_table,
    require_videos,
)
from tca.extract.config import DataConfig

SPINNING = "Spinning [something] that quickly stops"
CLASSES = ["Moving something, slowly", "Spinning something that quickly stops", 'Saying "no"']


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def read(tmp_path: Path, videos: Path) -> Callable[..., Annotations]:
    """Read `content` as the train annotations of three classes, or of none."""

    def reader(
        content: str | bytes | list[object] | dict[str, object],
        name: str = "annotations",
        labels: list[str] | None = CLASSES,
        answers: str | None = None,
    ) -> Annotations:
        if isinstance(content, list | dict):
            content = json.dumps(content)
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        places: dict[str, object] = {"videos": videos, "annotations": {"train": file}}
        if labels is not None:
            (tmp_path / "labels.txt").write_text("\n".join(labels))
            places["labels"] = tmp_path / "labels.txt"
        if answers is not None:
            (tmp_path / "answers.csv").write_text(answers)
            places["answers"] = tmp_path / "answers.csv"
        return read_annotations(DataConfig.model_validate(places), "train")

    return reader


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def pairs(annotations: Annotations) -> list[tuple[str, int]]:
    return [(video.id, video.label) for video in annotations.videos]


def files(annotations: Annotations) -> list[str | None]:
    found = [video.path for video in annotations.videos]
    return [path and path.relative_to(annotations.folder).as_posix() for path in found]


# Something-Something-V2 itself


@pytest.fixture(scope="module")
def ssv2(shared: Path) -> DataConfig:
    labels = shared / "data/ssv2/labels"
    return DataConfig(
        videos=shared / "data/ssv2/videos",
        annotations={
            "train": labels / "train.csv",
            "validation": labels / "validation.json",
            "test": labels / "test.json",
        },
        labels=labels / "labels.json",
        answers=labels / "test-answers.csv",
    )


def names_and_labels(ssv2: DataConfig) -> dict[str, int]:
    assert ssv2.labels is not None
    lines = ssv2.labels.read_text().splitlines()
    found = [re.fullmatch(r'\s*"(.*)":"(\d+)",?', line) for line in lines]
    return {match[1]: int(match[2]) for match in found if match}


def test_ssv2_has_its_videos_and_classes(ssv2: DataConfig) -> None:
    by_label = sorted(names_and_labels(ssv2).items(), key=lambda item: item[1])
    splits = [read_annotations(ssv2, split) for split in ("train", "validation", "test")]
    assert [len(split.videos) for split in splits] == [168_913, 24_777, 27_157]
    assert len({video.id for split in splits for video in split.videos}) == 220_847
    for split in splits:
        assert split.classes == [name for name, _ in by_label]
        assert len(split.classes) == 174
    assert [len(split.videos) - len(split.missing) for split in splits] == [12, 2, 0]


def test_ssv2_train_labels_are_those_of_the_csv(ssv2: DataConfig) -> None:
    lines = ssv2.annotations["train"].read_text().split()
    found = read_annotations(ssv2, "train")
    assert [f"{video.id}.mp4" for video in found.videos] == lines[::2]
    assert [video.label for video in found.videos] == [int(label) for label in lines[1::2]]
    counts = Counter(video.label for video in found.videos)
    assert counts == Counter(int(label) for label in lines[1::2])
    assert len(counts) == 174


def test_ssv2_validation_labels_are_the_templates(ssv2: DataConfig) -> None:
    label_of = names_and_labels(ssv2)
    # The file has an entry a line; read the two fields without a JSON parser.
    text = ssv2.annotations["validation"].read_text()
    want = [
        (video, label_of[template.replace("[", "").replace("]", "")])
        for video, template in re.findall(r'"id":"(\d+)".*?"template":"(.*?)","placeholders"', text)
    ]
    assert len(want) == 24_777
    assert pairs(read_annotations(ssv2, "validation")) == want


def test_ssv2_test_labels_come_from_the_answers(ssv2: DataConfig) -> None:
    assert ssv2.answers is not None
    label_of = names_and_labels(ssv2)
    rows = [line.split(";", 1) for line in ssv2.answers.read_text().splitlines()]
    answers = {video: label_of[name] for video, name in rows}
    found = read_annotations(ssv2, "test")
    assert all(video.label == answers[video.id] for video in found.videos)
    assert set(found.sources) == {"labels.json", "test.json", "test-answers.csv"}
    without = ssv2.model_copy(update={"answers": None})
    assert {video.label for video in read_annotations(without, "test").videos} == {-1}


def test_ssv2_files_are_found_whatever_ending_the_csv_gives_them(ssv2: DataConfig) -> None:
    found = {v.id: v.path for v in read_annotations(ssv2, "train").videos if v.path}
    assert all(path.name == f"{name}.webm" and path.is_file() for name, path in found.items())
    on_disk = {path.stem for path in ssv2.videos.iterdir()}
    assert len(found.keys() & on_disk) == 12


def test_ssv2_flips_only_left_and_right(ssv2: DataConfig, shared: Path) -> None:
    classes = read_classes(ssv2)
    table = read_flip_table(shared / "data/ssv2/labels/flip.json", classes)
    changed = {classes[a]: classes[b] for a, b in enumerate(table) if a != b}
    assert len(changed) == 6
    assert changed["Pushing something from left to right"] == "Pushing something from right to left"
    assert all(re.search(r"\b(left|right)\b", name) for name in changed)
    assert [table[label] for label in table] == list(range(174))


# SSv2 JSON


def test_json_templates_are_matched_without_brackets(read: Callable[..., Annotations]) -> None:
    content = [
        {"id": "9", "label": "spinning a cube", "template": SPINNING, "placeholders": ["a cube"]},
        {"id": 7, "template": "Moving [something], slowly"},
        {"id": "8"},
        {"id": "6", "template": None},
    ]
    assert pairs(read(content)) == [("9", 1), ("7", 0), ("8", -1), ("6", -1)]


def test_an_unknown_template_names_file_video_and_template(
    read: Callable[..., Annotations],
) -> None:
    with pytest.raises(TcaError) as error:
        read([{"id": "12", "template": "Spining [something] that quickly stops"}], "train.json")
    for part in ("train.json", "'12'", "'Spining [something] that quickly stops'", CLASSES[1]):
        assert part in str(error.value)


def test_a_label_without_template_is_the_class(read: Callable[..., Annotations]) -> None:
    assert pairs(read([{"id": "1", "label": CLASSES[2]}, {"id": "2", "label": 1}])) == [
        ("1", 2),
        ("2", 1),
    ]
    with pytest.raises(TcaError, match="free text"):
        read([{"id": "1", "label": "free text about it"}])


def test_answers_fill_only_what_has_no_label(read: Callable[..., Annotations]) -> None:
    found = read(
        [{"id": "1"}, {"id": "2"}, {"id": "3", "template": CLASSES[0]}],
        answers="2;Spinning something that quickly stops\n99;Moving something, slowly\n3;Saying "
        '"no"\n',
    )
    assert pairs(found) == [("1", -1), ("2", 1), ("3", 0)]


def test_an_answer_of_no_class_is_an_error_even_for_a_video_of_no_split(
    read: Callable[..., Annotations],
) -> None:
    with pytest.raises(TcaError, match=r"answers\.csv line 2 \(video '99'\).*'Nonsense'"):
        read([{"id": "1"}], answers="1;Moving something, slowly\n99;Nonsense\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no video"),
        ("[]", "lists no video"),
        ("\n \n", "lists no video"),
        ("id,label\n", "lists no video"),
        ('{"1": {"template": "x"}}', "must hold a JSON list .* not an object"),
        ('[{"id": "1"}', "not valid JSON: expecting .* at line 1"),
        ("[" * 5000, "not a JSON document that tca can read|not valid JSON"),
        ('[{"id": ' + "9" * 5000 + "}]", "not a JSON document that tca can read"),
        ('["1", "2"]', "entry 1 is '1'"),
        ('[{"id": "1"}, 5]', "entry 2 is 5"),
        ('[{"id": "1"}, {"template": "x"}]', "entry 2 has no id"),
        ('[{"id": null}]', "entry 1 has no id"),
        ('[{"id": true}]', "entry 1 has no id"),
        ('[{"id": 1.5}]', "entry 1 has no id"),
        ('[{"id": "1", "template": ["x"]}]', "gives the video '1' a list as its class"),
        ('[{"id": "1", "template": true}]', "gives the video '1' true as its class"),
        (b"\xff\xfe1\x00;\x00", "not UTF-8 text"),
        (b"1 \xe9\n", "not UTF-8 text"),
        (b"1 \x00\n", "not UTF-8 text"),
        ('[{"id": ""}]', "video '' .* names no file"),
        ('[{"id": "a/.."}]', "names no file"),
        ('[{"id": "a\\nb"}]', r"'a\\nb' .* holds the control character '\\n'"),
        ('[{"id": "a\\u0000"}]', "control character"),
        ('[{"id": "\\ud800"}]', "control character"),
        ('[{"id": "' + "x" * 1001 + '"}]', "longer than 1000 bytes"),
    ],
)
def test_each_broken_file_gets_a_sentence(
    read: Callable[..., Annotations], content: str | bytes, message: str
) -> None:
    with pytest.raises(TcaError, match=message) as error:
        read(content, "train.json" if content[:1] in ("[", "{") else "train.csv")
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 600


def test_json_in_one_long_line_is_read(read: Callable[..., Annotations]) -> None:
    entries = [{"id": str(i), "template": SPINNING, "label": "x" * 100} for i in range(60_000)]
    assert len(json.dumps(entries)) > 10_000_000
    found = read(entries)
    assert len(found.videos) == 60_000
    assert {video.label for video in found.videos} == {1}


def test_a_message_stays_short_whatever_the_template_is(read: Callable[..., Annotations]) -> None:
    with pytest.raises(TcaError) as error:
        read([{"id": "1", "template": "y\n" * 1_000_000}])
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


# CSV


@pytest.mark.parametrize(
    "content",
    [
        "5.mp4 1\n3.webm 0\n4\n",
        "5,1\r\n3,0\r\n4,\r\n",
        "5;1\n3;0\n4;\n",
        "5\t1\n3\t0\n4\n",
        "\ufeff5 1\n\n3 0\n\n4\n\n",
        "5.mp4;Spinning [something] that quickly stops\n3.mp4;Moving something, slowly\n4.mp4\n",
        "5,Spinning something that quickly stops\n3,Moving something, slowly\n4,\n",
        "5 Spinning something that quickly stops\n3 Moving something, slowly\n4\n",
        '"5.mp4","Spinning something that quickly stops"\n"3.mp4","Moving something, slowly"\n"4",',
        'id,label\n5,1\n3,"Moving something, slowly"\n4,""\n',
        "video label\n5 1\n3 0\n4\n",
        "Video_ID;Template\n5;1\n3;Moving [something], slowly\n4\n",
        "a/b/5.xyz 1\nc\\3.xyz 0\n/abs/4.xyz\n",
    ],
)
def test_every_csv_dialect_gives_the_same(read: Callable[..., Annotations], content: str) -> None:
    assert pairs(read(content)) == [("5", 1), ("3", 0), ("4", -1)]


def test_names_with_spaces_commas_and_quotes(read: Callable[..., Annotations]) -> None:
    content = (
        'my clip 1.mov,2\nmy clip 2.mov,Saying "no"\n"a, b.mov","Saying ""no"""\nÜnï çödé.mov,1\n'
    )
    ids = ["my clip 1", "my clip 2", "a, b", "Ünï çödé"]
    assert pairs(read(content)) == list(zip(ids, [2, 2, 2, 1], strict=True))


@pytest.mark.parametrize("label", ["3", "-1", "174", "9" * 5000])
def test_an_index_out_of_range_names_the_range(
    read: Callable[..., Annotations], label: str
) -> None:
    with pytest.raises(TcaError, match=r"line 2 \(video '2'\).* allow 0 to 2") as error:
        read(f"1 0\n2 {label}\n")
    assert len(str(error.value)) < 500


def test_a_name_that_is_no_class_is_an_error(read: Callable[..., Annotations]) -> None:
    with pytest.raises(TcaError, match=r"line 2 \(video '2'\) has the class 'Jumping'"):
        read("1;0\n2;Jumping\n")


def test_a_quote_that_does_not_close_and_another_delimiter_are_errors(
    read: Callable[..., Annotations],
) -> None:
    with pytest.raises(TcaError, match="line 2 starts with a quote that does not close"):
        read('1,0\n"2,0\n')
    with pytest.raises(TcaError, match="line 3 has no ';' between video and label"):
        read("1;0\n2;0\n3,1\n")


def test_without_class_list_the_names_of_train_are_the_classes(
    read: Callable[..., Annotations], tmp_path: Path, videos: Path
) -> None:
    found = read("1;b [x]\n2;a\n3;b x\n4\n", labels=None)
    assert found.classes == ["a", "b x"]
    assert pairs(found) == [("1", 1), ("2", 0), ("3", 1), ("4", -1)]
    (tmp_path / "val.csv").write_text("9;a\n")
    config = DataConfig(
        videos=videos,
        annotations={"train": tmp_path / "annotations", "validation": tmp_path / "val.csv"},
    )
    validation = read_annotations(config, "validation")
    assert validation.classes == read_classes(config) == ["a", "b x"]
    assert set(validation.sources) == {"annotations", "val.csv"}
    (tmp_path / "val.csv").write_text("9;c\n")
    with pytest.raises(TcaError, match="'c'"):
        read_annotations(config, "validation")
    with pytest.raises(UsageError, match=r"data\.labels"):
        read_classes(DataConfig(annotations={"validation": tmp_path / "val.csv"}))


def test_without_class_list_indices_count_up_to_the_highest_of_train(
    read: Callable[..., Annotations],
) -> None:
    found = read("1 4\n2 0\n", labels=None)
    assert found.classes == ["0", "1", "2", "3", "4"]
    assert pairs(found) == [("1", 4), ("2", 0)]
    for label in ("999999999", "-1"):
        with pytest.raises(TcaError, match=f"label {label}"):
            read(f"1 {label}\n", labels=None)


# Folders of classes


def test_a_folder_a_class(tmp_path: Path) -> None:
    train = tmp_path / "train"
    touch(train, "jump/2.mp4", "jump/1.webm", "dance/x/3.mp4", "dance/1.mp4", "jump/notes.txt")
    touch(train, ".git/4.mp4", "jump/.5.mp4")
    (train / "sit").mkdir()
    found = read_annotations(
        DataConfig(videos=tmp_path / "no", annotations={"train": train}), "train"
    )
    assert found.classes == ["dance", "jump", "sit"]
    assert pairs(found) == [("dance/1", 0), ("3", 0), ("jump/1", 1), ("2", 1)]
    assert files(found) == ["dance/1.mp4", "dance/x/3.mp4", "jump/1.webm", "jump/2.mp4"]
    before = found.sources["train"]
    touch(train, "sit/9.mp4")
    after = read_annotations(DataConfig(annotations={"train": train}), "train").sources["train"]
    assert before != after


def test_class_folders_go_by_the_class_list(tmp_path: Path) -> None:
    touch(tmp_path / "validation", "b/1.mp4")
    (tmp_path / "labels.json").write_text('["c", "b"]')
    config = DataConfig(
        annotations={"validation": tmp_path / "validation"}, labels=tmp_path / "labels.json"
    )
    assert pairs(read_annotations(config, "validation")) == [("1", 1)]
    touch(tmp_path / "validation", "d/2.mp4")
    with pytest.raises(TcaError, match=r"'d', which is not in .*labels\.json"):
        read_annotations(config, "validation")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class subfolder"),
        (["1.mp4"], "no class subfolder"),
        (["a/readme.txt"], "holds a video"),
        (["a/1.mp4", "2.mp4"], "'2.mp4' lies beside the class subfolders"),
        (["a\nb/1.mp4"], "control character"),
        (["a/1\n.mp4"], "control character"),
    ],
)
def test_a_folder_that_is_none_of_classes(tmp_path: Path, names: list[str], message: str) -> None:
    (tmp_path / "train").mkdir()
    touch(tmp_path / "train", *names)
    with pytest.raises(TcaError, match=message):
        read_annotations(DataConfig(annotations={"train": tmp_path / "train"}), "train")


def test_a_file_name_that_is_not_utf8_is_an_error_that_can_be_printed(tmp_path: Path) -> None:
    touch(tmp_path / "train", "a/1.mp4")
    try:
        (tmp_path / "train/a" / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    with pytest.raises(TcaError, match="control character") as error:
        read_annotations(DataConfig(annotations={"train": tmp_path / "train"}), "train")
    str(error.value).encode()


# Files of videos


def test_files_are_found_by_stem_in_all_subfolders(
    read: Callable[..., Annotations], videos: Path
) -> None:
    touch(
        videos, "1.webm", "deep/er/2.avi", "v_1.2.mp4", ".hidden/3.mp4", ".4.mp4", "john.walk.mov"
    )
    (videos / "5.mp4").mkdir()
    (videos / "6.mp4").symlink_to("nowhere")
    (videos / "7.mp4").symlink_to("7.mp4")
    found = read("1.mp4 0\n2 0\n3 0\n4 0\n5 0\n6 0\n7 0\nv_1.2 0\njohn.walk 0\n")
    assert files(found) == [
        *("1.webm", "deep/er/2.avi", None, None, None, None, None),
        *("v_1.2.mp4", "john.walk.mov"),
    ]
    assert [video.id for video in found.videos][7:] == ["v_1.2", "john.walk"]
    assert [video.id for video in found.missing] == ["3", "4", "5", "6", "7"]


def test_links_are_followed_once(
    read: Callable[..., Annotations], videos: Path, tmp_path: Path
) -> None:
    touch(tmp_path / "disk", "1.mp4")
    touch(videos, "a/2.mp4")
    (videos / "linked").symlink_to(tmp_path / "disk")
    (videos / "0").symlink_to("a")
    (videos / "a" / "up").symlink_to("..")
    assert files(read("1 0\n2 0\n")) == ["linked/1.mp4", "a/2.mp4"]


def test_two_files_for_one_video_are_an_error_only_if_it_is_annotated(
    read: Callable[..., Annotations], videos: Path
) -> None:
    touch(videos, "1.mp4", "2.mp4", "x/2.webm")
    assert files(read("1 0\n")) == ["1.mp4"]
    with pytest.raises(TcaError, match=r"'2' could be '2\.mp4' or 'x/2\.webm'"):
        read("1 0\n2 0\n")
    assert files(read("1 0\nx/2.webm 0\n")) == ["1.mp4", "x/2.webm"]
    assert files(read("1 0\n2.mp4 0\n")) == ["1.mp4", "2.mp4"]


def test_a_sidecar_is_not_a_second_video(read: Callable[..., Annotations], videos: Path) -> None:
    touch(videos, "1.json", "1.webm", "2.json")
    assert files(read("1 0\n")) == ["1.webm"]


def test_equal_stems_are_told_apart_by_their_folders(
    read: Callable[..., Annotations], videos: Path
) -> None:
    touch(videos, "cat/1.webm", "dog/1.webm", "cow/2.webm", "dog/3.webm")
    found = read("cat/1.mp4 0\ndog/1.mp4 1\n2.mp4 0\n")
    assert pairs(found) == [("cat/1", 0), ("dog/1", 1), ("2", 0)]
    assert files(found) == ["cat/1.webm", "dog/1.webm", "cow/2.webm"]
    # One of two is not there: the other's file must not take its place.
    found = read("cat/3.mp4 0\ndog/3.mp4 1\n")
    assert files(found) == [None, "dog/3.webm"]
    # Paths that start above the folder, or a folder that is not there any more.
    found = read("/old/videos/cat/1.mp4 0\n/old/videos/dog/1.mp4 1\n/old/elsewhere/2.mp4 0\n")
    assert files(found) == ["cat/1.webm", "dog/1.webm", "cow/2.webm"]


def test_paths_do_not_leave_the_folder(
    read: Callable[..., Annotations], videos: Path, tmp_path: Path
) -> None:
    touch(tmp_path, "secret.mp4")
    touch(videos, "1.mp4")
    found = read(f"../secret.mp4 0\n{tmp_path}/secret2.mp4 0\n../../etc/1.mp4 0\n")
    assert [video.id for video in found.videos] == ["secret", "secret2", "1"]
    assert files(found) == [None, None, "1.mp4"]


@pytest.mark.parametrize("content", ["1 0\n2 0\n1 0\n", "1.mp4 0\n2 0\n1.webm 1\n"])
def test_a_video_that_is_listed_twice_is_an_error(
    read: Callable[..., Annotations], content: str
) -> None:
    with pytest.raises(TcaError, match="the video '1' twice, line 1 and line 3"):
        read(content)


def test_two_videos_of_one_file_are_an_error(
    read: Callable[..., Annotations], videos: Path
) -> None:
    touch(videos, "1.mp4")
    with pytest.raises(TcaError, match=r"'a/1' and 'b/1', which are the same file"):
        read("a/1 0\nb/1 0\n")


def test_names_are_equal_however_accents_are_coded(
    read: Callable[..., Annotations], videos: Path
) -> None:
    touch(videos, "cafe\u0301.mp4")
    assert files(read("caf\u00e9 0\n")) == ["cafe\u0301.mp4"]


def test_a_video_folder_or_annotation_file_that_is_not_there(
    read: Callable[..., Annotations], videos: Path, tmp_path: Path
) -> None:
    videos.rmdir()
    with pytest.raises(TcaError, match=r"cannot read the folder .*videos.*data\.videos"):
        read("1 0\n")
    config = DataConfig(annotations={"train": tmp_path / "none.csv"}, labels=tmp_path / "no")
    with pytest.raises(TcaError, match=r"none\.csv: No such file.*data\.annotations\.train"):
        read_annotations(config, "train")


def test_a_split_that_is_not_configured(tmp_path: Path) -> None:
    config = DataConfig(annotations={"train": tmp_path / "t.csv", "test": tmp_path / "x.csv"})
    with pytest.raises(UsageError, match=r"configured: train, test.*data\.annotations\.validation"):
        read_annotations(config, "validation")
    with pytest.raises(UsageError, match="no split 'val'; it is train, validation, test"):
        read_annotations(config, "val")


# Class lists


@pytest.mark.parametrize(
    "content",
    [
        '{"b": "0", "a": "2", "c d": "1"}',
        '\ufeff{\r\n "b": 0,\r\n "a": 2, "c d": 1}',
        '["b", "c d", "a"]',
        "b\nc d\na\n",
        "\ufeffb\r\n\r\nc d \r\na",
    ],
)
def test_class_lists(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").write_bytes(content.encode())
    assert read_classes(DataConfig(labels=tmp_path / "labels")) == ["b", "c d", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 0, "b": 2}', "'b' the label '2'; its 2 classes need each of 0 to 1 once"),
        ('{"a": 0, "b": 0}', "'b' the label '0', which another has"),
        ('{"a": -1, "b": 0}', "'a' the label '-1'"),
        ('{"0": "a"}', "'0' the label 'a'; labels are whole numbers"),
        ('{"a": 0.0}', "'a' the label '0.0'"),
        ('{"a": true, "b": 0}', "'a' the label 'True'"),
        ('{"a": null}', "'a' the label 'None'"),
        ('{"a": 0, "a": 1}', "the key 'a' twice"),
        ('["a", "b", "a"]', "the class 'a' 2 times"),
        ("a\nb\na \n", "the class 'a' 2 times"),
        ('["a", 1]', "is no class list"),
        ("[]", "lists no class"),
        ("{}", "lists no class"),
        ("", "lists no class"),
        ('["a"', "not valid JSON"),
        ('["a\\nb"]', "control character"),
        ('[""]', "is empty"),
        (b"\xff\xfea", "not UTF-8"),
    ],
)
def test_class_lists_that_are_none(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = tmp_path / "labels"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TcaError, match=message):
        read_classes(DataConfig(labels=file))


def test_a_class_list_of_bracketed_templates(read: Callable[..., Annotations]) -> None:
    found = read("1;Hit [something]\n2;Hit something\n", labels=["[x] y", "Hit [something]"])
    assert pairs(found) == [("1", 1), ("2", 1)]


# Flip tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"reverse time": {"left": "right"}}', "no table of classes"),
        ('{"left/right": ["left"]}', "no table of classes"),
        ("[]", "no table of classes"),
        ('{"left/right": {"left": "up"}}', "'up', which is not in the class list"),
        ('{"left/right": {"left": "right"}}', "list each pair both ways"),
        ('{"left/right": {"left": "right", "right": "still"}}', "list each pair both ways"),
        ('{"left/right": {"left": null}}', "flips 'left' to null"),
    ],
)
def test_flip_tables_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "flip.json").write_text(content)
    with pytest.raises(TcaError, match=message):
        read_flip_table(tmp_path / "flip.json", ["still", "left", "right"])


def test_a_flip_table(tmp_path: Path) -> None:
    table = {"left/right": {"[left]": "right", "right": "left"}, "other": {"still": "left"}}
    (tmp_path / "flip.json").write_text(json.dumps(table))
    assert read_flip_table(tmp_path / "flip.json", ["still", "left", "right"]) == [0, 2, 1]


# Preflight


def annotations_of(paths: list[Path | None]) -> Annotations:
    videos = [Video(str(i), 0, path) for i, path in enumerate(paths, 1)]
    return Annotations("validation", ["a"], videos, {}, Path("VIDEOS"))


def test_the_preflight_counts_what_is_missing() -> None:
    some = annotations_of([None, None, None, None, *[Path("x")] * 1000])
    with pytest.raises(TcaError) as error:
        require_videos(some, allow_missing=False)
    assert str(error.value) == (
        "4 of 1,004 videos of split validation are not in VIDEOS (first: 1, 2, 3); put them "
        "there, or go on without them with --allow-missing."
    )
    require_videos(some, allow_missing=True)
    require_videos(annotations_of([Path("x")]), allow_missing=False)


@pytest.mark.parametrize("allow", [False, True])
def test_the_preflight_stops_where_all_is_missing(allow: bool) -> None:
    with pytest.raises(TcaError, match=r"none of the 2 videos .* is in VIDEOS .*data\.videos"):
        require_videos(annotations_of([None, None]), allow_missing=allow)
