"""Why rows failed: kept beside the store, whole whatever happens in between.

A store has room for a status, not for the decoder's words. They are written for each shard before
the shard is committed, so that a run that is killed and continued lists them all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tca.cache.files import remove, write_atomic
from tca.cache.layout import Status, status_words
from tca.cache.store import Store


@dataclass(frozen=True)
class Failure:
    """One row without features: its number, the file ("" if missing) and the reason."""

    row: int
    file: str
    reason: str


def keep_reasons(store: Path, shard: int, failures: Sequence[Failure]) -> None:
    """Write the reasons of one shard; called before the shard is committed.

    Raises:
        TcaError: disk full or not writable.
    """
    path = _reasons(store, shard)
    if failures:
        # In ASCII: the name of a file need not be valid text.
        text = json.dumps([asdict(failure) for failure in failures])
        write_atomic(path, [text.encode()])
    else:
        remove(path)


def report_failures(store: Store) -> Path | None:
    """Write `STORE.failures.csv`, a line a failed row, and return its path; None without failures.

    Raises:
        TcaError: disk full or not writable.
    """
    report = store.folder.with_name(store.folder.name + ".failures.csv")
    failed = [
        row
        for row, status in enumerate(store.status.tolist())
        if status not in (Status.OK, Status.NOT_EXTRACTED)
    ]
    if not failed:
        remove(report)
        return None
    known = {
        failure.row: failure
        for shard in sorted({row // store.rows_per_shard for row in failed})
        for failure in _read(_reasons(store.folder, shard))
    }
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["row", "id", "view", "status", "reason", "file"])
    for row in failed:
        words = status_words(int(store.status[row]))
        failure = known.get(row) or Failure(row, "", "")
        table.writerow([row, store.ids[row], store.view[row], words, failure.reason, failure.file])
    write_atomic(report, [text.getvalue().encode(errors="surrogateescape")])
    return report


def _reasons(store: Path, shard: int) -> Path:
    return store.with_name(store.name + ".failures") / f"{shard:06d}.json"


def _read(path: Path) -> list[Failure]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [Failure(**entry) for entry in found]
    except (OSError, ValueError, TypeError):
        # The statuses are in the store; a lost explanation is no reason to stop.
        return []
