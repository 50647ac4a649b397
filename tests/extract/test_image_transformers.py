"""Every image transformer gives what transformers' own processor and network give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from tca.errors import TcaError, UsageError
from tca.extract.backbones.base import SemanticBackbone
from tca.extract.backbones.registry import load_semantic
from tca.extract.config import SemanticConfig

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = SMALL | {"vocab_size": 50, "projection_size": 48}
SIDE = 64

Made = tuple[Any, Any, int]
"""A network to save, its processor, and how many tokens come before the patches."""


def dinov3() -> Made:
    config = DINOv3ViTConfig(**SMALL, num_register_tokens=4, image_size=SIDE)
    return DINOv3ViTModel(config), DINOv3ViTImageProcessor(size={"height": 64, "width": 64}), 5


def dinov2() -> Made:
    config = Dinov2Config(**SMALL, image_size=112, patch_size=16)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 80},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return Dinov2Model(config), processor, 1


def dinov2_with_registers() -> Made:
    config = Dinov2WithRegistersConfig(**SMALL, image_size=112, num_register_tokens=4)
    return Dinov2WithRegistersModel(config), dinov2()[1], 5


def clip() -> Made:
    config = CLIPConfig(
        text_config=TEXT, vision_config=SMALL | {"patch_size": 16, "image_size": SIDE}
    )
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return CLIPModel(config), processor, 1


def siglip() -> Made:
    config = SiglipConfig(text_config=TEXT, vision_config=SMALL | {"image_size": SIDE})
    return SiglipModel(config), SiglipImageProcessor(size={"height": SIDE, "width": SIDE}), 0


def siglip2() -> Made:
    config = Siglip2Config(text_config=TEXT, vision_config=SMALL | {"num_patches": 16})
    return Siglip2Model(config), Siglip2ImageProcessor(max_num_patches=16), 0


def saved(make: Callable[[], Made], folder: Path) -> tuple[Any, Any, int]:
    """Save a network with weights that matter everywhere, as published checkpoints are."""
    torch.manual_seed(0)
    network, processor, before = make()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network.eval(), processor, before


def pictures(side: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).to(torch.uint8)


@torch.no_grad()
def their_patches(
    network: Any, processor: Any, before: int, frames: torch.Tensor, **options: Any
) -> torch.Tensor:
    """What transformers' own processor and network say of frames."""
    inputs = processor(list(frames), return_tensors="pt", **options)
    vision = getattr(network, "vision_model", network).eval()
    if isinstance(network, CLIPModel | SiglipModel):
        inputs["interpolate_pos_encoding"] = True
    tokens = vision(**inputs).last_hidden_state[:, before:]
    # The norm that CLIP applies to its class token.
    return vision.post_layernorm(tokens) if isinstance(network, CLIPModel) else tokens


def load(folder: Path, **options: Any) -> SemanticBackbone:
    return load_semantic(SemanticConfig(weights=str(folder), **options), Path())


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "architecture"),
    [
        (dinov3, "dinov3_vit"),
        (dinov2, "dinov2"),
        (dinov2_with_registers, "dinov2_with_registers"),
        (clip, "clip_vision_model"),
        (siglip, "siglip_vision_model"),
        (siglip2, "siglip2_vision_model"),
    ],
)
def test_patches_equal_transformers_own_pipeline(
    make: Callable[[], Made], architecture: str, tmp_path: Path
) -> None:
    network, processor, before = saved(make, tmp_path)
    ours = load(tmp_path)
    assert (ours.architecture, ours.size, ours.grid, ours.width) == (
        architecture,
        SIDE,
        (4, 4),
        48,
    )
    frames = pictures(SIDE)
    options = {} if make is siglip2 else {"do_resize": False, "do_center_crop": False}
    theirs = their_patches(network, processor, before, frames, **options)
    assert theirs.shape == (2, 16, 48)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours(frames), theirs, atol=1e-4, rtol=1e-4)
    # A name that fits changes nothing; clip and clip_vision_model are one.
    named = load(tmp_path, architecture=architecture.removesuffix("_vision_model"))
    assert named.identity == ours.identity


