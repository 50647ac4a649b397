"""Map: batches of pixels to the numbers that a store holds, with a device that never waits.

A GPU is given a batch before the features of the one before are fetched. A device that runs out of
memory in the middle of a run gets its batches in halves, quarters and so on from then on.
"""

from __future__ import annotations

import time

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
        clock: started before they were computed.
    """

    def __init__(self, encoded: dict[str, Tensor], clock: _Clock) -> None:
        fine = finite(encoded)
        if fine.is_cuda:
            # Copied when the device gets there; the caller goes on.
            encoded = {name: _fetched(tensor) for name, tensor in encoded.items()}
            fine = _fetched(fine)
        self._encoded, self._fine, self._clock = encoded, fine, clock
        clock.stop()

    def features(self) -> tuple[dict[str, Array], list[bool]]:
        """Wait for the device, and return the arrays by name and which rows are finite numbers."""
        self._clock.wait()
        return {n: to_numpy(tensor) for n, tensor in self._encoded.items()}, self._fine.tolist()

    @property
    def seconds(self) -> float:
        """How long the device worked on it; known after `features`."""
        return self._clock.seconds


class _Clock:
    """Times a device by its own events: a GPU works on while nobody waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            self._events = (
                torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
                torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            )
            self._events[0].record(torch.cuda.current_stream(device))
        self._begun, self.seconds = time.perf_counter(), 0.0

    def stop(self) -> None:
        if self._events is None:
            self.seconds = time.perf_counter() - self._begun
        else:
            self._events[1].record()

    def wait(self) -> None:
        if self._events is not None:
            self._events[1].synchronize()
            self.seconds = self._events[0].elapsed_time(self._events[1]) / 1000


class Mapper:
    """Runs both backbones on batches of one size.

    Every batch has `batch_size` places, filled or not, so that a row is computed by the same
    kernels wherever it lies.

    Attributes:
        ahead: batches to give to the device before the features of the first are fetched.
    """

    def __init__(
        self, backbones: Backbones, *, batch_size: int, precision: str, dtype: str
    ) -> None:
        self._backbones, self._precision, self._dtype = backbones, precision, dtype
        self._rows = batch_size
        self._pin = backbones.device.type == "cuda"
        self.ahead = 1 if self._pin else 0

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
            clock = _Clock(self._backbones.device)
            try:
                parts = zip(
                    *(torch.split(pixels, self._rows) for pixels in (frames, clips)), strict=True
                )
                return Mapped(_joined([self._encoded(*part) for part in parts]), clock)
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
            f"{self._backbones.device} is out of memory; its batches are computed in parts of "
            f"{self._rows} from now on."
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
