"""Settings of stage 1; free of torch, so that the command line can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tca.config import MOST, Section

SPLITS = ("train", "validation", "test")

FRAMES = 16
"""Sampled frames a video."""

SEGMENTS = 8
"""Segments a video: pairs of sampled frames."""

DEFAULT_WEIGHTS = "default"
"""The published weights that an architecture is known by."""


class DataConfig(Section):
    """Where the videos and their annotations are; relative paths start at the configuration."""

    videos: Path = Field(
        Path("videos"), description="folder of videos, searched through all its subfolders"
    )
    annotations: dict[Literal["train", "validation", "test"], Path] = Field(
        default_factory=dict,
        description="by split: SSv2 JSON, a CSV of video and label, or a folder a class",
    )
    labels: Path | None = Field(
        None,
        description="class list: JSON (name: index, or a list) or one name a line; without it "
        "the classes are the sorted names in the train annotations",
    )
    answers: Path | None = Field(
        None, description="labels of a split whose annotations have none: CSV of id;class"
    )
    flip: Path | None = Field(
        None,
        description="JSON whose left/right table swaps labels under a horizontal flip; `tca data "
        "check` holds it against the classes, extract.views.train.flip needs it",
    )


class SemanticConfig(Section):
    """The frozen image backbone and how much of its output is kept."""

    architecture: str | None = Field(
        None,
        description="name that `tca backbones` lists, or a transformers model type; without it, "
        "that of the weights, else dinov3_vit",
    )
    weights: str = Field(
        DEFAULT_WEIGHTS,
        description="hub id, local folder, random:SEED, or default: those of the architecture",
    )
    sizes: dict[str, Any] = Field(
        default_factory=dict,
        description="entries of the transformers configuration that random:SEED changes",
    )
    size: int | None = Field(
        None,
        ge=16,
        description="pixels of the square frame that the backbone sees; without it, what it is "
        "made for",
    )
    keep: Literal["mean", "frames"] = Field(
        "mean", description="mean: patches averaged over 8 frames; frames: all 8 frames"
    )
    pool: int = Field(
        1, ge=1, description="average the patches pool x pool; must divide the patch grid"
    )


class MotionConfig(Section):
    """The frozen video backbone."""

    architecture: str = Field("r3d_18", description="name that `tca backbones` lists")
    weights: str = Field(
        DEFAULT_WEIGHTS,
        description="torchvision weights name, local .pth or .safetensors file, hub id or local "
        "folder, random:SEED, or default: those of the architecture",
    )
    blocks: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="residual blocks a stage; those of 18 layers have 2, 2, 2, 2"
    )
    sizes: dict[str, Any] = Field(
        default_factory=dict,
        description="entries of the transformers configuration that random:SEED changes",
    )
    size: int | None = Field(
        None,
        ge=16,
        description="pixels of the square frame that the backbone sees; without it, what it is "
        "made for",
    )

    @model_validator(mode="after")
    def _blocks_are_there(self) -> MotionConfig:
        if min(self.blocks) < 1:
            raise ValueError("every stage needs at least one block")
        return self


class RandomViewsConfig(Section):
    """Views of a training video: the plain one, then random ones."""

    count: int = Field(
        1, ge=1, le=255, description="views a video; the first is always the plain one"
    )
    scale: tuple[float, float] = Field(
        (0.5, 1.0), description="smallest and largest share of the frame's area that is cut out"
    )
    aspect: tuple[float, float] = Field(
        (0.75, 1.3333), description="narrowest and widest shape of a crop; 1 is the frame's shape"
    )
    flip: bool = Field(
        False, description="mirror half of the random views; swaps labels by data.flip"
    )
    seed: int = Field(0, ge=0, le=MOST, description="another seed draws other views")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> RandomViewsConfig:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be [least, most] with 0 < least <= most <= 1")
        if not 0.1 <= self.aspect[0] <= self.aspect[1] <= 10:
            raise ValueError("aspect must be [least, most] with 0.1 <= least <= most <= 10")
        if self.flip and self.count == 1:
            raise ValueError("flip needs a count of 2 or more: the first view is never mirrored")
        return self


class EvenViewsConfig(Section):
    """Views of a validation or test video: every crop at every offset; `evaluate` averages them."""

    crops: Literal[1, 3] = Field(
        1, description="1: the whole frame; 3: also the squares at both ends of its long side"
    )
    offsets: int = Field(1, ge=1, le=255, description="temporal offsets, evenly spread")

    @model_validator(mode="after")
    def _a_byte_numbers_them(self) -> EvenViewsConfig:
        if self.crops * self.offsets > 255:
            raise ValueError(
                f"{self.crops} crops x {self.offsets} offsets are {self.crops * self.offsets} "
                "views a video, and a store numbers 255 at most"
            )
        return self


class ViewsConfig(Section):
    """How often each video is looked at; a row a view."""

    train: RandomViewsConfig = Field(RandomViewsConfig(), description="of the split train")
    test: EvenViewsConfig = Field(
        EvenViewsConfig(), description="of the splits validation and test"
    )


class ExtractConfig(Section):
    """How videos become rows."""

    geometry: Literal["full", "centre"] = Field(
        "full",
        description="full: the whole frame resized to the square; centre: short side to the "
        "square, centre cut",
    )
    views: ViewsConfig = Field(ViewsConfig(), description="views a video")
    min_frames: int = Field(
        8, ge=1, description="a video that breaks off counts if this many frames came before"
    )
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = Field(
        "float16", description="stored type; int8 has one float16 scale a patch"
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=MOST,
        description="videos the backbones see at once, kept in the store; 0: what the store was "
        "begun with, or by the device's memory",
    )
    decoder: Literal["pyav", "torchcodec", "torchcodec-cuda"] = Field(
        "pyav",
        description="library that decodes; torchcodec is an extra, with -cuda it uses the GPU's "
        "video decoder",
    )
    threads: int = Field(
        0,
        ge=0,
        description="videos decoded at once for a device, each by a process of one thread; 0: "
        "chosen by cores",
    )
    max_seconds: float = Field(
        60, gt=0, description="a video that takes longer to decode is given up: timed out"
    )
    max_frames: int = Field(
        100_000, ge=1, le=MOST, description="a video with more frames is unreadable"
    )
    max_pixels: int = Field(
        2**25,
        ge=1,
        le=MOST,
        description="a video with more pixels a frame is unreadable; the default is a little over "
        "7680x4320",
    )
    max_megabytes: int = Field(
        4096,
        ge=64,
        le=MOST,
        description="a video whose decoding takes more memory is unreadable",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto is bfloat16 on GPUs and CPUs that multiply it faster, float32 elsewhere",
    )


class Stage1Config(Section):
    """All settings of stage 1."""

    data: DataConfig = Field(DataConfig(), description="videos and annotations")
    semantic: SemanticConfig = Field(SemanticConfig(), description="the image backbone")
    motion: MotionConfig = Field(MotionConfig(), description="the video backbone")
    extract: ExtractConfig = Field(ExtractConfig(), description="how videos become rows")
