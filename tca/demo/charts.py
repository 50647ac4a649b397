"""Charts of the report as inline SVG and HTML, in the page's colours, light or dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34


@dataclass(frozen=True)
class Line:
    """One curve: its name, its CSS colour, its points (x, y)."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str, lines: Sequence[Line], x_name: str, top: float, marked: float | None = None
) -> str:
    """Return curves over the range 0 to `top`, with a vertical mark at `marked`."""
    first = min(x for line in lines for x, _ in line.points)
    last = max(x for line in lines for x, _ in line.points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / max(last - first, 1e-9)
        up = min(max(y / top, 0), 1)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            TOP + (1 - up) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for step in range(5):
        value = top * step / 4
        _, y = place(first, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:.2g}</text>"
        )
    for value in sorted({round(first + (last - first) * step / 6) for step in range(7)}):
        x, _ = place(value, 0)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{value}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 2}" '
        f'text-anchor="middle">{html.escape(x_name)}</text>'
    )
    if marked is not None:
        x, _ = place(marked, 0)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    for line in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(
            f'<polyline fill="none" stroke="{line.colour}" stroke-width="2" points="{path}"/>'
        )
    legend = " ".join(
        f'<span><i style="background:{line.colour}"></i>{html.escape(line.name)}</span>'
        for line in lines
    )
    return (
        f'<figure><figcaption>{html.escape(title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


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


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; its first column and what is no number are aligned as text."""
    head = "".join(
        f"<th{_kind([row[place] for row in rows])}>{html.escape(name)}</th>"
        for place, name in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_kind([cell])}>{html.escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    whole = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{whole}</table></div>'


def _kind(cells: Sequence[object]) -> str:
    """Return the class attribute of cells that hold words."""
    return "" if all(str(cell)[:1].isdigit() for cell in cells) else ' class="words"'
