"""Variants that a package plugs in: found by name, trained like any other, told when broken."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_store import moving_dot
from small_models import FORMS, class_names, features

from tca.cache.layout import RowTable, Status, StoreSpec
from tca.cache.writer import StoreWriter
from tca.cli import run
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.registry import GROUP, OWN, build, find_variant, variant_names
from tca.fusion.model.variant import Variant

DOCS = Path(__file__).parents[2] / "docs"

Plug = Callable[..., None]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Install a package of one module whose entry points are given as `NAME="module:class"`."""

    def install(package: str, source: str, module: str, **points: str) -> None:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def documented() -> tuple[str, str]:
    """Return the module and the pyproject.toml that docs/ shows for a variant of one's own."""
    (page,) = (text for file in DOCS.glob("*.md") if f'"{GROUP}"' in (text := file.read_text()))
    python, toml = (
        next(block for block in _blocks(page, kind) if word in block)
        for kind, word in (("python", "(Variant)"), ("toml", GROUP))
    )
    return python, toml


def _blocks(page: str, kind: str) -> list[str]:
    return [part.split("```")[0] for part in page.split(f"```{kind}\n")[1:]]


def write_project(folder: Path) -> None:
    """Write a store of 48 rows and a tca.yaml that trains on it."""
    made = moving_dot(48)
    table = RowTable(made.ids, made.label, made.video, made.view)
    spec = StoreSpec(
        split="train",
        rows=table,
        streams=made.streams,
        rows_per_shard=16,
        classes=made.classes,
        identity=made.identity,
        record={},
        grid=made.grid,
    )
    writer = StoreWriter.open_or_create(folder / "cache/train.zarr", spec)
    for shard in range(writer.shards):
        rows = writer.shard_rows(shard)
        arrays = {name: list(getattr(made, name)[rows.start : rows.stop]) for name in made.streams}
        writer.commit(shard, arrays, np.full(len(rows), Status.OK, dtype=np.uint8))
    (folder / "tca.yaml").write_text(
        "data: {videos: videos}\n"
        "model: {heads: 2, bottleneck: 8, layers: 1, rank: 4}\n"
        "train: {epochs: 2, holdout: 0.25, device: cpu, batch_size: 12}\n"
    )


def test_the_documented_package_trains_from_the_command_line_as_it_stands(
    plug: Plug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, toml = documented()
    assert len(python.splitlines()) < 30
    project = tomllib.loads(toml)["project"]
    points = project["entry-points"][GROUP]
    ((name, value),) = points.items()
    plug(project["name"], python, value.partition(":")[0], **points)
    assert variant_names() == [*OWN, name]
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["train-fusion", f"model.variant={name}", "--json"]) == 0, capsys.readouterr().err
    trained = json.loads(capsys.readouterr().out)
    assert trained["run"] == f"runs/{name}-001"
    assert trained["variant"] == name
    assert trained["epochs"] == 2
    assert (tmp_path / f"runs/{name}-001/best.safetensors").is_file()
    # Its own weights were trained: the gates have left zero.
    from safetensors.torch import load_file

    weights = load_file(tmp_path / f"runs/{name}-001/best.safetensors")
    gates = [weight for key, weight in weights.items() if key.endswith("_gate.gate")]
    assert len(gates) == 2
    assert all(gate != 0 for gate in gates)
    assert run(["evaluate", "--split", "train"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("form", FORMS)
def test_the_documented_variant_takes_every_form_of_store(plug: Plug, form: str) -> None:
    plug("my-variants", documented()[0], "my_variants", exchange="my_variants:Exchange")
    model = build(ModelConfig(variant="exchange"), FORMS[form], class_names(4))
    assert isinstance(model, Variant)
    assert model.training
    assert model(*features(FORMS[form])).shape == (3, 4)


@pytest.mark.long
def test_the_documented_package_is_installed_by_pip(tmp_path: Path) -> None:
    python, toml = documented()
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "my_variants.py").write_text(python)
    (package / "pyproject.toml").write_text(toml)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", str(site), str(package)], check=True)
    write_project(tmp_path)
    program = "import sys; from tca.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "train-fusion", "model.variant=exchange", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["variant"] == "exchange"


BROKEN = """
import torch
from torch import nn
from tca.errors import UsageError
from tca.fusion.model.head import Head
from tca.fusion.model.variant import Variant


class Word:
    streams = ("motion",)


def function(config, shapes, classes):
    return None


class Sizes(Variant):
    def __init__(self, config, shapes):
        super().__init__(config, shapes, ["one"])


class Tokens(Variant):
    def fuse(self, tokens):
        return [{name: some[..., :3] for name, some in tokens.items()}]


class Column(Variant):
    def make_head(self, config, classes):
        return Head(self.readouts(1, 1), classes + 1, 0.0)


class Shy(Variant):
    def __init__(self, config, shapes, classes):
        super().__init__(config, shapes, classes, layers=3)


class Honest(Variant):
    def __init__(self, config, shapes, classes):
        raise UsageError("honest says no.")


class Motion(Variant):
    streams = ("motion",)
"""

NAMES = ("word", "function", "sizes", "tokens", "column", "shy", "honest", "motion")


@pytest.fixture
def broken(plug: Plug) -> None:
    points = {
        name: f"broken_variants:{name if name == 'function' else name.title()}" for name in NAMES
    }
    points |= {"gone": "nowhere_to_be_found:Thing", "absent": "broken_variants:Absent"}
    plug("broken-variants", BROKEN, "broken_variants", **points)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", r"variant 'gone' of the package broken-variants cannot be imported .*No module"),
        ("absent", r"cannot be imported from broken_variants:Absent \(AttributeError"),
        ("word", r"is no subclass of tca\.fusion\.model\.variant\.Variant: broken_variants:Word"),
        ("function", r"is no subclass of tca.*broken_variants:function"),
        ("sizes", r"'sizes' does not work on this store \(TypeError: .*see docs/model\.md"),
        ("tokens", r"'tokens' does not work on this store \(RuntimeError: .*see docs/model\.md"),
        ("column", r"it gives scores of shape \(2, 5\) for 2 videos and 4 classes"),
        ("honest", r"^honest says no\.$"),
    ],
)
@pytest.mark.usefixtures("broken")
def test_a_variant_that_does_not_work_is_told_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as told:
        build(ModelConfig(variant=name), FORMS["frames"], class_names(4))
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("broken")
def test_a_variant_that_returns_fewer_states_than_it_has_layers_is_told() -> None:
    shapes, classes = FORMS["frames"], class_names(4)
    # Without heads on its layers nobody misses them.
    build(ModelConfig(variant="shy"), shapes, classes)
    with pytest.raises(UsageError, match="its fuse returns 1 states and its layers are 3"):
        build(ModelConfig(variant="shy", progressive=True), shapes, classes)


