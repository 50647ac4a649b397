"""Backbones by name: those that packages plug in, and what `tca backbones` says of all."""

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from tca.cli import run
from tca.errors import UsageError
from tca.extract.backbones import registry
from tca.extract.backbones.listing import Listed, cost, list_backbones, list_configured
from tca.extract.backbones.pair import Backbones
from tca.extract.backbones.registry import known_backbones, load_motion, load_semantic
from tca.extract.config import MotionConfig, SemanticConfig, Stage1Config
from tca.project import load_project

HERE = Path()
PAGE = Path(__file__).parents[2] / "docs/backbones.md"

COLOURS = """
import torch
from tca.extract.backbones.base import MotionBackbone, SemanticBackbone


class Colours(SemanticBackbone):
    architecture = "colours"
    width = 3

    def __init__(self, size):
        super().__init__()
        self.size, self.grid = size, (size // 16, size // 16)

    @property
    def identity(self):
        return {"architecture": "colours", "size": self.size}

    def forward(self, frames):
        means = torch.nn.functional.avg_pool2d(frames.float(), 16)
        return means.flatten(2).transpose(1, 2)


class Change(MotionBackbone):
    architecture = "change"
    segments, width, size = 15, 3, 32

    @property
    def identity(self):
        return {"architecture": "change"}

    def forward(self, clips):
        return clips.float().mean((-2, -1)).diff(dim=1)


def load_colours(config, folder):
    return Colours(config.size or 48)


def load_change(config, folder):
    return Change()


def load_word(config, folder):
    return "no backbone"


def load_broken(config, folder):
    raise KeyError("no such file")


def load_short(config, folder):
    short = Change()
    short.segments = 16
    return short
"""

