"""What happens at a port, as entries that leave no time out: pure, moments passed in.

From one file's last frame to the next one's first there is a gap or a stop. A file that was cut off is
entered when its frames have been counted, which may take minutes; what came after it waits in the queue,
since the gap begins where the file's content ends.
"""

from __future__ import annotations

from sdisup.ledger import VERSION, Entry
from sdisup.status import utc_text


class Moment:
    """A point in time: `wall` seconds since 1970, and `monotonic` seconds, which only mean something in `boot`."""

    __slots__ = ("boot", "monotonic", "wall")

    def __init__(self, wall: float, monotonic: float, boot: str) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self.boot = boot

    def plus(self, seconds: float) -> Moment:
        return Moment(self.wall + seconds, self.monotonic + seconds, self.boot)

    def seconds_to(self, later: Moment) -> float:
        """By the monotonic clock within a boot; over a reboot only the wall clock knows."""
        if self.boot == later.boot:
            return later.monotonic - self.monotonic
        return later.wall - self.wall

    def as_list(self) -> list[float | str]:
        return [round(self.wall, 3), round(self.monotonic, 3), self.boot]


def moment_from(value: object) -> Moment | None:
    """Read back what as_list gave; None for anything else."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[2], str):
        wall, monotonic, boot = value
        if all(isinstance(number, int | float) and abs(number) < 1e11 for number in (wall, monotonic)):
            return Moment(float(wall), float(monotonic), boot)
    return None


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
        return {**self.__dict__, "last_frame": self.last_frame.as_list() if self.last_frame else None}


def file_end_from(value: object) -> FileEnd | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return None
    found = {name: value.get(name) for name in FileEnd._COUNTS}
    counts = {name: count if isinstance(count, int) and count >= 0 else 0 for name, count in found.items()}
    return FileEnd(
        value["path"],
        verdict=str(value.get("verdict", "")),
        cause=str(value.get("cause", "")),
        last_frame=moment_from(value.get("last_frame")),
        **counts,
    )


class TakenFile:
    """A file that is being recorded, or was and is not entered yet: `end` is then how it ended.

    `start` is when its first frame came, None before that; `rate` the source's frames/s, 0 if unknown.
    """

    def __init__(self, path: str, take: str | None, codec: str, rate: float) -> None:
        self.path = path
        self.take = take
        self.codec = codec
        self.rate = rate
        self.ffmpeg_version = ""
        self.start: Moment | None = None
        self.end: FileEnd | None = None

    def as_dict(self) -> dict[str, object]:
        start, end = self.start, self.end
        return {**self.__dict__, "start": start and start.as_list(), "end": end and end.as_dict()}


def taken_file_from(value: object) -> TakenFile | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return None
    rate = value.get("rate")
    rate = float(rate) if isinstance(rate, int | float) and 0 <= rate < 1e4 else 0.0
    file = TakenFile(value["path"], _text(value.get("take")), str(value.get("codec", "")), rate)
    file.ffmpeg_version = str(value.get("ffmpeg_version", ""))
    file.start = moment_from(value.get("start"))
    file.end = file_end_from(value.get("end"))
    return file


class Interval:
    """A gap or a stop: `what` is its cause, or who stopped the port; `end` is None while it goes on."""

    def __init__(self, kind: str, what: str, start: Moment, take: str | None) -> None:
        self.kind = kind
        self.what = what
        self.start = start
        self.take = take
        self.end: Moment | None = None

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "start": self.start.as_list(), "end": self.end and self.end.as_list()}


def interval_from(value: object) -> Interval | None:
    """Read back what as_dict gave; None for anything else."""
    if not isinstance(value, dict) or value.get("kind") not in ("gap", "stop"):
        return None
    start = moment_from(value.get("start"))
    if start is None:
        return None
    interval = Interval(value["kind"], str(value.get("what", "")), start, _text(value.get("take")))
    interval.end = moment_from(value.get("end"))
    return interval


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Story:
    """A port's state as its ledger sees it: the open file, the open interval, and what is to be entered."""

    def __init__(self, port_index: int) -> None:
        self.port_index = port_index
        self.file: TakenFile | None = None
        self.interval: Interval | None = None
        self._queue: list[Entry | TakenFile | Interval] = []

    # What outlives a crash.

    def as_dict(self) -> dict[str, object]:
        queue = [item if isinstance(item, dict) else item.as_dict() for item in self._queue]
        file, interval = self.file, self.interval
        return {
            "v": VERSION,
            "port_index": self.port_index,
            "file": file and file.as_dict(),
            "interval": interval and interval.as_dict(),
            "queue": queue,
        }

    def recall(self, document: object) -> None:
        """Take up what as_dict gave in an earlier runner; what cannot be understood is left out."""
        if not isinstance(document, dict):
            return
        self.file = taken_file_from(document.get("file"))
        self.interval = interval_from(document.get("interval"))
        queue = document.get("queue")
        for item in queue if isinstance(queue, list) else []:
            if isinstance(item, dict) and "v" in item:
                self._queue.append(item)
            elif known := interval_from(item) or taken_file_from(item):
                self._queue.append(known)

    # What is to be entered.

    def take_ready(self) -> list[Entry]:
        """The entries that wait for no count any more, out of the queue."""
        ready: list[Entry] = []
        while self._queue and not isinstance(self._queue[0], TakenFile):
            item = self._queue.pop(0)
            if isinstance(item, Interval):
                ready += self._interval_entries(item)
            elif isinstance(item, dict):
                ready.append(item)
        return ready

    def to_count(self) -> TakenFile | None:
        """The file whose frames have to be counted next."""
        return next((item for item in self._queue if isinstance(item, TakenFile)), None)

    def counted(self, file: TakenFile, readable: int | None, size_bytes: int, now: Moment) -> None:
        """A file of the queue was counted; `readable` is None where that was not possible."""
        at = self._queue.index(file)
        end = file.end or FileEnd(file.path, verdict="cut off", cause="power")
        entries, last = self._file_entries(file, end, end.frames if readable is None else readable, size_bytes, now)
        self._queue[at : at + 1] = entries
        following = next((item for item in self._queue[at:] if isinstance(item, Interval)), self.interval)
        if last is not None and following is not None:
            # What came after it begins where the file's content ends.
            following.start = last

    # What happens.

    def opened(self, file: TakenFile) -> None:
        self.file = file

    def media(self, now: Moment, ffmpeg_version: str) -> None:
        """The first frame of the open file came: what went before is over."""
        if self.file is not None and self.file.start is None:
            self.file.start = now
            self.file.ffmpeg_version = ffmpeg_version
            self._end_interval(now)

    def closed(self, end: FileEnd, size_bytes: int, now: Moment) -> None:
        """The open file ended. One that is not complete has to be counted before it is entered."""
        file, self.file = self.file, None
        if file is None or file.path != end.path or (file.start is None and not size_bytes):
            return
        file.end = end
        if file.start is None:
            # It was killed as it began; the gap before it goes on, and covers its fraction of a second.
            self._queue.append(file)
            return
        last: Moment | None = end.last_frame or file.start
        if end.verdict == "complete":
            entries, last = self._file_entries(file, end, end.frames, size_bytes, now)
            self._queue += entries
        else:
            self._queue.append(file)
        self.interval = Interval("gap", end.cause, last or now, file.take)

    def waits(self, cause: str, now: Moment, take: str | None) -> None:
        """The port should record and does not, for `cause`."""
        if self.interval is None or (self.interval.kind, self.interval.what) != ("gap", cause):
            self._end_interval(now)
            self.interval = Interval("gap", cause, now, take)

    def stopped(self, by: str, now: Moment, take: str | None) -> None:
        """The port was stopped."""
        self._end_interval(now)
        self.interval = Interval("stop", by, now, take)

    def rebooted(self, boot: Moment, *, records_at_boot: bool) -> None:
        """The machine went down and came up at `boot`: cleanly if the runner was told, else by power."""
        interval = self.interval
        if interval is None or interval.start.boot == boot.boot:
            return
        if interval.kind == "gap":
            if not interval.what.endswith("power"):
                interval.what = f"{interval.what}, then power"
        elif records_at_boot and interval.what == "shutdown":
            self.interval = Interval("gap", "reboot", interval.start, interval.take)
        elif records_at_boot:
            # A stop by hand holds until the next boot; from then on the port should record.
            self._end_interval(boot)
            self.interval = Interval("gap", "reboot", boot, None)

    def clock_stepped(self, before: Moment, now: Moment) -> None:
        """The wall clock moved against the monotonic one; `seconds` is by how much, forwards positive."""
        step_s = (now.wall - before.wall) - (now.monotonic - before.monotonic)
        self._queue.append(self._entry("clock", None, before, now, step_s))

    def _end_interval(self, now: Moment) -> None:
        if self.interval is not None:
            self.interval.end = now
            self._queue.append(self.interval)
        self.interval = None

    def _interval_entries(self, interval: Interval) -> list[Entry]:
        end = interval.end or interval.start
        seconds = interval.start.seconds_to(end)
        if abs(seconds) < 0.001:
            return []
        entry = self._entry(interval.kind, interval.take, interval.start, end, seconds)
        entry["cause" if interval.kind == "gap" else "by"] = interval.what
        return [entry]

    def _file_entries(
        self, file: TakenFile, end: FileEnd, frames: int, size_bytes: int, now: Moment
    ) -> tuple[list[Entry | TakenFile | Interval], Moment | None]:
        """The file's entry, that of the frames missing in it, and when its last frame came; none for an empty file."""
        if not frames and not size_bytes:
            return [], file.start
        start = file.start or now.plus(-frames / file.rate if file.rate else 0.0)
        last = last_frame_of(file, start, end, frames, now)
        content_s = frames / file.rate if file.rate else max(0.0, start.seconds_to(last))
        entry = self._entry("file", file.take, start, last, content_s)
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
        entries: list[Entry | TakenFile | Interval] = [entry]
        if end.missing and file.rate:
            gap = self._entry("gap", file.take, start, last, end.missing / file.rate)
            gap.update(cause="cannot keep up", frames_missing=end.missing, path=file.path)
            entries.append(gap)
        return entries, last if file.start else None

    def _entry(self, kind: str, take: str | None, start: Moment, end: Moment, seconds: float) -> Entry:
        return {
            "v": VERSION,
            "kind": kind,
            "port_index": self.port_index,
            "take": take,
            "boot_id": end.boot,
            "start": utc_text(start.wall),
            "end": utc_text(end.wall),
            "start_monotonic": round(start.monotonic, 3),
            "end_monotonic": round(end.monotonic, 3),
            "seconds": round(seconds, 3),
        }


def last_frame_of(file: TakenFile, start: Moment, end: FileEnd, frames: int, now: Moment) -> Moment:
    """When the last frame that the file holds came: as seen, less what a kill lost; else by its content."""
    if end.last_frame is not None:
        lost_s = (end.frames - frames) / file.rate if file.rate else 0.0
        return end.last_frame.plus(-max(0.0, lost_s))
    if not file.rate:
        return start
    last = start.plus((frames + end.missing) / file.rate)
    return now if last.seconds_to(now) < 0 else last
