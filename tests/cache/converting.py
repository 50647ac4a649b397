"""Converts a store beside the new one, and may be killed at it; see committing.py.

python converting.py TARGET [FATAL]
"""

from pathlib import Path

import committing

from tca.cache.conversion import Changes
from tca.cache.convert import ConvertSummary, convert

SOURCE = "source/train.zarr"


def run(path: Path) -> ConvertSummary:
    """Convert in such a way that every number is another, into 15 shards."""
    return convert(path.parents[1] / SOURCE, path, Changes(type="int8", rows_per_shard=3))


if __name__ == "__main__":
    committing.run = run
    committing.main()
