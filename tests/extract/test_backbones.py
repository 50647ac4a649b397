from pathlib import Path

import pytest
import torch
import torchvision
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTForImageClassification,
)

from tca.errors import TcaError, UsageError
from tca.extract.backbones import semantic as semantic_module
from tca.extract.backbones.motion import MotionBackbone
from tca.extract.backbones.pair import Backbones
from tca.extract.backbones.semantic import SemanticBackbone
from tca.extract.config import MotionConfig, SemanticConfig

HERE = Path()
SMALL_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def small(keep: str = "frames", pool: int = 1, size: int = 64) -> Backbones:
    return Backbones.load(
        SemanticConfig(weights="random:3", sizes=SMALL_VIT, size=size, keep=keep, pool=pool),
        MotionConfig(weights="random:4", blocks=(1, 1, 1, 1), size=32),
        HERE,
    )


def batch(count: int, size: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randint(0, 256, (count, frames, 3, side, side), generator=generator).to(torch.uint8)
        for frames, side in ((8, size), (16, 32))
    )


# --- semantic ---


@torch.no_grad()
def test_dinov3_patches_equal_transformers_own() -> None:
    torch.manual_seed(3)
    theirs = DINOv3ViTModel(DINOv3ViTConfig(**SMALL_VIT, num_register_tokens=4)).eval()
    ours = SemanticBackbone.load(SemanticConfig(weights="random:3", sizes=SMALL_VIT), HERE)
    assert (ours.grid, ours.width, ours.architecture) == ((14, 14), 48, "dinov3_vit")
    frames = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    pixels = torchvision.transforms.v2.functional.normalize(
        frames / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    tokens = theirs(pixel_values=pixels).last_hidden_state
    assert tokens.shape[1] == 1 + 4 + 196
    torch.testing.assert_close(ours(frames), tokens[:, 5:], atol=1e-4, rtol=1e-4)


def test_without_sizes_random_weights_are_a_dinov3_vit_b16() -> None:
    backbone = SemanticBackbone.load(SemanticConfig(weights="random:0"), HERE)
    assert (backbone.grid, backbone.width) == ((14, 14), 768)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    # 85,660,416 in the published checkpoint, by its own model card "86 M".
    assert 85.5e6 < count < 86e6
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, 196, 768)


@torch.no_grad()
def test_real_dinov2_weights_equal_transformers_own_pipeline(shared: Path) -> None:
    folder = shared / "weights/dinov2-vits14"
    ours = SemanticBackbone.load(SemanticConfig(weights=str(folder)), HERE)
    assert (ours.grid, ours.width) == ((16, 16), 384)
    frames = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8)
    frames = torch.nn.functional.interpolate(frames.float(), (224, 224), mode="bicubic")
    frames = frames.clamp(0, 255).to(torch.uint8)
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(frames, return_tensors="pt", do_resize=False, do_center_crop=False)
    theirs = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = theirs(**inputs).last_hidden_state[:, 1:]
    torch.testing.assert_close(ours(frames), tokens, atol=2e-3, rtol=1e-3)


def test_sizes_that_do_not_fit_are_refused(shared: Path) -> None:
    with pytest.raises(UsageError, match=r"semantic\.size=100 is no multiple of the 16-pixel"):
        SemanticBackbone.load(SemanticConfig(weights="random:0", sizes=SMALL_VIT, size=100), HERE)
    with pytest.raises(UsageError, match="no transformers model type"):
        SemanticBackbone.load(SemanticConfig(weights="random:0", architecture="dino9"), HERE)
    with pytest.raises(UsageError, match="shape random weights only"):
        SemanticBackbone.load(
            SemanticConfig(weights=str(shared / "weights/dinov2-vits14"), sizes=SMALL_VIT), HERE
        )
    with pytest.raises(UsageError, match=r"semantic\.pool=3 does not divide the grid of 4x4"):
        small(pool=3)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GatedRepoError, "gated: accept their licence .* log in .* or point `semantic.weights`"),
        (RepositoryNotFoundError, "has no model a/b, or it is private"),
        (None, "the hub cannot be reached"),
    ],
)
def test_hub_ids_that_do_not_load_give_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None, says: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        if error is None:
            raise OSError("We couldn't connect to the hub") from ConnectionError("no route")
        # Their constructors want a response; what matters is the type in the chain of causes.
        raise OSError("You are trying to access a gated repo.\nLong text.") from error.__new__(
            error
        )

    monkeypatch.setattr(semantic_module.AutoModel, "from_pretrained", fails)
    with pytest.raises(TcaError, match=says) as caught:
        SemanticBackbone.load(SemanticConfig(weights="a/b"), HERE)
    assert "\n" not in str(caught.value)