Plug = Callable[..., None]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Install a package whose entry points are given as `semantic_NAME="module:function"`."""

    def install(
        package: str = "tca-colours",
        source: str = COLOURS,
        module: str = "colours_of_a_frame",
        **points: str,
    ) -> None:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = []
        for stream in ("semantic", "motion"):
            lines.append(f"[tca.{stream}_backbones]")
            lines += [
                f"{name.partition('_')[2]} = {value}"
                for name, value in points.items()
                if name.startswith(stream)
            ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


@torch.no_grad()
def test_a_package_plugs_in_backbones_without_touching_tca(plug: Plug) -> None:
    plug(
        semantic_colours="colours_of_a_frame:load_colours",
        motion_change="colours_of_a_frame:load_change",
    )
    plugged = [known for known in known_backbones() if known.package == "tca-colours"]
    assert [(known.stream, known.name) for known in plugged] == [
        ("semantic", "colours"),
        ("motion", "change"),
    ]
    backbones = Backbones.load(
        SemanticConfig(architecture="colours", keep="frames", pool=3),
        MotionConfig(architecture="change"),
        HERE,
    )
    assert backbones.sizes == (48, 32)
    assert backbones.row_shapes == {"semantic": (8, 1, 3), "motion": (15, 3)}
    frames = torch.randint(0, 256, (2, 8, 3, 48, 48), dtype=torch.uint8)
    clips = torch.randint(0, 256, (2, 16, 3, 32, 32), dtype=torch.uint8)
    rows = backbones.to(torch.device("cpu"))(frames, clips, "float32")
    torch.testing.assert_close(rows["semantic"][:, :, 0], frames.float().mean((-2, -1)))
    expected = clips.float().mean((-2, -1))
    torch.testing.assert_close(rows["motion"], expected[:, 1:] - expected[:, :-1])
    assert backbones.identity["motion"] == {"architecture": "change"}


def test_packages_that_do_not_work_are_told_in_one_sentence(plug: Plug) -> None:
    plug(
        semantic_gone="nowhere_to_be_found:load",
        semantic_word="colours_of_a_frame:load_word",
        semantic_broken="colours_of_a_frame:load_broken",
        semantic_absent="colours_of_a_frame:load_nothing",
        motion_short="colours_of_a_frame:load_short",
    )

    def semantic(name: str) -> None:
        load_semantic(SemanticConfig(architecture=name), HERE)

    whose = r"^the semantic backbone '\w+' of the package tca-colours"
    with pytest.raises(UsageError, match=whose + r" cannot be imported from nowhere_to.*No module"):
        semantic("gone")
    with pytest.raises(UsageError, match=whose + r" cannot be imported .*load_nothing"):
        semantic("absent")
    with pytest.raises(UsageError, match=whose + r" is a str; colours_of_a_frame:load_word must"):
        semantic("word")
    with pytest.raises(UsageError, match=whose + r" cannot be loaded \(KeyError: 'no such file'\)"):
        semantic("broken")
    with pytest.raises(UsageError, match=r"change gives .* \(15, 3\) .* instead of \(16, 3\)"):
        load_motion(MotionConfig(architecture="short"), HERE)


def test_two_backbones_of_one_name_are_refused(plug: Plug) -> None:
    plug(semantic_dinov2="colours_of_a_frame:load_colours")
    with pytest.raises(UsageError, match="tca and tca-colours each have a semantic backbone 'dino"):
        load_semantic(SemanticConfig(architecture="dinov2"), HERE)
    # Others are not touched by it.
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    load_semantic(SemanticConfig(architecture="dinov3_vit", weights="random:0", sizes=small), HERE)


@torch.no_grad()
def test_the_package_of_the_documentation_works_as_it_stands_there(plug: Plug) -> None:
    page = PAGE.read_text()
    blocks = {kind: page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("toml", "python")}
    project = tomllib.loads(blocks["toml"])["project"]
    ((group, points),) = project["entry-points"].items()
    assert group == "tca.semantic_backbones"
    plug(
        project["name"],
        blocks["python"],
        module="resnet_patches",
        **{f"semantic_{name}": value for name, value in points.items()},
    )
    ours = load_semantic(SemanticConfig(architecture="resnet50", weights="random:7"), HERE)
    assert ours.row_shape == (49, 2048)
    torch.manual_seed(7)
    theirs = create_feature_extractor(torchvision.models.resnet50().eval(), ["layer4"])
    frames = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    pixels = torchvision.transforms.v2.functional.normalize(
        frames / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    maps = theirs(pixels)["layer4"]
    torch.testing.assert_close(ours(frames)[0, 8], maps[0, :, 1, 1], atol=1e-4, rtol=1e-4)
    empty = load_semantic(SemanticConfig(architecture="resnet50"), HERE, empty=True)
    # torchvision counts a multiplication and its addition as one.
    published = 2e9 * torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["_ops"]
    assert cost(empty, empty.row_shape).flops == pytest.approx(8 * published, rel=1e-2)


# --- tca backbones ---


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of tca's own backbones: listing all takes seconds, which one test spends."""
    for stream, names in (("semantic", ["dinov3_vit", "siglip"]), ("motion", ["r3d_18"])):
        own = {name: registry.OWN[stream][name] for name in names}
        monkeypatch.setitem(registry.OWN, stream, own)


def test_flops_and_parameters_are_those_of_the_formulas() -> None:
    found = list_backbones()
    assert [one.problem for one in found if one.problem] == []
    every = {one.name: one.to_json() for one in found}
    assert len(every) == len(found) >= 12
    # CLIP's ViT-B/16: a class token and 196 patches through 12 layers of 768, 8 frames a video.
    tokens, width = 197, 768
    layer = 2 * tokens * (4 * width**2 + 2 * width * 4 * width) + 4 * tokens**2 * width
    frame = 2 * 196 * (3 * 16 * 16) * width + 12 * layer
    assert every["clip"]["flops"] == 8 * frame
    assert every["clip"]["row"] == (196, 768)
    # As torchvision publishes them, its classifier of 400 classes left out.
    for name, weights, width in (
        ("r3d_18", "R3D_18_Weights", 512),
        ("mc3_18", "MC3_18_Weights", 512),
        ("r2plus1d_18", "R2Plus1D_18_Weights", 512),
        ("s3d", "S3D_Weights", 1024),
    ):
        meta = getattr(torchvision.models.video, weights).KINETICS400_V1.meta
        assert every[name]["parameters"] == meta["num_params"] - 400 * (width + 1)
        assert every[name]["row"] == (8, width)
        # torchvision counts a multiplication and its addition as one. MC3 is not dilated.
        published = 2e9 * meta["_ops"]
        if name == "mc3_18":
            assert every[name]["flops"] == pytest.approx(published, rel=1e-3)
        else:
            assert published < every[name]["flops"] < 2 * published
    assert (every["vjepa2"]["size"], every["vjepa2"]["row"]) == (256, (8, 1024))
    # The tables of the documentation are these numbers.
    lines = PAGE.read_text().splitlines()
    for one in found:
        assert one.cost is not None
        (line,) = [line for line in lines if line.startswith(f"| `{one.name}`")]
        assert [cell.strip(" `") for cell in line.split("|")[2:-1]] == [
            one.weights,
            str(one.cost.size),
            "×".join(map(str, one.cost.row)),
            f"{one.cost.parameters / 1e6:.1f}",
            f"{one.cost.flops / 1e9:,.0f}",
        ]


