"""What ledgers answer: which time of a port is recorded, missing or stopped. Queries; nothing is changed.

A ledger is read line by line and never held as a whole, and only the lines that are listed are decoded. What
goes on just now is not in it (ongoing.py finds it). Times are UTC texts, which sort as the times do.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from sys import intern

from sdisup.ledger import LINE_LIMIT_BYTES, Entry, Problem, decode_line, encode_entry, read_lines
from sdisup.status import utc_text
from sdisup.times import unix_time

TOO_SHORT_S = 0.05
"""Gaps below this are no more than rounding: they are in the sums and not in the list."""
REPEATS_WITHIN = 600
"""A crash can have entered at most what waited at once (story.QUEUE_LIMIT) a second time."""

Line = tuple[str, str, str, str, float, bytes]
"""Of an entry: kind, start, end, start_monotonic, seconds, and the whole line."""

# A line as sdisup itself writes it, in plain letters. Any other way to write an entry is decoded.
_OWN_LINE = re.compile(
    (
        r'\{"v":1,"kind":"(file|gap|stop|clock)","port_index":[0-9],"take":(?:null|TEXT),"boot_id":TEXT,'
        r'"start":"([0-9-]{10}T[0-9:.]{12}Z)","end":"([0-9-]{10}T[0-9:.]{12}Z)","start_monotonic":(NUMBER),'
        r'"end_monotonic":NUMBER,"seconds":(NUMBER)(?:,"[a-z_]+":(?:NUMBER|TEXT))*\}'
    )
    .replace("TEXT", r'"[ !#-\[\]-~]*"')
    .replace("NUMBER", r"-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]+)?")
)


def scan(path: str) -> Iterator[Line | Problem]:
    """The entries of a ledger in the order of its lines, and a Problem for each line that is none."""
    own = _OWN_LINE.fullmatch
    for found in read_lines(path):
        if isinstance(found, Problem):
            yield found
            continue
        number, lines = found
        for index, line in enumerate(lines):
            # Bytes of other letters become some that the pattern does not take.
            match = own(line.decode("latin-1")) if len(line) <= LINE_LIMIT_BYTES else None
            if match:
                kind, start, end, monotonic, seconds = match.groups()
                yield kind, start, end, monotonic, float(seconds), line
            elif line:
                entry = decode_line(path, number + index, line)
                yield entry if isinstance(entry, Problem) else line_of(entry)


def line_of(entry: Entry) -> Line:
    """A valid entry's line."""
    kind, start, end, seconds = entry["kind"], entry["start"], entry["end"], entry["seconds"]
    monotonic = str(entry.get("start_monotonic"))
    return str(kind), str(start), str(end), monotonic, float(str(seconds)), encode_entry(entry)


class Window:
    """The time that is asked for, in Unix time; None for no limit."""

    def __init__(self, since: float | None = None, until: float | None = None) -> None:
        self.since = "" if since is None else utc_text(since)
        self.until = "~" if until is None else utc_text(until)

    def cut(self, start: str, end: str, seconds: float) -> tuple[str, str, float] | None:
        """The part of an interval that is within; None for nothing. Its length by its share of the time."""
        since, until = self.since, self.until
        if start >= since and end <= until:
            return (start, end, seconds) if start < until else None
        if end <= start:
            # The clock was put back meanwhile.
            return (start, end, seconds) if since <= start < until else None
        first, last = max(start, since), min(end, until)
        if first >= last:
            return None
        share = (unix_time(last) - unix_time(first)) / (unix_time(end) - unix_time(start))
        return first, last, seconds * share


class Row:
    """A file, a gap or a stop. `start` or `end` is None where it is not known, and then `seconds` too.

    `what` is a gap's cause, who stopped the port, or how a file ended; `frames` are a file's, or those that a gap
    in a file misses. `is_open` says that it goes on; `note` what has to be known beside. `not_before` is what is
    known of a `start` that is not.
    """

    __slots__ = (
        "codec", "dropped", "duplicated", "end", "frames", "is_open", "kind", "not_before", "note", "path",
        "seconds", "size_bytes", "start", "take", "what",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        what: str,
        *,
        start: str | None,
        end: str | None,
        seconds: float | None,
        path: str | None = None,
        take: str | None = None,
        codec: str = "",
        frames: int | None = None,
        is_open: bool = False,
        note: str = "",
    ) -> None:
        self.kind = kind
        self.what = what
        self.start = start
        self.end = end
        self.seconds = seconds
        self.path = path
        self.take = take
        self.codec = codec
        self.frames = frames
        self.duplicated: int | None = None
        self.dropped: int | None = None
        self.size_bytes: int | None = None
        self.is_open = is_open
        self.note = note
        self.not_before = ""


def row_of(entry: Entry, start: str, end: str, seconds: float) -> Row:
    """An entry's row, in the part that is asked for."""
    get = entry.get
    if entry["kind"] != "file":
        what = intern(_text(get("cause" if entry["kind"] == "gap" else "by")))
        row = Row(str(entry["kind"]), what, start=start, end=end, seconds=seconds)
        row.frames = _whole(get("frames_missing"))
    else:
        row = Row("file", intern(_text(get("ended"))), start=start, end=end, seconds=seconds)
        row.codec = intern(_text(get("codec")))
        row.frames, row.size_bytes = _whole(get("frames")), _whole(get("bytes"))
        row.duplicated, row.dropped = _whole(get("duplicated")), _whole(get("dropped"))
    row.path, row.take = _text(get("path")) or None, _text(get("take")) or None
    return row


