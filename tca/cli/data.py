"""`tca data`: what is wrong with a data set, before extracting it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tca.cli.options import chosen_splits, json_option, project_options, splits_option
from tca.errors import TcaError, UsageError
from tca.project import load_project

if TYPE_CHECKING:
    from tca.extract.config import DataConfig

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("data")
def command() -> None:
    """Look at a data set before extracting it."""


@command.command("check")
@project_options
@splits_option
@click.option(
    "--processes", type=click.IntRange(0), default=0, help="That inspect files; 0: one a core."
)
@click.option("--quick", is_flag=True, help="Decode nothing: read every file, believe its header.")
@click.option("--allow-missing", is_flag=True, help="Missing videos are no failure.")
@click.option("--html", "page", metavar="FILE", type=_FILE, help="Write a page with plots.")
@click.option(
    "--checksums", metavar="FILE", type=_FILE, help="Write a list for `sha256sum -c` and --verify."
)
@click.option(
    "--verify", metavar="FILE", type=_FILE, help="Only compare the files with such a list."
)
@json_option
def check(
    config: Path | None,
    overrides: tuple[str, ...],
    splits: tuple[str, ...],
    processes: int,
    quick: bool,
    allow_missing: bool,
    page: Path | None,
    checksums: Path | None,
    verify: Path | None,
    as_json: bool,
) -> None:
    """Decode every video once and report what is missing, broken, odd or there twice.

    Also frame counts, rates, durations, resolutions, and how many videos the classes have.

    Exit code 1 where something would stop extraction, cost it a video or falsify a score: missing,
    empty and unreadable videos, videos in two splits, the same video with two classes.

    \b
    Examples:
      tca data check
      tca data check --split validation --json > check.json
      tca data check --html check.html --checksums SHA256SUMS
      tca data check --verify SHA256SUMS
    """
    from tca.cache.files import replacing, write_fully
    from tca.console import note, print_json
    from tca.extract.checksums import checksum_lines
    from tca.extract.data_check import check_data
    from tca.extract.data_page import data_page
    from tca.extract.data_report import print_report

    project, _ = load_project(config, overrides)
    chosen = chosen_splits(splits, project.data.annotations)
    if verify is not None:
        if quick or allow_missing or page is not None or checksums is not None:
            raise UsageError("--verify only compares files; leave the other options out.")
        _verify(project.data, chosen, verify, processes, as_json)
        return
    if page is not None and page == checksums:
        raise UsageError("--html and --checksums need two files; name another.")
    with ExitStack() as outputs:
        # Begun first: that a file cannot be written is not for the end of an hour's work.
        files = {path: outputs.enter_context(replacing(path)) for path in (page, checksums) if path}
        checked = check_data(
            project.data,
            chosen,
            project.extract,
            processes=processes,
            decoded=not quick,
        )
        report = checked.report
        if page is not None:
            text = data_page(report, allow_missing=allow_missing)
            write_fully(files[page].fileno(), [memoryview(text.encode())])
        if checksums is not None:
            lines = checksum_lines(checksums, checked.sums)
            write_fully(files[checksums].fileno(), [memoryview(lines)])
    if as_json:
        print_json(report.to_json(allow_missing=allow_missing))
    else:
        print_report(report)
    for path in files:
        note(f"{path} written.")
    failures = report.failures(allow_missing=allow_missing)
    if failures:
        remedy = (
            "put that right, or let missing videos pass with --allow-missing"
            if any(part.missing for part in report.splits) and not allow_missing
            else "put that right; what each video has is above and in --json"
        )
        raise TcaError(f"the data set is not sound: {'; '.join(failures)}; {remedy}.")


def _verify(data: DataConfig, splits: list[str], path: Path, threads: int, as_json: bool) -> None:
    from tca.cli.late_line import LateLine
    from tca.console import print_json
    from tca.extract.annotations import read_annotations
    from tca.extract.checksums import verify_list
    from tca.extract.data_report import print_verified

    videos = [video for split in splits for video in read_annotations(data, split).videos]
    files = {video.path for video in videos if video.path is not None}
    with LateLine(f"verify {path}", "files") as line:
        verified = verify_list(path, files, threads=threads, report=line.reach)
    if as_json:
        print_json(verified.to_json())
    else:
        print_verified(path, verified)
    if not verified.sound:
        raise TcaError(
            f"the files are not those of {path}: {len(verified.changed):,} changed, "
            f"{len(verified.missing):,} missing, {len(verified.unreadable):,} unreadable, "
            f"{len(verified.new):,} new; bring them back, or write a new list with --checksums."
        )
