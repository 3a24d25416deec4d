"""Entries from what happened: when a file's frames came, and how long it and each interval lasted. Pure."""

from __future__ import annotations

from sdisup.contract.files import utc_text
from sdisup.contract.media import COPY
from sdisup.ledger.lines import VERSION, Entry
from sdisup.ledger.moments import FileEnd, Interval, Moment, Sleep, TakenFile, later
from sdisup.ledger.spool import CANNOT_KEEP_UP, SOURCE_LOSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_REPEATED = 0.001
"""Fewer copies than this share of the file's frames are in its own entry only (`duplicated`)."""
AGREEMENT_S = 1.0
AGREEMENT = 0.0002
"""How far a file's frames may be from the time it took: a progress block late, and twice the 100 ppm by which
a card's clock may differ from the system's."""


def interval_entries(port_index: int, interval: Interval) -> list[Entry]:
    """A gap's or a stop's entry; none for one without a length.

    Over a reboot only the wall clock knows the length; where that was put back, nobody does, and it says so.
    """
    end = interval.end or interval.start
    seconds = interval.seconds(end)
    is_unknown = interval.start.boot != end.boot and seconds <= 0
    if seconds < 0.001 and not is_unknown:
        return []
    entry = _interval_entry(port_index, interval, interval.start, end, seconds)
    if is_unknown:
        entry["length"] = "unknown"
    return [entry]


def late_entry(port_index: int, interval: Interval, before: Moment, now: Moment, step_s: float) -> Entry:
    """What an interval over a reboot was longer than the clock showed, which is put right by a step only now."""
    return _interval_entry(port_index, interval, before, now, step_s)


def _interval_entry(port_index: int, interval: Interval, start: Moment, end: Moment, seconds: float) -> Entry:
    entry = _entry(port_index, interval.kind, interval.take, start, end, seconds)
    entry["cause" if interval.kind == "gap" else "by"] = interval.what
    return entry


def file_entries(
    port_index: int, file: TakenFile, end: FileEnd, frames: int, size_bytes: int, start: Moment, last: Moment
) -> list[Entry]:
    """The entry of a file and those of the frames missing in it; none for an empty file."""
    if not frames and not size_bytes:
        return []
    missing_s, missed_s = (end.missing / file.rate, file.missed / file.rate) if file.rate else (0.0, 0.0)
    recorded_s = max(0.0, start.seconds_to(last) - missing_s - missed_s)
    content_s = max(0, frames - file.filled) / file.rate if file.rate else recorded_s
    if abs(recorded_s - content_s) <= _agreement_s(recorded_s):
        recorded_s = content_s
    entry = _entry(port_index, "file", file.take, start, last, recorded_s)
    entry.update(
        path=file.path,
        frames=frames,
        duplicated=end.duplicated,
        dropped=end.dropped,
        bytes=size_bytes,
        codec=file.codec,
        ended=end.verdict,
        ffmpeg_version=file.ffmpeg_version,
    )
    if end.inode:
        entry["inode"] = end.inode
    entries = [entry]
    for seconds, missing, cause in (
        (missing_s, end.missing, short_cause(file.codec, end.repeated_cause)),
        # Time that has pictures, though not all of them: nothing of it is missing as a whole.
        (0.0, end.repeated if end.repeated > LEAST_REPEATED * frames else 0, end.repeated_cause),
    ):
        if missing:
            gap = _entry(port_index, "gap", file.take, start, last, seconds)
            gap.update(cause=cause, frames_missing=missing, path=file.path)
            entries.append(gap)
    return entries


def short_cause(codec: str, repeated_cause: str) -> str:
    """Why a file has fewer frames than the clock asks for. FFmpeg fills up what a source loses, but for a copy."""
    return repeated_cause or SOURCE_LOSES if codec == COPY else CANNOT_KEEP_UP