def _row_of_line(text: bytes, start: str, end: str, seconds: float) -> Row:
    """A line's row. Most gaps have a cause and nothing else to show, and are not worth decoding."""
    before, _, cause = text.rstrip(b"\n").rpartition(b',"cause":"')
    # Without a backslash no text holds a quote, so that this can only be the last field.
    if b"\\" in text or b'"take":null,' not in before or cause[-2:] != b'"}' or b'"' in cause[:-2]:
        return row_of(json.loads(text), start, end, seconds)
    return Row("gap", intern(cause[:-2].decode("utf-8", "replace")), start=start, end=end, seconds=seconds)


def _text(value: object) -> str:
    """A ledger's text; what JSON allows and nobody can print is replaced."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-8", "replace").decode()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


class Account:
    """A port's sums in seconds, and the rows of the kind that is asked for, in the ledger's order."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rows: list[Row] = []
        self.recorded_s = self.missing_s = self.stopped_s = self.short_s = 0.0
        self.gaps = self.files = self.short_gaps = 0
        self.unknown = 0
        """How many files, gaps and stops are in no sum, since their length is not known."""

    def add(self, kind: str, seconds: float | None) -> bool:
        """Count one in; whether it is for the list."""
        if seconds is None:
            self.unknown += 1
            seconds = 0.0
        elif kind == "gap" and seconds < TOO_SHORT_S:
            self.missing_s += seconds
            self.short_s += seconds
            self.short_gaps += 1
            return False
        if kind == "file":
            self.recorded_s += seconds
            self.files += 1
        elif kind == "gap":
            self.missing_s += seconds
            self.gaps += 1
        else:
            self.stopped_s += seconds
        return kind == self.kind


class Recent:
    """The last entries, held back until it is sure that none is entered again in another length.

    A cut between an entry and the open record makes the next runner enter it again: then a file is the same,
    and an interval that went on is longer.
    """

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self._newest = ""

    def merged(self, found: Iterable[Line | Problem], problems: list[Problem]) -> Iterator[Line]:
        """The lines without repetitions, all but the last REPEATS_WITHIN; problems go into their list."""
        lines = self.lines
        for line in found:
            if isinstance(line, Problem):
                problems.append(line)
                continue
            if line[1] > self._newest:
                self._newest = line[1]
            elif self._merge(line):
                continue
            lines.append(line)
            if len(lines) > REPEATS_WITHIN:
                yield lines.popleft()

    def _merge(self, line: Line) -> bool:
        """Whether the line repeats an earlier one: the same kind, beginning and file."""
        for index in range(len(self.lines) - 1, -1, -1):
            earlier = self.lines[index]
            if earlier[1] < line[1]:
                return False
            is_alike = (earlier[0], earlier[1], earlier[3]) == (line[0], line[1], line[3])
            if is_alike and path_of(earlier) == path_of(line):
                if line[0] != "file" and line[4] > earlier[4]:
                    self.lines[index] = line
                return True
        return False

    def holds(self, row: Row) -> bool:
        """Whether what was open was entered meanwhile."""
        alike = (line for line in self.lines if (line[0], line[1]) == (row.kind, row.start))
        return any(path_of(line) == row.path for line in alike)


def path_of(line: Line) -> object:
    """The file that an entry is about; None if it is about none."""
    return json.loads(line[5]).get("path")


def account_of(
    kind: str, found: Iterable[Line | Problem], waiting: Iterable[Line], open_rows: Iterable[Row], window: Window
) -> tuple[Account, list[Problem]]:
    """A port's account; its list is of `kind`, `file` or `gap`.

    `found` is its ledger, `waiting` the entries that are not in it yet, `open_rows` what goes on.
    """
    account, recent = Account(kind), Recent()
    problems: list[Problem] = []
    for lines in (found, waiting):
        for line in recent.merged(lines, problems):
            _add_line(account, line, window)
    for line in recent.lines:
        _add_line(account, line, window)
    for row in open_rows:
        if not recent.holds(row):
            _add_row(account, row, window)
    return account, problems


def _add_line(account: Account, line: Line, window: Window) -> None:
    kind, start, end, _, seconds, text = line
    if start >= window.until or (end <= window.since and start < end) or kind not in ("file", "gap", "stop"):
        return
    part = window.cut(start, end, seconds)
    if part is not None and account.add(kind, part[2]):
        account.rows.append(_row_of_line(text, *part))


def _add_row(account: Account, row: Row, window: Window) -> None:
    """A row of what goes on, or waits to be entered: one whose length is not known is in no sum."""
    if row.start is not None and row.end is not None and row.seconds is not None:
        part = window.cut(row.start, row.end, row.seconds)
        if part is None:
            return
        row.start, row.end, row.seconds = part
    elif (row.start or row.not_before) >= window.until or (row.end or "~") <= window.since:
        return
    if account.add(row.kind, row.seconds):
        account.rows.append(row)
