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
from tca.extract.backbones import outline
from tca.extract.backbones.pair import Backbones
from tca.extract.backbones.registry import load_semantic
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
    ours = load_semantic(SemanticConfig(weights="random:3", sizes=SMALL_VIT), HERE)
    assert (ours.grid, ours.width, ours.architecture) == ((14, 14), 48, "dinov3_vit")
    frames = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    pixels = torchvision.transforms.v2.functional.normalize(
        frames / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    tokens = theirs(pixel_values=pixels).last_hidden_state
    assert tokens.shape[1] == 1 + 4 + 196
    torch.testing.assert_close(ours(frames), tokens[:, 5:], atol=1e-4, rtol=1e-4)


def test_without_sizes_random_weights_are_a_dinov3_vit_b16() -> None:
    backbone = load_semantic(SemanticConfig(weights="random:0"), HERE)
    assert (backbone.grid, backbone.width) == ((14, 14), 768)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    # 85,660,416 in the published checkpoint, by its own model card "86 M".
    assert 85.5e6 < count < 86e6
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, 196, 768)


@torch.no_grad()
def test_real_dinov2_weights_equal_transformers_own_pipeline(shared: Path) -> None:
    folder = shared / "weights/dinov2-vits14"
    ours = load_semantic(SemanticConfig(weights=str(folder)), HERE)
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
        load_semantic(SemanticConfig(weights="random:0", sizes=SMALL_VIT, size=100), HERE)
    with pytest.raises(UsageError, match=r"'dino9' is no transformers model type .*tca backbones"):
        load_semantic(SemanticConfig(weights="random:0", architecture="dino9"), HERE)
    dinov2 = str(shared / "weights/dinov2-vits14")
    with pytest.raises(UsageError, match="shapes random weights only"):
        load_semantic(SemanticConfig(weights=dinov2, sizes=SMALL_VIT), HERE)
    with pytest.raises(UsageError, match=r"are of dinov2, and semantic\.architecture is clip;"):
        load_semantic(SemanticConfig(weights=dinov2, architecture="clip"), HERE)
    with pytest.raises(UsageError, match=r"no default for the weights of .*'vit'; set"):
        load_semantic(SemanticConfig(architecture="vit"), HERE)
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

    monkeypatch.setattr(outline.AutoConfig, "from_pretrained", fails)
    with pytest.raises(TcaError, match=says) as caught:
        load_semantic(SemanticConfig(weights="a/b"), HERE)
    assert "\n" not in str(caught.value)


def test_local_folders_that_are_no_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(TcaError, match="no folder of weights at"):
        load_semantic(SemanticConfig(weights="./nowhere"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TcaError, match=r"cannot be loaded .* must hold config\.json"):
        load_semantic(SemanticConfig(weights="empty"), tmp_path)
    with pytest.raises(UsageError, match="random:SEED"):
        load_semantic(SemanticConfig(weights="random:x"), tmp_path)


def test_what_cannot_give_patches_is_refused_before_any_video_is_decoded() -> None:
    def load(architecture: str = "dinov3_vit", size: int | None = 64, **sizes: object) -> None:
        config = SemanticConfig(
            architecture=architecture, weights="random:0", size=size, sizes=sizes
        )
        load_semantic(config, HERE)

    with pytest.raises(UsageError, match="bert is no image transformer with one grid"):
        load("bert", num_hidden_layers=1)
    with pytest.raises(UsageError, match=r"bert does not say what .* set semantic\.size"):
        load("bert", None, num_hidden_layers=1)
    with pytest.raises(UsageError, match=r"sam_vision_model cannot take frames .*size=64: .*1024"):
        load("sam_vision_model", num_hidden_layers=1)
    # A masked autoencoder hides patches; a detector's own tokens come last.
    with pytest.raises(UsageError, match=r"vit_mae cannot .*: it gives 5 tokens for 16 patches"):
        load("vit_mae", num_hidden_layers=1)
    with pytest.raises(UsageError, match=r"yolos cannot .*: it gives 117 tokens for 16 patches"):
        load("yolos", num_hidden_layers=1)
    with pytest.raises(UsageError, match=r"unknown key 'hiden_size'.* DINOv3ViTConfig"):
        load(hiden_size=16)
    for sizes in ({"hidden_size": "wide"}, {"num_attention_heads": 0}):
        with pytest.raises(UsageError, match=r"semantic\.sizes does not fit dinov3_vit"):
            load(**sizes)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    DINOv3ViTModel(DINOv3ViTConfig(**SMALL_VIT)).save_pretrained(tmp_path / "w")
    config, file = SemanticConfig(weights="w", size=64), tmp_path / "w/model.safetensors"
    load_semantic(config, tmp_path)
    with pytest.raises(TcaError, match=r"model\.safetensors is a file; give the folder"):
        load_semantic(SemanticConfig(weights=str(file)), tmp_path)
    whole = load_file(file)
    # transformers would draw these anew and only print a table.
    part = {name: tensor for name, tensor in whole.items() if "layer.1." not in name}
    assert 0 < len(part) < len(whole)
    save_file(part, file, {"format": "pt"})
    with pytest.raises(TcaError, match=r"lack \S*layer\.1\.\S+ and \d+ more that dinov3_vit needs"):
        load_semantic(config, tmp_path)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(TcaError, match="cannot be loaded as a transformers model"):
        load_semantic(config, tmp_path)
    file.unlink()
    torch.save({"f": print}, tmp_path / "w/pytorch_model.bin")
    with pytest.raises(TcaError, match="cannot be loaded as a transformers model"):
        load_semantic(config, tmp_path)


def test_a_part_that_the_patches_do_not_need_may_lack_and_changes_nothing(tmp_path: Path) -> None:
    sizes = ViTConfig(**SMALL_VIT, image_size=64)
    ViTForImageClassification(sizes).save_pretrained(tmp_path / "classifier")
    config = SemanticConfig(weights="classifier", size=64)
    # Its pooler is drawn anew at each loading.
    first, again = (load_semantic(config, tmp_path).identity for _ in range(2))
    assert first == again


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
    other = load_semantic(
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
