"""Where a loader's rows are read from: the disk, or a copy in RAM or on the GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tca.cache.buffers import Buffers, stored_types, torch_type
from tca.cache.config import LoaderConfig
from tca.cache.layout import feature_arrays
from tca.cache.memory import available_memory
from tca.cache.order import Rows
from tca.cache.store import Store
from tca.cache.threads import take
from tca.cache.types import decode, from_numpy, to_numpy
from tca.console import ProgressLine, note
from tca.errors import TcaError, UsageError

PART_BYTES = 64 << 20
"""Read at once where many rows are wanted; as much again is prefetched."""

CPU = torch.device("cpu")


class RowSource(ABC):
    """Features of one store's rows; may be shared by several loaders.

    Attributes:
        store: what the rows are of.
        streams: shape and type of the streams that are read.
        resident: whether the rows have been read already.
        instant: whether a batch costs the caller next to nothing, so that none is made ahead.
    """

    resident = False
    instant = False

    def __init__(self, store: Store, streams: Sequence[str] | None, config: LoaderConfig) -> None:
        """Choose what to read.

        Args:
            store: what to read from.
            streams: names of streams; None for all that there are.
            config: `checksum` is what counts here.

        Raises:
            TcaError: the store does not hold one of the streams.
        """
        self.store = store
        names = list(store.streams if streams is None else streams)
        require_streams(store, names)
        self.streams = {name: store.streams[name] for name in names}
        self.row_bytes = sum(stream.row_bytes for stream in self.streams.values())
        self._config = config
        self._checked = {
            name: np.zeros(store.rows, dtype=np.bool_) for name in feature_arrays(self.streams)
        }

    @abstractmethod
    def gather(self, rows: Rows, buffers: Buffers) -> dict[str, Tensor]:
        """Return the stored numbers of `rows`, in this order, by array.

        Raises:
            TcaError: a row cannot be read; see `Store.read`.
        """

    def read(self, rows: Rows, out: dict[str, Tensor]) -> None:
        """Read `rows` from disk into tensors in main memory, checked as the settings say.

        Raises:
            TcaError: a row cannot be read; see `Store.read`.
        """
        for array, tensor in out.items():
            seen = self._checked[array]
            check = self._config.checksum == "always" or (
                self._config.checksum == "first_epoch" and not bool(seen[rows].all())
            )
            self.store.read(array, rows, to_numpy(tensor), check=check)
            if check:
                seen[rows] = True

    def prefetch(self, rows: Rows) -> None:
        """Ask the system to have rows in its file cache soon."""
        if len(rows):
            for array in self._checked:
                self.store.prefetch(array, rows)

    def parts(self, rows: Rows) -> Iterator[slice]:
        """Cut `rows` into parts that are read one after the other, and prefetch the next one."""
        step = max(1, PART_BYTES // self.row_bytes)
        for first in range(0, len(rows), step):
            self.prefetch(rows[first + step : first + 2 * step])
            yield slice(first, min(first + step, len(rows)))


class DiskRows(RowSource):
    """Every batch is read straight into its own memory."""

    def gather(self, rows: Rows, buffers: Buffers) -> dict[str, Tensor]:
        """Read rows."""
        found = buffers.lend(len(rows))
        self.read(rows, found)
        return found


class RamRows(RowSource):
    """All rows are read once; a batch is copied out of them.

    Args:
        rows: row numbers in any order; no other row can be gathered.
        device: where the rows are kept.
        where: its name for the progress line.
    """

    resident = True

    def __init__(
        self,
        store: Store,
        rows: Rows,
        streams: Sequence[str] | None,
        config: LoaderConfig,
        device: torch.device = CPU,
        where: str = "RAM",
    ) -> None:
        super().__init__(store, streams, config)
        self.device = device
        self._rows = np.unique(rows)
        types = stored_types(self.streams)
        self._data = {
            name: torch.empty(
                (len(self._rows), *what.row_shape),
                dtype=torch_type(what, types[name]),
                device=device,
            )
            for name, what in feature_arrays(self.streams).items()
        }
        staging = Buffers(self.streams, 1, 2, pin=device.type == "cuda")
        with ProgressLine(f"load {store.split} into {where}", len(self._rows), "rows") as progress:
            for part in self.parts(self._rows):
                targets = {name: data[part] for name, data in self._data.items()}
                wanted = self._rows[part]
                if device.type == "cpu":
                    self.read(wanted, targets)
                else:
                    found = staging.lend(len(wanted))
                    self.read(wanted, found)
                    for name, target in targets.items():
                        target.copy_(found[name], non_blocking=True)
                progress.advance(len(wanted))

    def gather(self, rows: Rows, buffers: Buffers) -> dict[str, Tensor]:
        """Copy rows."""
        found = buffers.lend(len(rows))
        places = self._places(rows)
        for name, data in self._data.items():
            take(to_numpy(data), places, to_numpy(found[name]))
        return found

    def _places(self, rows: Rows) -> Rows:
        places = np.searchsorted(self._rows, rows).astype(np.int64, copy=False)
        if len(rows) and not np.array_equal(self._rows.take(places, mode="clip"), rows):
            raise ValueError("a row was asked for that was not loaded")
        return places


class DeviceRows(RamRows):
    """All rows are on the device that needs them; batches are gathered there."""

    instant = True

    def gather(self, rows: Rows, buffers: Buffers) -> dict[str, Tensor]:
        """Gather rows into new tensors on the device, in the stream of the calling thread."""
        places = torch.from_numpy(self._places(rows))
        if self.device.type == "cuda":
            places = places.pin_memory().to(self.device, non_blocking=True)
        return {name: data.index_select(0, places) for name, data in self._data.items()}


def open_source(
    store: Store,
    rows: Rows,
    streams: Sequence[str] | None,
    config: LoaderConfig,
    device: torch.device = CPU,
) -> RowSource:
    """Make `rows` ready for loaders as `config.residency` says.

    Args:
        store: what to read from.
        rows: all row numbers that loaders will ask for.
        streams: names of streams; None for all that there are.
        config: settings.
        device: where batches are used.

    Raises:
        UsageError: residency gpu where `device` is not one.
        TcaError: not enough memory, no such stream, or a row that cannot be read.
    """
    disk = DiskRows(store, streams, config)
    wanted = disk.row_bytes * len(np.unique(rows))
    place = config.residency
    if place == "auto" and wanted:
        place = _choose(wanted, device)
    if place == "disk" or wanted == 0:
        return disk
    if place == "gpu" and device.type != "cuda":
        raise UsageError(
            f"loader.residency=gpu needs a GPU, and the device is {device}; use ram, or auto."
        )
    free = _free(device if place == "gpu" else CPU)
    if wanted > free:
        raise TcaError(
            f"loader.residency={place} needs {_size(wanted)} for {len(rows)} rows of {store.path}, "
            f"and {_size(free)} are free; use auto, or disk."
        )
    if place == "gpu":
        return DeviceRows(store, rows, streams, config, device, str(device))
    return RamRows(store, rows, streams, config)


def _choose(wanted: int, device: torch.device) -> Literal["disk", "ram", "gpu"]:
    """Return the fastest place of which the rows take at most half, and say why."""
    places: list[tuple[Literal["ram", "gpu"], torch.device]] = [("ram", CPU)]
    if device.type == "cuda":
        places.insert(0, ("gpu", device))
    looked_at = []
    for place, where in places:
        free = _free(where)
        if wanted <= free / 2:
            note(
                f"loader.residency=auto chose {place}: the rows take {_size(wanted)} of "
                f"{_size(free)} free there."
            )
            return place
        looked_at.append(f"of {_size(free)} free ({place})")
    note(
        f"loader.residency=auto chose disk: the rows take {_size(wanted)}, more than half "
        f"{' and '.join(looked_at)}."
    )
    return "disk"


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def require_streams(store: Store, names: Sequence[str], who: str = "") -> None:
    """Refuse a store without one of the streams `names`, which `who` (a sentence's end) reads.

    Raises:
        TcaError: names the stream.
    """
    for name in names:
        if name not in store.streams:
            there = " and ".join(store.streams)
            raise TcaError(f"{store.path} holds no {name} stream, only {there}{who}.")


def read_decoded(store: Store, stream: str, rows: Rows) -> Tensor:
    """Return the features of `rows` as floating point, (len(rows), …), whatever their type.

    Raises:
        TcaError: a row cannot be read; see `Store.read`.
    """
    found = {
        array: from_numpy(store.read(array, rows), stored)
        for array, stored in stored_types({stream: store.streams[stream]}).items()
    }
    return decode(found[stream], next((t for n, t in found.items() if n != stream), None))
