"""A trained model for other runtimes, held against the original before anything is written.

Both formats take float32 features of the streams that the variant reads, any number of videos at
once, and give logits. What a user needs to know beside them travels inside the file.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import override

import tca
from tca.cache.files import temporary_path, write_atomic, writing_failed
from tca.errors import TcaError
from tca.fusion.model.fusion_model import FusionModel
from tca.fusion.model.registry import OWN
from tca.fusion.model.stem import Stem

TOLERANCE = 1e-3
"""Of the largest score. Rounding alone gives 1e-6. Where two patches are almost equally similar to
a third, another order of additions may choose the other one, which gives up to 1e-4."""

BATCHES = (1, 2, 3, 5)
"""Videos at once in which an export is held against the original."""

TRACED = 2
"""Videos in the example that is traced; with one, their number would be taken for fixed."""

METADATA = "tca.json"
"""Name of the extra file in a `.pt2`."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the original.

    Attributes:
        path: the file, or the folder.
        format: hub, onnx or torch.
        bytes: its size.
        inputs: shape of one video's features, by stream.
        videos: how many were scored by both.
        largest_difference: of any score, absolute.
        largest_score: the largest absolute score of the original.
    """

    path: Path
    format: str
    bytes: int
    inputs: dict[str, tuple[int, ...]]
    videos: int
    largest_difference: float
    largest_score: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return vars(self) | {"path": str(self.path)}


def export(model: FusionModel, form: str, out: Path, *, force: bool = False) -> Exported:
    """Write `model` to `out` as `hub` (a folder), `onnx` or `torch` (a `.pt2` file).

    Args:
        model: in evaluation mode.
        form: hub, onnx or torch.
        out: where; its folder is made if need be.
        force: replace what is there.

    Raises:
        TcaError: `out` is there, cannot be written, a library is missing, or the copy gives other
            scores than the original; nothing is left behind.
    """
    if out.exists() and not force:
        raise TcaError(f"{out} is there already; name another place, or replace it with --force.")
    if out.exists() and out.is_dir() != (form == "hub"):
        what, wanted = ("folder", "file") if out.is_dir() else ("file", "folder")
        raise TcaError(f"{out} is a {what}, and {form} makes a {wanted}; name another place.")
    if form == "hub":
        return _export_folder(model, out)
    data, scores_of = _MAKERS[form](model)
    exported = _compared(model, form, out, len(data), scores_of)
    write_atomic(out, [data])
    return exported


Scorer = Callable[[dict[str, Tensor]], Tensor]
"""From features by stream, (B, …) float32, to logits (B, classes)."""


class Streams(nn.Module):
    """The network behind a signature that has the streams it reads alone, in their order."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.network = model.network

    @override
    def forward(self, *features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        given = dict(zip(self.network.streams, features, strict=True))
        scores: Tensor = self.network(given.get("semantic"), given.get("motion"))
        return scores


def _export_folder(model: FusionModel, out: Path) -> Exported:
    """Save, load again, compare, and only then put the folder in its place."""
    folder = temporary_path(out.resolve())
    try:
        # Of an attempt that was killed.
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        loaded = FusionModel.from_pretrained(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        exported = _compared(model, "hub", out, size, lambda batch: _scores(loaded, batch))
        out.mkdir(exist_ok=True)
        # Other files in a folder that is there are the user's.
        for file in sorted(folder.iterdir()):
            file.replace(out / file.name)
    except OSError as error:
        raise writing_failed(out, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return exported


def _to_onnx(model: FusionModel) -> tuple[bytes, Scorer]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError as error:
        raise TcaError(
            f"ONNX needs {error.name}, which is not here; pip install 'tca[onnx]'."
        ) from None
    with _traced(model, "onnx"), _quiet():
        program = torch.onnx.export(
            Streams(model),
            _example(model),
            input_names=list(model.input_shapes),
            output_names=["scores"],
            dynamic_shapes=_any_batch(model),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    # The exporter notes the line of code of every node, with the folders of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props.update(_metadata(model))
    data: bytes = program.model_proto.SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def scores_of(batch: dict[str, Tensor]) -> Tensor:
        (scores,) = session.run(["scores"], {name: some.numpy() for name, some in batch.items()})
        return torch.from_numpy(scores)

    return data, scores_of


def _to_torch(model: FusionModel) -> tuple[bytes, Scorer]:
    with _traced(model, "torch"):
        program = torch.export.export(
            Streams(model), _example(model), dynamic_shapes=_any_batch(model)
        )
    # As above; and the example would be a pickle inside the file.
    for part in program.graph_module.modules():
        for node in getattr(part, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    program.example_inputs = None
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(_metadata(model))})
    file.seek(0)
    loaded = torch.export.load(file).module()

    def scores_of(batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            scores: Tensor = loaded(*batch.values())
        return scores

    return file.getvalue(), scores_of


_MAKERS = {"onnx": _to_onnx, "torch": _to_torch}

FORMATS = ("hub", *_MAKERS)


def _metadata(model: FusionModel) -> dict[str, str]:
    """Return what travels inside the file: JSON documents by name."""
    saved = model.saved.model_dump(mode="json", include={"model", "shapes", "classes", "identity"})
    return {name: json.dumps(value) for name, value in saved.items()} | {"tca": tca.__version__}


@contextmanager
def _traced(model: FusionModel, form: str) -> Iterator[None]:
    """Trace with attention spelled out, and explain what cannot be traced.

    With a fused kernel the trace would rely on how that kernel lays out its result, which other
    runtimes do not share.
    """
    variant = model.saved.model.variant
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    except Exception as error:
        if variant in OWN:
            raise
        raise TcaError(
            f"the variant {variant!r} cannot be exported to {form} ({type(error).__name__}: "
            f"{next(iter(str(error).splitlines()), '')}); its package must be made traceable by "
            "torch.export."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter says to its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _example(model: FusionModel) -> tuple[Tensor, ...]:
    return tuple(_features(model, TRACED).values())


def _any_batch(model: FusionModel) -> tuple[tuple[dict[int, Any], ...]]:
    """Say of each stream that its first dimension is the number of videos."""
    batch = torch.export.Dim("batch", min=1)
    return (tuple({0: batch} for _ in model.input_shapes),)


def _features(model: FusionModel, videos: int) -> dict[str, Tensor]:
    """Draw features with the mean and deviation of those trained on, as stored, by stream."""
    drawn = torch.Generator().manual_seed(videos)
    found = {}
    for name, shape in model.input_shapes.items():
        stem = model.network.stems[name]
        assert isinstance(stem, Stem)
        noise = torch.randn(videos, *shape, generator=drawn)
        found[name] = stem.mean + noise * stem.deviation
    return found


@torch.no_grad()
def _scores(model: FusionModel, batch: dict[str, Tensor]) -> Tensor:
    scores: Tensor = model(batch.get("semantic"), batch.get("motion"))
    return scores


def _compared(model: FusionModel, form: str, out: Path, size: int, scores_of: Scorer) -> Exported:
    """Score the same videos with the original and its copy.

    Raises:
        TcaError: the scores differ by more than `TOLERANCE`.
    """
    difference = largest = 0.0
    for videos in BATCHES:
        batch = _features(model, videos)
        expected, found = _scores(model, batch), scores_of(batch)
        difference = max(difference, float((found - expected).abs().nan_to_num(torch.inf).max()))
        largest = max(largest, float(expected.abs().max()))
    if not difference <= TOLERANCE * largest:
        raise TcaError(
            f"the {form} model differs from the original by {difference:.2g} in scores up to "
            f"{largest:.2g}, more than rounding does, so {out} was not written; try another "
            "version of torch or onnxruntime."
        )
    return Exported(out, form, size, model.input_shapes, sum(BATCHES), difference, largest)
