"""A data report for people at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from tca.console import print_table
from tca.extract.checksums import Verified
from tca.extract.data_state import DataReport, Problem, SplitReport
from tca.extract.distribution import Distribution
from tca.extract.documents import printable

SHOWN = 10
"""Videos, resolutions and classes that are named; `--json` names all."""

FREQUENT = 3
"""Most frequent values that are shown."""

COUNTS: dict[str, Callable[[SplitReport], int]] = {
    "annotated": lambda part: part.annotated,
    "missing": lambda part: len(part.missing),
    "empty": lambda part: len(part.empty),
    "unreadable": lambda part: len(part.unreadable),
    "usable": lambda part: part.usable,
    "- of these broken off": lambda part: len(part.broken_off),
    "- of these too short": lambda part: len(part.too_short),
    "without label": lambda part: part.unlabelled,
    "classes": lambda part: len(part.per_class),
    "- without usable video": lambda part: len(part.classes_without_video),
    "megabytes": lambda part: round(part.bytes / 1e6),
}
"""What is counted of a split, by its name in a table."""

BALANCE = ("videos", "covered", "most", "fewest", "ratio", "evenness")
"""Columns of `balance_rows`, the first aside."""


def problems(part: SplitReport) -> dict[str, list[Problem]]:
    """Return the videos that something is wrong with, by kind."""
    return {
        "empty": part.empty,
        "unreadable": part.unreadable,
        "broken off": part.broken_off,
        "too short": part.too_short,
    }


def distributions(part: SplitReport) -> dict[str, Distribution]:
    """Return what is known of a split's files, by what it says."""
    spreads = {
        "frames": part.frames,
        "frames/s": part.fps,
        "seconds": part.seconds,
        "width": part.width,
        "height": part.height,
        "bytes": part.file_bytes,
    }
    return {name: spread for name, spread in spreads.items() if spread is not None}


