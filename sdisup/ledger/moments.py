"""What a ledger is made of before it is one: points in time, files, intervals. Pure.

`document` writes each down for JSON, and `…_from` reads it back; it raises ValueError, which names the field, for
what `document` did not write.
"""

from __future__ import annotations

import math

from sdisup.contract import files
from sdisup.contract.files import unix_time
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar, TypeVar

    Read = TypeVar("Read")


class Moment(Record):
    """A point in time: `wall` seconds since 1970, and `monotonic` seconds, which only mean something in `boot`.

    A moment is in whole milliseconds, as it is written down: what is worked out again after a crash is the same.
    """

    wall: float
    monotonic: float
    boot: str

    def __init__(self, wall: float, monotonic: float, boot: str) -> None:
        super().__init__(round(wall, 3), round(monotonic, 3), boot)

    def plus(self, seconds: float) -> Moment:
        return Moment(self.wall + seconds, self.monotonic + seconds, self.boot)

    def seconds_to(self, later: Moment) -> float:
        """By the monotonic clock within a boot; over a reboot only the wall clock knows."""
        if self.boot == later.boot:
            return later.monotonic - self.monotonic
        return later.wall - self.wall

    def not_before(self, other: Moment | None) -> Moment:
        return other if other is not None and other.seconds_to(self) < 0 else self

    def not_after(self, other: Moment | None) -> Moment:
        return other if other is not None and other.seconds_to(self) > 0 else self

    def as_list(self) -> list[float | str]:
        return [self.wall, self.monotonic, self.boot]


class Sleep(Record):
    """The system was suspended for so many seconds, in which CLOCK_MONOTONIC stood still at that of `until`."""

    until: Moment
    seconds: float


def later(moment: Moment, seconds: float, sleeps: Sequence[Sleep]) -> Moment:
    """The moment so many seconds of CLOCK_MONOTONIC later, or earlier; in a sleep the wall clock went on."""
    found = moment.plus(seconds)
    first, last = sorted((moment.monotonic, found.monotonic))
    asleep_s = asleep_between(moment.boot, first, last, sleeps)
    return Moment(found.wall + math.copysign(asleep_s, seconds), found.monotonic, found.boot)


def asleep_between(boot: str, first: float, last: float, sleeps: Sequence[Sleep]) -> float:
    """For how long the system slept between two times of CLOCK_MONOTONIC."""
    return sum(sleep.seconds for sleep in sleeps if sleep.until.boot == boot and first < sleep.until.monotonic <= last)


class FileEnd(Record):
    """How a recorded file ended, as the runner saw it.

    `verdict` is `complete` or what is wrong with the file (causes.file_verdict), `cause` why it ended; the counts are
    FFmpeg's own, but for `missing`: frames that should have come by the clock and did not, and `repeated`: copies that
    stand for pictures, for `repeated_cause`. Both without those of the file's holes. `last_frame` is when the last
    frame came, None if nobody saw it. `is_estimate`: nobody has counted this file's frames, but those of all files of
    its FFmpeg. `inode` is the file's number on its filesystem, 0 where nobody has told it.
    """

    path: str
    verdict: str
    cause: str
    last_frame: Moment | None = None
    frames: int = 0
    duplicated: int = 0
    dropped: int = 0
    missing: int = 0
    repeated: int = 0
    repeated_cause: str = ""
    is_estimate: bool = False
    inode: int = 0


class TakenFile(Record, frozen=False):
    """A file that is being recorded, or was and is not entered yet: `end` is then how it ended, `closed` when.

    `opened` is when it was made, `start` when its first frame came, None before that is known; `rate` the
    source's frames/s, 0 if unknown; `size_bytes` its size when it ended. `is_retry` says that the port tried before
    and nothing came: it is not worth a write before a frame comes. The files of one `attempt` are open side by side.
    `missed` frames are those of its holes, which have entries of their own; of these, `filled` are there as copies.
    `missing` and `repeated` are as of FileEnd, as far as its runner has told while it lived. `place` is where the file
    was moved to, empty for its path; `is_hidden`: it is there, and no path leads to it, such as below a mount. Then
    `told_frames`, which are those of the last word of a runner that was killed, are all that is known. `is_cut`: it
    holds another take too, `last_take`, from a mark on to its end. `followed_at` is when the next file of its recording
    began, None where there is none.
    """

    path: str
    take: str | None
    codec: str
    rate: float
    opened: Moment | None = None
    is_retry: bool = False
    attempt: int = 0
    ffmpeg_version: str = ""
    start: Moment | None = None
    closed: Moment | None = None
    end: FileEnd | None = None
    size_bytes: int = 0
    missed: int = 0
    filled: int = 0
    missing: int = 0
    repeated: int = 0
    repeated_cause: str = ""
    place: str = ""
    is_hidden: bool = False
    told_frames: int = 0
    is_cut: bool = False
    last_take: str | None = None
    followed_at: Moment | None = None

    @property
    def take_at_end(self) -> str | None:
        """The take to which what comes after the file belongs."""
        return self.last_take if self.is_cut else self.take

    def is_only_a_try(self) -> bool:
        """Whether it is one of many tries, and has no frame yet."""
        return self.is_retry and self.start is None