@pytest.mark.usefixtures("few")
def test_a_projects_own_pair_is_listed_with_what_its_stores_keep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plug: Plug
) -> None:
    plug(motion_change="colours_of_a_frame:load_change", motion_gone="nowhere:load")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tca.yaml").write_text(
        "semantic: {architecture: siglip, keep: frames, pool: 2}\nmotion: {architecture: change}\n"
    )
    assert run(["backbones", "--json", "semantic.weights=random:0"]) == 0
    found = {
        kind: {one["name"]: one for one in ones}
        for kind, ones in json.loads(capsys.readouterr().out).items()
    }
    assert found["configured"]["siglip_vision_model"]["row"] == [8, 49, 768]
    assert found["configured"]["change"]["row"] == [15, 3]
    assert found["backbones"]["change"]["package"] == "tca-colours"
    assert "cannot be imported from nowhere:load" in found["backbones"]["gone"]["problem"]


@pytest.mark.usefixtures("few")
def test_the_table_tells_costs_and_what_cannot_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plug: Plug
) -> None:
    plug(motion_gone="nowhere:load")
    monkeypatch.chdir(tmp_path)
    assert run(["backbones"]) == 0
    shown = capsys.readouterr()
    assert "33.2 M" in shown.out
    assert "this project" not in shown.out
    assert "gone: the motion backbone 'gone' of the package tca-colours cannot be" in shown.err


def test_a_project_is_listed_where_there_is_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def configured(**sections: dict[str, object]) -> list[Listed]:
        return list_configured(Stage1Config.model_validate(sections), tmp_path)

    image, video = configured()
    assert (image.name, video.name) == ("dinov3_vit", "r3d_18")
    assert image.weights == "facebook/dinov3-vitb16-pretrain-lvd1689m"
    image, video = configured(
        semantic={"weights": "facebook/dinov2-base", "pool": 4}, motion={"architecture": "vjepa2"}
    )
    assert image.cost is not None
    assert video.cost is not None
    assert (image.cost.row, video.cost.row) == ((16, 768), (8, 1024))
    image, video = configured(semantic={"weights": "somebody/else"})
    assert "somebody/else are not on this machine and the hub cannot be" in (image.problem or "")
    assert video.cost is not None
    with pytest.raises(UsageError, match="does not divide the grid of 14x14"):
        configured(semantic={"pool": 3})


def test_weights_of_a_folder_are_counted_without_reading_them(tmp_path: Path, shared: Path) -> None:
    source = shared / "weights/dinov2-vits14"
    (tmp_path / "w").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "w" / name).write_bytes((source / name).read_bytes())
    (tmp_path / "tca.yaml").write_text("semantic: {weights: w}\n")
    image, video = list_configured(*load_project(tmp_path / "tca.yaml", ()))
    assert image.cost is not None
    # 22.1 M by its model card.
    assert image.cost.parameters == pytest.approx(22.1e6, rel=5e-3)
    assert (image.name, image.cost.size, image.cost.row) == ("dinov2", 224, (256, 384))
    assert (video.name, video.weights) == ("r3d_18", "KINETICS400_V1")
