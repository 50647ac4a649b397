"""A report as one HTML file, nothing loaded from elsewhere: the page, its tables and numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from string import Template


def page(title: str, sections: list[tuple[str, str]]) -> str:
    """Return an HTML document of (heading, HTML) sections; a heading may be empty."""
    body = "\n".join(
        f"<section>{f'<h2>{html.escape(heading)}</h2>' if heading else ''}\n{content}</section>"
        for heading, content in sections
    )
    return _PAGE.substitute(title=html.escape(title), style=_STYLE, body=body)


def tiles(numbers: Mapping[str, str]) -> str:
    """Return what counts most as large numbers: by what each says, the number."""
    boxes = "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>'
        for name, value in numbers.items()
    )
    return f'<div class="tiles">{boxes}</div>'


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


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")

_STYLE = """\
:root {
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --soft: #5d6873; --rule: #dfe3e7;
  --blue: #2563b0; --orange: #c2570c; --good: #1a7f4b; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e8eaec; --soft: #9aa5b0; --rule: #333a41;
    --blue: #6ea8f0; --orange: #f0a060; --good: #5fcf95; --bad: #f2867e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 44px 0 10px; }
p { max-width: 72ch; margin: 8px 0; }
.soft { color: var(--soft); }
.note { border-left: 4px solid var(--orange); padding: 2px 0 2px 14px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 16px; }
.tile b { display: block; font-size: 27px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 14px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; border-bottom: 1px solid var(--rule); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th:first-child, td:first-child, .words { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
.confusion th, .confusion td { padding: 4px 6px; }
.confusion td { min-width: 34px; text-align: center; border: 1px solid var(--rule); }
.confusion thead th { text-align: center; }
.confusion tbody th { font-weight: 400; white-space: nowrap; padding-right: 12px; }
.confusion tbody th span { color: var(--soft); display: inline-block; min-width: 1.6em; }
.confusion .hit { background: color-mix(in srgb, var(--blue) var(--s), var(--card)); }
.confusion .miss { background: color-mix(in srgb, var(--orange) var(--s), var(--card)); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 16px;
  margin: 16px 0 28px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 14px; }
figcaption { font-size: 14.5px; font-weight: 600; display: flex; flex-wrap: wrap;
  justify-content: space-between; gap: 4px 16px; margin-bottom: 6px; }
.legend { font-weight: 400; color: var(--soft); display: flex; gap: 14px; }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px;
  vertical-align: middle; }
.bars { width: 100%; }
.bars th, .bars td { padding: 2px 8px; border: 0; white-space: nowrap; vertical-align: middle; }
.bars th { font-weight: 400; color: var(--soft); }
.bars .bar { width: 100%; padding: 2px 0; }
.bars i { display: block; height: 14px; min-width: 2px; border-radius: 2px; }
svg { width: 100%; height: auto; display: block; }
svg .grid { stroke: var(--rule); }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .tick { fill: var(--soft); font-size: 12px; }
.strip { margin: 0 0 14px; padding: 10px 14px 12px; }
.strip figcaption { font-weight: 400; }
.strip img { width: 100%; height: auto; display: block; border-radius: 4px; }
.right { color: var(--good); font-weight: 600; }
.wrong { color: var(--bad); font-weight: 600; }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 16px; overflow-x: auto; }
@media print { section { break-inside: avoid; } }
"""