def hole_entry(
    port_index: int, file: TakenFile, start: Moment, end: Moment, frames: int, cause: str, slept_s: float = 0.0
) -> Entry:
    """A time without pictures inside a file, in `slept_s` of which the system was suspended."""
    entry = _entry(port_index, "gap", file.take_at_end, start, end, max(0.0, start.seconds_to(end)) + slept_s)
    entry.update(cause=cause, frames_missing=frames, path=file.path)
    return entry


def clock_entry(port_index: int, before: Moment, now: Moment, step_s: float) -> Entry:
    """A step of the wall clock between two moments; `seconds` is by how much, forwards positive."""
    return _entry(port_index, "clock", None, before, now, step_s)


def mark_entry(port_index: int, path: str, frame: int, take: str | None, former: str | None, at: Moment) -> Entry:
    """A cut: the take `former` ends, and `take` begins with this frame of the file, counted from 0."""
    entry = _entry(port_index, "mark", take, at, at, 0.0)
    entry.update(former_take=former, path=path, frame=frame)
    return entry


def delete_entry(port_index: int, path: str, inode: int, rule: str, at: Moment) -> Entry:
    """A file is going to be removed, for a rule. The number tells it from others that have had its path."""
    entry = _entry(port_index, "delete", None, at, at, 0.0)
    entry.update(rule=rule, path=path, inode=inode)
    return entry


def copy_entry(
    port_index: int, path: str, inode: int, size_bytes: int, recorded: str, target: str, copy: str, digest: str,
    verified: str, start: Moment, end: Moment,
) -> Entry:  # fmt: skip
    """A file has a copy at a target, which was made and verified in this time. `recorded` is the file's start, by which
    it is told from others that have had its path."""
    entry = _entry(port_index, "copy", None, start, end, max(0.0, start.seconds_to(end)))
    entry.update(target=target, path=path, inode=inode, bytes=size_bytes, recorded=recorded, copy=copy)
    entry.update(digest=digest, verified=verified)
    return entry


def _entry(port_index: int, kind: str, take: str | None, start: Moment, end: Moment, seconds: float) -> Entry:
    return {
        "v": VERSION,
        "kind": kind,
        "port_index": port_index,
        "take": take,
        "boot_id": end.boot,
        "start": utc_text(start.wall),
        "end": utc_text(end.wall),
        "start_monotonic": start.monotonic,
        "end_monotonic": end.monotonic,
        "seconds": round(seconds, 3),
    }


def extent(file: TakenFile, end: FileEnd, frames: int, sleeps: Sequence[Sleep] = ()) -> tuple[Moment, Moment]:
    """When the first and the last of the file's `frames` came: as seen, and else by their number.

    They are never outside of the time between the file's making and its closing. `sleeps` are those of the system.
    """
    content_s = (frames + end.missing + file.missed - file.filled) / file.rate if file.rate else 0.0
    seen = end.last_frame
    if seen is not None and file.rate:
        # A kill costs frames that were counted, or comes after some that were not counted yet.
        seen = later(seen, (frames - end.frames) / file.rate, sleeps)
    start = file.start or _unseen_start(file, seen, content_s, sleeps)
    last = later(start, content_s, sleeps)
    # Where far fewer frames are there than time went by, what is missing is taken to be missing at the end. Not of a
    # copy, whose rate may vary.
    if seen is not None and (not file.rate or file.codec == COPY or last.seconds_to(seen) <= _agreement_s(content_s)):
        last = seen
    if file.closed is not None and file.closed.boot == last.boot:
        last = last.not_after(file.closed)
    return start, last.not_before(start)


def _unseen_start(file: TakenFile, seen: Moment | None, content_s: float, sleeps: Sequence[Sleep]) -> Moment:
    if seen is not None:
        return later(seen, -content_s, sleeps).not_before(file.opened)
    if file.opened is not None:
        return file.opened
    # By what is remembered a file has at least one of the three.
    assert file.closed is not None
    return later(file.closed, -content_s, sleeps)


def _agreement_s(seconds: float) -> float:
    return AGREEMENT_S + AGREEMENT * seconds
