"""Map: batches of pixels to the numbers that a store holds, with a device that never waits.

A GPU is given a batch before the features of the one before are fetched. A device that runs out of
memory in the middle of a run gets its batches in halves, quarters and so on from then on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tca.cache.format import Array
from tca.cache.types import encode, finite, to_numpy
from tca.console import warn
from tca.device import out_of_memory
from tca.errors import TcaError
from tca.extract.backbones.pair import Backbones


class Mapped:
    """A batch that was given to the device.

    Args:
        encoded: by array name the stored numbers of its rows, on the device.
    """

    def __init__(self, encoded: dict[str, Tensor]) -> None:
        self._fine = finite(encoded)
        self._copied: torch.cuda.Event | None = None
        if self._fine.is_cuda:
            # Copied when the device gets there; the caller goes on.
            encoded = {name: _fetched(tensor) for name, tensor in encoded.items()}
            self._fine = _fetched(self._fine)
            self._copied = torch.cuda.Event()
            self._copied.record()
        self._encoded = encoded

    def features(self) -> tuple[dict[str, Array], list[bool]]:
        """Wait for the device, and return the arrays by name and which rows are finite numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        return {n: to_numpy(tensor) for n, tensor in self._encoded.items()}, self._fine.tolist()


class Mapper:
    """Runs both backbones on batches of one size.

    Every batch has `batch_size` places, filled or not, so that a row is computed by the same
    kernels wherever it lies.
    """

    def __init__(
        self, backbones: Backbones, *, batch_size: int, precision: str, dtype: str
    ) -> None:
        self._backbones, self._precision, self._dtype = backbones, precision, dtype
        self._rows = batch_size
        self._pin = backbones.device.type == "cuda"

    def start(self, frames: Tensor, clips: Tensor) -> Mapped:
        """Give a batch to the device; its pixels may be changed when this returns.

        Args:
            frames: (batch_size, 8, 3, S, S) uint8.
            clips: (batch_size, 16, 3, s, s) uint8.

        Raises:
            TcaError: not enough memory even for a single video.
        """
        if self._pin:
            frames, clips = frames.pin_memory(), clips.pin_memory()
        while True:
            try:
                parts = zip(frames.split(self._rows), clips.split(self._rows), strict=True)
                return Mapped(_joined([self._encoded(*part) for part in parts]))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Out of the handler, whose traceback holds on to what was computed.
            self._split()

    def _encoded(self, frames: Tensor, clips: Tensor) -> dict[str, Tensor]:
        return {
            array: numbers
            for name, tensor in self._backbones(frames, clips, self._precision).items()
            for array, numbers in encode(name, tensor, self._dtype).items()
        }

    def _split(self) -> None:
        if self._rows == 1:
            raise TcaError(
                f"{self._backbones.device} has not enough memory for one video; free some, or take "
                "smaller backbones or semantic.size."
            )
        self._rows = (self._rows + 1) // 2
        warn(
            f"{self._backbones.device} is out of memory; its batches are computed {self._rows} "
            "videos at once from now on."
        )
        if self._pin:
            torch.cuda.empty_cache()


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _fetched(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
        tensor, non_blocking=True
    )
