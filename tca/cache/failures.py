"""Why rows failed: kept beside the store, whole whatever happens in between.

A store has room for a status, not for the decoder's words. They are written for each shard before
the shard is committed (`STORE.failures/SHARD.json`), so that a run that is killed and continued
lists them all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
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


def failures_file(store: Path, shard: int) -> Path:
    """Return where the failures of one shard are."""
    # Resolved, so that two names of one store have one such folder.
    store = store.resolve()
    return store.with_name(store.name + ".failures") / f"{shard:06d}.json"


def write_failures(store: Path, shard: int, failures: Sequence[Failure]) -> None:
    """Write the failures of one shard; called before the shard is committed.

    Raises:
        TcaError: disk full or not writable.
    """
    path = failures_file(store, shard)
    if failures:
        # In ASCII: the name of a file need not be valid text.
        text = json.dumps([asdict(failure) for failure in failures])
        write_atomic(path, [text.encode()])
    else:
        remove(path)


def read_failures(store: Path, shards: Iterable[int]) -> dict[int, Failure]:
    """Return what is known of the failed rows of some shards, by row number."""
    known: dict[int, Failure] = {}
    for shard in shards:
        try:
            entries = json.loads(failures_file(store, shard).read_text(encoding="utf-8"))
            known |= {failure.row: failure for failure in (Failure(**entry) for entry in entries)}
        except (OSError, ValueError, TypeError):
            # The statuses are in the store; a lost explanation is no reason to stop.
            continue
    return known


def failed_rows(store: Store) -> tuple[list[int], dict[int, Failure]]:
    """Return the numbers of the failed rows, ascending, and what is known of them."""
    done = (Status.OK, Status.NOT_EXTRACTED)
    failed = [row for row, status in enumerate(store.status.tolist()) if status not in done]
    if not isinstance(store.path, Path):
        return failed, {}
    shards = dict.fromkeys(row // store.rows_per_shard for row in failed)
    known = read_failures(store.path, shards)
    return failed, {row: known[row] for row in failed if row in known}


def report_failures(store: Store) -> Path | None:
    """Write `STORE.failures.csv`, a line a failed row, and return its path; None without failures.

    Raises:
        TcaError: disk full or not writable.
    """
    report = store.folder.with_name(store.folder.name + ".failures.csv")
    failed, known = failed_rows(store)
    if not failed:
        if report.exists():
            remove(report)
        return None
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["row", "id", "view", "status", "reason", "file"])
    for row in failed:
        words = status_words(int(store.status[row]))
        failure = known.get(row) or Failure(row, "", "")
        table.writerow([row, store.ids[row], store.view[row], words, failure.reason, failure.file])
    data = text.getvalue().encode(errors="surrogateescape")
    # A store that is complete may lie where nothing can be written.
    if not (report.is_file() and report.read_bytes() == data):
        write_atomic(report, [data])
    return report