@pytest.mark.usefixtures("broken")
def test_a_wrong_shape_stops_the_command_before_a_run_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["train-fusion", "model.variant=column"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "it gives scores of shape (2, 5) for 2 videos and 4 classes" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.usefixtures("broken")
def test_a_plugged_in_variant_may_read_one_stream() -> None:
    model = build(ModelConfig(variant="motion"), FORMS["frames"], class_names(4))
    assert model(None, features(FORMS["frames"])[1]).shape == (3, 4)


def test_two_of_one_name_are_refused_and_do_not_touch_others(plug: Plug) -> None:
    plug("some-variants", BROKEN, "some_variants", motion="some_variants:Motion")
    plug("more-variants", BROKEN, "more_variants", motion="more_variants:Motion", bcast="x:Y")
    with pytest.raises(UsageError, match=r"some-variants each have a variant 'motion'; uninstall"):
        find_variant("motion")
    with pytest.raises(UsageError, match="tca and more-variants each have a variant 'bcast'"):
        find_variant("bcast")
    assert find_variant("concat") is OWN["concat"]
    assert variant_names() == [*OWN, "motion"]


def test_an_unknown_name_is_told_with_what_there_is(plug: Plug) -> None:
    plug("some-variants", BROKEN, "some_variants", mine="some_variants:Motion")
    with pytest.raises(UsageError, match=r"'gasmcast' is none of gasm_cast, bcast.*, mine\.$"):
        find_variant("gasmcast")


def test_a_plugged_in_variant_over_the_limit_is_refused_too(plug: Plug) -> None:
    source = BROKEN + (
        "class Large(Variant):\n"
        "    def __init__(self, config, shapes, classes):\n"
        "        super().__init__(config, shapes, classes)\n"
        "        self.large = nn.Parameter(torch.empty(21_000_000))\n"
    )
    plug("large-variants", source, "large_variants", large="large_variants:Large")
    with pytest.raises(UsageError, match=r"21\.\d M parameters, over the limit of 20 M"):
        build(ModelConfig(variant="large"), FORMS["mean"], class_names(4))


def test_building_on_the_meta_device_still_tries_a_plugged_in_variant(plug: Plug) -> None:
    plug("broken-variants", BROKEN, "broken_variants", column="broken_variants:Column")
    with torch.device("meta"), pytest.raises(UsageError, match="scores of shape"):
        build(ModelConfig(variant="column"), FORMS["frames"], class_names(4))
