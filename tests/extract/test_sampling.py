import numpy as np
import pytest

from tca.extract.sampling import frame_indices


@pytest.mark.parametrize("count", [1, 7, 8, 13, 16, 17, 36, 49, 1000, 10**7])
def test_indices_are_the_formula_in_whole_numbers(count: int) -> None:
    # floor((i + 0.5) N / 16) without floating point.
    expected = [(2 * i + 1) * count // 32 for i in range(16)]
    assert frame_indices(count).tolist() == expected


def test_short_videos_repeat_frames_and_long_ones_do_not() -> None:
    assert frame_indices(1).tolist() == [0] * 16
    assert sorted(set(frame_indices(8).tolist())) == list(range(8))
    assert len(set(frame_indices(16).tolist())) == 16


@pytest.mark.parametrize("count", [1, 3, 16, 49, 12345])
@pytest.mark.parametrize("offset", [-0.5, -0.25, 0.3, float(np.nextafter(0.5, 0))])
def test_offsets_stay_inside_and_move_later(count: int, offset: float) -> None:
    moved, still = frame_indices(count, offset), frame_indices(count)
    assert moved.min() >= 0
    assert moved.max() < count
    assert (np.diff(moved) >= 0).all()
    assert (moved <= still).all() if offset < 0 else (moved >= still).all()


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        frame_indices(0)
    for offset in (0.5, -0.51):
        with pytest.raises(ValueError, match="must lie in"):
            frame_indices(16, offset)
