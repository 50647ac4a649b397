"""A trained model as one thing to keep, load and share.

Saving, loading and uploading are the hub library's own (`PyTorchModelHubMixin`): a folder with
the weights in `model.safetensors`, all else in `config.json` and a filled-in `README.md`. What is
added here is that nothing is taken on trust: the mix-in would load a pickle where safetensors are
missing, leave weights that are missing as they were drawn, and say little of what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import Tensor, nn
from typing_extensions import override

from tca.cache.layout import differences
from tca.cache.residency import require_streams
from tca.cache.store import Store
from tca.config import check
from tca.console import warn
from tca.errors import TcaError, UsageError
from tca.fusion.features import require_same_features
from tca.fusion.hub import pulling, pushing
from tca.fusion.model.model_card import TEMPLATE, card_fields
from tca.fusion.model.registry import build
from tca.fusion.model.saved import AGAIN, Saved, check_config
from tca.fusion.model.variant import STREAMS
from tca.fusion.run_folder import RunFolder
from tca.fusion.tensor_file import read_tensors, write_tensors


class FusionModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tca",
    pipeline_tag="video-classification",
    tags=["action-recognition", "feature-fusion"],
    model_card_template=TEMPLATE,
):
    """A variant with its weights, the names of its classes and the features it was trained on.

    Every argument is plain JSON, so that `config.json` holds them as they are.

    Args:
        model: settings of the variant, `ModelConfig` as JSON.
        shapes: of a store's features, `FeatureShapes` as JSON.
        classes: names of the classes, in the order of the scores.
        identity: `identity` of the store trained on.
        precision: in which it was trained, and is scored.
        scores: what `tca evaluate` found, one entry a split; shown only.
        record: how it was trained; shown only.

    Raises:
        UsageError: a value that is not allowed, no such variant, or sizes that do not fit.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        shapes: Mapping[str, Any],
        classes: Sequence[str],
        identity: Mapping[str, Any],
        precision: str = "auto",
        scores: Sequence[Mapping[str, Any]] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = {
            "model": model,
            "shapes": shapes,
            "classes": classes,
            "identity": identity,
            "precision": precision,
            "scores": scores,
            "record": record,
        }
        self.saved = check(Saved, given, "the saved model")
        self.network = build(self.saved.model, self.saved.shapes, self.saved.classes)

    @classmethod
    def from_run(cls, run: Path, checkpoint: str = "best") -> Self:
        """Load a checkpoint of a run, in evaluation mode; warns if it is not finished.

        Raises:
            TcaError: no run there, no such checkpoint, or a damaged file.
        """
        folder = RunFolder(run)
        info = folder.info()
        tensors = folder.load(checkpoint)
        try:
            built = {name: info.pop(name) for name in ("model", "shapes", "classes", "identity")}
            precision = info["train"]["precision"]
            record = info | {"checkpoint": checkpoint}
            scores = folder.scores(checkpoint)
            model = cls(**built, precision=precision, scores=scores, record=record)
            _fill(model.network, tensors)
        except (LookupError, TypeError, ValueError, RuntimeError, TcaError) as error:
            reason = str(error).rstrip(".") if isinstance(error, TcaError) else repr(error)
            raise TcaError(
                f"{run} cannot be read: its run.json is damaged, from another tca, or not of its "
                f"{checkpoint} checkpoint ({reason}); train again."
            ) from None
        if not info.get("finished"):
            warn(f"{run} is not finished: its training was stopped, or goes on at this moment.")
        return model.eval()

    @classmethod
    def open(cls, folder: Path, checkpoint: str = "best") -> Self:
        """Load from a run folder, or from one that `save_pretrained` made; in evaluation mode.

        Raises:
            TcaError: neither is there, it has no such checkpoint, or a file is damaged.
        """
        if (folder / "run.json").is_file() or not (folder / CONFIG_NAME).is_file():
            return cls.from_run(folder, checkpoint)
        model: Self = cls.from_pretrained(folder)
        held = (model.saved.record or {}).get("checkpoint", checkpoint)
        if held != checkpoint:
            raise TcaError(f"{folder} holds the {held} checkpoint alone; add --checkpoint {held}.")
        return model

    @classmethod
    @override
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a folder that `save_pretrained` made, or a hub id `OWNER/NAME`; in evaluation mode.

        Arguments are the mix-in's. Nothing is unpickled, whatever the folder holds.

        Raises:
            TcaError: it is not there or cannot be fetched, a file is missing or damaged, or the
                weights are not those of the configuration; every difference is named.
        """
        place = str(pretrained_model_name_or_path)
        if not os.path.isdir(place):
            with pulling(place):
                place = snapshot_download(
                    place,
                    allow_patterns=[CONFIG_NAME, SAFETENSORS_SINGLE_FILE],
                    force_download=force_download,
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    revision=revision,
                )
        # The mix-in reads it again, without a word on what is wrong with it.
        check_config(Path(place))
        model: Self = super().from_pretrained(place, **model_kwargs)
        return model

    @classmethod
    @override
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        folder = Path(model_id)
        weights = folder / SAFETENSORS_SINGLE_FILE
        if not weights.is_file():
            raise TcaError(
                f"{folder} has no {weights.name}, and nothing else is loaded, as a pickle could "
                "run code; save the model with FusionModel.save_pretrained."
            )
        tensors = read_tensors(weights, AGAIN)
        try:
            model = cls(**model_kwargs)
            _fill(model, tensors)
        except (ArithmeticError, RuntimeError, ValueError, UsageError) as error:
            reason = str(error).rstrip(".")
            raise TcaError(f"{folder} cannot be loaded: {reason}; {AGAIN}.") from None
        return model.to(map_location).eval()

    @override
    def _save_pretrained(self, save_directory: Path) -> None:
        write_tensors(save_directory / SAFETENSORS_SINGLE_FILE, self.state_dict())

    @override
    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload weights, configuration and card as `OWNER/NAME`; options are the mix-in's.

        Returns:
            The address of the commit.

        Raises:
            TcaError: the hub cannot be reached, or does not let you write there.
        """
        options["model_card_kwargs"] = {"repo_id": repo_id} | (
            options.get("model_card_kwargs") or {}
        )
        with pushing(repo_id):
            return super().push_to_hub(repo_id, **options)

    @override
    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card, filled in; keywords replace or add to what its template is given."""
        return super().generate_model_card(*args, **card_fields(self) | kwargs)

    @override
    def forward(self, semantic: Tensor | None, motion: Tensor | None) -> Tensor:
        """Return class scores (B, classes), logits; see `Variant.forward`."""
        scores: Tensor = self.network(semantic, motion)
        return scores

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return self.saved.classes

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one video's features in every stream that is read."""
        shapes = self.saved.shapes
        patches = (shapes.grid[0] * shapes.grid[1], shapes.semantic_width)
        every = {
            "semantic": patches if shapes.segments is None else (shapes.segments, *patches),
            "motion": (shapes.motion_segments, shapes.motion_width),
        }
        return {name: every[name] for name in STREAMS if name in self.network.streams}

    def require_store(self, store: Store, what: str) -> None:
        """Hold a store against the model: class names, shapes, provenance.

        Args:
            store: features that shall be scored.
            what: what the model is called in a sentence.

        Raises:
            TcaError: a stream that the model reads is not there, or the features are not those
                that it was trained on; every difference is named.
        """
        streams = self.network.streams
        require_streams(store, streams, f", and {what} reads it")
        require_same_features(
            store,
            self.classes,
            self.saved.identity,
            streams,
            f"does not fit {what}, its features differ from those trained on",
            self.saved.shapes,
        )


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load `tensors`, each of them in its place.

    Raises:
        UsageError: one is missing, too many, or of another type or shape.
    """

    def described(state: Mapping[str, Tensor]) -> dict[str, str]:
        return {name: f"{some.dtype} {tuple(some.shape)}" for name, some in state.items()}

    different = differences(described(module.state_dict()), described(tensors))
    if different:
        more = f" and {len(different) - 3} more" * (len(different) > 3)
        raise UsageError(f"its weights are of another model: {'; '.join(different[:3])}{more}.")
    module.load_state_dict(dict(tensors))