def number(value: float) -> str:
    """Return a number of a distribution."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.5g}"


def balance_rows(report: DataReport) -> Iterator[tuple[str, ...]]:
    """Yield a row of `BALANCE` for the annotated and for the usable videos of each split."""
    for part in report.splits:
        for name, spread in (
            ("annotated", part.annotated_balance),
            ("usable", part.usable_balance),
        ):
            if spread is not None:
                yield (
                    f"{part.split}, {name}",
                    f"{spread.videos:,}",
                    f"{spread.covered} of {spread.classes}",
                    f"{spread.most[1]:,}",
                    f"{spread.least[1]:,}",
                    f"{spread.ratio:.3g}",
                    f"{spread.evenness:.3f}",
                )


def print_report(report: DataReport) -> None:
    """Print what `check_data` found."""
    print_table(
        "Videos",
        ["", *(part.split for part in report.splits)],
        [[name, *(f"{count(part):,}" for part in report.splits)] for name, count in COUNTS.items()],
    )
    for part in report.splits:
        _print_distributions(part, report.decoded)
    for part in report.splits:
        _print_problems(part)
    _print_odd(report)
    _print_duplicates(report)
    _print_classes(report)
    if report.flips is not None:
        pairs = [(printable(a), printable(b)) for a, b in report.flips.items() if a < b]
        print_table(
            "Classes that a horizontal flip exchanges",
            ["class", "becomes"],
            pairs or [("none", "")],
        )
    for pair, ids in report.shared.items():
        first, second = pair.split("+")
        print_table(f"{len(ids):,} videos are both in {first} and {second}", ["ids"], [[_few(ids)]])
    warnings = report.warnings()
    if warnings:
        print_table("Worth a look", [""], [[warning] for warning in warnings])


def print_verified(path: PurePath, verified: Verified) -> None:
    """Print what `verify_list` found."""
    found = {
        "changed": verified.changed,
        "missing": verified.missing,
        "unreadable": list(verified.unreadable),
        "new": verified.new,
    }
    print_table(
        f"Files against {printable(path)}",
        ["", "files", "first"],
        [
            ("read", f"{verified.files:,}", f"{verified.bytes / 1e6:,.0f} MB"),
            *((name, f"{len(files):,}", _few(files)) for name, files in found.items()),
        ],
    )


def _few(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return ", ".join(printable(name) for name in names[:SHOWN]) + more


def _print_distributions(part: SplitReport, decoded: bool) -> None:
    spreads = distributions(part)
    if not spreads:
        return
    print_table(
        f"What the files of {part.split} hold" + ("" if decoded else ", by their headers"),
        ["", "min", "5 %", "median", "95 %", "max"],
        [
            (name, *(number(value) for value in (s.min, s.p5, s.median, s.p95, s.max)))
            for name, s in spreads.items()
        ],
    )
    counts = {name: _most_first(spread.histogram) for name, spread in spreads.items()}
    counts |= {"resolution": part.resolutions, "codec": part.codecs}
    print_table(
        f"Most frequent in {part.split}",
        [""] * (1 + FREQUENT),
        [
            (name, *(f"{value} ({found:,})" for value, found in list(some.items())[:FREQUENT]))
            for name, some in counts.items()
            if name not in ("bytes", "width", "height")
        ],
    )


def _most_first(histogram: dict[str, int]) -> dict[str, int]:
    return dict(sorted(histogram.items(), key=lambda item: -item[1]))


def _print_problems(part: SplitReport) -> None:
    kinds = problems(part)
    rows = [
        [problem.id, kind, problem.reason, PurePath(problem.file).name]
        for kind, found in kinds.items()
        for problem in found[:SHOWN]
    ]
    total = sum(len(found) for found in kinds.values())
    if rows:
        more = f", the first {SHOWN} of each kind" if len(rows) < total else ""
        print_table(
            f"Problems of {part.split}: {total:,}{more}",
            ["id", "what", "reason", "file"],
            [[printable(cell) for cell in row] for row in rows],
        )


def _print_odd(report: DataReport) -> None:
    rows = [
        (part.split, kind, f"{len(found):,}", _few([problem.id for problem in found]))
        for part in report.splits
        for kind, found in part.odd.items()
    ]
    if rows:
        print_table("Unusual shape or rate", ["split", "what", "videos", "ids"], rows)


def _print_duplicates(report: DataReport) -> None:
    groups = report.duplicates
    if groups:
        more = f", the first {SHOWN}" if len(groups) > SHOWN else ""
        print_table(
            f"Videos that are there more than once: {len(groups):,}{more}",
            ["same", "across splits", "classes", "videos"],
            [
                (
                    group.same,
                    "yes" if group.across_splits else "no",
                    "differ" if group.labels_differ else "agree",
                    _few([f"{copy.split} {copy.id}" for copy in group.copies]),
                )
                for group in groups[:SHOWN]
            ],
        )


def _print_classes(report: DataReport) -> None:
    """Print the balance, the largest classes, and the smallest: those that are learnt badly."""
    rows = list(balance_rows(report))
    if rows:
        print_table("Balance of the classes", ["split", *BALANCE], rows)
    if not report.splits or not report.splits[0].per_class:
        return
    names = list(report.splits[0].per_class)
    counts = {name: [part.per_class[name] for part in report.splits] for name in names}

    def size(name: str) -> list[int]:
        usable = [count.usable for count in counts[name]]
        return usable + [count.annotated for count in counts[name]]

    ordered = sorted(names, key=size, reverse=True)
    cut = len(ordered) > FREQUENT + SHOWN
    shown = ordered[:FREQUENT] + ordered[-SHOWN:] if cut else ordered
    print_table(
        f"Classes: {len(names)}"
        + (f", the {FREQUENT} largest and {SHOWN} smallest" if cut else "")
        + " (usable/annotated)",
        ["class", *(part.split for part in report.splits)],
        [
            [printable(name), *(f"{count.usable}/{count.annotated}" for count in counts[name])]
            for name in shown
        ],
    )
