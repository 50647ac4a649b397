"""The features of every view, computed again from PyAV frames by torchvision and transformers."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet
from torchvision.transforms.v2 import functional as transforms
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from tca.cache.store import Store
from tca.extract.config import (
    DataConfig,
    EvenViewsConfig,
    ExtractConfig,
    MotionConfig,
    RandomViewsConfig,
    SemanticConfig,
    Stage1Config,
    ViewsConfig,
)
from tca.extract.run import extract
from tca.extract.views import View, random_view

CLASSES = ["still", "to the left", "to the right"]
TRAIN = RandomViewsConfig(count=3, scale=(0.3, 0.9), flip=True, seed=1)
SHAPES = {"a": (54, 96), "b": (96, 54), "c": (64, 64)}
"""Height and width of the videos; their labels are 0, 1 and 2."""


def write_texture(path: Path, height: int, width: int, frames: int) -> None:
    """A texture moves across; no two frames and no two corners are alike."""
    generator = np.random.default_rng(height)
    coarse = generator.integers(0, 256, (height // 6, width // 3, 3), dtype=np.uint8)
    texture = np.array(Image.fromarray(coarse).resize((2 * width, height), Image.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=12)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shown = np.roll(texture, -3 * number, axis=1)[:, :width]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def semantic() -> DINOv3ViTModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = DINOv3ViTConfig(
        **sizes, intermediate_size=32, num_register_tokens=2, patch_size=16, image_size=32
    )
    return DINOv3ViTModel(config).eval()


@pytest.fixture(scope="module")
def motion() -> VideoResNet:
    torch.manual_seed(0)
    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem).eval()


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, semantic: DINOv3ViTModel, motion: VideoResNet
) -> Stage1Config:
    folder = tmp_path_factory.mktemp("views")
    (folder / "videos").mkdir()
    for number, (name, shape) in enumerate(SHAPES.items()):
        write_texture(folder / f"videos/{name}.webm", *shape, frames=29 + number)
    (folder / "videos/broken.webm").write_bytes(b"no video")
    lines = "".join(f"{name},{CLASSES[label]}\n" for label, name in enumerate(SHAPES))
    (folder / "list.csv").write_text(f"{lines}broken,{CLASSES[0]}\ngone,{CLASSES[0]}\n")
    (folder / "labels.json").write_text(json.dumps(CLASSES))
    pair = {CLASSES[1]: CLASSES[2], CLASSES[2]: CLASSES[1]}
    (folder / "flip.json").write_text(json.dumps({"left/right": pair}))
    semantic.save_pretrained(folder / "semantic")
    save_file(motion.state_dict(), folder / "motion.safetensors")
    return Stage1Config(
        data=DataConfig(
            videos=folder / "videos",
            annotations={"train": folder / "list.csv", "validation": folder / "list.csv"},
            labels=folder / "labels.json",
            flip=folder / "flip.json",
        ),
        semantic=SemanticConfig(weights=str(folder / "semantic"), size=32, keep="frames"),
        motion=MotionConfig(
            weights=str(folder / "motion.safetensors"), blocks=(1, 1, 1, 1), size=32
        ),
        extract=ExtractConfig(
            # No multiple of the views: batches begin and end inside a video.
            batch_size=4,
            precision="float32",
            threads=2,
            dtype="float32",
            views=ViewsConfig(train=TRAIN, test=EvenViewsConfig(crops=3, offsets=2)),
        ),
    )


def box_of(view: View, height: int, width: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a crop."""
    if view.crop is None:
        return 0, 0, height, width
    if isinstance(view.crop, str):
        side = min(height, width)
        at_end = view.crop == "end"
        return at_end * (height - side), at_end * (width - side), side, side
    left, top, right, bottom = np.rint(np.array(view.crop) * [width, height, width, height])
    return int(top), int(left), int(bottom - top), int(right - left)


@torch.no_grad()
def computed_again(
    path: Path, view: View, semantic: DINOv3ViTModel, motion: VideoResNet
) -> tuple[np.ndarray, np.ndarray]:
    """Return (8, 4, 16) patches, and segments 0 and 4 of motion: the published network's two."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    places = np.floor((np.arange(16) + 0.5 + view.offset) * len(frames) / 16).astype(int)
    clip = torch.from_numpy(np.stack([frames[place] for place in places])).permute(0, 3, 1, 2)
    seen = transforms.resized_crop(clip, *box_of(view, *clip.shape[2:]), [32, 32], antialias=True)
    if view.flip:
        seen = transforms.horizontal_flip(seen)
    pixels = seen.float() / 255
    patches = semantic(
        transforms.normalize(pixels[::2], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    ).last_hidden_state[:, 3:]
    clips = transforms.normalize(pixels, [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
    maps = motion.stem(clips.transpose(0, 1)[None])
    for layer in (motion.layer1, motion.layer2, motion.layer3, motion.layer4):
        maps = layer(maps)
    return patches.numpy(), maps.mean((-2, -1))[0].T.numpy()


def views_of(split: str, name: str) -> list[View]:
    if split == "train":
        return [random_view(TRAIN, name, number) for number in range(3)]
    return [View(crop, offset) for offset in (-0.25, 0.25) for crop in (None, "start", "end")]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_row_is_what_torchvisions_crop_of_the_frames_gives(
    split: str,
    config: Stage1Config,
    semantic: DINOv3ViTModel,
    motion: VideoResNet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"{split}.zarr"
    summary = extract(split, path, config, devices=["cpu"], allow_missing=True)
    store = Store.open(path)
    count = {"train": 3, "validation": 6}[split]
    assert summary.status == {"ok": 3 * count, "missing": count, "unreadable": count}
    assert store.ids == [name for name in (*SHAPES, "broken", "gone") for _ in range(count)]
    assert store.view.tolist() == list(range(count)) * 5
    # Every view of a video that failed is a row that failed, and the video one video.
    assert "2 of 5 videos have no features" in capsys.readouterr().err
    with open(summary.failures, newline="") as file:
        failures = [(row["id"], int(row["view"]), row["status"]) for row in csv.DictReader(file)]
    assert failures == [
        (name, view, status)
        for name, status in (("broken", "unreadable"), ("gone", "missing"))
        for view in range(count)
    ]
    patches = store.read("semantic", np.arange(3 * count))
    segments = store.read("motion", np.arange(3 * count))
    labels = []
    for video, name in enumerate(SHAPES):
        views = views_of(split, name)
        for row, view in enumerate(views, count * video):
            path = config.data.videos / f"{name}.webm"
            frames, two = computed_again(path, view, semantic, motion)
            np.testing.assert_allclose(patches[row], frames, atol=2e-4)
            np.testing.assert_allclose(segments[row, [0, 4]], two, atol=2e-4)
            labels.append((0, 2, 1)[video] if view.flip else video)
        if name == "c" and split == "validation":
            # Both ends of a square are all of it.
            assert np.array_equal(patches[row], patches[row - 1])
            continue
        rows = range(count * video, count * (video + 1))
        apart = [
            np.abs(patches[one] - patches[other]).max()
            for one in rows
            for other in rows
            if one < other
        ]
        assert min(apart) > 0.05
    assert store.label.tolist() == labels + [0] * (2 * count)
    flips = [view.flip for name in SHAPES for view in views_of(split, name)]
    assert any(flips) == (split == "train")
    assert (labels != [video for video in range(3) for _ in range(count)]) == (split == "train")
