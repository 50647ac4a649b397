"""A flipped bit anywhere in a store is found, and no wrong number is ever served.

Every byte of every file may be hit: rows, indices, statuses, checksums, metadata, sums. None is
left out, not even in HDF5, whose files could have gaps that nobody reads: those of tca have none.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from example_store import FORMATS, Example

from tca.cache.layout import Status
from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.cache.types import to_numpy
from tca.cache.verify import verify
from tca.errors import TcaError

EVERYTHING = {
    "types": {"semantic": "int8", "motion": "bfloat16"},
    # Failures in the first shard, all of the third, and in the last one, which is short.
    "failed": {3: Status.UNREADABLE, 7: Status.MISSING, 30: Status.EMPTY}
    | {row: Status.TIMED_OUT for row in range(16, 24)},
    "rows": 37,
}


@pytest.fixture(scope="module", params=FORMATS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    path = tmp_path_factory.mktemp("sound") / f"train.{request.param}"
    example = Example(path, **EVERYTHING)
    example.write()
    return example


@pytest.fixture
def path(sound: Example, tmp_path: Path) -> Path:
    shutil.copytree(sound.path.parent, tmp_path / "cache")
    return tmp_path / "cache" / sound.path.name


def row_places(sound: Example, path: Path) -> dict[Path, list[tuple[int, int, int]]]:
    """(first byte, end, row) of the features of every good row, by file."""
    store = Store.open(path)
    found: dict[Path, list[tuple[int, int, int]]] = {}
    for name, features in sound.features.items():
        for row in store.ready().tolist():
            file = store.format.shard_file(name, row // sound.rows_per_shard)
            data = features[row].tobytes()
            start = file.read_bytes().index(data)
            found.setdefault(file, []).append((start, start + len(data), row))
    return found


def epoch(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, row numbers and stored features of all batches of an epoch of the loader."""
    store = Store.open(path)
    for batch in Loader(store, store.ready(), 4, seed=0).epoch(0):
        for name, numbers in batch.arrays.items():
            yield name, batch.rows, to_numpy(numbers)


def assert_noticed(sound: Example, path: Path, file: Path, row: int | None) -> None:
    """Whatever is served is right; what is not right is an error that names the row or file."""
    said = ""
    try:
        store = Store.open(path)
        assert np.array_equal(store.status, sound.status)
        assert store.ids == sound.table.ids
        for name in ("label", "video", "view"):
            assert np.array_equal(getattr(store, name), getattr(sound.table, name))
        for name, rows, found in epoch(path):
            assert np.array_equal(found, sound.features[name][rows])
    except TcaError as error:
        said = str(error)
    if row is not None:
        assert f"row {row} (id {sound.table.ids[row]})" in said
        assert str(file) in said
    problems = verify(path).problems
    assert str(file) in {problem.file for problem in problems}
    if row is not None:
        assert [problem.row for problem in problems] == [row]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(params=[20, pytest.param(100, marks=pytest.mark.long)])
def count(request: pytest.FixtureRequest) -> int:
    return request.param


def test_a_bit_in_a_row_is_an_error_that_names_it(sound: Example, path: Path, count: int) -> None:
    places = [(file, *place) for file, found in row_places(sound, path).items() for place in found]
    generator = np.random.default_rng(0)
    for _ in range(count):
        file, start, end, row = places[generator.integers(len(places))]
        whole = file.read_bytes()
        file.write_bytes(flipped(whole, int(generator.integers(8 * start, 8 * end))))
        assert_noticed(sound, path, file, row)
        file.write_bytes(whole)


def test_a_bit_outside_the_rows_is_noticed(sound: Example, path: Path, count: int) -> None:
    """Indices, statuses, checksums and metadata: as likely in a small file as in a large one."""
    rows = row_places(sound, path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    generator = np.random.default_rng(1)
    # Every kind of file at least once, then at random.
    chosen = {file.relative_to(path).parts[0]: file for file in files}
    names = [*chosen.values(), *generator.choice(np.array(files, object), count)]
    for file in names[: max(count, len(chosen))]:
        whole = file.read_bytes()
        outside = np.ones(len(whole), bool)
        for start, end, _ in rows.get(file, []):
            outside[start:end] = False
        byte = generator.choice(np.flatnonzero(outside))
        file.write_bytes(flipped(whole, int(8 * byte + generator.integers(8))))
        assert_noticed(sound, path, file, None)
        file.write_bytes(whole)


def test_a_bit_in_the_sums_is_noticed(sound: Example, path: Path, count: int) -> None:
    file = path.parent / "tca.sums"
    whole = file.read_bytes()
    for bit in np.random.default_rng(2).choice(8 * len(whole), count // 4, replace=False).tolist():
        file.write_bytes(flipped(whole, bit))
        assert_noticed(sound, path, file, None)
        file.write_bytes(whole)


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("failed", [[3, 7], range(8)], ids=["some failed", "all failed"])
def test_every_byte_of_an_hdf5_shard_counts(
    tmp_path: Path, failed: Sequence[int], stride: int
) -> None:
    """HDF5 decides what lies where: no byte is left over that nothing guards."""
    statuses = dict.fromkeys(failed, Status.UNREADABLE)
    store = Example(tmp_path / "train.hdf5", rows=8, failed=statuses).write()
    file = store.format.record_file(0)
    whole = file.read_bytes()
    for byte in range(0, len(whole), stride):
        file.write_bytes(flipped(whole, 8 * byte + byte % 8))
        assert str(file) in {problem.file for problem in verify(store.path).problems}
    file.write_bytes(whole)
    assert not verify(store.path).problems
