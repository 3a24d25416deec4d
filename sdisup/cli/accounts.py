"""Accounts as tables for people and as JSON for programs: rows to lines, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdisup.cli.tables import printable
from sdisup.cli.words import LocalTexts, length_text
from sdisup.contract.lean import encoder
from sdisup.ledger.accounts import CANNOT_WORK, Account, Row

NOTHING = "-"
_TIME_WIDTH = 25
_UNKNOWN, _ONGOING = "unknown".ljust(_TIME_WIDTH), "ongoing".ljust(_TIME_WIDTH)

PortAccount = tuple[int, str, Account]
"""A port's index, its name, and its account."""


def gap_lines(found: Sequence[PortAccount], *, each: bool = False) -> Iterator[str]:
    """A header and a line a gap. FRAMES are the missing frames of a file that is there.

    That a port cannot work is one line until it records, however often it was started; `each` lists each time.
    """
    lines = _Lines(found)
    yield lines.header + "CAUSE"
    for port_index, name, account in found:
        begin = lines.begin(port_index, name)
        for row in account.rows if each else _joined(account.rows):
            cause = f"{row.what} ({row.note})" if row.note else row.what
            yield begin + lines.row(row) + _printable(cause)


def _joined(rows: Iterable[Row]) -> list[Row]:
    joined: list[Row] = []
    failed, times = -1, 1
    for row in rows:
        if not row.is_again:
            if row.what == CANNOT_WORK:
                failed, times = len(joined), 1
            joined.append(row)
            continue
        former, times = joined[failed], times + 1
        is_known = former.seconds is not None and row.seconds is not None
        seconds = (former.seconds or 0.0) + (row.seconds or 0.0) if is_known else None
        note = f"{times} times"
        joined[failed] = former.replaced(end=row.end, is_open=row.is_open, seconds=seconds, note=note)
    return joined


def file_lines(found: Sequence[PortAccount]) -> Iterator[str]:
    """A header and a line a file, and behind them a line a mark. MB are 10^6 bytes."""
    lines = _Lines(found)
    width = max((len(row.path or "") for _, _, account in found for row in (*account.rows, *account.marks)), default=4)
    yield f"{lines.header}{'MB':>9}  {'FILE':<{width}}  ENDED"
    for port_index, name, account in found:
        begin = lines.begin(port_index, name)
        for row in account.rows:
            size = NOTHING if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}"
            ended = row.note or ("is being recorded" if row.is_open else row.what)
            ended += f"; deleted {lines.time(row.deleted_at)}: {row.deleted}" if row.deleted else ""
            ended += f"; protected: {row.protected}" if row.protected else ""
            ended += f"; copied to {', '.join(row.copies)}" if row.copies else ""
            part = f" (frames from {row.first_frame} on)" if row.is_part else ""
            path = _printable(row.path or NOTHING).ljust(width)
            yield f"{begin}{lines.row(row)}{size:>9}  {path}  {_printable(ended)}{part}"
        for row in account.marks:
            path = _printable(row.path or NOTHING).ljust(width)
            yield f"{begin}{lines.row(row)}{NOTHING:>9}  {path}  mark: the take begins with this frame"


class _Lines:
    """The columns that files and gaps have in common, as wide as the widest name and take."""

    def __init__(self, found: Sequence[PortAccount]) -> None:
        rows = (row for _, _, account in found for row in (*account.rows, *account.marks))
        takes = max((len(row.take) for row in rows if row.take), default=0)
        self._name_width, self._take_width = _name_width(found), max(4, takes)
        self._no_take = NOTHING.ljust(self._take_width)
        self._local = LocalTexts().text
        times = f"{'START':<{_TIME_WIDTH}}  {'END':<{_TIME_WIDTH}}"
        self.header = (
            f"{self.begin('PORT', 'NAME')}{times}  {'LENGTH':>11}  {'FRAMES':>9}  {'TAKE':<{self._take_width}}  "
        )

    def begin(self, port: object, name: str) -> str:
        return f"{port:>4}  {name:<{self._name_width}}  "

    def time(self, utc: str) -> str:
        return self._local(utc)

    def row(self, row: Row) -> str:
        # Not padded: local times have the column's width, and padding takes long with 100,000 rows.
        start = self._local(row.start) if row.start else _UNKNOWN
        end = _ONGOING if row.is_open else self._local(row.end) if row.end else _UNKNOWN
        length = "unknown" if row.seconds is None else length_text(row.seconds)
        frames = NOTHING if row.frames is None else row.frames
        take = _printable(row.take).ljust(self._take_width) if row.take else self._no_take
        return f"{start}  {end}  {length:>11}  {frames:>9}  {take}  "


def _name_width(found: Sequence[PortAccount]) -> int:
    return max((len(name) for _, name, _ in found), default=4)


def _printable(text: str) -> str:
    return text if text.isprintable() else printable(text)


def sum_lines(found: Sequence[PortAccount]) -> Iterator[str]:
    """A header and a line a port: how long the port recorded, was missing and was stopped in the time asked for."""
    form = f"{{:>4}}  {{:<{_name_width(found)}}}  {{:>11}}  {{:>11}}  {{:>11}}  {{:>6}}  {{:>6}}"
    yield form.format("PORT", "NAME", "RECORDED", "MISSING", "STOPPED", "FILES", "GAPS")
    for port_index, name, account in found:
        lengths = (account.recorded_s, account.missing_s, account.stopped_s)
        texts = (length_text(seconds) for seconds in lengths)
        line = form.format(port_index, name, *texts, account.files, account.gaps)
        yield line + "".join(f"  {remark}" for remark in _remarks(account))


def with_sums(lines: Iterable[str], found: Sequence[PortAccount]) -> Iterator[str]:
    """The table, an empty line, and the sums."""
    yield from lines
    yield ""
    yield from sum_lines(found)


def _remarks(account: Account) -> Iterator[str]:
    if account.short_gaps:
        yield f"and {account.short_gaps} too short to list, {account.short_s:.2f}s together"
    if account.unknown:
        yield f"without {account.unknown} of unknown length"


def document_lines(name: str, found: Sequence[PortAccount]) -> Iterator[str]:
    """The lines of the JSON document `{"gaps": […], "sums": […]}`, one a row; the document is never whole in memory."""
    document = gap_document if name == "gaps" else file_document
    encode = encoder(ensure_ascii=False)
    yield f'{{"{name}": ['
    last = ""
    for port_index, port_name, account in found:
        for row in account.rows:
            if last:
                yield f"{last},"
            last = "  " + encode(document(port_index, port_name, row))
    if last:
        yield last
    if name != "gaps":
        marks = [mark_document(index, port, row) for index, port, account in found for row in account.marks]
        yield '], "marks": ['
        yield ",\n".join(f"  {encode(mark)}" for mark in marks)
    sums = (encode(document) for document in sum_documents(found))
    yield '], "sums": ['
    yield ",\n".join(f"  {text}" for text in sums)
    yield "]}"


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
        "first_frame": row.first_frame,
        "deleted_at": row.deleted_at or None,
        "deleted_by": row.deleted or None,
        "protected": row.protected or None,
        "copies": row.copies,
    }


def mark_document(port_index: int, name: str, row: Row) -> dict[str, object]:
    """A mark for programs: with this frame of the file `former_take` ends and `take` begins."""
    return {
        "port_index": port_index,
        "name": name,
        "at": row.start,
        "path": row.path,
        "frame": row.frames,
        "take": row.take,
        "former_take": row.what or None,
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
