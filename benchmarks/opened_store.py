"""What one fresh process needs to open, plan and read a store; `cache_scale.py` starts it.

Only a fresh process can tell how much memory an open store takes. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from made_rows import numbers_of
from measuring import seconds

# Modules that opening would import; their time and memory are not those of a store.
import tca.cache.hdf5_format
import tca.cache.zarr_format  # noqa: F401
from tca.cache.order import plan, shuffled_blocks, shuffled_rows
from tca.cache.store import Store

BATCH = 256


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def probe(path: Path, reads: int) -> dict[str, float]:
    """Return seconds and bytes by what they are of.

    Raises:
        ValueError: a row that was read is not the one that was asked for.
    """
    found: dict[str, float] = {}
    # The first store of a process makes the library ready.
    Store.open(path.with_name("tiny" + path.suffix))
    before = resident()
    stores: list[Store] = []
    found["open"] = seconds(lambda: stores.append(Store.open(path)))
    found["open_bytes"] = resident() - before
    (store,) = stores
    rows = store.ready()
    found["rows"] = seconds(lambda: plan(shuffled_rows(rows, 0, 0), BATCH, 0, 1, 0))
    blocks = store.rows_per_shard, 8
    found["blocks"] = seconds(lambda: plan(shuffled_blocks(rows, 0, 0, *blocks), BATCH, 0, 1, 0))
    chosen = np.random.default_rng(1).integers(0, store.rows, reads)
    outs = {name: np.empty((BATCH, *s.row_shape), s.dtype) for name, s in store.streams.items()}

    def read() -> None:
        for first in range(0, reads, BATCH):
            wanted = chosen[first : first + BATCH]
            for name, out in outs.items():
                store.read(name, wanted, out[: len(wanted)])
                if not np.array_equal(numbers_of(out[: len(wanted)]), wanted):
                    raise ValueError(f"{path}: other rows than those asked for")

    found["first_reads"] = seconds(read)
    found["reads"] = seconds(read)
    found["read_bytes"] = resident() - before
    return found


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]), int(sys.argv[2]))))
