"""`sdisup offload` as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sdisup.cli.tables import printable

if TYPE_CHECKING:
    from sdisup.offload.plan import Recorded
    from sdisup.offload.report import Report

COLUMNS = ("NAME", "TARGET", "COPIED", "GB", "WAIT", "GB", "NOW")
_RIGHT = (2, 3, 4, 5)


def lines(reports: Sequence[Report]) -> Iterator[str]:
    """A header and a line a target, and below them what is wrong. GB are 10^9 bytes."""
    rows = [COLUMNS, *(_cells(report) for report in reports)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    for row in rows:
        cells = (cell.rjust(widths[at]) if at in _RIGHT else cell.ljust(widths[at]) for at, cell in enumerate(row))
        yield "  ".join(cells).rstrip()
    for report in reports:
        name = report.offload.name
        for problem in report.problems:
            yield printable(f"{name}: {problem}")
        for _, trouble in report.failed:
            yield printable(f"{name}: {trouble.text}")
        if report.gone:
            yield f"{name}: {report.gone} that waited are no longer there; the ledger does not know who removed them"


def _cells(report: Report) -> tuple[str, ...]:
    going = report.going
    now = "-"
    if going is not None:
        now = f"{going.done_bytes * 100 // going.size_bytes}% {going.doing} of {going.path}"
    elif report.problems:
        now = "in trouble, see below"
    return tuple(
        printable(cell)
        for cell in (
            report.offload.name,
            f"{report.offload.target}{'' if report.offload.target.endswith(':') else '/'}{report.offload.folder}",
            str(len(report.copied)),
            _gigabytes(report.copied),
            str(len(report.waiting)),
            _gigabytes(report.waiting),
            now,
        )
    )


def _gigabytes(files: Iterable[Recorded]) -> str:
    return f"{sum(file.size_bytes for file in files) / 1e9:.1f}"


def document(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """For programs; sizes are in bytes, times in UTC."""
    return [
        {
            "name": report.offload.name,
            "target": report.offload.target,
            "folder": report.offload.folder,
            "copied_files": len(report.copied),
            "copied_bytes": sum(file.size_bytes for file in report.copied),
            "waiting_files": len(report.waiting),
            "waiting_bytes": sum(file.size_bytes for file in report.waiting),
            "oldest_waiting": report.waiting[0].end if report.waiting else None,
            "gone_files": report.gone,
            "going": report.going
            and {
                "path": report.going.path,
                "doing": report.going.doing,
                "bytes": report.going.size_bytes,
                "done_bytes": report.going.done_bytes,
            },
            "problems": report.problems,
            "failed": [{"path": file.path, "problem": trouble.text} for file, trouble in report.failed],
        }
        for report in reports
    ]
