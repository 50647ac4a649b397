"""Stores as large as Something-Something's: hundreds of shards, and few open files allowed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_store import FORMATS, Example

SHARDS = 660

FEW_FILES = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import torch
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from tca.cache import native, row_reader
from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.cache.verify import verify

row_reader.threads_for = lambda out: 4
native.AVAILABLE &= sys.argv[2] == "C"
native.reading_threads, native.WORTH_A_THREAD = lambda: 4, 1
stores = [Store.open(sys.argv[1]) for _ in range(3)]
store = stores[0]
ready = store.ready()

def read(seed):
    for part in np.array_split(np.random.default_rng(seed).permutation(ready), 10):
        for name in store.streams:
            found = stores[seed % 3].read(name, part)
            assert np.array_equal(found.reshape(len(part), -1)[:, 0].astype(int), part % 1000), name

with ThreadPoolExecutor(6) as pool:
    list(pool.map(read, range(6)))
seen = 0
for batch in Loader(store, ready, 256, seed=0).epoch(0):
    for numbers in batch.arrays.values():
        assert torch.equal(numbers.flatten(1)[:, 0].long(), torch.from_numpy(batch.rows % 1000))
    seen += len(batch.rows)
found = verify(store.path)
print(store.shards, seen, found.shards, found.problems)
"""


@pytest.mark.parametrize("copied_by", ["C", pytest.param("Python", marks=pytest.mark.long)])
@pytest.mark.parametrize("store_format", FORMATS)
def test_hundreds_of_shards_under_a_low_limit_of_open_files(
    tmp_path: Path, store_format: str, copied_by: str
) -> None:
    example = Example(
        tmp_path / f"train.{store_format}",
        rows=SHARDS * 8,
        failed={},
        row_shapes={"semantic": (1, 2), "motion": (1, 2)},
    )
    for array in example.features.values():
        # Exact in half precision.
        array[:] = (np.arange(example.rows) % 1000).reshape(-1, 1, 1)
    example.write()
    command = [sys.executable, "-c", FEW_FILES, str(example.path), copied_by]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{SHARDS} {8 * SHARDS} {SHARDS} []\n"
