"""Charts as inline SVG and HTML, in the colours of `tca.page`, light or dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

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
            f"{_number(value)}</text>"
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


def _number(value: float) -> str:
    """Return what stands beside a grid line: 0.25, 4,000."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def bar_chart(title: str, bars: Sequence[tuple[str, float]], colour: str = "var(--blue)") -> str:
    """Return a bar for each (name, value), one below the other, each with its number."""
    longest = max((value for _, value in bars), default=0) or 1
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td class="bar">'
        f"{_bar(100 * value / longest, colour)}</td><td>{_count(value)}</td></tr>"
        for name, value in bars
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<table class="bars"><tbody>{rows}</tbody></table></figure>'
    )


def _bar(percent: float, colour: str) -> str:
    # However little there is of something, it can be seen.
    return f'<i style="width:{percent:.2f}%;background:{colour}"></i>' if percent else ""


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
