"""What ledgers answer: which time of a port is recorded, missing or stopped. Queries; nothing is changed.

A ledger is read line by line and never held as a whole, and only the lines that are listed are decoded. What
goes on just now is not in it (present.py finds it). Times are UTC texts, which sort as the times do.
"""

from __future__ import annotations

import re
from itertools import chain, islice
from sys import intern

from sdisup.contract.files import unix_time, utc_text
from sdisup.contract.records import Record
from sdisup.ledger.lines import TIME, Entry, Problem, decode_chunk, read_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TOO_SHORT_S = 0.05
"""Gaps below this are no more than rounding: they are in the sums and not in the list."""
SHORT_START_S = 1.0
"""A start takes a moment; starts up to this long are in the sums and not in the list."""
START, CANNOT_WORK = "start", "cannot work"
REPEATS_WITHIN = 600
"""A crash can have entered at most what waited at once (story.QUEUE_LIMIT) a second time."""

Line = tuple[str, str, str, str, str, str, str, str, str, str, str, str, str, str, str, str]
"""An entry as texts, empty for what it has not: kind, take, start, end, start_monotonic, seconds, a gap's cause, a
stop's by, a mark's former take, a deletion's rule or a copy's target, frames_missing, path, a mark's frame, frames,
duplicated, dropped, bytes of a file, codec, ended. Without seconds nobody knows how long it was."""
WHAT, MISSING, PATH = 6, 7, 8
TIMES = frozenset({"file", "gap", "stop"})
"""The kinds of entries whose lengths are in the sums."""

# A line as sdisup itself writes it, without a backslash. Any other way to write an entry is decoded.
_OWN_LINES = re.compile(
    (
        r'^\{"v":1,"kind":"(file|gap|stop|clock|mark|delete|copy)","port_index":(?:0|[1-9][0-9]?),"take":(?:null|"(TEXT)"),'
        r'"boot_id":"TEXT","start":"(TIME)","end":"(TIME)",'
        r'"start_monotonic":(NUMBER),"end_monotonic":NUMBER,"seconds":(NUMBER)'
        r'(?:,"(?:cause|by|former_take|rule|target)":(?:null|"(TEXT)"))?(?:,"frames_missing":(COUNT))?'
        r'(?:,"path":"(TEXT)"(?:,"inode":COUNT)?)?'
        r'(?:,"bytes":COUNT,"recorded":"TEXT","copy":"TEXT","digest":"TEXT","verified":"TEXT")?'
        r'(?:,"frame":(COUNT))?(?:,"frames":(COUNT),'
        r'"duplicated":(COUNT),"dropped":(COUNT),"bytes":(COUNT),"codec":"(TEXT)","ended":"(TEXT)",'
        r'"ffmpeg_version":"TEXT"(?:,"inode":COUNT)?)?(?:,"number":COUNT)?\}$'
    )
    .replace("TIME", TIME)
    .replace("TEXT", r'[^"\\\x00-\x1f]{0,8000}')
    .replace("NUMBER", r"-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]+)?")
    .replace("COUNT", r"(?:0|[1-9][0-9]{0,15})"),
    re.MULTILINE,
)


def scan(path: str) -> Iterator[Sequence[Line | Problem]]:
    """The entries of a ledger in the order of its lines, some hundred at a time; a Problem for a line that is none."""
    for found in read_chunks(path):
        if isinstance(found, Problem):
            yield [found]
            continue
        number, count, chunk = found
        try:
            own = _OWN_LINES.findall(chunk.decode())
        except UnicodeDecodeError:
            own = []
        if len(own) == count and chunk[-1:] == b"\n":
            yield own
        else:
            entries = decode_chunk(path, number, chunk)
            yield [entry if isinstance(entry, Problem) else line_of(entry) for entry in entries]


def line_of(entry: Entry) -> Line:
    """A valid entry's line."""
    kind, get = entry["kind"], entry.get
    is_file = kind == "file"
    return (
        str(kind),
        _text(get("take")),
        str(entry["start"]),
        str(entry["end"]),
        str(get("start_monotonic")),
        "" if get("length") == "unknown" else str(entry["seconds"]),
        "" if is_file else _text(get(_WHAT.get(str(kind), "by"))),
        _whole(get("frames_missing")),
        _text(get("path")),
        _whole(get("frame")),
        _whole(get("frames")),
        _whole(get("duplicated")),
        _whole(get("dropped")),
        _whole(get("bytes")) if is_file else "",
        _text(get("codec")),
        _text(get("ended")),
    )


_WHAT = {"gap": "cause", "mark": "former_take", "delete": "rule", "copy": "target"}


