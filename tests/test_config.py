"""Configuration files as somebody else wrote them."""

from pathlib import Path

import pytest

from tca.cache.config import LoaderConfig
from tca.config import Section, load_config, read_yaml
from tca.errors import UsageError
from tca.fusion.train.config import TrainConfig


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 2020-99-99", "month must be in 1..12"),
        ("seed: 0x_", "invalid literal"),
        ("[" * 3000, "recursion"),
        ("epochs: 1\nlr: 1\nepochs: 2\n", "the key 'epochs' is there twice"),
        ("train: {a: 1, a: 2}", "the key 'a' is there twice"),
        ('device: "a\\0b"', "zero character"),
        ("\0", "special characters are not allowed"),
    ],
)
def test_what_is_no_yaml_or_would_be_dropped_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "tca.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"tca\.yaml is not valid YAML: .*") as caught:
        read_yaml(file)
    assert says in str(caught.value)


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    file = tmp_path / "tca.yaml"
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(file) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


@pytest.mark.parametrize("value", ["2020-99-99", "[", "{a: 1, a: 2}"])
def test_overrides_whose_value_is_no_yaml_are_named(value: str) -> None:
    with pytest.raises(UsageError, match=f"override 'seed={value[:2]}".replace("[", r"\[")):
        load_config(TrainConfig, None, [f"seed={value}"])


@pytest.mark.parametrize(
    ("schema", "key", "most"),
    [
        (LoaderConfig, "block_rows", 2**31 - 1),
        (LoaderConfig, "buffer_blocks", 2**31 - 1),
        (LoaderConfig, "prefetch", 1024),
        (TrainConfig, "batch_size", 2**31 - 1),
        (TrainConfig, "epochs", 2**31 - 1),
    ],
)
def test_counts_that_no_machine_can_hold_are_refused(
    schema: type[Section], key: str, most: int
) -> None:
    assert getattr(load_config(schema, None, [f"{key}={most}"]), key) == most
    for value in (most + 1, 99999999999999999999):
        with pytest.raises(UsageError, match=f"'{key}' to {value}: .*less than or equal to {most}"):
            load_config(schema, None, [f"{key}={value}"])
