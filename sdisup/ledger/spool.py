"""Events on their way from a port's runner to its ledger: lines of JSON in /run, which outlive runner and stop.

Only the runner changes the file. It is made with all the room that it may need, filled with NUL bytes, so that a
full /run does not hit it later; the events end at the first NUL. The ledger's process says in a file beside it
(`entered`) up to which event all is safe; the runner then makes room. Who else tells of a port's files has a spool of
the same kind beside the runner's (OTHERS). Standard library only.
"""

from __future__ import annotations

import errno
import os
import time

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, Unreadable, boot_id, boottime_ns, read_fields, replace_file
from sdisup.ledger.lines import Problem
from sdisup.ledger.moments import Moment, moment_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

VERSION = 1
CLOCK_STEP_S = 0.1
"""Slewing moves both clocks alike (clock_gettime(2)): only a step changes how far they are apart. What is less than
this is the time between the reading of the one and of the other."""
BEGAN, OPENED, MEDIA, CLOSED, WAITS, STOPPED, CLOCK = "began", "opened", "media", "closed", "waits", "stopped", "clock"
MISSED, LOSING, MOVED, SLEPT, MARK = "missed", "losing", "moved", "slept", "mark"
TERMINATED = "terminated from outside"
"""A cause of gaps that the runner and the ledger both say."""
CANNOT_KEEP_UP, SOURCE_LOSES = "cannot keep up", "source loses frames"
"""Causes of what a file lacks while it goes on: the runner and the ledger both say them."""
SUSPENDED, STOOD_STILL = "suspended", "stood still"
"""The system was suspended (CLOCK_BOOTTIME went on, CLOCK_MONOTONIC did not); a runner, and most likely its FFmpeg, got
no processor time."""
DELETE = "delete"
"""A finished file is going to be removed by a rule. It is told before it is done."""
COPY = "copy"
DUE = "due"
"""A port should record in a time, or should have, by its schedule, and nothing of it ran."""
"""A finished file was copied to a target, and its copy verified."""
KINDS = (BEGAN, OPENED, MEDIA, MISSED, LOSING, MOVED, CLOSED, WAITS, STOPPED, CLOCK, SLEPT, MARK, DELETE, COPY, DUE)
RETENTION, OFFLOAD, SCHEDULE = "retention", "offload", "schedule"
OTHERS = (RETENTION, OFFLOAD, SCHEDULE)
"""Who tells of a port's files besides its runner. What they tell goes on beside what the runner tells, and has
sequences of its own."""
ROOM_BYTES = 1 << 20
"""A port's events while its ledger cannot be written: some three thousand, and those that say the same are summed."""
OTHERS_ROOM_BYTES = 1 << 18
"""The same of others, who wait for the ledger before they go on; /run is memory, and there may be 64 ports."""
MEMORY_LIMIT = 2000
"""Events that found no room in /run; about 3 MB."""
CHUNK_BYTES = 1 << 16
AHEAD_MS = 3_600_000
"""How far a runner that tells more than an event a millisecond could be ahead of the clock: never so far."""

Event = dict[str, object]


class NewerEvent(Problem):
    """The first line of a newer version. It and all behind it wait for a writer that understands them."""