def _text(value: object) -> str:
    """A ledger's text; what JSON allows and nobody can print is replaced."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _whole(value: object) -> str:
    return str(value) if isinstance(value, int) and -(1 << 63) < value < 1 << 63 else ""


class Window:
    """What is asked for: a time, in Unix time, None for no limit; the takes of a name, None for all; and whether gaps
    are listed that are not worth a line."""

    def __init__(
        self,
        since: float | None = None,
        until: float | None = None,
        take: str | None = None,
        *,
        with_short: bool = False,
    ) -> None:
        self.since_s, self.until_s = since, until
        self.since = "" if since is None else utc_text(since)
        self.until = "~" if until is None else utc_text(until)
        self.take = take
        self.with_short = with_short

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
        try:
            share = (unix_time(last) - unix_time(first)) / (unix_time(end) - unix_time(start))
        except ValueError:
            # It looks like a time and is none, such as the 31st of February.
            share = 1.0
        return first, last, seconds * share

    def touches(self, row: Row) -> bool:
        """Whether some of a row may be within, as far as its times are known."""
        return (row.start or row.not_before) < self.until and (row.end or "~") > self.since

    def has_take(self, take: str | None) -> bool:
        """Whether a take, empty or None for none, is asked for."""
        return self.take in (None, take)


class Row(Record, frozen=False):
    """A file, a gap, a stop or a mark. `start` or `end` is None where it is not known, and then `seconds` too.

    `what` is a gap's cause, who stopped the port, or how a file ended; `frames` are a file's, or those that a gap
    in a file misses. `is_open` says that it goes on; `note` what has to be known beside. `not_before` is what is
    known of a `start` that is not. A mark's `what` is the take that ended, and its `frames` the number in the file of
    the first frame of its `take`, from 0 on. Of a file that is cut, the take has those `frames` (`is_part`) that begin
    with `first_frame`; `has_more` says that the file goes on with another take. Of a file that sdisup has `deleted`
    this is the rule, and `deleted_at` when; `copies` are the targets that have one of it; `protected` is why a
    file is that is protected.
    """

    kind: str
    what: str
    start: str | None
    end: str | None
    seconds: float | None
    path: str | None = None
    take: str | None = None
    codec: str = ""
    frames: int | None = None
    is_open: bool = False
    note: str = ""
    duplicated: int | None = None
    dropped: int | None = None
    size_bytes: int | None = None
    not_before: str = ""
    is_again: bool = False
    """Whether a gap is of a port that could not work before it either, and has not recorded since."""
    first_frame: int = 0
    is_part: bool = False
    has_more: bool = False
    deleted: str = ""
    deleted_at: str = ""
    copies: tuple[str, ...] = ()
    protected: str = ""

    def end_or_open(self) -> str:
        """Its end as a text that sorts; one that goes on, or that nobody knows, is behind all others."""
        return "~" if self.is_open or not self.end else self.end


def row_of(line: Line, start: str, end: str, seconds: float | None) -> Row:
    """A line's row, in the part that is asked for. By the order of its fields, since there may be very many."""
    kind, take, _, _, _, _, what, missing, path, frame, frames, duplicated, dropped, size_bytes, codec, ended = line
    missing = missing or frame
    if kind != "file":
        return Row(
            kind, intern(what), start, end, seconds, path or None, take or None, "", int(missing) if missing else None,
            False, "", None, None, None, "", False, 0, False, False, "", "", (), "",
        )  # fmt: skip
    return Row(
        kind, intern(ended), start, end, seconds, path or None, take or None, intern(codec),
        int(frames) if frames else None, False, "", int(duplicated) if duplicated else None,
        int(dropped) if dropped else None, int(size_bytes) if size_bytes else None, "", False, 0, False, False, "", "",
        (), "",
    )  # fmt: skip


