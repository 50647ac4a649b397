"""Why rows failed, in the decoder's words: `STORE.failures/SHARD.json` beside a store.

Extraction writes them before it commits a shard; here they are carried from one store to another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tca.cache.files import remove, write_atomic


def reasons_file(store: Path, shard: int) -> Path:
    """Return where the reasons of one shard are."""
    return store.with_name(store.name + ".failures") / f"{shard:06d}.json"


def read_reasons(store: Path, shard: int) -> dict[int, dict[str, Any]]:
    """Return what is known of the failed rows of a shard, by row number; nothing if it is lost."""
    try:
        entries = json.loads(reasons_file(store, shard).read_text(encoding="utf-8"))
        return {entry["row"]: entry for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        # The statuses are in the store; a lost explanation is no reason to stop.
        return {}


def write_reasons(store: Path, shard: int, reasons: Sequence[Mapping[str, Any]]) -> None:
    """Write the reasons of one shard; called before the shard is committed.

    Raises:
        TcaError: disk full or not writable.
    """
    path = reasons_file(store, shard)
    if reasons:
        # In ASCII: the name of a file need not be valid text.
        write_atomic(path, [json.dumps(list(reasons)).encode()])
    else:
        remove(path)
