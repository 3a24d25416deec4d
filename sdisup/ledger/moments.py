"""What a ledger is made of before it is one: points in time, files, intervals. Pure.

Each can be written down with `as_dict` (or `as_list`) and read back with its `…_from`, which gives None for
anything else: what a crash leaves is read by the next runner, and must never stop it.
"""

from __future__ import annotations

from sdisup.contract.files import unix_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.contract.status import PortStatus


class Moment:
    """A point in time: `wall` seconds since 1970, and `monotonic` seconds, which only mean something in `boot`.

    In whole milliseconds, as it is written down: what is reckoned again after a crash has to come out the same.
    """

    __slots__ = ("boot", "monotonic", "wall")

    def __init__(self, wall: float, monotonic: float, boot: str) -> None:
        self.wall = round(wall, 3)
        self.monotonic = round(monotonic, 3)
        self.boot = boot

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


def moment_from(value: object) -> Moment | None:
    """Read back what as_list gave; None for anything else."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[2], str):
        wall, monotonic, boot = value
        if all(isinstance(number, int | float) and abs(number) < 1e11 for number in (wall, monotonic)):
            return Moment(float(wall), float(monotonic), boot)
    return None


def end_of(entry: dict[str, object]) -> Moment | None:
    """When a ledger's entry ended; None if it cannot be told."""
    try:
        wall = unix_time(str(entry.get("end")))
    except ValueError:
        return None
    return moment_from([wall, entry.get("end_monotonic"), entry.get("boot_id")])


def stopped_at(status: PortStatus | None, now: Moment) -> Moment | None:
    """When a port was stopped, by a status of this boot that says so."""
    if status is None or status.state != "stopped" or status.boot_id != now.boot:
        return None
    return now.plus(status.state_since_monotonic - now.monotonic)


class FileEnd:
    """How a recorded file ended, as the runner saw it.

    `verdict` is `complete` or what is wrong with it (causes.file_verdict), `cause` why it ended, the counts
    FFmpeg's own; `missing` are frames that the source should have delivered and did not. `last_frame` is
    when the last frame came, None if nobody saw it.
    """

    _COUNTS = ("frames", "duplicated", "dropped", "missing")

    def __init__(self, path: str, *, verdict: str, cause: str, last_frame: Moment | None = None, **counts: int) -> None:
        self.path = path
        self.verdict = verdict
        self.cause = cause
        self.last_frame = last_frame
        self.frames, self.duplicated, self.dropped, self.missing = (counts.get(name, 0) for name in self._COUNTS)

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "last_frame": self.last_frame and self.last_frame.as_list()}


def file_end_from(value: object) -> FileEnd | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return None
    found = {name: value.get(name) for name in FileEnd._COUNTS}
    counts = {name: count if isinstance(count, int) and 0 <= count < 1 << 53 else 0 for name, count in found.items()}
    return FileEnd(
        value["path"],
        verdict=str(value.get("verdict", "")),
        cause=str(value.get("cause", "")),
        last_frame=moment_from(value.get("last_frame")),
        **counts,
    )


class TakenFile:
    """A file that is being recorded, or was and is not entered yet: `end` is then how it ended, `closed` when.

    `opened` is when it was made, `start` when its first frame came, None before that is known; `rate` the
    source's frames/s, 0 if unknown; `size_bytes` its size when it ended.
    """

    def __init__(self, path: str, take: str | None, codec: str, rate: float, opened: Moment | None = None) -> None:
        self.path = path
        self.take = take
        self.codec = codec
        self.rate = rate
        self.ffmpeg_version = ""
        self.opened = opened
        self.start: Moment | None = None
        self.closed: Moment | None = None
        self.end: FileEnd | None = None
        self.size_bytes = 0

    def as_dict(self) -> dict[str, object]:
        moments = {name: getattr(self, name) for name in ("opened", "start", "closed")}
        written = {name: moment and moment.as_list() for name, moment in moments.items()}
        return {**self.__dict__, **written, "end": self.end and self.end.as_dict()}


def taken_file_from(value: object) -> TakenFile | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return None
    rate = value.get("rate")
    rate = float(rate) if isinstance(rate, int | float) and 0 <= rate < 1e4 else 0.0
    file = TakenFile(value["path"], text_or_none(value.get("take")), str(value.get("codec", "")), rate)
    file.ffmpeg_version = str(value.get("ffmpeg_version", ""))
    file.opened = moment_from(value.get("opened"))
    file.start = moment_from(value.get("start"))
    file.closed = moment_from(value.get("closed"))
    file.end = file_end_from(value.get("end"))
    size_bytes = value.get("size_bytes")
    file.size_bytes = size_bytes if isinstance(size_bytes, int) and 0 <= size_bytes < 1 << 63 else 0
    return file


class Interval:
    """A gap or a stop: `what` is its cause, or who stopped the port.

    `end` is None while it goes on, and while it is not known since a file whose frames are not counted ends it.
    """

    def __init__(self, kind: str, what: str, start: Moment, take: str | None) -> None:
        self.kind = kind
        self.what = what
        self.start = start
        self.take = take
        self.end: Moment | None = None

    def seconds(self, end: Moment) -> float:
        """Its length up to `end`; over a reboot that put the clock back nobody knows it, and it counts as none."""
        return max(0.0, self.start.seconds_to(end))

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "start": self.start.as_list(), "end": self.end and self.end.as_list()}


def interval_from(value: object) -> Interval | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or value.get("kind") not in ("gap", "stop"):
        return None
    start = moment_from(value.get("start"))
    if start is None:
        return None
    interval = Interval(value["kind"], str(value.get("what", "")), start, text_or_none(value.get("take")))
    interval.end = moment_from(value.get("end"))
    return interval


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
