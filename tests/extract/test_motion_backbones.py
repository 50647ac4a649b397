"""Every motion backbone gives what its own library gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from transformers import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
    VideoMAEVideoProcessor,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
    VJEPA2VideoProcessor,
)

from tca.errors import TcaError, UsageError
from tca.extract.backbones.base import MotionBackbone
from tca.extract.backbones.registry import load_motion
from tca.extract.config import MotionConfig

HERE = Path()
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MAE = SMALL | {"intermediate_size": 64, "patch_size": 16}
# A rotation turns pairs of numbers on each of three axes.
JEPA = SMALL | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}


def clips(count: int, side: int) -> torch.Tensor:
    """Noise that grows brighter, so that no two segments are alike."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(count, 16, 3, side, side, generator=generator)
    return (255 * noise * torch.linspace(0.2, 1, 16).view(-1, 1, 1, 1)).to(torch.uint8)


@torch.no_grad()
def published(name: str) -> nn.Module:
    """torchvision's network with statistics that matter, as trained ones do."""
    torch.manual_seed(0)
    network = getattr(torchvision.models.video, name)().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    return network


# --- torchvision ---


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "side", "width"),
    [("r3d_18", 112, 512), ("mc3_18", 112, 512), ("r2plus1d_18", 112, 512), ("s3d", 224, 1024)],
)
def test_segments_hold_what_torchvisions_published_network_says(
    name: str, side: int, width: int, tmp_path: Path
) -> None:
    network = published(name)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    ours = load_motion(MotionConfig(architecture=name, weights="weights.pth"), tmp_path)
    assert (ours.architecture, ours.size, ours.row_shape) == (name, side, (8, width))
    clip = clips(1, side)
    segments = ours(clip)
    assert segments.shape == (1, 8, width)
    pixels = torchvision.transforms.v2.functional.normalize(clip / 255, *KINETICS).transpose(1, 2)
    seen: list[torch.Tensor] = []
    network.avgpool.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    logits = network(pixels)
    steps = seen[0].mean((-2, -1)).transpose(1, 2)
    if name == "mc3_18":
        assert steps.shape[1] == 16
        expected = (steps[:, ::2] + steps[:, 1::2]) / 2
        same = segments
    else:
        # Time is dilated: outputs 0 and 4 are the published two.
        assert steps.shape[1] == 2
        expected, same = steps, segments[:, [0, 4]]
        # Those between are no copies.
        between = segments[:, [2, 6]]
        assert (between - same).norm() > 0.005 * same.norm()
    torch.testing.assert_close(same, expected, atol=1e-4, rtol=1e-4)
    # Their average is what the published classifier sees.
    mean = same.mean(1)
    head = network.fc(mean) if name != "s3d" else network.classifier(mean[..., None, None, None])
    torch.testing.assert_close(head.flatten(1), logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_r3d_18_between_the_published_outputs_sees_later_frames() -> None:
    ours = load_motion(MotionConfig(weights="random:0", size=32), HERE)
    first, other = clips(1, 32), clips(1, 32)
    other[:, 14:] = 0
    changed = (ours(first) - ours(other)).abs().amax(-1)[0]
    # The last two frames reach the last segment most.
    assert changed.argmax() >= 6
    assert (changed > 0).sum() >= 2


def test_a_network_of_other_depth_is_called_by_another_name() -> None:
    for name, other in (("r3d_18", "r3d"), ("mc3_18", "mc3"), ("r2plus1d_18", "r2plus1d")):
        config = MotionConfig(architecture=name, weights="random:0", blocks=(1, 1, 1, 1), size=32)
        ours = load_motion(config, HERE)
        assert ours.identity["architecture"] == other
        assert ours.identity["blocks"] == [1, 1, 1, 1]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def load(weights: str, **options: Any) -> MotionBackbone:
        settings = {"blocks": (1, 1, 1, 1), "size": 32} | options
        return load_motion(MotionConfig(weights=weights, **settings), tmp_path)

    torch.save({"state_dict": torchvision.models.resnet18().state_dict()}, tmp_path / "image.pth")
    with pytest.raises(TcaError, match=r"not those of r3d_18 with \(1, 1, 1, 1\) blocks"):
        load("image.pth")
    with pytest.raises(TcaError, match=r"not those of s3d: they lack features\.0"):
        load("image.pth", architecture="s3d", blocks=(2, 2, 2, 2))
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
    with pytest.raises(UsageError, match=r"no weights name of r3d_18; take KINETICS400_V1, a"):
        load("KINETICS")
    with pytest.raises(UsageError, match=r"no weights name of r3d_18; .* motion\.architecture"):
        load("facebook/vjepa2-vitl-fpc64-256")


def test_a_part_of_the_weights_is_not_enough(tmp_path: Path) -> None:
    state = published("mc3_18").state_dict()
    torch.save({k: v for k, v in state.items() if "layer3.1." not in k}, tmp_path / "part.pth")
    config = MotionConfig(architecture="mc3_18", weights="part.pth")
    with pytest.raises(TcaError, match=r"not those of mc3_18 .*: they lack layer3\.1\."):
        load_motion(config, tmp_path)


def test_the_weights_of_a_name_that_cannot_be_downloaded_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # Nobody listens there.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(TcaError, match=r"weights KINETICS400_V1 of r2plus1d_18 are not on this"):
        load_motion(MotionConfig(architecture="r2plus1d_18"), tmp_path)


# --- transformers ---


def made(name: str, folder: Path, side: int, **options: Any) -> Any:
    """Save a small network with weights that matter everywhere."""
    torch.manual_seed(0)
    network: Any
    if name == "vjepa2":
        network = VJEPA2Model(VJEPA2Config(**JEPA, crop_size=side, **options))
        VJEPA2VideoProcessor(
            size={"shortest_edge": side + 16}, crop_size={"height": side, "width": side}
        ).save_pretrained(folder)
    else:
        network = VideoMAEModel(VideoMAEConfig(**MAE, image_size=side, **options))
        square = {"crop_size": {"height": side, "width": side}}
        VideoMAEImageProcessor(size={"shortest_edge": side}, **square).save_pretrained(folder)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    network.save_pretrained(folder)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
@pytest.mark.parametrize("tubelet", [2, 4])
def test_segments_are_transformers_tokens_averaged_over_space(
    name: str, tubelet: int, tmp_path: Path
) -> None:
    network = made(name, tmp_path, 64, tubelet_size=tubelet)
    ours = load_motion(MotionConfig(architecture=name, weights=str(tmp_path)), HERE)
    assert (ours.size, ours.row_shape) == (64, (16 // tubelet, 48))
    clip = clips(2, 64)
    still = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
    if name == "vjepa2":
        inputs = VJEPA2VideoProcessor.from_pretrained(tmp_path)(list(clip), **still)
        tokens = network.get_vision_features(inputs["pixel_values_videos"])
    else:
        inputs = VideoMAEVideoProcessor.from_pretrained(tmp_path)(list(clip), **still)
        tokens = network(inputs["pixel_values"]).last_hidden_state
    assert tokens.shape == (2, 16 // tubelet * 4 * 4, 48)
    theirs = tokens.view(2, 16 // tubelet, 16, 48).mean(2)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours(clip), theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_vjepa2_at_another_size_reckons_positions_from_it(tmp_path: Path) -> None:
    network = made("vjepa2", tmp_path, 64)
    ours = load_motion(MotionConfig(architecture="vjepa2", weights=str(tmp_path), size=96), HERE)
    larger = VJEPA2Model(VJEPA2Config(**JEPA, crop_size=96)).eval()
    larger.load_state_dict(network.state_dict())
    clip = clips(1, 96)
    pixels = torchvision.transforms.v2.functional.normalize(
        clip / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    theirs = larger.get_vision_features(pixels).view(1, 8, 36, 48).mean(2)
    torch.testing.assert_close(ours(clip), theirs, atol=1e-4, rtol=1e-4)
    # As it was saved, it would take the third row of nine patches for the first of the next step.
    wrong = network.get_vision_features(pixels).view(1, 8, 36, 48).mean(2)
    assert (wrong - theirs).norm() > 0.01 * theirs.norm()


@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_classifiers_and_networks_without_a_predictor_are_backbones_too(
    name: str, tmp_path: Path
) -> None:
    network = made(name, tmp_path / "plain", 64)
    plain = load_motion(MotionConfig(architecture=name, weights="plain"), tmp_path)
    classifier: Any
    if name == "vjepa2":
        classifier = VJEPA2ForVideoClassification(network.config)
        classifier.vjepa2.encoder.load_state_dict(network.encoder.state_dict())
    else:
        classifier = VideoMAEForVideoClassification(network.config)
        classifier.videomae.load_state_dict(network.state_dict())
    classifier.save_pretrained(tmp_path / "classifier")
    ours = load_motion(MotionConfig(architecture=name, weights="classifier"), tmp_path)
    assert ours.identity["weights_sha256"] == plain.identity["weights_sha256"]


def test_settings_that_a_video_transformer_does_not_have_are_refused(tmp_path: Path) -> None:
    def load(name: str, weights: str = "random:0", **options: Any) -> MotionBackbone:
        return load_motion(MotionConfig(architecture=name, weights=weights, **options), tmp_path)

    made("videomae", tmp_path / "mae", 64)
    with pytest.raises(UsageError, match=r"no frames but those of 64 pixels.*motion\.size=96 out"):
        load("videomae", "mae", size=96)
    with pytest.raises(UsageError, match="take clips of 8 frames, and a video has 16"):
        load("videomae", sizes=MAE | {"num_frames": 8})
    with pytest.raises(UsageError, match=r"are of videomae, and motion\.architecture is vjepa2"):
        load("vjepa2", "mae")
    with pytest.raises(UsageError, match=r"motion\.size=72 is no multiple of the 16-pixel"):
        load("vjepa2", sizes=JEPA, size=72)
    with pytest.raises(UsageError, match="takes 3 frames to a segment, which does not divide"):
        load("vjepa2", sizes=JEPA | {"tubelet_size": 3})
    with pytest.raises(UsageError, match=r"motion\.sizes has an unknown key 'hiden_size'"):
        load("vjepa2", sizes={"hiden_size": 3})
    with pytest.raises(UsageError, match=r"vjepa2 is not made of .* remove motion\.blocks"):
        load("vjepa2", sizes=JEPA, blocks=(1, 1, 1, 1))
    with pytest.raises(UsageError, match=r"s3d is not made of .* remove motion\.blocks"):
        load("s3d", blocks=(1, 1, 1, 1))
    with pytest.raises(UsageError, match=r"motion\.sizes shapes transformers only"):
        load("r3d_18", sizes={"hidden_size": 3})
    with pytest.raises(UsageError, match=r"'r3d_19' is none of r3d_18, mc3_18, .*vjepa2\."):
        load("r3d_19")
