"""A data report as a page with plots, to look at and to pass on; one file."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

import tca
from tca.charts import Line, bar_chart, line_chart
from tca.extract.data_report import (
    BALANCE,
    COUNTS,
    balance_rows,
    distributions,
    number,
    problems,
)
from tca.extract.data_state import DataReport, SplitReport
from tca.page import page, table, tiles

SHOWN = 100
"""Rows of a table; a page of 200,000 opens in no browser."""

BARS = 15
"""Bars of resolutions and of codecs."""

_COLOURS = {"train": "var(--blue)", "validation": "var(--orange)", "test": "var(--good)"}


def data_page(report: DataReport, *, allow_missing: bool = False) -> str:
    """Return what `check_data` found as an HTML document."""
    sections = [
        ("", _summary(report, allow_missing)),
        ("Videos", _counts(report)),
        ("What the files hold", _files(report)),
        ("Classes", _classes(report)),
        ("There more than once", _duplicates(report)),
        ("Missing, broken and short", _problems(report)),
        ("Unusual shape or rate", _odd(report)),
    ]
    return page("tca data check", [section for section in sections if section[1]])


def _summary(report: DataReport, allow_missing: bool) -> str:
    parts = report.splits
    numbers = {
        "annotated videos": f"{sum(part.annotated for part in parts):,}",
        "with a file": f"{sum(part.found for part in parts):,}",
        "usable": f"{sum(part.usable for part in parts):,}",
        "more than once": f"{len(report.duplicates):,}",
        "classes": f"{len(parts[0].per_class) if parts else 0:,}",
        "of files": _size(sum(part.bytes for part in parts)),
    }
    failures = report.failures(allow_missing=allow_missing)
    verdict = (
        f'<p class="wrong">Not sound</p>{_list(failures)}'
        if failures
        else '<p class="right">Sound: nothing stops extraction, costs a video or falsifies a '
        "score.</p>"
    )
    warnings = report.warnings()
    look = f"<p>Worth a look:</p>{_list(warnings)}" if warnings else ""
    how = (
        "Every file was decoded to its end."
        if report.decoded
        else "Nothing was decoded: numbers are what the files' headers claim."
    )
    return (
        f'{tiles(numbers)}{verdict}{look}<p class="soft">{how} A video needs {report.min_frames} '
        f"frames. tca {tca.__version__}.</p>"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in sentences)}</ul>"


def _counts(report: DataReport) -> str:
    rows = [
        (name, *(f"{count(part):,}" for part in report.splits)) for name, count in COUNTS.items()
    ]
    return table(["", *(part.split for part in report.splits)], rows)


def _files(report: DataReport) -> str:
    return "".join(_split_files(part) for part in report.splits if distributions(part))


def _split_files(part: SplitReport) -> str:
    spreads = distributions(part)
    colour = _COLOURS[part.split]
    charts = [
        bar_chart(f"{name}, {part.split}", list(spread.histogram.items()), colour)
        for name, spread in spreads.items()
        # Their sides are told by the resolutions.
        if name not in ("width", "height")
    ]
    for name, counts in (("resolution", part.resolutions), ("codec", part.codecs)):
        charts.append(bar_chart(f"{name}, {part.split}", _most(counts), colour))
    rows = [
        (name, *map(number, (s.min, s.p5, s.median, s.mean, s.p95, s.max)))
        for name, s in spreads.items()
    ]
    columns = [part.split, "min", "5 %", "median", "mean", "95 %", "max"]
    return f'{table(columns, rows)}<div class="charts">{"".join(charts)}</div>'


def _most(counts: dict[str, int]) -> list[tuple[str, float]]:
    shown: list[tuple[str, float]] = list(list(counts.items())[:BARS])
    rest = list(counts.values())[BARS:]
    return [*shown, (f"{len(rest)} others", sum(rest))] if rest else shown


def _classes(report: DataReport) -> str:
    rows = list(balance_rows(report))
    if not rows:
        return ""
    charts = []
    for kind in ("annotated", "usable"):
        lines = []
        for part in report.splits:
            counts = sorted((getattr(c, kind) for c in part.per_class.values()), reverse=True)
            if any(counts) and len(counts) > 1:
                points = [(float(rank), float(n)) for rank, n in enumerate(counts, 1)]
                lines.append(Line(part.split, _COLOURS[part.split], points))
        if lines:
            # Four steps of whole videos.
            most = 4 * math.ceil(max(y for line in lines for _, y in line.points) / 4)
            title = f"{kind.capitalize()} videos of a class, the largest first"
            charts.append(line_chart(title, lines, "rank of the class", most))
    names = list(report.splits[0].per_class)
    counted = [
        (
            name,
            *(
                f"{p.per_class[name].usable:,} of {p.per_class[name].annotated:,}"
                for p in report.splits
            ),
        )
        for name in sorted(names, key=lambda name: _scarcity(report, name))
    ]
    lost = ""
    if report.not_in_train:
        lost = "<p>Asked for in other splits and not in train:</p>" + _list(report.not_in_train)
    return (
        "<p>Evenness is the entropy of the classes' shares over its largest value: 1 if all have "
        "as many videos. The ratio is that of the most frequent class to the least.</p>"
        f'{table(["split", *BALANCE], rows)}<div class="charts">{"".join(charts)}</div>'
        f"{lost}<p>Usable of annotated, the scarcest first:</p>"
        + _some(["class", *(part.split for part in report.splits)], counted)
    )


def _scarcity(report: DataReport, name: str) -> tuple[int, int]:
    counts = [part.per_class[name] for part in report.splits]
    return sum(count.usable for count in counts), sum(count.annotated for count in counts)


def _duplicates(report: DataReport) -> str:
    rows = [
        (
            number,
            group.same,
            "yes" if group.across_splits else "no",
            copy.split,
            copy.id,
            copy.label or "-",
            copy.file,
        )
        for number, group in enumerate(report.duplicates, 1)
        for copy in group.copies
    ]
    both = [
        (video, pair.replace("+", " and ")) for pair, ids in report.shared.items() for video in ids
    ]
    listed = f"<p>Listed in two splits:</p>{_some(['id', 'splits'], both)}" if both else ""
    if not rows:
        return listed
    columns = ["group", "same", "across splits", "split", "id", "class", "file"]
    return (
        listed
        + "<p>Files of the same bytes, or of the same decoded pictures:</p>"
        + _some(columns, rows)
    )


def _problems(report: DataReport) -> str:
    return _some(["split", "what", "id", "reason", "file"], list(_problem_rows(report)))


def _problem_rows(report: DataReport) -> Iterator[tuple[str, ...]]:
    for part in report.splits:
        for kind, found in problems(part).items():
            for problem in found:
                yield part.split, kind, problem.id, problem.reason, problem.file
    for part in report.splits:
        for video in part.missing:
            yield part.split, "missing", video, "no file of this id", ""


def _odd(report: DataReport) -> str:
    parts = [
        (part.split, kind, found) for part in report.splits for kind, found in part.odd.items()
    ]
    tables = [
        f"<h3>{html.escape(kind)}, {split}: {len(found):,}</h3>"
        + _some(["id", "what", "file"], [(p.id, p.reason, p.file) for p in found])
        for split, kind, found in parts
    ]
    return "".join(tables)


def _some(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table of the first rows; nothing without any."""
    if not rows:
        return ""
    more = len(rows) - SHOWN
    left = f'<p class="soft">and {more:,} more; --json names all.</p>' if more > 0 else ""
    return table(columns, rows[:SHOWN]) + left
