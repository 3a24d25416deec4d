"""Accounts as tables for people and as JSON for programs: from rows to lines, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdisup.accounts import Account, Row
from sdisup.table import printable
from sdisup.times import length_text, local_text

NOTHING = "-"
_TIME_WIDTH = 25

PortAccount = tuple[int, str, Account]
"""A port's index, its name, and its account."""


def gap_lines(found: Sequence[PortAccount]) -> Iterator[str]:
    """A header and a line a gap; FRAMES are those that are missing in a file that is there."""
    name, take = _widths(found)
    yield _line(("PORT", "NAME", "START", "END", "LENGTH", "FRAMES", "TAKE", "CAUSE"), name, take)
    for port_index, port_name, account in found:
        for row in account.rows:
            cause = f"{row.what} ({row.note})" if row.note else row.what
            cells = _cells(port_index, port_name, row)
            yield _line((*cells, row.take or NOTHING, cause), name, take)


def file_lines(found: Sequence[PortAccount]) -> Iterator[str]:
    """A header and a line a file; MB are 10^6 bytes."""
    name, take = _widths(found)
    width = max((len(row.path or "") for _, _, account in found for row in account.rows), default=4)
    header = ("PORT", "NAME", "START", "END", "LENGTH", "FRAMES", "TAKE")
    yield f"{_line(header, name, take):<{name + take + 88}}  {'MB':>9}  {'FILE':<{width}}  ENDED"
    for port_index, port_name, account in found:
        for row in account.rows:
            cells = _line((*_cells(port_index, port_name, row), row.take or NOTHING), name, take)
            size = NOTHING if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}"
            ended = row.note or ("is being recorded" if row.is_open else row.what)
            path = printable(row.path or NOTHING)
            yield f"{cells:<{name + take + 88}}  {size:>9}  {path:<{width}}  {printable(ended)}".rstrip()


def _widths(found: Sequence[PortAccount]) -> tuple[int, int]:
    """Those of the names and of the takes; all other columns have one that suits everything."""
    names = max((len(name) for _, name, _ in found), default=0)
    takes = max((len(row.take or "") for _, _, account in found for row in account.rows), default=0)
    return max(4, names), max(4, takes)


def _cells(port_index: int, name: str, row: Row) -> tuple[str, ...]:
    end = "ongoing" if row.is_open else local_text(row.end) if row.end else "unknown"
    return (
        str(port_index),
        name,
        local_text(row.start) if row.start else "unknown",
        end,
        "unknown" if row.seconds is None else length_text(row.seconds),
        NOTHING if row.frames is None else str(row.frames),
    )


def _line(cells: Sequence[str], name_width: int, take_width: int) -> str:
    port, name, start, end, length, frames, take, *rest = cells
    text = f"{port:>4}  {name:<{name_width}}  {start:<{_TIME_WIDTH}}  {end:<{_TIME_WIDTH}}  {length:>11}  {frames:>9}"
    return printable(f"{text}  {take:<{take_width}}  {'  '.join(rest)}".rstrip())


def sum_lines(found: Sequence[PortAccount]) -> Iterator[str]:
    """A header and a line a port: how long it was recorded, missing and stopped, in the time that is asked for."""
    name_width = _widths(found)[0]
    form = f"{{:>4}}  {{:<{name_width}}}  {{:>11}}  {{:>11}}  {{:>11}}  {{:>6}}  {{:>6}}"
    yield form.format("PORT", "NAME", "RECORDED", "MISSING", "STOPPED", "FILES", "GAPS")
    for port_index, name, account in found:
        lengths = (account.recorded_s, account.missing_s, account.stopped_s)
        texts = (length_text(seconds) for seconds in lengths)
        line = form.format(port_index, name, *texts, account.files, account.gaps)
        yield line + "".join(f"  {remark}" for remark in _remarks(account))


def _remarks(account: Account) -> Iterator[str]:
    if account.short_gaps:
        yield f"and {account.short_gaps} gaps too short to list ({account.short_s:.2f}s, in MISSING)"
    if account.unknown:
        yield f"without {account.unknown} of unknown length"


def gap_document(port_index: int, name: str, row: Row) -> dict[str, object]:
    """A gap for programs; times are UTC."""
    return {
        "port_index": port_index,
        "name": name,
        "start": row.start,
        "end": row.end,
        "seconds": _rounded(row.seconds),
        "cause": row.what,
        "frames_missing": row.frames,
        "take": row.take,
        "path": row.path,
        "ongoing": row.is_open,
        "note": row.note,
    }


def file_document(port_index: int, name: str, row: Row) -> dict[str, object]:
    """A file for programs; times are UTC."""
    return {
        "port_index": port_index,
        "name": name,
        "start": row.start,
        "end": row.end,
        "seconds": _rounded(row.seconds),
        "path": row.path,
        "frames": row.frames,
        "duplicated": row.duplicated,
        "dropped": row.dropped,
        "bytes": row.size_bytes,
        "codec": row.codec,
        "ended": row.what,
        "take": row.take,
        "ongoing": row.is_open,
        "note": row.note,
    }


def sum_documents(found: Iterable[PortAccount]) -> list[dict[str, object]]:
    """A port's sums for programs, in seconds."""
    return [
        {
            "port_index": port_index,
            "name": name,
            "recorded_seconds": _rounded(account.recorded_s),
            "missing_seconds": _rounded(account.missing_s),
            "stopped_seconds": _rounded(account.stopped_s),
            "files": account.files,
            "gaps": account.gaps,
            "short_gaps": account.short_gaps,
            "unknown": account.unknown,
        }
        for port_index, name, account in found
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
