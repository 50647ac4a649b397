"""A transformers network before it has numbers: its configuration, pixels and normalisation.

They come with a hub id or a local folder, or from an architecture's name for `random:SEED`. The
numbers are read afterwards, or not at all where only shapes and costs are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoConfig,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)

from tca.console import warn
from tca.errors import TcaError, UsageError
from tca.extract.backbones.base import first_line
from tca.extract.backbones.normalise import IMAGENET, Normalisation
from tca.extract.backbones.preparation import normalisation_of, processor_of, side_of
from tca.extract.backbones.weights import hub_problem, looks_like_path, random_seed, seeded
from tca.extract.config import DEFAULT_WEIGHTS, MotionConfig, SemanticConfig

NOT_READ = ("pooler", "mask_token", "predictor")
"""Parts of a network that the features do not depend on; a checkpoint may lack them."""


@dataclass(frozen=True)
class Published:
    """The published network that an architecture's name stands for.

    Attributes:
        weights: hub id.
        normalisation: of checkpoints that bring none, and of random weights.
        sizes: where it differs from the defaults of transformers' configuration.
        size: pixels it is used at, where that is not what its configuration says.
    """

    weights: str
    normalisation: Normalisation
    sizes: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None


@dataclass
class Outline:
    """A network to be made.

    Attributes:
        stream: "semantic" or "motion", the section that it is configured in.
        weights: as configured, `default` replaced by the hub id.
        source: hub id or local folder, None for random weights.
        config: transformers' configuration; may be changed before the network is made.
        size: pixels of the square frame: configured, or the network's own.
        normalisation: that of the checkpoint, or the published one.
    """

    stream: str
    weights: str
    source: str | None
    config: PretrainedConfig
    size: int
    normalisation: Normalisation

    def network(self, *, empty: bool) -> PreTrainedModel:
        """Make the network, frozen; `empty` reads no weights.

        Raises:
            TcaError: gated, unreachable, missing, damaged or incomplete weights.
            UsageError: sizes that do not fit together.
        """
        network = self._random() if empty or self.source is None else self._read(self.source)
        network.train(False).requires_grad_(False)
        return network

    def _random(self) -> PreTrainedModel:
        try:
            with seeded(random_seed(self.weights) or 0):
                network: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
                    self.config
                )
        except Exception as error:
            # Zero heads, a width that no head divides: each fails in a way of its own.
            raise _unfit(self.stream, self.config.model_type, error) from None
        return network

    def _read(self, source: str) -> PreTrainedModel:
        try:
            # Seeded: a part that is not read may be drawn anew, and the sha256 must not change.
            with seeded(0):
                network, report = AutoModel.from_pretrained(
                    source,
                    config=self.config,
                    dtype=torch.float32,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:
            raise _unloadable(self.stream, source, error) from None
        missing = sorted(
            name
            for name in report["missing_keys"]
            if not any(part in NOT_READ for part in name.split("."))
        )
        if missing:
            raise TcaError(
                f"the weights {source} lack {missing[0]} and {len(missing) - 1} more that "
                f"{self.config.model_type} needs; give the folder of a whole model."
            )
        return network  # type: ignore[no-any-return]


def outline(
    stream: str,
    config: SemanticConfig | MotionConfig,
    folder: Path,
    published: Mapping[str, Published],
) -> Outline:
    """Find out what network `config` means; relative local folders start at `folder`.

    Args:
        stream: the section that `config` is.
        config: backbone to make.
        folder: of the configuration.
        published: what is known by name, the first one where none is named.

    Raises:
        TcaError: a hub id or folder without a readable configuration.
        UsageError: no such architecture, or settings that contradict each other.
    """
    name = config.architecture
    known = published.get(family(name or next(iter(published))))
    if random_seed(config.weights) is not None:
        network = _by_name(stream, name or next(iter(published)), config.sizes, known)
        size = config.size or _own_size(stream, network, None, known, config.sizes)
        normalisation = known.normalisation if known else IMAGENET
        return Outline(stream, config.weights, None, network, size, normalisation)
    if config.sizes:
        raise UsageError(
            f"{stream}.sizes shapes random weights only; remove it, or set "
            f"{stream}.weights=random:SEED."
        )
    weights = config.weights
    if weights == DEFAULT_WEIGHTS:
        if known is None:
            raise UsageError(
                f"there is no default for the weights of {stream}.architecture={name!r}; set "
                f"{stream}.weights to a hub id, a local folder or random:SEED."
            )
        weights = known.weights
    source = _source(stream, weights, folder)
    network = _of_checkpoint(stream, source)
    if name is not None and family(name) != family(network.model_type):
        raise UsageError(
            f"the weights {weights} are of {family(network.model_type)}, and {stream}.architecture "
            f"is {name}; correct one, or leave {stream}.weights out for those of {name}."
        )
    known = published.get(family(network.model_type))
    processor = processor_of(stream, source)
    size = config.size or _own_size(stream, network, processor, known, {})
    given = normalisation_of(processor) or (known.normalisation if known else None)
    if given is None:
        warn(f"the weights {weights} come without a normalisation; ImageNet's is taken.")
    return Outline(stream, weights, source, network, size, given or IMAGENET)


def family(name: str) -> str:
    """Return `clip` for transformers' clip_vision_model: the part goes by the whole's name."""
    return name.removesuffix("_vision_model")


def _by_name(
    stream: str, name: str, sizes: Mapping[str, Any], known: Published | None
) -> PretrainedConfig:
    try:
        defaults = _image_part(AutoConfig.for_model(name))
    except (ValueError, AttributeError):
        raise UsageError(
            f"{stream}.architecture={name!r} is no transformers model type and no backbone that "
            "is installed; `tca backbones` lists them."
        ) from None
    unknown = [key for key in sizes if not hasattr(defaults, key)]
    if unknown:
        raise UsageError(
            f"{stream}.sizes has an unknown key {unknown[0]!r}; take those of transformers' "
            f"{type(defaults).__name__}."
        )
    try:
        changed = dict(known.sizes if known else {}) | dict(sizes)
        return _image_part(type(defaults)(**changed))
    except Exception as error:
        raise _unfit(stream, name, error) from None


def _source(stream: str, weights: str, folder: Path) -> str:
    local = folder / os.path.expanduser(weights)
    if local.is_file():
        raise TcaError(
            f"{local} is a file; give the folder with it and its config.json as {stream}.weights."
        )
    if looks_like_path(weights) and not local.is_dir():
        raise TcaError(f"there is no folder of weights at {local}; correct {stream}.weights.")
    return str(local) if local.is_dir() else weights


def _of_checkpoint(stream: str, source: str) -> PretrainedConfig:
    try:
        return _image_part(AutoConfig.from_pretrained(source, trust_remote_code=False))
    except Exception as error:
        raise _unloadable(stream, source, error) from None


def _image_part(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a text and image model that sees images, without its pooling head."""
    part: PretrainedConfig = getattr(config, "vision_config", config)
    if hasattr(part, "vision_use_head"):
        part.vision_use_head = False
    return part


