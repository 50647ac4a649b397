"""Stores of the same rows are the same to within rounding, whatever their formats and types."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_store import Example

from tca.cache.compare import ROUNDING, TOLERANCE, compare
from tca.cache.layout import Status
from tca.errors import TcaError

TYPES = ("float16", "bfloat16", "float32", "int8")


def made(folder: Path, kind: str = "float16", **changes: Any) -> Example:
    types = {"semantic": kind, "motion": kind}
    return Example(folder / "train.zarr", **{"types": types} | changes)


def test_equal_stores_agree_whatever_their_format_and_shards(tmp_path: Path) -> None:
    one = made(tmp_path / "a").write()
    other = made(tmp_path / "b", store_format="hdf5", rows_per_shard=13).write()
    found = compare(one, other)
    assert found.agrees
    assert found.settings == []
    assert found.rows == {"id": 0, "view": 0, "label": 0, "status": 0}
    for stream in found.streams.values():
        assert (stream.rows, stream.different, stream.absolute, stream.relative) == (18, 0, 0, 0)


@pytest.mark.parametrize("other", TYPES)
@pytest.mark.parametrize("kind", TYPES)
def test_types_differ_by_their_rounding(tmp_path: Path, kind: str, other: str) -> None:
    # The same features, rounded in two ways.
    found = compare(made(tmp_path / "a", kind).write(), made(tmp_path / "b", other).write())
    coarser = max(ROUNDING[kind], ROUNDING[other])
    assert found.agrees
    for stream in found.streams.values():
        assert stream.tolerance == TOLERANCE * coarser
        assert stream.types == (kind, other)
        # Both may round, in opposite directions, and a scale is itself rounded.
        assert stream.relative <= 2.01 * coarser
        assert (stream.different > 0) == (kind != other)
    assert bool(found.settings) == (kind != other)


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_more_than_rounding_is_found(tmp_path: Path, kind: str) -> None:
    one = made(tmp_path / "a", kind)
    other = made(tmp_path / "b", kind)
    # One number of one row: 0 where the largest magnitude of the row was.
    row = 9
    values = other.features["motion"][row]
    size = values.astype(np.float32)
    if kind == "bfloat16":
        size = (values.astype(np.uint32) << 16).view(np.float32)
    elif kind == "int8":
        size *= other.features["motion_scale"][row][:, None].astype(np.float32)
    place = np.unravel_index(np.abs(size).argmax(), size.shape)
    values[place] = 0
    found = compare(one.write(), other.write())
    assert not found.agrees
    assert not found.streams["semantic"].beyond
    stream = found.streams["motion"]
    assert (stream.different, stream.beyond) == (1, 1)
    assert stream.first == [(row, 1.0)]
    assert stream.absolute == pytest.approx(np.abs(size).max(), rel=1e-6)
    (problem,) = found.problems
    assert problem.startswith("motion: 1 rows differ by more than")
    assert f"row 9 (id {one.table.ids[9]}) by 1" in problem


def test_the_tolerance_is_of_the_row(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a"), made(tmp_path / "b")
    other.features["semantic"][4] *= np.float16(1.125)
    stores = one.write(), other.write()
    stream = compare(*stores, tolerance=0.2).streams["semantic"]
    assert (stream.different, stream.beyond) == (1, 0)
    # 1.125 times as much: the ninth part of the larger.
    assert stream.relative == pytest.approx(1 / 9, rel=2e-3)
    assert not compare(*stores, tolerance=0.11).agrees


def test_what_is_not_finite_differs_from_everything(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a"), made(tmp_path / "b")
    other.features["semantic"][4, 0, 0] = np.nan
    other.features["semantic"][5, 0, 0] = np.inf
    stream = compare(one.write(), other.write(), tolerance=1e30).streams["semantic"]
    assert (stream.different, stream.beyond) == (2, 2)
    assert stream.first == [(4, np.inf), (5, np.inf)]


def test_rows_that_are_not_the_same_are_named(tmp_path: Path) -> None:
    one = made(tmp_path / "a")
    other = made(tmp_path / "b", failed={3: Status.EMPTY, 7: Status.MISSING})
    other.table.label[2] = 2
    other.table.ids[5] = "other"  # type: ignore[index]
    found = compare(one.write(), other.write(0, 2))
    assert found.rows == {"id": 1, "view": 0, "label": 1, "status": 2 + 8}
    assert found.problems[0] == "id: 1 rows differ: row 5 'a b2' and 'other'"
    assert found.problems[1] == f"label: 1 rows differ: row 2 {one.table.label[2]} and 2"
    assert "row 3 unreadable and empty, row 8 ok and not extracted" in found.problems[2]
    assert found.problems[2].endswith("row 17 timed out and ok")
    # Only rows with features in both can be compared.
    assert {stream.rows for stream in found.streams.values()} == {10}


def test_settings_are_only_told(tmp_path: Path) -> None:
    one = made(tmp_path / "a").write()
    other = made(tmp_path / "b", identity={"keep": "mean", "size": [112, 112]}).write()
    found = compare(one, other)
    assert found.agrees
    assert found.settings == ["identity.size: entry 0 is expected 224, found 112"]


def test_stores_of_other_rows_or_shapes(tmp_path: Path) -> None:
    one = made(tmp_path / "a").write()
    with pytest.raises(TcaError, match=r"has 21 rows and .+ has 20"):
        compare(one, made(tmp_path / "b", rows=20).write())
    shapes = {"semantic": (4, 6), "motion": (8, 4)}
    found = compare(one, made(tmp_path / "c", row_shapes=shapes).write())
    assert found.problems == ["motion: rows of (8, 5) and (8, 4) cannot be compared"]
    assert list(found.streams) == ["semantic"]
    alone = made(tmp_path / "d", row_shapes={"motion": (8, 5)}).write()
    assert list(compare(one, alone).streams) == ["motion"]