@torch.no_grad()
@pytest.mark.parametrize("make", [dinov3, dinov2, clip, siglip, siglip2])
def test_other_sizes_interpolate_positions_as_transformers_does(
    make: Callable[[], Made], tmp_path: Path
) -> None:
    network, processor, before = saved(make, tmp_path)
    ours = load(tmp_path, size=96)
    assert (ours.size, ours.grid) == (96, (6, 6))
    frames = pictures(96)
    if make is siglip2:
        theirs = their_patches(network, processor, before, frames, max_num_patches=36)
    else:
        theirs = their_patches(
            network, processor, before, frames, do_resize=False, do_center_crop=False
        )
    torch.testing.assert_close(ours(frames), theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 0.8]},
        {"do_rescale": False, "image_mean": [90.0, 100.0, 110.0], "image_std": [50.0] * 3},
    ],
)
def test_pixels_are_prepared_as_the_checkpoints_processor_says(
    options: dict[str, Any], tmp_path: Path
) -> None:
    network, _, before = saved(siglip, tmp_path)
    processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, **options)
    processor.save_pretrained(tmp_path)
    frames = pictures(SIDE)
    theirs = their_patches(network, processor, before, frames, do_resize=False)
    torch.testing.assert_close(load(tmp_path)(frames), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "processor"),
    [("clip", CLIPImageProcessor()), ("siglip", SiglipImageProcessor())],
)
def test_random_weights_get_the_architectures_own_normalisation(
    architecture: str, processor: Any
) -> None:
    config = SemanticConfig(architecture=architecture, weights="random:0", sizes=SMALL)
    identity = load_semantic(config, Path()).identity
    assert identity["mean"] == pytest.approx(processor.image_mean)
    assert identity["std"] == pytest.approx(processor.image_std)
    assert identity["size"] == 224


def test_a_checkpoint_without_a_processor_is_of_its_architectures_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Dinov2Model(Dinov2Config(**SMALL, image_size=518, patch_size=14)).save_pretrained(tmp_path)
    # Its positions are those of 518 pixels, and 224 are what it is used with.
    assert load(tmp_path).grid == (16, 16)
    assert "warning" not in capsys.readouterr().err
    ViTModel(ViTConfig(**SMALL, image_size=SIDE)).save_pretrained(tmp_path / "vit")
    assert load(tmp_path / "vit").grid == (4, 4)
    assert "without a normalisation; ImageNet's is taken" in capsys.readouterr().err


@torch.no_grad()
def test_patches_that_are_not_square_make_a_grid_that_is_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ViTModel(ViTConfig(**SMALL, image_size=SIDE, patch_size=[16, 8])).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert (ours.grid, ours.row_shape) == ((4, 8), (32, 48))
    frames = pictures(SIDE)
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(list(frames), return_tensors="pt")
    theirs = network(**inputs).last_hidden_state[:, 1:]
    torch.testing.assert_close(ours(frames), theirs, atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="no multiple of the 16x8-pixel patches of vit"):
        load(tmp_path, size=72)


def test_a_network_of_pictures_that_are_not_square_is_refused(tmp_path: Path) -> None:
    network = ViTModel(ViTConfig(**SMALL, image_size=[32, 64]))
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 64}).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"vit does not say what square .* set semantic\.size"):
        load(tmp_path)
    # transformers cannot turn its positions into those of a square.
    with pytest.raises(UsageError, match=r"vit cannot take frames of semantic\.size=64"):
        load(tmp_path, size=SIDE)


def test_the_pooling_head_is_neither_needed_nor_loaded(tmp_path: Path) -> None:
    saved(siglip, tmp_path)
    ours = load(tmp_path)
    names = [name for name, _ in ours.named_parameters()]
    assert names
    assert not [name for name in names if "head" in name]
    text = AutoModel.from_pretrained(tmp_path).text_model
    assert sum(p.numel() for p in text.parameters()) > 0
    assert not [name for name in names if "text" in name]


@pytest.mark.parametrize("name", ["dinov2", "siglip2"])
def test_without_a_hub_the_weights_of_a_name_are_told_with_the_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TcaError, match=f"the weights \\S+/{name}\\S+ are not on this machine and"):
        load_semantic(SemanticConfig(architecture=name), tmp_path)