def spool_directory(port_index: int, run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/ports/{port_index}"


def spool_path(port_index: int, run_directory: str = RUN_DIRECTORY, teller: str = "") -> str:
    """The spool of the port's runner, or of one of OTHERS."""
    return f"{spool_directory(port_index, run_directory)}/{teller and f'{teller}.'}spool"


def entered_path(port_index: int, run_directory: str = RUN_DIRECTORY, teller: str = "") -> str:
    """Where the ledger's process says up to which event all is safe: `{"boot": …, "sequence": …}`."""
    return f"{spool_directory(port_index, run_directory)}/{teller and f'{teller}.'}entered"


def wake_path(run_directory: str = RUN_DIRECTORY) -> str:
    """The FIFO from which the ledger's process is told that there are events; what is written does not matter."""
    return f"{run_directory}/ledger.wake"


class Spool:
    """The runner's end of a port's spool, or that of one of OTHERS. It never blocks and never raises.

    `problem` says why events wait in memory, in the operator's words; it is empty when none do. `wall` and
    `monotonic` are the two clocks that every moment is written by.
    """

    def __init__(
        self,
        port_index: int,
        run_directory: str,
        *,
        teller: str = "",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem = ""
        self._room_bytes = OTHERS_ROOM_BYTES if teller else ROOM_BYTES
        self._directory = spool_directory(port_index, run_directory)
        self._path = spool_path(port_index, run_directory, teller)
        self._entered_path = entered_path(port_index, run_directory, teller)
        self._wake_path = wake_path(run_directory)
        self._wall, self._monotonic = wall, monotonic
        self._boot = boot_id()
        self._file = -1
        self._end = 0
        """How many bytes of the file are events."""
        self._written = self._last = acknowledged(self._entered_path, self._boot)
        """The sequence of the last event in the file, and of the last one at all."""
        self._has_newer = False
        """Whether a line stands there that only a newer version understands: nothing is taken away then."""
        self._summed_up_to = -1
        """What was acknowledged when summing the events up was tried last."""
        self._waiting: list[Event] = []
        self._lost = 0
        self.retry()

    def tell(self, kind: str, now: float, **fields: object) -> None:
        """Tell the ledger what happened at `now`, by CLOCK_MONOTONIC, as all fields whose names end in `_at`."""
        self.note(kind, now, **fields)
        self.retry()

    def note(self, kind: str, now: float, **fields: object) -> None:
        """As `tell`, for `retry()` to write together with others."""
        self._last = max(self._last + 1, boottime_ns() // 1_000_000)
        ahead_s = self._wall() - self._monotonic()
        event: Event = {"v": VERSION, "sequence": self._last, "boot": self._boot, "kind": kind, "at": now, **fields}
        for name, value in event.items():
            if isinstance(value, int | float) and (name == "at" or name.endswith("_at")):
                event[name] = [round(value + ahead_s, 3), round(value, 3)]
        self._waiting.append(event)

    def is_safe(self) -> bool:
        """Whether the ledger's process has made all safe that was told."""
        return not self._waiting and acknowledged(self._entered_path, self._boot) >= self._last

    def retry(self) -> None:
        """Try to write what waits in memory, and wake the ledger's process for it."""
        is_news = bool(self._waiting)
        try:
            self._open()
            self._write_waiting()
        except OSError as error:
            self._keep_within_limit()
            count = len(self._waiting)
            self.problem = f"{count} events for the ledger wait in memory ({self._path}: {error.strerror})"
            if self._lost:
                self.problem += f", and {self._lost} are lost"
            return
        self.problem, self._lost = "", 0
        if is_news:
            self._wake()

    def _wake(self) -> None:
        try:
            wake = os.open(self._wake_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            # Nobody listens. Whoever does later reads the spool first, and looks once a minute.
            return
        try:
            os.write(wake, b"\0")
        except OSError:
            # The FIFO is full of wake-ups already, or its reader has just gone.
            return
        finally:
            os.close(wake)

    def _open(self) -> None:
        """Open the file, or make it, also after somebody removed it."""
        if self._file >= 0 and _is_at(self._file, self._path):
            return
        self._close()
        for directory in (os.path.dirname(self._directory), self._directory):
            # Not makedirs(): what it makes above the last one is the group's to change, by the unit's UMask=.
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                continue
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._take(os.open(self._path, flags, 0o644))

    def _take(self, descriptor: int) -> None:
        self._file = descriptor
        data = read_to_nul(descriptor)
        events, problems = decode_events(self._path, data)
        self._has_newer = any(isinstance(problem, NewerEvent) for problem in problems)
        self._end, self._written = len(data), 0
        if events and events[-1]["boot"] == self._boot:
            self._written = sequence_of(events[-1])
            self._last = max(self._last, self._written)
        _make_room(descriptor, self._room_bytes)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        if self._end and os.pread(self._file, 1, self._end - 1) in (b"", b"\0"):
            # Somebody emptied it, or cut it off: what is written behind would be behind a NUL, and read by nobody.
            self._take(self._file)
        safe = acknowledged(self._entered_path, self._boot)
        if self._end and safe >= self._written and not self._has_newer:
            self._overwrite(b"", 0)
        while self._waiting:
            # A line that was cut off costs itself alone.
            torn = b"\n" if self._end and os.pread(self._file, 1, self._end - 1) != b"\n" else b""
            line = torn + encode_event(self._waiting[0])
            if self._end + len(line) > self._room_bytes:
                self._sum_up(safe)
                continue
            self._overwrite(line, self._end)
            self._written = sequence_of(self._waiting.pop(0))

    def _overwrite(self, data: bytes, offset: int) -> None:
        """Put `data` at `offset`, and nothing behind it."""
        nothing = bytes(max(0, self._end - offset - len(data)))
        if os.pwrite(self._file, data + nothing, offset) < len(data):
            # A part of a line would be no event, and the next attempt writes all of it behind.
            os.ftruncate(self._file, offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._end = offset + len(data)

    def _sum_up(self, safe: int) -> None:
        """Make room in a full file. Raises OSError where nothing more can be left out."""
        if self._summed_up_to == safe or self._has_newer:
            raise OSError(errno.ENOSPC, "is full, and the ledger's process does not empty it", self._path)
        self._summed_up_to = safe
        events, _ = decode_events(self._path, read_to_nul(self._file))
        kept = summed(event for event in events if event["boot"] != self._boot or sequence_of(event) > safe)
        replace_file(self._path, b"".join(encode_event(event) for event in kept))
        written = self._written
        self._open()
        self._written = written
        if self._end < self._room_bytes * 3 // 4:
            # It was worth it, and will be again.
            self._summed_up_to = -1

    def _keep_within_limit(self) -> None:
        if len(self._waiting) <= MEMORY_LIMIT:
            return
        self._waiting = summed(self._waiting)
        lost = max(0, len(self._waiting) - MEMORY_LIMIT)
        # The oldest are most of the story; the newest would come without what they belong to.
        del self._waiting[MEMORY_LIMIT:]
        self._lost += lost


def _is_at(descriptor: int, path: str) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _make_room(descriptor: int, room_bytes: int) -> None:
    """Take the file's room now; without it each event has to find its own."""
    if os.fstat(descriptor).st_size >= room_bytes:
        return
    try:
        os.posix_fallocate(descriptor, 0, room_bytes)
    except OSError:
        return


def summed(events: Iterable[Event]) -> list[Event]:
    """The events without those that tell a story nothing: tries that made an empty file, and the same wait again."""
    kept: list[Event] = []
    for event in events:
        before = kept[-1] if kept else None
        if before is not None and _is_empty_try(before, event):
            kept.pop()
        elif before is None or not _says_the_same(before, event):
            kept.append(event)
    return kept


def _is_empty_try(opened: Event, closed: Event) -> bool:
    is_try = opened["kind"] == OPENED and closed["kind"] == CLOSED and opened.get("path") == closed.get("path")
    return is_try and not closed.get("frames") and not closed.get("size_bytes")


def _says_the_same(before: Event, event: Event) -> bool:
    if before["kind"] != WAITS or before["boot"] != event["boot"]:
        return False
    if event["kind"] == WAITS:
        return (before.get("cause"), before.get("take")) == (event.get("cause"), event.get("take"))
    # A runner that was started again, while the port waited and nobody moved the clock.
    is_again = event["kind"] == BEGAN and event.get("is_restart") is True and event.get("stopped_at") is None
    one, other = moment_of(before), moment_of(event)
    return is_again and abs((one.wall - one.monotonic) - (other.wall - other.monotonic)) < 0.05


def encode_event(event: Event) -> bytes:
    """An event as its line."""
    return lean.encode(event, separators=(",", ":"), default=str).encode() + b"\n"


def decode_events(path: str, data: bytes) -> tuple[list[Event], list[Problem]]:
    """The events of a spool's content, and a Problem for each line that is none. A last line without its end is being
    written, or was cut off: it is nothing yet."""
    events: list[Event] = []
    problems: list[Problem] = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        if not line:
            continue
        try:
            event = lean.decode(line)
        except (ValueError, RecursionError):
            problems.append(Problem(path, number, "is no JSON; it may have been cut off"))
            continue
        problem = wrong_event(event)
        if not problem and event["v"] > VERSION:
            text = f"is of version {event['v']}, newer than this sdisup's {VERSION}; it and what follows wait"
            problems.append(NewerEvent(path, number, text))
            break
        if problem:
            problems.append(Problem(path, number, problem))
        else:
            events.append(event)
    return events, problems


def wrong_event(event: object) -> str:
    """Why a decoded line is no event; empty if it is one."""
    if not isinstance(event, dict) or type(event.get("v")) is not int:
        return "is no event of a runner"
    if event["v"] > VERSION:
        return ""
    if type(event.get("sequence")) is not int or not 0 <= event["sequence"] < 1 << 63:
        return "has a wrong sequence"
    if event.get("kind") not in KINDS:
        return "has a wrong kind"
    at, boot = event.get("at"), event.get("boot")
    if not isinstance(at, list) or not isinstance(boot, str) or moment_from([*at, boot]) is None:
        return "has no moment"
    return ""


def read_spool(path: str) -> tuple[list[Event], list[Problem]]:
    """A spool's events, oldest first, and what is none; nothing for a missing file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Problem(path, 0, str(error.strerror))]
    try:
        return decode_events(path, read_to_nul(descriptor))
    except OSError as error:
        return [], [Problem(path, 0, f"cannot be read: {error.strerror}")]
    finally:
        os.close(descriptor)


def read_to_nul(descriptor: int) -> bytes:
    """A spool's content."""
    data, offset = b"", 0
    while (chunk := os.pread(descriptor, CHUNK_BYTES, offset)) and offset < ROOM_BYTES:
        end = chunk.find(b"\0")
        if end >= 0:
            return data + chunk[:end]
        data += chunk
        offset += len(chunk)
    return data


def after(events: list[Event], boot: str, sequence: int) -> list[Event]:
    """The events that came after the one with this sequence, of this boot."""
    known = [index for index, event in enumerate(events) if event["boot"] == boot and sequence_of(event) <= sequence]
    return events[known[-1] + 1 :] if known else events


def acknowledged(path: str, boot: str) -> int:
    """The sequence of this boot up to which the ledger's process says that all is safe; 0 if it says nothing.

    A word that is none says nothing: its events stay for the process, which writes the word again.
    """
    try:
        fields = read_fields(path)
        # Sequences follow the clock; one of the future would make all events old.
        most = boottime_ns() // 1_000_000 + AHEAD_MS
        return fields.whole("sequence", most=most) if fields.text("boot") == boot else 0
    except (FileNotFoundError, Unreadable):
        return 0


def acknowledge(path: str, boot: str, sequence: int) -> None:
    """Say that all up to this event is safe. Raises OSError."""
    replace_file(path, lean.encode({"boot": boot, "sequence": sequence}).encode())


def moment_of(event: Event) -> Moment:
    """When an event happened."""
    at = event["at"]
    moment = moment_from([*at, event["boot"]]) if isinstance(at, list) else None
    # wrong_event() has seen to that.
    assert moment is not None
    return moment


def sequence_of(event: Event) -> int:
    """An event's number, which rises through all of a port's runners."""
    sequence = event["sequence"]
    assert isinstance(sequence, int)
    return sequence


def in_order(runners: list[Event], schedules: list[Event]) -> Iterator[tuple[str, Event]]:
    """What the runner and the schedule have told, as it came, each with its teller. Sequences follow one clock."""
    left = list(schedules)
    for event in runners:
        while left and sequence_of(left[0]) <= sequence_of(event):
            yield SCHEDULE, left.pop(0)
        yield "", event
    yield from ((SCHEDULE, event) for event in left)
