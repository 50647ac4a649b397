"""The demo's confusion matrix as a table, in the page's colours."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion_table(confusion: np.ndarray[Any, Any], names: Sequence[str]) -> str:
    """Return counts as a table, a row a true class, shaded by their share of the row."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    head = "".join(
        f'<th scope="col" title="{html.escape(name)}">{number}</th>'
        for number, name in enumerate(names, 1)
    )
    rows = []
    for number, name in enumerate(names):
        cells = []
        for column in range(len(names)):
            count = int(confusion[number, column])
            kind = "hit" if number == column else "miss"
            # Paler than the full colour, so that the number can be read on it.
            strength = round(60 * float(share[number, column]))
            words = html.escape(f"{name}: {count} predicted as {names[column]}")
            cells.append(
                f'<td class="{kind}" style="--s:{strength}%" title="{words}">{count or ""}</td>'
            )
        rows.append(
            f'<tr><th scope="row"><span>{number + 1}</span> {html.escape(name)}</th>'
            f"{''.join(cells)}</tr>"
        )
    return (
        '<div class="wide"><table class="confusion"><thead><tr><th>true \\ predicted</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
