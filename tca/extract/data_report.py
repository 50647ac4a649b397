"""A data report for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from tca.console import print_table
from tca.extract.data_check import DataReport, SplitReport
from tca.extract.distribution import Distribution

SHOWN = 10
"""Videos, resolutions and classes that are named; `--json` names all."""

_COUNTS: dict[str, Callable[[SplitReport], int]] = {
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
}


def print_report(report: DataReport) -> None:
    """Print what `check_data` found."""
    print_table(
        "Videos",
        ["", *(part.split for part in report.splits)],
        [
            [name, *(f"{count(part):,}" for part in report.splits)]
            for name, count in _COUNTS.items()
        ],
    )
    seen = [part for part in report.splits if part.frames is not None]
    if seen:
        print_table(
            "What the files hold",
            ["split", "", "min", "median", "max", "most frequent"],
            [row for part in seen for row in _distributions(part)],
        )
    for part in report.splits:
        _print_problems(part)
    _print_classes(report)
    if report.flips is not None:
        pairs = [(a, b) for a, b in report.flips.items() if a < b]
        print_table(
            "Classes that a horizontal flip exchanges",
            ["class", "becomes"],
            pairs or [("none", "")],
        )
    for pair, ids in report.shared.items():
        first, second = pair.split("+")
        named = ", ".join(ids[:SHOWN])
        print_table(f"{len(ids):,} videos are both in {first} and {second}", ["ids"], [[named]])


def _distributions(part: SplitReport) -> list[list[str]]:
    named = {
        "frames": part.frames,
        "frames/s": part.fps,
        "seconds": part.seconds,
        "width": part.width,
        "height": part.height,
    }
    rows = [_distribution_row(part.split, name, spread) for name, spread in named.items() if spread]
    common = ", ".join(f"{size} ({count:,})" for size, count in list(part.resolutions.items())[:3])
    return [*rows, [part.split, "resolution", "", "", "", common]]


def _distribution_row(split: str, name: str, spread: Distribution) -> list[str]:
    common = sorted(spread.histogram.items(), key=lambda item: -item[1])[:3]
    numbers = (f"{number:,.6g}" for number in (spread.min, spread.median, spread.max))
    return [split, name, *numbers, ", ".join(f"{value} ({count:,})" for value, count in common)]


def _print_problems(part: SplitReport) -> None:
    kinds = {
        "empty": part.empty,
        "unreadable": part.unreadable,
        "broken off": part.broken_off,
        "too short": part.too_short,
    }
    rows = [
        [problem.id, kind, problem.reason, PurePath(problem.file).name]
        for kind, problems in kinds.items()
        for problem in problems[:SHOWN]
    ]
    total = sum(len(problems) for problems in kinds.values())
    if rows:
        more = f", the first {SHOWN} of each kind" if len(rows) < total else ""
        print_table(
            f"Problems of {part.split}: {total:,}{more}", ["id", "what", "reason", "file"], rows
        )


def _print_classes(report: DataReport) -> None:
    """Print the classes with the fewest usable videos: those that will be learnt badly."""
    if not report.splits or not report.splits[0].per_class:
        return
    names = list(report.splits[0].per_class)
    counts = {name: [part.per_class[name] for part in report.splits] for name in names}

    def scarcity(name: str) -> list[int]:
        usable = [count.usable for count in counts[name]]
        return usable + [count.annotated for count in counts[name]]

    fewest = sorted(names, key=scarcity)[:SHOWN]
    print_table(
        f"Classes: {len(names)}, those with the fewest videos (usable/annotated)",
        ["class", *(part.split for part in report.splits)],
        [
            [name, *(f"{count.usable}/{count.annotated}" for count in counts[name])]
            for name in fewest
        ],
    )
