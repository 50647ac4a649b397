"""Mapping: every batch in one size, and in parts where memory runs out in the middle of a run."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from tca.errors import TcaError
from tca.extract.mapping import Mapper


@dataclass
class Greedy:
    """Backbones whose device has room for `room` videos at once."""

    device: ClassVar = torch.device("cpu")
    room: int
    seen: list[int] = field(default_factory=list)

    def __call__(self, frames: Tensor, clips: Tensor, precision: str) -> dict[str, Tensor]:
        self.seen.append(len(frames))
        if len(frames) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {
            "semantic": frames.float().mean((1, 2)).flatten(1)[:, None],
            "motion": clips.float().mean((2, 3)),
        }


def pixels(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 256, (rows, 8, 3, 4, 4), dtype=torch.uint8, generator=generator),
        torch.randint(0, 256, (rows, 16, 3, 2, 2), dtype=torch.uint8, generator=generator),
    )


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_device_without_memory_gets_its_batches_in_parts(
    dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = pixels(7)
    whole, fine = (
        Mapper(Greedy(7), batch_size=7, precision="auto", dtype=dtype).start(*batch).features()
    )
    assert fine == [True] * 7
    greedy = Greedy(2)
    mapper = Mapper(greedy, batch_size=7, precision="auto", dtype=dtype)
    for _ in range(2):
        found, _ = mapper.start(*batch).features()
        assert found.keys() == whole.keys()
        for name, numbers in whole.items():
            assert np.array_equal(found[name], numbers)
    # 7, 4 and 2 are tried once; the second batch begins with 2.
    assert greedy.seen == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    assert capsys.readouterr().err.count("out of memory") == 2


def test_no_memory_for_a_single_video_is_an_error() -> None:
    mapper = Mapper(Greedy(0), batch_size=4, precision="auto", dtype="float16")
    with pytest.raises(TcaError, match="not enough memory for one video"):
        mapper.start(*pixels(4))


def test_other_errors_are_not_taken_for_it() -> None:
    def broken(frames: Tensor, clips: Tensor, precision: str) -> dict[str, Tensor]:
        raise RuntimeError("device-side assert triggered")

    broken.device = torch.device("cpu")  # type: ignore[attr-defined]
    mapper = Mapper(broken, batch_size=4, precision="auto", dtype="float16")
    with pytest.raises(RuntimeError, match="device-side assert"):
        mapper.start(*pixels(4))


def test_rows_that_the_type_cannot_hold_are_named() -> None:
    class Loud(Greedy):
        def __call__(self, frames: Tensor, clips: Tensor, precision: str) -> dict[str, Tensor]:
            found = super().__call__(frames, clips, precision)
            found["motion"][2, 0] = 1e6
            return found

    for dtype, fine in (("float16", [True, True, False, True]), ("float32", [True] * 4)):
        mapper = Mapper(Loud(4), batch_size=4, precision="auto", dtype=dtype)
        assert mapper.start(*pixels(4)).features()[1] == fine
