"""How pictures are prepared for a checkpoint, as the processor that came with it says."""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor, AutoVideoProcessor

from tca.extract.backbones.normalise import Normalisation

PROCESSORS: dict[str, tuple[Any, ...]] = {
    "semantic": (AutoImageProcessor,),
    "motion": (AutoVideoProcessor, AutoImageProcessor),
}
"""Where a stream's checkpoints say how pictures are prepared; older video models use images'."""


def processor_of(stream: str, source: str) -> Any:
    """Return the preparation of pictures that came with the weights, None where none did."""
    for kind in PROCESSORS[stream]:
        try:
            return kind.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, ImportError, TypeError, AttributeError):
            continue
    return None


def side_of(processor: Any) -> Any:
    """Return the side of the pictures that a processor makes, (height, width) if they differ."""
    cut = getattr(processor, "do_center_crop", False)
    size = getattr(processor, "crop_size" if cut else "size", None)
    if size is None:
        return None
    height, width = (getattr(size, side, None) for side in ("height", "width"))
    if height is None:
        return getattr(size, "shortest_edge", None)
    return height if height == width else (height, width)


def normalisation_of(processor: Any) -> Normalisation | None:
    """Return what a processor does to pixels in [0, 1], None if it does not say."""
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if processor is not None and not processor.do_normalize:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if mean is None or std is None:
        return None
    # Most bring pixels to [0, 1] first, some to [0, 2] or not at all.
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255
    return Normalisation(tuple(m / scale for m in mean), tuple(s / scale for s in std))