def test_local_folders_that_are_no_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(TcaError, match="no folder of weights at"):
        SemanticBackbone.load(SemanticConfig(weights="./nowhere"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TcaError, match=r"cannot be loaded .* must hold config\.json"):
        SemanticBackbone.load(SemanticConfig(weights="empty"), tmp_path)
    with pytest.raises(UsageError, match="random:SEED"):
        SemanticBackbone.load(SemanticConfig(weights="random:x"), tmp_path)


def test_what_cannot_give_patches_is_refused_before_any_video_is_decoded() -> None:
    def load(**options: object) -> None:
        SemanticBackbone.load(SemanticConfig(**{"weights": "random:0", "size": 64} | options), HERE)

    with pytest.raises(UsageError, match="bert is no image transformer with one grid"):
        load(architecture="bert", sizes={"num_hidden_layers": 1})
    with pytest.raises(UsageError, match=r"vit cannot take frames of semantic\.size=64: .*224"):
        load(architecture="vit", sizes={"num_hidden_layers": 1})
    with pytest.raises(UsageError, match=r"unknown key 'hiden_size'.* DINOv3ViTConfig"):
        load(sizes={"hiden_size": 16})
    for sizes in ({"hidden_size": "wide"}, {"num_attention_heads": 0}):
        with pytest.raises(UsageError, match=r"semantic\.sizes does not fit dinov3_vit"):
            load(sizes=sizes)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    DINOv3ViTModel(DINOv3ViTConfig(**SMALL_VIT)).save_pretrained(tmp_path / "w")
    config, file = SemanticConfig(weights="w", size=64), tmp_path / "w/model.safetensors"
    SemanticBackbone.load(config, tmp_path)
    with pytest.raises(TcaError, match=r"model\.safetensors is a file; give the folder"):
        SemanticBackbone.load(SemanticConfig(weights=str(file)), tmp_path)
    whole = load_file(file)
    # transformers would draw these anew and only print a table.
    part = {name: tensor for name, tensor in whole.items() if "layer.1." not in name}
    assert 0 < len(part) < len(whole)
    save_file(part, file, {"format": "pt"})
    with pytest.raises(TcaError, match=r"lack \S*layer\.1\.\S+ and \d+ more that dinov3_vit needs"):
        SemanticBackbone.load(config, tmp_path)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(TcaError, match="cannot be loaded as a transformers model"):
        SemanticBackbone.load(config, tmp_path)
    file.unlink()
    torch.save({"f": print}, tmp_path / "w/pytorch_model.bin")
    with pytest.raises(TcaError, match="cannot be loaded as a transformers model"):
        SemanticBackbone.load(config, tmp_path)


def test_a_part_that_the_patches_do_not_need_may_lack_and_changes_nothing(tmp_path: Path) -> None:
    sizes = ViTConfig(**SMALL_VIT, image_size=64)
    ViTForImageClassification(sizes).save_pretrained(tmp_path / "classifier")
    config = SemanticConfig(weights="classifier", size=64)
    # Its pooler is drawn anew at each loading.
    first, again = (SemanticBackbone.load(config, tmp_path).identity for _ in range(2))
    assert first == again


# --- motion ---


@torch.no_grad()
def test_r3d_18_outputs_0_and_4_equal_the_published_networks_two(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = torchvision.models.video.r3d_18().eval()
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    file = tmp_path / "r3d.pth"
    torch.save(published.state_dict(), file)
    ours = MotionBackbone.load(MotionConfig(weights="r3d.pth"), tmp_path)
    assert ours.architecture == "r3d_18"
    clips = torch.randint(0, 256, (2, 16, 3, 112, 112), dtype=torch.uint8)
    segments = ours(clips)
    assert segments.shape == (2, 8, 512)
    pixels = torchvision.transforms.v2.functional.normalize(
        clips / 255, [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
    ).transpose(1, 2)
    maps = published.layer4(
        published.layer3(published.layer2(published.layer1(published.stem(pixels))))
    )
    assert maps.shape == (2, 512, 2, 7, 7)
    torch.testing.assert_close(
        segments[:, [0, 4]], maps.mean((-2, -1)).transpose(1, 2), atol=1e-4, rtol=1e-4
    )
    # Averaging the published outputs over time gives what its classifier sees.
    logits = published(pixels)
    torch.testing.assert_close(
        published.fc(segments[:, [0, 4]].mean(1)), logits, atol=1e-4, rtol=1e-4
    )


def test_motion_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def load(weights: str, blocks: tuple[int, int, int, int] = (1, 1, 1, 1)) -> MotionBackbone:
        return MotionBackbone.load(MotionConfig(weights=weights, blocks=blocks), tmp_path)

    torch.save({"state_dict": torchvision.models.resnet18().state_dict()}, tmp_path / "image.pth")
    with pytest.raises(TcaError, match=r"not those of an R3D with \(1, 1, 1, 1\) blocks"):
        load("image.pth")
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    with pytest.raises(TcaError, match="damaged or holds more than tensors"):
        load("broken.pth")
    torch.save({"f": print}, tmp_path / "code.pth")
    with pytest.raises(TcaError, match="damaged or holds more than tensors"):
        load("code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TcaError, match="is no state_dict"):
        load("list.pth")
    with pytest.raises(TcaError, match=r"cannot read the weights .*none\.safetensors"):
        load("none.safetensors")
    with pytest.raises(UsageError, match="KINETICS400_V1"):
        load("KINETICS")


# --- both ---


@torch.no_grad()
def test_mean_and_pool_are_averages_of_the_frames() -> None:
    frames, clips = batch(3)
    whole = small()(frames, clips, "float32")
    assert whole["semantic"].shape == (3, 8, 16, 48)
    mean = small("mean")(frames, clips, "float32")
    torch.testing.assert_close(mean["semantic"], whole["semantic"].mean(1))
    pooled = small(pool=2)(frames, clips, "float32")
    grid = whole["semantic"].view(3, 8, 2, 2, 2, 2, 48)
    torch.testing.assert_close(pooled["semantic"], grid.mean((3, 5)).flatten(2, 3))
    for kind in (mean, pooled):
        torch.testing.assert_close(kind["motion"], whole["motion"])


def test_batch_size_and_order_do_not_change_a_row() -> None:
    backbones = small()
    frames, clips = batch(6)
    whole = backbones(frames, clips, "float32")
    turned = backbones(frames.flip(0), clips.flip(0), "float32")
    for name, rows in whole.items():
        torch.testing.assert_close(turned[name].flip(0), rows, atol=1e-5, rtol=1e-5)
        for row in (0, 5):
            alone = backbones(frames[row : row + 1], clips[row : row + 1], "float32")
            torch.testing.assert_close(alone[name][0], rows[row], atol=1e-5, rtol=1e-5)
        # What else is in the batch does not matter at all.
        other_frames, other_clips = batch(6, seed=1)
        other_frames[2], other_clips[2] = frames[2], clips[2]
        assert torch.equal(backbones(other_frames, other_clips, "float32")[name][2], rows[2])


def test_seeds_decide_random_weights_and_leave_the_callers_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again = small().identity, small().identity
    assert torch.equal(torch.rand(2), expected)
    assert first == again
    other = SemanticBackbone.load(
        SemanticConfig(weights="random:4", sizes=SMALL_VIT, size=64), HERE
    ).identity
    assert other["weights_sha256"] != first["semantic"]["weights_sha256"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "error"), [("float32", 2e-3), ("bfloat16", 5e-2)])
def test_a_gpu_computes_the_same(precision: str, error: float) -> None:
    frames, clips = batch(4)
    expected = small()(frames, clips, "float32")
    device = torch.device("cuda")
    found = small().to(device)(frames.to(device), clips.to(device), precision)
    for name, rows in expected.items():
        off = (found[name].cpu().float() - rows).norm() / rows.norm()
        assert off < error, name