def _own_size(
    stream: str,
    config: PretrainedConfig,
    processor: Any,
    known: Published | None,
    sizes: Mapping[str, Any],
) -> int:
    """Return the pixels that a network is meant for: its processor knows best."""
    asked = sizes.get("image_size") or sizes.get("crop_size")
    candidates = [side_of(processor), asked, known.size if known else None]
    candidates += [getattr(config, name, None) for name in ("image_size", "crop_size")]
    if isinstance(getattr(config, "num_patches", None), int):
        # SigLIP 2 takes any shape of so many patches.
        candidates.append(round(config.num_patches**0.5) * config.patch_size)
    size = next((size for size in candidates if size is not None), None)
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise UsageError(
            f"{config.model_type} does not say what square frames it is made for; set "
            f"{stream}.size to their pixels, or take another of those that `tca backbones` lists."
        )
    return size


def _unfit(stream: str, name: str, error: Exception) -> UsageError:
    return UsageError(f"{stream}.sizes does not fit {name}: {first_line(error)}.")


def _unloadable(stream: str, source: str, error: Exception) -> TcaError:
    # What a damaged folder brings transformers to has no type in common.
    if Path(source).is_dir() or not isinstance(error, OSError | HFValidationError):
        return TcaError(
            f"{source} cannot be loaded as a transformers model ({first_line(error)}); it must "
            "hold config.json and model.safetensors."
        )
    return hub_problem(stream, source, error)