class Account:
    """A port's sums in seconds, and the rows of the kind that is asked for, in the ledger's order."""

    def __init__(self, kind: str, *, with_short: bool = False) -> None:
        self.kind = kind
        self.rows: list[Row] = []
        self.recorded_s = self.missing_s = self.stopped_s = self.short_s = 0.0
        self.gaps = self.files = self.short_gaps = 0
        self.unknown = 0
        """How many files, gaps and stops are in no sum, since their length is not known."""
        self.marks: list[Row] = []
        """The marks at which a take that is asked for begins or ends, in the ledger's order."""
        self.deleted: dict[str, tuple[str, str]] = {}
        """The files that sdisup deleted, by path: when, and by which rule."""
        self.copies: dict[str, list[tuple[str, str]]] = {}
        """The files that were copied, by path: when, and to which target."""
        self._cuts: dict[str, list[tuple[int, str | None]]] = {}
        self._with_short = with_short
        self._has_failed = False

    def add(self, kind: str, what: str, seconds: float | None, *, is_news: bool = False) -> bool:
        """Count one in; whether it is for the list. None that goes on, or misses frames, is too short for it."""
        if seconds is None:
            self.unknown += 1
            seconds = 0.0
        elif kind == "gap" and not is_news and self._is_short(what, seconds):
            self.missing_s += seconds
            self.short_s += seconds
            self.short_gaps += 1
            return False
        if kind == "file":
            self.recorded_s += seconds
            self.files += 1
            self._has_failed = False
        elif kind == "gap":
            self.missing_s += seconds
            self.gaps += 1
        else:
            self.stopped_s += seconds
        return kind == self.kind

    def _is_short(self, what: str, seconds: float) -> bool:
        if self._with_short:
            return False
        return seconds < TOO_SHORT_S or (what == START and seconds <= SHORT_START_S)

    def cut(self, path: str, frame: int, take: str | None) -> None:
        """A mark: with this frame of the file `take` begins."""
        self._cuts.setdefault(path, []).append((frame, take))

    def is_cut(self, path: str) -> bool:
        """Whether the file has a mark."""
        return path in self._cuts

    def takes(self, row: Row) -> list[str]:
        """The takes that a file holds something of."""
        cuts = self._cuts.get(row.path or "", ())
        return [take for take in (row.take, *(take for _, take in cuts)) if take]

    def parts(self, row: Row) -> list[Row]:
        """A file's parts, each of a take of its own: as many as it has marks, and one more."""
        marks = sorted(self._cuts.get(row.path or "", ()), key=lambda mark: mark[0])
        ends = [frame for frame, _ in marks] + [row.frames]
        takes = [row.take, *(take for _, take in marks)]
        firsts = [0, *(frame for frame, _ in marks)]
        parts = list(zip(takes, firsts, ends, strict=True))
        return [_part(row, *part, is_last=part is parts[-1]) for part in parts] if marks else [row]

    def mark_deleted(self) -> None:
        """Say in the rows which files are deleted. A path may lead to another file since."""
        for row in self.rows if self.deleted and self.kind == "file" else ():
            at, rule = self.deleted.get(row.path or "", ("", ""))
            if row.end is not None and row.end <= at:
                row.deleted_at, row.deleted = at, rule

    def mark_copied(self) -> None:
        """Say in the rows which files have copies. A path may have led to another file before."""
        if not self.copies or self.kind != "file":
            return
        last: dict[str, str] = {}
        for row in reversed(self.rows):
            path, end = row.path or "", row.end or "~"
            until = last.get(path, "~")
            row.copies = tuple(dict.fromkeys(to for at, to in self.copies.get(path, ()) if end <= at < until))
            # What was copied before this file began was another one; all parts of one file have its copies.
            last[path] = until if row.first_frame else row.start or until

    def list(self, row: Row) -> None:
        """Put a row into the list."""
        if row.what == CANNOT_WORK and row.kind == "gap":
            row.is_again, self._has_failed = self._has_failed, True
        self.rows.append(row)


def _part(row: Row, take: str | None, first: int, end: int | None, *, is_last: bool) -> Row:
    """The frames of a file from `first` on and before `end`, which is None where nobody knows yet."""
    count = row.frames
    part = row.replaced(take=take, first_frame=first, is_part=True, has_more=not is_last)
    if not is_last and (row.is_open or count is None):
        # What is before a mark does not depend on what comes.
        part.frames, part.size_bytes, part.is_open = (end or 0) - first, None, False
        part.note = row.note or "its file goes on"
    elif count is None or end is None:
        part.frames = None
    else:
        first, end = min(first, count), min(end, count)
        part.frames = max(0, end - first)
    if part.frames is None or not count:
        part.start, part.seconds = None if first else row.start, None
        part.not_before = row.start or row.not_before
    else:
        part.start = _at(row, first / count)
        part.end = _at(row, min(1.0, (first + part.frames) / count))
        part.seconds = row.seconds and row.seconds * part.frames / count
    return part


def _at(row: Row, share: float) -> str | None:
    """When so much of a file was recorded."""
    if row.start is None or row.end is None or share in (0.0, 1.0):
        return row.end if share == 1.0 else row.start
    try:
        start, end = unix_time(row.start), unix_time(row.end)
    except ValueError:
        # It looks like a time and is none.
        return row.start
    return utc_text(start + (end - start) * share)


