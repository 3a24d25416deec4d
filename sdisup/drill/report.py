"""Compares what a drill measured with what is promised, and makes the report of it. Pure. Times are in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from sdisup.contract.records import Record

LOST_LIMIT_S = 1.0
"""Invariant 5: killing a process at any moment costs at most this much of the material that its port had received."""
LEDGER_TOLERANCE_S = 1.0
"""Files, gaps and stops add up to the time, within this much an interruption (DESIGN.md, Ledger)."""
ROOM_S = 1.0
"""Room for what has no limit of its own: the drill's looks, systemd's work, a runner's start."""
ROOM_STARTS = 4.0
"""The same on a machine whose FFmpeg needs longer than 0.25 s to start: in FFmpeg's own starts."""
COLUMNS = ("FAULT", "SEEN AFTER", "RECORDING AGAIN AFTER", "LOST", "LEDGER", "VERDICT")
_RIGHT = {"SEEN AFTER", "RECORDING AGAIN AFTER", "LOST"}


class Limit(Record):
    """How long something may take: `wait_s` is what the port is promised to wait at most, and beside it there is room
    for `starts` of FFmpeg's own starts, which tell how busy the machine is, or `least_s` where that is more."""

    wait_s: float = 0.0
    least_s: float = ROOM_S
    starts: float = ROOM_STARTS

    def limit_s(self, own_start_s: float) -> float:
        return self.wait_s + max(self.least_s, self.starts * own_start_s)


class Limits(Record):
    """What is promised for one fault. FFmpeg's own start comes on top of `again`.

    `acted` is None where the runner acts as soon as the status shows the fault.
    """

    seen: Limit
    again: Limit
    acted: Limit | None = None


class Result(Record):
    """What one fault did; None for what did not happen in time.

    `again_s` counts from the fault; where a signal or room on the disk has to come back, from that repair. `lost_s`
    is the material that FFmpeg had received and no file holds. `gap_s` is the time without a frame, `entered_s` the
    length of the ledger's gaps of the fault, and `causes` are their causes.
    """

    fault: str
    title: str
    seen_s: float | None
    acted_s: float | None
    again_s: float | None
    lost_s: float | None
    gap_s: float | None
    entered_s: float
    causes: tuple[str, ...]


def typical(results: Sequence[Result]) -> Result:
    """Several rounds of one fault as one result: the medians, but the worst loss and the worst account."""

    def middle(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if len(known) == len(values) else None

    def deviation(result: Result) -> float:
        return float("inf") if result.gap_s is None else abs(result.gap_s - result.entered_s)

    worst = max(results, key=deviation)
    losses = [result.lost_s for result in results if result.lost_s is not None]
    return Result(
        fault=worst.fault,
        title=worst.title,
        seen_s=middle([result.seen_s for result in results]),
        acted_s=middle([result.acted_s for result in results]),
        again_s=middle([result.again_s for result in results]),
        lost_s=max(losses) if len(losses) == len(results) else None,
        gap_s=worst.gap_s,
        entered_s=worst.entered_s,
        causes=worst.causes,
    )


def exceeded(result: Result, limits: Limits, own_start_s: float, expected_cause: str) -> list[str]:
    """The limits that are exceeded, in words; empty if all hold. `own_start_s` is FFmpeg's, beside the fault."""
    bounds = [
        ("seen", result.seen_s, limits.seen.limit_s(own_start_s)),
        ("recording again", result.again_s, own_start_s + limits.again.limit_s(own_start_s)),
        ("lost", result.lost_s, LOST_LIMIT_S),
    ]
    if limits.acted is not None:
        bounds.insert(1, ("acted upon", result.acted_s, limits.acted.limit_s(own_start_s)))
    found = [_over(name, value, limit) for name, value, limit in bounds]
    return [text for text in (*found, _ledger_problem(result, expected_cause)) if text]


def _over(name: str, value: float | None, limit: float) -> str:
    if value is None:
        return f"{name}: never (limit {limit:.2f} s)"
    return f"{name}: {value:.2f} s (limit {limit:.2f} s)" if value > limit else ""


def _ledger_problem(result: Result, expected_cause: str) -> str:
    if not result.causes:
        return "ledger: no entry"
    if not result.causes[0].startswith(expected_cause):
        return f"ledger: the cause is '{result.causes[0]}', not '{expected_cause}'"
    if result.gap_s is not None and abs(result.gap_s - result.entered_s) > LEDGER_TOLERANCE_S:
        return f"ledger: gaps of {result.entered_s:.2f} s, where {result.gap_s:.2f} s are missing"
    return ""


def report_table(judged: Sequence[tuple[Result, Sequence[str]]]) -> str:
    """A header and a line a fault; each exceeded limit has a line of its own below."""
    rows = [_cells(result, problems) for result, problems in judged]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths)]
    for row, (result, problems) in zip(rows, judged, strict=True):
        lines.append(_line(row, widths))
        lines += [f"  {result.title}: {problem}" for problem in problems]
    return "\n".join(lines)


def report_json(judged: Sequence[tuple[Result, Sequence[str]]], own_start_s: float, disk: str) -> dict[str, object]:
    """The report for programs."""
    return {
        "ok": not any(problems for _, problems in judged),
        "own_start_s": round(own_start_s, 3),
        "disk": disk,
        "faults": [_fault_json(result, problems) for result, problems in judged],
    }


def _fault_json(result: Result, problems: Sequence[str]) -> dict[str, object]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return {
        "fault": result.fault,
        "seen_s": rounded(result.seen_s),
        "acted_s": rounded(result.acted_s),
        "recording_again_s": rounded(result.again_s),
        "lost_s": rounded(result.lost_s),
        "gap_s": rounded(result.gap_s),
        "ledger_gap_s": rounded(result.entered_s),
        "ledger_causes": list(result.causes),
        "ok": not problems,
        "exceeded": list(problems),
    }


def _cells(result: Result, problems: Sequence[str]) -> tuple[str, ...]:
    acted = f" (acted upon after {result.acted_s:.2f} s)" if result.acted_s is not None else ""
    return (
        result.title,
        _seconds(result.seen_s),
        _seconds(result.again_s),
        _seconds(result.lost_s),
        f"yes: {', '.join(result.causes)}" if result.causes else "no",
        "EXCEEDED" if problems else f"ok{acted}",
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for cell, width, name in zip(cells, widths, COLUMNS, strict=True)
    ]
    return "  ".join(padded).rstrip()
