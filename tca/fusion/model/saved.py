"""`config.json` of a saved model: all that it is beside its weights, and what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.constants import CONFIG_NAME
from pydantic import Field

from tca.cache.layout import FeatureShapes
from tca.config import Section, check
from tca.errors import TcaError, UsageError
from tca.fusion.model.config import ModelConfig

AGAIN = "save it again, or download it again"


class Score(Section):
    """What `tca evaluate` found on one split."""

    split: str
    videos: int
    top1: float
    top5: float | None


class Saved(Section):
    """What `config.json` holds: all that a model is beside its weights."""

    model: ModelConfig
    shapes: FeatureShapes
    classes: list[str] = Field(min_length=1)
    identity: dict[str, Any]
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    scores: list[Score] | None = None
    record: dict[str, Any] | None = None


def check_config(folder: Path) -> None:
    """Hold the `config.json` in `folder` against `Saved`.

    Raises:
        TcaError: it is missing, damaged, or of another tca; says where.
    """
    file = folder / CONFIG_NAME
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError(f"a {type(tree).__name__} in place of an object")
        check(Saved, tree, str(file))
    except OSError as error:
        raise TcaError(
            f"cannot read {file} ({error.strerror}); give a folder that save_pretrained made, or a "
            "hub id OWNER/NAME."
        ) from None
    except (ValueError, RecursionError) as error:
        raise TcaError(f"{file} is damaged ({error}); {AGAIN}.") from None
    except UsageError as error:
        raise TcaError(f"{str(error).rstrip('.')}; {AGAIN}, with the same tca.") from None