class Recent:
    """The last entries, held back until it is sure that none is entered again in another length.

    Earlier versions could enter something a second time after a crash: then a file is the same, and an interval that
    went on is longer. And an entry may be made while its port is asked.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str, str], Line] = {}

    @property
    def lines(self) -> list[Line]:
        return list(self._held.values())

    def merged(self, found: Iterable[Sequence[Line | Problem]], problems: list[Problem]) -> Iterator[list[Line]]:
        """The lines without repetitions, all but the last REPEATS_WITHIN; problems go into their list."""
        held = self._held
        for lines in found:
            for line in lines:
                if isinstance(line, Problem):
                    problems.append(line)
                    continue
                key = line[0], line[2], line[4], line[PATH]
                earlier = held.setdefault(key, line)
                if earlier is not line and line[0] != "file" and _is_longer(line, earlier):
                    held[key] = line
            if len(held) > REPEATS_WITHIN:
                oldest = list(islice(held, len(held) - REPEATS_WITHIN))
                yield [held.pop(key) for key in oldest]

    def holds(self, row: Row) -> bool:
        """Whether what was open was entered meanwhile."""
        sought = (row.kind, row.start, row.path or "")
        return any((kind, start, path) == sought for kind, start, _, path in self._held)


def _is_longer(line: Line, earlier: Line) -> bool:
    return bool(line[5] and earlier[5]) and float(line[5]) > float(earlier[5])


def account_of(
    kind: str,
    found: Iterable[Sequence[Line | Problem]],
    waiting: Sequence[Line],
    open_rows: Iterable[Row],
    window: Window,
) -> tuple[Account, list[Problem]]:
    """A port's account; its list is of `kind`, `file` or `gap`.

    `found` is its ledger, `waiting` the entries that are not in it yet, `open_rows` what goes on.
    """
    account, recent = Account(kind, with_short=window.with_short), Recent()
    problems: list[Problem] = []
    for lines in recent.merged(chain(found, [waiting]), problems):
        _add_lines(account, lines, window)
    _add_lines(account, recent.lines, window)
    for row in open_rows:
        if not recent.holds(row):
            _add_row(account, row, window)
    account.mark_deleted()
    account.mark_copied()
    return account, problems


def _add_lines(account: Account, lines: list[Line], window: Window) -> None:
    since, until, asked = window.since, window.until, window.take
    for line in lines:
        kind, take, start, end, _, length = line[:6]
        if kind not in TIMES:
            _add_note(account, line, window)
            continue
        if asked is not None:
            if kind == "file" and account.is_cut(line[PATH]):
                _add_row(account, row_of(line, start, end, float(length) if length else None), window)
                continue
            if take != asked:
                continue
        if start >= until or (end <= since and start < end):
            continue
        seconds = float(length) if length else None
        if seconds is not None and (start < since or end > until):
            part = window.cut(start, end, seconds)
            if part is None:
                continue
            start, end, seconds = part
        if account.add(kind, line[WHAT], seconds, is_news=bool(line[MISSING])):
            account.list(row_of(line, start, end, seconds))


def _add_note(account: Account, line: Line, window: Window) -> None:
    """A line that is no time of its own, and says something of a file."""
    kind, path = line[0], line[PATH]
    if kind == "mark":
        _add_mark(account, line, window)
    elif kind == "delete":
        account.deleted[path] = line[2], line[WHAT]
    elif kind == "copy":
        account.copies.setdefault(path, []).append((line[3], line[WHAT]))


def _add_mark(account: Account, line: Line, window: Window) -> None:
    take, start, former = line[1] or None, line[2], line[WHAT] or None
    row = row_of(line, start, line[3], 0.0)
    if row.path is None or row.frames is None or row.frames < 0:
        return
    account.cut(row.path, row.frames, take)
    is_asked = window.has_take(take) or window.has_take(former)
    if account.kind == "file" and is_asked and window.since <= start < window.until:
        account.marks.append(row)


def _add_row(account: Account, row: Row, window: Window) -> None:
    """A row of what goes on, or waits to be entered: one whose length is not known is in no sum. Of a file that holds
    several takes, the parts of the take that is asked for."""
    if row.kind == "file" and not row.is_part and window.take is not None and account.is_cut(row.path or ""):
        for one in account.parts(row):
            if one.frames != 0:
                _add_row(account, one, window)
        return
    if not window.has_take(row.take):
        return
    if row.start is not None and row.end is not None and row.seconds is not None:
        part = window.cut(row.start, row.end, row.seconds)
        if part is None:
            return
        row.start, row.end, row.seconds = part
    elif not window.touches(row):
        return
    if account.add(row.kind, row.what, row.seconds, is_news=row.is_open or bool(row.frames)):
        account.list(row)
