"""Rows copied by `_rows.c`: its sums, and files that change while they are being copied."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from awscrt.checksums import crc32c
from example_store import FORMATS, Example

import tca.cache.native as native
from tca.cache.format import Array
from tca.cache.row_files import OpenFile

_rows = pytest.importorskip(
    "tca.cache._rows", reason="tca.cache._rows was not built, or this processor lacks what it needs"
)

POLYNOMIAL = 0x11EDC6F41
"""Of CRC32C (Castagnoli), RFC 3385."""


@pytest.mark.parametrize("wide", [True, False])
def test_sums_are_those_of_another_library(wide: bool) -> None:
    some = np.random.default_rng(0).integers(0, 256, 301_057, dtype=np.uint8)
    sizes = [*range(1100), 4096, 12_345, 301_056, 301_057]
    for size in sizes:
        # From an odd place, as rows lie in their shards.
        part = some[len(some) - size :].tobytes()
        assert _rows.crc32c(part, wide) == crc32c(part), size


def test_the_constants_are_what_they_are_said_to_be() -> None:
    def power(exponent: int) -> int:
        rest = 1
        for _ in range(exponent):
            rest <<= 1
            rest ^= POLYNOMIAL * (rest >> 32)
        return int(f"{rest:032b}"[::-1], 2)

    source = Path(native.__file__).with_name("_rows.c").read_text()
    defined = re.findall(r"#define FOLD_(\d+) (0x\w+), (0x\w+)", source)
    assert len(defined) == 3
    for bits, upper, lower in defined:
        assert int(lower, 16) == power(int(bits) + 31)
        assert int(upper, 16) == power(int(bits) - 33)


@pytest.mark.parametrize("behind", [True, False], ids=["sums behind rows", "sums apart"])
@pytest.mark.parametrize("large", [True, False], ids=["past the caches", "into the caches"])
@pytest.mark.parametrize("width", [64, 100, 1000, 4096 + 64, 65_536])
def test_rows_and_their_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, large: bool, behind: bool
) -> None:
    monkeypatch.setattr(native, "LARGE_BATCH", 0 if large else 1 << 60)
    rows = np.random.default_rng(1).integers(0, 256, (20, width), dtype=np.uint8)
    sums = np.array([crc32c(row.tobytes()) for row in rows], dtype="<u4")
    sums[7] ^= 1
    gap = 4 if behind else 0
    made = [b"odd"] + [
        row.tobytes() + (sum_.tobytes() if behind else b"")
        for row, sum_ in zip(rows, sums, strict=True)
    ]
    (tmp_path / "rows").write_bytes(b"".join(made))
    file = OpenFile(tmp_path / "rows")
    starts = 3 + np.arange(20) * (width + gap)
    starts[3] = -1
    starts[19] += 1  # ends behind the file
    places = np.random.default_rng(2).permutation(20)

    def copied(check: bool, address: int) -> tuple[Array, Array]:
        file.address, mapped = address, file.address
        out = np.zeros((20, width), dtype=np.uint8)
        done = native.copy_rows(
            [file, None],
            np.where(np.arange(20) == 5, 1, 0),
            starts,
            places,
            out,
            check=check,
            sums=None if behind else sums,
        )
        file.address = mapped
        return done, out

    for address in (file.address, 0):
        for check in (True, False):
            done, out = copied(check, address)
            wrong = {3, 5, 19} | ({7} if check else set())
            assert set(np.flatnonzero(~done)) == wrong
            good = [row for row in range(20) if row not in wrong]
            assert np.array_equal(out[places[good]], rows[good])


CHANGING = """
import faulthandler, os, sys, threading
import numpy as np
from tca.cache.store import Store
from tca.errors import TcaError
faulthandler.enable()
store = Store.open(sys.argv[1])
rows = store.ready()
expected = store.read("semantic", rows)
file = store.format.shard_file("semantic", 0)
whole, size = file.read_bytes(), file.stat().st_size
stopping = threading.Event()

def change():
    descriptor = os.open(file, os.O_RDWR)
    while not stopping.is_set():
        os.ftruncate(descriptor, 4096)
        os.pwrite(descriptor, whole, 0)

thread = threading.Thread(target=change)
thread.start()
failed = 0
for _ in range(int(sys.argv[2])):
    try:
        assert np.array_equal(store.read("semantic", rows), expected)
    except TcaError as error:
        failed += 1
stopping.set()
thread.join()
assert np.array_equal(store.read("semantic", rows), expected)
print("failed" if failed else "never failed")
"""


@pytest.mark.parametrize("store_format", FORMATS)
def test_a_file_that_gets_shorter_while_it_is_copied_raises(
    tmp_path: Path, store_format: str
) -> None:
    example = Example(
        tmp_path / "train",
        rows=8,
        failed={},
        row_shapes={"semantic": (196, 768), "motion": (1, 2)},
        store_format=store_format,
    )
    example.write()
    command = [sys.executable, "-c", CHANGING, str(example.path), "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "failed\n"), done.stderr


OTHERS = """
import faulthandler, mmap, sys
import numpy as np
from tca.cache.store import Store
if sys.argv[2] == "before":
    faulthandler.enable()
store = Store.open(sys.argv[1])
store.read("semantic", store.ready())
if sys.argv[2] == "after":
    faulthandler.enable()
    store.read("semantic", store.ready())
with open(sys.argv[1] + ".gone", "w+b") as file:
    file.truncate(4096)
    map = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
    print("reading", flush=True)
    map[0]
    print("survived")
"""


@pytest.mark.parametrize("faulthandler", ["before", "after", "never"])
def test_others_bus_errors_are_theirs(tmp_path: Path, faulthandler: str) -> None:
    example = Example(tmp_path / "train", rows=8, failed={})
    example.write()
    command = [sys.executable, "-c", OTHERS, str(example.path), faulthandler]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-7, "reading\n"), done.stderr
    assert ("Fatal Python error: Bus error" in done.stderr) == (faulthandler != "never")
