"""Which rows of a store a conversion copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tca.cache.format import Array, reading_failed
from tca.cache.layout import Status
from tca.cache.store import Store
from tca.errors import UsageError

SHOWN = 3
"""Unknown ids that an error names."""


@dataclass(frozen=True)
class Selection:
    """Rows by number, by id and by status; what is not given selects all.

    Attributes:
        rows: first row and the one behind the last; None where the store begins or ends.
        ids: video ids; every view of one is selected.
        only_ok: whether rows without features are left out.
    """

    rows: tuple[int | None, int | None] | None = None
    ids: Sequence[str] | None = None
    only_ok: bool = False

    def of(self, store: Store) -> Array:
        """Return the numbers of the selected rows of `store`, ascending.

        Raises:
            UsageError: rows or ids that the store does not have, nothing left, or `only_ok` of a
                store whose statuses are not all known.
        """
        chosen = np.ones(store.rows, dtype=np.bool_)
        if self.rows is not None:
            chosen &= _between(store, *self.rows)
        if self.ids is not None:
            chosen &= _named(store, self.ids)
        if self.only_ok:
            missing = int((store.status[chosen] == Status.NOT_EXTRACTED).sum())
            if missing:
                raise UsageError(
                    f"{missing} rows of {store.path} are not extracted yet, and --only-ok must "
                    "know which of them fail; extract them first, or leave --only-ok out."
                )
            chosen &= store.status == Status.OK
        if not chosen.any():
            raise UsageError(f"no row of {store.path} is selected; select others.")
        return np.flatnonzero(chosen)

    def described(self, store: Store, chosen: Array) -> dict[str, Any]:
        """Return in JSON what was left out of `store`: nothing where nothing was."""
        if len(chosen) == store.rows:
            return {}
        told: dict[str, Any] = {"rows": f"{len(chosen)} of {store.rows}"}
        if self.rows is not None:
            told["range"] = ":".join("" if end is None else str(end) for end in self.rows)
        if self.ids is not None:
            told["ids"] = len(set(self.ids))
        if self.only_ok:
            told["only_ok"] = True
        return told


def read_ids(file: Path) -> list[str]:
    """Return the ids in a text file, one a line; empty lines are none.

    Raises:
        UsageError: it cannot be read, is not UTF-8, or has no id.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(str(reading_failed(file, error, "give a file of ids"))) from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text; give a file with one id a line.") from None
    ids = [line for line in lines if line]
    if not ids:
        raise UsageError(f"{file} has no ids; give a file with one id a line.")
    return ids


def _between(store: Store, first: int | None, end: int | None) -> Array:
    first, end = first or 0, store.rows if end is None else end
    if not first < end <= store.rows:
        raise UsageError(
            f"rows {first}:{end} are not rows of {store.path}, which has {store.rows}; give "
            "--rows FIRST:END, where END is not copied any more."
        )
    inside = np.zeros(store.rows, dtype=np.bool_)
    inside[first:end] = True
    return inside


def _named(store: Store, ids: Sequence[str]) -> Array:
    known = set(store.ids)
    wanted = dict.fromkeys(ids)
    unknown = [text for text in wanted if text not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN])) + (", …" if len(unknown) > SHOWN else "")
        raise UsageError(
            f"{len(unknown)} of {len(wanted)} ids are not in {store.path}: {shown}; correct the "
            "list of ids."
        )
    return np.array([text in wanted for text in store.ids], dtype=np.bool_)