class Interval(Record, frozen=False):
    """A gap or a stop: `what` is its cause, or who stopped the port.

    `is_restart` is whether the port was stopped in order to be started again. `end` is None while it
    goes on, and while it is not known since a file whose frames are not counted ends it. In `slept_s` of it
    the system was suspended; another suspension, of `apart_s`, lies in it and is a gap of its own.
    """

    kind: str
    what: str
    start: Moment
    take: str | None
    end: Moment | None = None
    is_restart: bool = False
    slept_s: float = 0.0
    apart_s: float = 0.0

    def seconds(self, end: Moment) -> float:
        """Its length up to `end`; over a reboot that put the clock back nobody knows it, and it counts as none."""
        is_one_boot = self.start.boot == end.boot
        # Over a reboot it is the wall clock's, which knows of all of them.
        return max(0.0, self.start.seconds_to(end) + (self.slept_s if is_one_boot else -self.apart_s))


def document(record: Record) -> dict[str, object]:
    """A record as JSON knows it: a moment as its list, another record as its own document."""
    return {name: _plain(value) for name, value in record.as_dict().items()}


def _plain(value: object) -> object:
    if isinstance(value, Moment):
        return value.as_list()
    return document(value) if isinstance(value, Record) else value


def moment_from(value: object) -> Moment | None:
    """Read back what as_list gave; None for anything else."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[2], str):
        wall, monotonic, boot = value
        numbers = (wall, monotonic)
        if all(type(number) in (int, float) and abs(number) < 1e11 for number in numbers):
            return Moment(float(wall), float(monotonic), boot)
    return None


def end_of(entry: dict[str, object]) -> Moment | None:
    """When a ledger's entry ended; None if it cannot be told."""
    try:
        wall = unix_time(str(entry.get("end")))
    except ValueError:
        return None
    return moment_from([wall, entry.get("end_monotonic"), entry.get("boot_id")])


class Fields(files.Fields):
    """The fields of what `document` wrote, or of an event, with moments and records inside."""

    def moment(self, name: str, boot: str = "") -> Moment:
        """A moment that is there; of this `boot` where the list is only [wall, monotonic]."""
        value = self.value(name)
        found = moment_from([*value, boot] if boot and isinstance(value, list) else value)
        return found or self.fail(name, "not a moment")

    def moment_or_none(self, name: str, boot: str = "") -> Moment | None:
        return None if self.value(name, None) is None else self.moment(name, boot)

    def part(self, name: str, read: Callable[[object, str], Read]) -> Read | None:
        """What `read` makes of an object inside this one; None where there is none."""
        value = self.value(name, None)
        return None if value is None else read(value, f"{self.where}: {name}")

    def parts(self, name: str, read: Callable[[object, str], Read]) -> list[Read]:
        """What `read` makes of each object of a list; none where there is no list."""
        return [read(item, f"{self.where}: {name}") for item in self.items(name, [])]

    def _file_end(self, name: str) -> FileEnd | None:
        return self.part(name, file_end_from)

    readers: ClassVar = {**files.Fields.readers, "Moment": moment, "FileEnd": _file_end}


def file_end_from(value: object, where: str = "end") -> FileEnd:
    return Fields(value, where).record(FileEnd)


def taken_file_from(value: object, where: str = "file") -> TakenFile:
    fields = Fields(value, where)
    return fields.record(TakenFile, rate=fields.number("rate", least=0.0, most=1e4))


def sleep_from(value: object, where: str = "sleep") -> Sleep:
    fields = Fields(value, where)
    return Sleep(fields.moment("until"), fields.number("seconds", least=0.0, most=1e9))


def interval_from(value: object, where: str = "interval") -> Interval:
    fields = Fields(value, where)
    if fields.text("kind") not in ("gap", "stop"):
        fields.fail("kind", "neither a gap nor a stop")
    return fields.record(Interval)
