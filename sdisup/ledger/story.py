"""What happens at a port, as entries that leave no time out: pure. `Story.take` gets the events of the port's spool.

From one file's last frame to the next one's first there is a gap or a stop. A file that was cut off is
entered when its frames have been counted, which may take minutes; what came after it waits in the queue,
since the gap begins where the file's content ends.
"""

from __future__ import annotations

import math

from sdisup.contract.records import Record
from sdisup.ledger.entries import (
    AGREEMENT_S,
    clock_entry,
    copy_entry,
    delete_entry,
    extent,
    file_entries,
    hole_entry,
    interval_entries,
    late_entry,
    mark_entry,
)
from sdisup.ledger.lines import VERSION, Entry, wrong_entry
from sdisup.ledger.moments import (
    Fields,
    FileEnd,
    Interval,
    Moment,
    Sleep,
    TakenFile,
    asleep_between,
    document,
    file_end_from,
    interval_from,
    sleep_from,
    taken_file_from,
)
from sdisup.ledger.spool import (
    BEGAN,
    CLOCK,
    CLOCK_STEP_S,
    CLOSED,
    COPY,
    DELETE,
    DUE,
    LOSING,
    MARK,
    MEDIA,
    MISSED,
    MOVED,
    OPENED,
    SCHEDULE,
    SLEPT,
    STOOD_STILL,
    STOPPED,
    SUSPENDED,
    TERMINATED,
    WAITS,
    Event,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STOPPING_S = 1.0
"""Ending FFmpeg is part of a stop up to this long; a longer time without frames before it is a gap."""
ACCOUNT_LOST = "account lost"
CUT_OFF = "cut off"
RESTART = "restart"
SCHEDULE_MISSED = "schedule missed"
SHORTEST_MISS_S = 0.05
"""A start takes a moment, which is a gap of its own."""
ROUNDING_S = 0.05
VANISHED_BOARD = ("signal lost", "board missing")
"""What a board that vanishes is called first, and then."""
SLEEPS_KEPT = 8
"""So many times that the system was suspended are known when a file that was cut off is counted."""
QUEUE_LIMIT = 500
"""So many things may wait for a count; the next writer has to be able to read them in one go."""

Item = Entry | TakenFile | Interval


class Found(Record):
    """A file on disk that no ledger knows: its `size_bytes`, and when it was written to last."""

    path: str
    size_bytes: int
    written: Moment


class Story:
    """A port's state as its ledger sees it: the open file, the open interval, and what is to be entered.

    `boot` and `sequence` are those of the runner's last event that was taken, `others` have those of others by who
    told it (spool.OTHERS); `number` is that of the last entry that was made.
    """

    def __init__(self, port_index: int) -> None:
        self.port_index = port_index
        self.boot = ""
        self.sequence = 0
        self.others: dict[str, tuple[str, int]] = {}
        self.number = 0
        self.ffmpeg = ""
        self.files: list[TakenFile] = []
        """Those that are open, the newest last."""
        self.interval: Interval | None = None
        self.asleep_s: float | None = None
        """For how long the system had slept since its boot, by the last event that told; None if none did."""
        self.sleeps: list[Sleep] = []
        """The last times that the system was suspended."""
        self.crossed: Interval | None = None
        """The interval that ended in this boot and began in an earlier one, until the clock is put right."""
        self._queue: list[Item] = []

    @property
    def file(self) -> TakenFile | None:
        """The newest of the open files."""
        return self.files[-1] if self.files else None

    def is_recording(self) -> bool:
        """Whether an open file has its first frame."""
        return any(file.start for file in self.files)

    # What outlives a crash.

    def as_dict(self) -> dict[str, object]:
        """The open record."""
        queue = [item if isinstance(item, dict) else document(item) for item in self._queue]
        files = [document(file) for file in self.files]
        return {
            "v": VERSION,
            "port_index": self.port_index,
            "boot": self.boot,
            "sequence": self.sequence,
            "others": {teller: list(last) for teller, last in self.others.items()},
            "number": self.number,
            "ffmpeg": self.ffmpeg,
            "asleep_s": self.asleep_s,
            "sleeps": [document(sleep) for sleep in self.sleeps],
            "files": files,
            # Earlier versions know one.
            "file": files[-1] if files else None,
            "interval": self.interval and document(self.interval),
            "crossed": self.crossed and document(self.crossed),
            "queue": queue,
        }

    def tries(self) -> list[str]:
        """The open files that may never get a frame, as the ones before them. None is worth a write of the record."""
        return [file.path for file in self.files if file.is_only_a_try()]

    def recall(self, record: object) -> None:
        """Take up what as_dict gave an earlier writer. Raises ValueError, which says what is wrong with it."""
        fields = Fields(record, "the open record")
        if fields.whole("v") != VERSION:
            raise ValueError(f"is of version {fields.whole('v')}, and this sdisup knows {VERSION}")
        if fields.whole("port_index") != self.port_index:
            raise ValueError(f"is one of port {fields.whole('port_index')}")
        files, former = fields.parts("files", taken_file_from), fields.part("file", taken_file_from)
        interval, crossed = fields.part("interval", interval_from), fields.part("crossed", interval_from)
        queue = [_item_from(item) for item in fields.items("queue")]
        boot, sequence = fields.text("boot", ""), fields.whole("sequence", 0)
        number, ffmpeg = fields.whole("number", 0), fields.text("ffmpeg", "")
        asleep_s, sleeps = _asleep_s(fields), fields.parts("sleeps", sleep_from)
        others = _others_from(fields.child("others", {}))
        # All of it is right: only now is it taken up.
        self.boot, self.sequence, self.others, self.number, self.ffmpeg = boot, sequence, others, number, ffmpeg
        self.files = files or ([former] if former else [])
        self.asleep_s, self.sleeps = asleep_s, sleeps
        self.interval, self.crossed, self._queue = interval, crossed, queue

    # What is to be entered.

    def waiting(self) -> list[Item]:
        """What is not entered yet, oldest first."""
        return list(self._queue)

    def ready(self) -> list[Entry]:
        """The entries that wait for no count any more, each with its number; they wait until they are `entered`."""
        file = self.to_count()
        if file is not None and len(self._queue) - self._queue.index(file) > QUEUE_LIMIT:
            # A count that does not end, on a disk that hangs; FFmpeg's own numbers are the best there are.
            self.counted(file, None, file.size_bytes)
        ready: list[Entry] = []
        while self._queue and not self._waits_for_count(self._queue[0]):
            item = self._queue.pop(0)
            if isinstance(item, Interval):
                ready += interval_entries(self.port_index, item)
            elif isinstance(item, dict):
                ready.append(item)
        for entry in ready:
            if "number" not in entry:
                self.number += 1
                entry["number"] = self.number
        self._queue[:0] = ready
        return ready

    def entered(self, number: int) -> None:
        """The entries up to this number are in the ledger."""
        self._queue = [item for item in self._queue if not (isinstance(item, dict) and 0 < _number(item) <= number)]

    def _waits_for_count(self, item: Item) -> bool:
        if isinstance(item, Interval):
            return item.end is None and self.to_count() is not None
        return isinstance(item, TakenFile)

    def to_count(self) -> TakenFile | None:
        """The file whose frames have to be counted next."""
        return next((item for item in self._queue if isinstance(item, TakenFile)), None)

    def counted(self, file: TakenFile, readable: int | None, size_bytes: int, inode: int = 0) -> None:
        """A file of the queue was counted; `readable` is None where that was not possible. `inode` is its number.

        What came before it ends where its content begins, and what came after begins where it ends.
        """
        if file not in self._queue:
            # It took too long, and was entered without.
            return
        at = self._queue.index(file)
        end = file.end or FileEnd(file.path, "cut off: power", "power")
        end = end.replaced(inode=inode or end.inode)
        frames = end.frames if readable is None else readable
        if file.start is None and not frames and not size_bytes:
            self._forget(at)
            return
        start, last = extent(file, end, frames, self.sleeps)
        before = self._queue[at - 1] if at else None
        if isinstance(before, Interval) and before.end is None:
            before.end = start = start.not_before(before.start)
            last = last.not_before(start)
            self._note_crossed(before)
        found: list[Item] = [*file_entries(self.port_index, file, end, frames, size_bytes, start, last)]
        following = next((item for item in self._queue[at:] if isinstance(item, Interval)), self.interval)
        if file.followed_at is not None:
            # What follows begins where the next file ends.
            found += _lost_before_next(file, end, last, AGREEMENT_S)
        elif following is not None and following.kind == "stop":
            # A stop begins with the stop: what was received before it and is not in the file is missing.
            lost = Interval("gap", CUT_OFF, last, file.take_at_end)
            lost.end = following.start
            if lost.seconds(following.start) > STOPPING_S:
                found.append(lost)
            else:
                following.start = last
        elif following is not None:
            following.start, following.apart_s = last, self._apart_s(last)
        self._queue[at : at + 1] = found

    def _forget(self, at: int) -> None:
        """A file that nobody saw a frame of holds none: the gap before it and the gap after it are one."""
        del self._queue[at]
        before = self._queue[at - 1] if at else None
        following = next((item for item in self._queue[at:] if isinstance(item, Interval)), self.interval)
        if not isinstance(before, Interval) or before.end is not None or following is None:
            return
        if before.kind == following.kind:
            del self._queue[at - 1]
            following.start, following.apart_s = before.start, self._apart_s(before.start)
        else:
            before.end = following.start

    # What happens.

    def take(self, event: Event, *, left_bytes: int = 1, found: Sequence[Found] = ()) -> None:
        """Take an event of the port's spool. Raises ValueError, which names what is wrong with it.

        `left_bytes` is the size of the file that was open when a runner began, `found` what is on its disk besides.
        """
        boot, fields = str(event["boot"]), Fields(event, f"the event {event['kind']}")
        at, kind = fields.moment("at", boot), event["kind"]
        if boot != self.boot:
            self.asleep_s = None
        if kind in (BEGAN, SLEPT):
            path, first = fields.text("path", ""), fields.moment_or_none("first_frame_at", boot)
            self._slept(at, _asleep_s(fields), path, first)
        if kind == BEGAN:
            self._began(fields, at, left_bytes, found)
        elif kind == OPENED:
            file = _opened_from(fields, at)
            self._close_left(at, but=file.attempt)
            self.opened(file)
        elif kind == MEDIA:
            path = fields.text("path")
            if self._open_file(path) is None:
                # That it was made was told, and lost on the way; no file must be in no ledger for that.
                self._close_left(at)
                self.opened(TakenFile(path, self.interval.take if self.interval else None, "", 0.0, at))
            rate = fields.number("rate", 0.0, least=0.0, most=1e4)
            self.media(path, self._told(fields.moment("first_frame_at", boot)), fields.text("ffmpeg_version"), rate)
        elif kind == MISSED:
            self.missed(
                fields.text("path"),
                self._told(fields.moment("first_at", boot)),
                self._told(fields.moment("last_at", boot)),
                fields.whole("frames"),
                fields.whole("filled"),
                fields.text("cause"),
                fields.parts("others", _part_from),
            )
        elif kind == LOSING:
            losing = self._open_file(fields.text("path"))
            if losing is not None:
                losing.missing, losing.repeated = fields.whole("missing"), fields.whole("repeated")
                losing.repeated_cause = fields.text("repeated_cause")
        elif kind == MOVED:
            moved = self._open_file(fields.text("path"))
            if moved is not None:
                moved.place, moved.is_hidden = fields.text("place"), fields.flag("is_hidden")
        elif kind == MARK:
            self.marked(fields.text("path"), fields.whole("frame"), fields.text_or_none("take"), at)
        elif kind == CLOSED:
            last_frame = fields.moment_or_none("last_frame_at", boot)
            end = file_end_from({**event, "last_frame": None})
            end = end.replaced(last_frame=last_frame and self._told(last_frame))
            self.closed(end, fields.whole("size_bytes", 0), at)
        elif kind == WAITS:
            self._close_left(at)
            self.waits(fields.text("cause"), at, fields.text_or_none("take"))
        elif kind == STOPPED:
            self._close_left(at)
            is_restart = fields.flag("is_restart", False)
            asked = fields.moment_or_none("asked_at", boot)
            asked = asked and self._told(asked)
            self.stopped(fields.text("by"), at, fields.text_or_none("take"), is_restart=is_restart, asked=asked)
        elif kind == CLOCK:
            step_s = fields.number("step_s", least=-1e11, most=1e11)
            self.clock_stepped(Moment(at.wall - step_s, at.monotonic, boot), at)
        self.boot, self.sequence = boot, fields.whole("sequence")

    def take_from(self, teller: str, event: Event) -> None:
        """Take an event of one of the others' spools: but for the schedule's it is about files that are entered, and
        changes nothing of what goes on at the port. Raises ValueError, which names what is wrong with it."""
        boot, fields = str(event["boot"]), Fields(event, f"the event {event['kind']} of {teller}")
        if event["kind"] in (DELETE, COPY):
            entry = self._entry_from(str(event["kind"]), fields, boot)
            # What waits for a count has to do with other files, and may take long.
            is_first = [
                isinstance(item, dict) and ("number" in item or item["kind"] in (DELETE, COPY))
                for item in [*self._queue, None]
            ]
            self._queue.insert(is_first.index(False), entry)
        elif event["kind"] == DUE:
            first, last = (fields.number(name, least=0.0, most=1e11) for name in ("first", "last"))
            at, up_since = fields.moment("at", boot), fields.moment("boot_at", boot)
            self.due(first, last, fields.text_or_none("take"), at, up_since)
        self.others[teller] = boot, fields.whole("sequence")

    def _entry_from(self, kind: str, fields: Fields, boot: str) -> Entry:
        at, path, inode = fields.moment("at", boot), fields.text("path"), fields.whole("inode")
        if kind == DELETE:
            return delete_entry(self.port_index, path, inode, fields.text("rule"), at)
        target, copy, digest = (fields.text(name) for name in ("target", "copy", "digest"))
        verified, began = fields.text("verified"), fields.moment("began_at", boot)
        size_bytes, recorded = fields.whole("size_bytes"), fields.text("recorded")
        return copy_entry(self.port_index, path, inode, size_bytes, recorded, target, copy, digest, verified, began, at)

    def _began(self, fields: Fields, at: Moment, left_bytes: int, found: Sequence[Found]) -> None:
        self.ffmpeg = fields.text("ffmpeg", "")
        left = self._open_file(fields.text("left_path", ""))
        if left is not None:
            left.told_frames, left.size_bytes = fields.whole("left_frames", 0), fields.whole("left_bytes", 0)
        stopped_at = fields.moment_or_none("stopped_at", at.boot)
        self.begin(
            at,
            fields.moment("boot_at", at.boot),
            left_bytes=left_bytes,
            records_at_boot=fields.flag("records_at_boot", False),
            take=fields.text_or_none("take"),
            stopped_at=stopped_at and self._told(stopped_at),
            is_restart=fields.flag("is_restart", False),
            stood_still=fields.flag("stood_still", False),
            found=found,
        )

    def begin(
        self,
        now: Moment,
        boot: Moment,
        *,
        left_bytes: int,
        records_at_boot: bool,
        take: str | None,
        stopped_at: Moment | None = None,
        is_restart: bool = False,
        stood_still: bool = False,
        found: Sequence[Found] = (),
    ) -> None:
        """A runner began; `boot` is when the system did.

        `stopped_at` is when the port was stopped without its runner, `is_restart` whether systemd kept the run
        directory, which it removes at a stop. `stood_still` is whether the runner before had not said anything
        for a while when it was killed. After a power cut, `found` are files that are on disk and in no ledger,
        oldest first.
        """
        self._find_step(now)
        self._close_left(now, left_bytes, killed=STOOD_STILL if stood_still else "runner killed")
        for unknown in found:
            self._enter_found(unknown)
        self.rebooted(boot, records_at_boot=records_at_boot)
        if stopped_at is not None:
            self.stopped_unseen(stopped_at)
        if is_restart:
            self._restarted(now)
        if self.interval is None:
            self.waits("start", now, take)
        if self.interval is not None and self.interval.kind == "stop":
            # Somebody started the port: from here on it should record.
            self.waits("start", now, take)

    def _restarted(self, now: Moment) -> None:
        """What looked like a stop to the runner was none: systemd ends a unit to start it again (`systemctl restart`),
        or passes on somebody's signal (`systemctl kill`), and starts it since it has ended. Who left word of itself
        is known: `sdisup apply --restart` stops a port."""
        interval = self.interval
        if interval is None or (interval.kind, interval.what) != ("stop", "operator"):
            return
        if interval.start.boot == now.boot:
            interval.kind, interval.what = "gap", RESTART if interval.is_restart else TERMINATED

    def _enter_found(self, found: Found) -> None:
        """The account of this file is lost: what went on before it may have been anything."""
        if self.interval is not None and self.interval.kind == "gap" and self.interval.what != "open record lost":
            self.interval.what = ACCOUNT_LOST
        self.files.append(TakenFile(found.path, None, "", 0.0))
        self.closed(FileEnd(found.path, "cut off: power", "power"), found.size_bytes, found.written)

    def _close_left(self, now: Moment, left_bytes: int = 1, but: int = -1, killed: str = "runner killed") -> None:
        """Where no attempt goes on, or a new one, no other file is open: how it ended was told to nobody."""
        for file in [file for file in self.files if file.attempt != but]:
            self.closed(self._end_of_left(file, now, killed), max(left_bytes, file.size_bytes), now)

    @staticmethod
    def _end_of_left(file: TakenFile, now: Moment, killed: str) -> FileEnd:
        known = file.start or file.opened
        cause = killed if known is not None and known.boot == now.boot else "power"
        left = FileEnd(file.path, f"cut off: {cause}", cause)
        return left.replaced(missing=file.missing, repeated=file.repeated, repeated_cause=file.repeated_cause)

    def opened(self, file: TakenFile) -> None:
        self.files.append(file)

    def media(self, path: str, at: Moment, ffmpeg_version: str, rate: float = 0.0) -> None:
        """The first frame of an open file came at `at`: what went before is over. `rate` is what FFmpeg found, if the
        source has none stated."""
        file = self._open_file(path)
        if file is None:
            return
        file.ffmpeg_version = ffmpeg_version
        file.rate = file.rate or rate
        self._begin_file(file, at)

    def _begin_file(self, file: TakenFile, at: Moment) -> None:
        """Its first frame came: what went before is over."""
        if file.start is not None:
            return
        # A source that delivers faster than time would begin before it was opened. A file that follows another one is
        # opened when its first frame has come.
        former = next((other for other in reversed(self.files) if other.start and _is_one_recording(file, other)), None)
        file.start = at if former else at.not_before(file.opened)
        if former is not None and former.followed_at is None:
            former.followed_at = file.start
        if self.sleeps and self.interval is not None and self.interval.start == self.sleeps[-1].until:
            # What was before the suspension is entered; a picture may have been on its way.
            file.start = file.start.not_before(self.interval.start)
        self._end_interval(file.start)

    def missed(
        self,
        path: str,
        start: Moment,
        end: Moment,
        frames: int,
        filled: int,
        cause: str,
        others: Sequence[tuple[str, int, int]] = (),
    ) -> None:
        """An open file has a hole: `frames` are missing, of which `filled` are there as copies. Some of both are of
        `others`, the files that follow it."""
        file = self._open_file(path)
        if file is None or file.start is None:
            return
        own = (path, frames - sum(part[1] for part in others), filled - sum(part[2] for part in others))
        for place, missed, copies in (own, *others):
            found = self._open_file(place)
            if found is not None:
                found.missed += missed
                found.filled += copies
        self._queue.append(hole_entry(self.port_index, file, start, end, frames, cause))

    def marked(self, path: str, frame: int, take: str | None, at: Moment) -> None:
        """From this frame of the file on, which came at `at`, the recording is another take: also in the files that
        follow it, and all of a file that has no frame yet."""
        file = self._open_file(path)
        following = self.files[self.files.index(file) + 1 :] if file is not None else []
        for other in [other for other in following if file is not None and _is_one_recording(file, other)]:
            other.take = take
        if file is not None and file.start is None:
            file.take = take
            return
        former = file.take_at_end if file is not None else None
        self._queue.append(mark_entry(self.port_index, path, frame, take, former, at))
        if file is not None:
            file.is_cut, file.last_take = True, take

    def _open_file(self, path: str) -> TakenFile | None:
        return next((file for file in self.files if file.path == path), None)

    def closed(self, end: FileEnd, size_bytes: int, now: Moment) -> None:
        """An open file ended. One that is not complete has to be counted before it is entered."""
        file = self._open_file(end.path)
        if file is None:
            return
        self.files.remove(file)
        if file.start is None and not size_bytes:
            return
        if end.verdict.startswith("lost"):
            # Its holes have entries, and nothing of it is left that could have filled them.
            file.filled = 0
        file.end, file.closed, file.size_bytes = end, now, size_bytes
        if file.start is None:
            # Nobody saw its first frame; when it was counted, what goes on now ends there.
            if self.interval is not None:
                self._queue.append(self.interval)
            self._queue.append(file)
            after = now
        elif end.verdict == "complete" and not end.is_estimate:
            start, after = extent(file, end, end.frames, self.sleeps)
            self._queue += file_entries(self.port_index, file, end, end.frames, size_bytes, start, after)
            self._queue += _lost_before_next(file, end, after, ROUNDING_S)
        else:
            self._queue.append(file)
            after = end.last_frame or file.start
        if not self.is_recording():
            self.interval = Interval("gap", end.cause, after, file.take_at_end, apart_s=self._apart_s(after))
        if end.verdict.startswith("lost") and file in self._queue:
            # Nobody looks for its frames by its path, where another file may be.
            self.counted(file, 0, 0)

    def waits(self, cause: str, now: Moment, take: str | None) -> None:
        """The port should record and does not, for `cause`.

        A board that vanishes looks to FFmpeg like a lost signal, until it is looked for (VIDEOMASTER.md 16).
        """
        interval = self.interval
        if interval is not None and (interval.kind, interval.what, cause) == ("gap", *VANISHED_BOARD):
            interval.what = cause
        if self.interval is None or (self.interval.kind, self.interval.what) != ("gap", cause):
            self._end_interval(now)
            self.interval = Interval("gap", cause, now, take)

    def stopped(
        self, by: str, now: Moment, take: str | None, *, is_restart: bool = False, asked: Moment | None = None
    ) -> None:
        """The port was stopped. That FFmpeg needs a moment to end its file is part of it; a large file may need more,
        and `asked` is then when its stop was asked for."""
        interval, start = self.interval, asked or now
        is_ending = interval is not None and (interval.kind, interval.what) == ("gap", "stop")
        if interval is not None and is_ending and interval.start.seconds_to(start) < STOPPING_S:
            self.interval, start = None, interval.start
        self._end_interval(start)
        self.interval = Interval("stop", by, start, take, is_restart=is_restart)

    def stopped_unseen(self, at: Moment) -> None:
        """The port was stopped when no runner lived that could enter it: it had failed, or had to be killed, or was
        to be started again just then; or the machine had come up without it."""
        interval = self.interval
        if interval is not None and interval.kind == "gap":
            at = at.not_before(interval.start)
            self._end_interval(at)
            self.interval = Interval("stop", "operator", at, interval.take)

    def due(self, first: float, last: float, take: str | None, now: Moment, boot: Moment) -> None:
        """By its schedule the port should have recorded from `first` to `last` (by the wall clock), and nothing of it
        runs `now`; the system came up at `boot`. What was a stop is a gap in that time. What a power cut ended was to
        end at `last`."""
        interval = self.interval
        if self._is_cut_off(now):
            if last <= now.wall and self._take_of_cut_off() == take:
                self._close_left(boot)
                self.rebooted(boot, records_at_boot=False)
                self._end_as_scheduled(now.plus(last - now.wall), take)
            return
        if self.files or (interval is not None and interval.kind != "stop"):
            return
        least = boot if interval is None else interval.start
        if interval is not None and interval.what == "operator" and interval.start.wall > first:
            # What an operator stops in its time stays stopped until the next boot.
            least = boot.not_before(interval.start)
            last = last if interval.start.boot != now.boot else first
        begin = now.plus(max(first, least.wall) - now.wall)
        end = now.plus(min(last - now.wall, 0.0))
        if begin.seconds_to(end) < SHORTEST_MISS_S:
            return
        if interval is not None and interval.start.seconds_to(begin) < 0.001:
            # Nothing of the stop was before it.
            self.interval = None
        self._end_interval(begin)
        self.interval = Interval("gap", SCHEDULE_MISSED, begin, take)
        if last <= now.wall:
            self._end_interval(end)
            self.interval = interval and Interval("stop", interval.what, end, interval.take)

    def _is_cut_off(self, now: Moment) -> bool:
        """Whether what went on when the system went down without a shutdown has not gone on since."""
        interval = self.interval
        is_gap = interval is not None and interval.kind == "gap" and interval.start.boot != now.boot
        return is_gap or any((file.start or file.opened or now).boot != now.boot for file in self.files)

    def _take_of_cut_off(self) -> str | None:
        if self.file is not None:
            return self.file.take_at_end
        return self.interval.take if self.interval is not None else None

    def _end_as_scheduled(self, end: Moment, take: str | None) -> None:
        """A gap is over with its schedule."""
        interval = self.interval
        if interval is not None and interval.kind == "gap":
            end = end.not_before(interval.start)
            self._end_interval(end)
            self.interval = Interval("stop", SCHEDULE, end, take)

    def stopped_after_boot(self, at: Moment, boot: Moment) -> None:
        """A port that has not run since a power cut was stopped: what was to go on is over."""
        self._close_left(boot)
        self.rebooted(boot, records_at_boot=False)
        self.stopped_unseen(at)

    def _find_step(self, now: Moment) -> None:
        """The clock may have been moved while no runner lived: against the monotonic clock of this boot."""
        known = self.interval.start if self.interval else self.file and (self.file.start or self.file.opened)
        if not known or known.boot != now.boot:
            return
        step_s = (now.wall - now.monotonic) - (known.wall - known.monotonic)
        step_s -= asleep_between(now.boot, known.monotonic, now.monotonic, self.sleeps)
        if abs(step_s) > CLOCK_STEP_S:
            self.clock_stepped(Moment(now.wall - step_s, now.monotonic, now.boot), now)

    def _slept(self, now: Moment, asleep_s: float | None, path: str = "", first: Moment | None = None) -> None:
        """The system was suspended until now, if it has slept for longer than it had: time in which nothing was
        recorded, and which CLOCK_MONOTONIC does not know of. The first frame of the file at `path` came before, at
        `first`."""
        if asleep_s is None:
            return
        before, self.asleep_s = self.asleep_s, asleep_s
        seconds = 0.0 if before is None else round(asleep_s - before, 3)
        if seconds < CLOCK_STEP_S:
            return
        self.sleeps = [*self.sleeps[1 - SLEEPS_KEPT :], Sleep(now, seconds)]
        start = Moment(now.wall - seconds, now.monotonic, now.boot)
        begun = self._open_file(path)
        if begun is not None and first is not None:
            self._begin_file(begun, self._told(first))
        interval, file = self.interval, self.file
        if self.is_recording() and file is not None:
            frames = round(seconds * file.rate)
            self._queue.append(hole_entry(self.port_index, file, start, now, frames, SUSPENDED, seconds))
        elif interval is not None and interval.kind == "gap":
            self._end_interval(start.not_before(interval.start))
            self._queue.append(Interval("gap", SUSPENDED, start, interval.take, now, slept_s=seconds))
            self.interval = Interval("gap", interval.what, now, interval.take)
        elif interval is not None:
            interval.slept_s += seconds

    def _apart_s(self, start: Moment) -> float:
        """For how long the system slept after a gap's start, which lies in the past: it has a gap of its own."""
        return asleep_between(start.boot, start.monotonic, math.inf, self.sleeps)

    def _told(self, moment: Moment) -> Moment:
        """A moment of the past as its runner told it, by what the clock says now. Before the system slept the wall
        clock was so much less ahead of CLOCK_MONOTONIC."""
        asleep_s = asleep_between(moment.boot, moment.monotonic, math.inf, self.sleeps)
        return Moment(moment.wall - asleep_s, moment.monotonic, moment.boot)

    def rebooted(self, boot: Moment, *, records_at_boot: bool) -> None:
        """The machine went down and came up at `boot`: cleanly if the runner was told, else by power."""
        interval = self.interval
        if interval is None or interval.start.boot == boot.boot:
            return
        boot = boot.not_before(interval.start)
        if interval.kind == "gap":
            # What had ended for good did not go on until then, and there was no runner to hear of a shutdown.
            if not interval.what.endswith("power") and interval.what != "cannot work":
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
        self._queue.append(clock_entry(self.port_index, before, now, step_s))
        crossed, self.crossed = self.crossed, None
        if crossed is not None and crossed.end is not None and crossed.end.boot == now.boot and step_s > 0:
            # The clock was behind when the system came up (no battery, or the time that was saved last): only now
            # it is known how long the system was down.
            self._queue.append(late_entry(self.port_index, crossed, before, now, step_s))
        # What goes on began by the old clock; should it outlast this boot, only the wall clock will know how long.
        if self.interval is not None:
            self.interval.start = _moved(self.interval.start, step_s, now.boot)
        for file in self.files:
            file.opened = file.opened and _moved(file.opened, step_s, now.boot)
            file.start = file.start and _moved(file.start, step_s, now.boot)
            file.followed_at = file.followed_at and _moved(file.followed_at, step_s, now.boot)

    def _end_interval(self, now: Moment) -> None:
        if self.interval is not None:
            self.interval.end = now
            self._queue.append(self.interval)
            self._note_crossed(self.interval)
        self.interval = None

    def _note_crossed(self, interval: Interval) -> None:
        if interval.end is not None and interval.end.boot != interval.start.boot:
            self.crossed = interval.replaced()


def _is_one_recording(file: TakenFile, other: TakenFile) -> bool:
    """Whether one FFmpeg wrote both, one after the other."""
    return file.attempt > 0 and file.attempt == other.attempt


def _lost_before_next(file: TakenFile, end: FileEnd, last: Moment, least_s: float) -> list[Item]:
    """The gap between a file's last frame and the next file of its recording: what FFmpeg wrote is not all there."""
    is_lost = end.verdict.startswith("lost")
    if file.followed_at is None or last.seconds_to(file.followed_at) <= (ROUNDING_S if is_lost else least_s):
        return []
    cause = end.cause if is_lost else CUT_OFF
    return [Interval("gap", cause, last, file.take_at_end, file.followed_at)]


def _item_from(value: object) -> Item:
    """An item of the queue read back. Raises ValueError for what is none, and for a file of which no time is known."""
    where = "the open record: queue"
    if isinstance(value, dict) and "v" in value:
        problem = wrong_entry(value)
        if problem:
            raise ValueError(f"{where}: an entry {problem}")
        return value
    if not isinstance(value, dict) or "kind" in value:
        return interval_from(value, where)
    file = taken_file_from(value, where)
    if not (file.start or file.opened or file.closed):
        raise ValueError(f"{where}: a file without a time")
    return file


def _others_from(fields: Fields) -> dict[str, tuple[str, int]]:
    """Up to where others' events are taken. Raises ValueError."""
    found = {}
    for teller in fields.names():
        last = fields.items(teller)
        if len(last) != 2 or not isinstance(last[0], str) or type(last[1]) is not int:
            fields.fail(teller, "not an event's boot and sequence")
        found[teller] = last[0], last[1]
    return found


def _number(entry: Entry) -> int:
    number = entry.get("number")
    return number if type(number) is int else 0


def _asleep_s(fields: Fields) -> float | None:
    """Runners and records of an earlier version do not tell it."""
    return None if fields.value("asleep_s", None) is None else fields.number("asleep_s", least=-1.0, most=1e11)


def _part_from(value: object, where: str) -> tuple[str, int, int]:
    """What of a hole is in a file: its path, how many frames are missing there, how many of these are copies."""
    fields = Fields(value, where)
    return fields.text("path"), fields.whole("frames"), fields.whole("filled")


def _opened_from(fields: Fields, at: Moment) -> TakenFile:
    path, take, codec = fields.text("path"), fields.text_or_none("take"), fields.text("codec")
    rate, attempt = fields.number("rate", least=0.0, most=1e4), fields.whole("attempt", 0)
    return TakenFile(path, take, codec, rate, at, fields.flag("is_retry", False), attempt)


def _moved(moment: Moment, step_s: float, boot: str) -> Moment:
    return Moment(moment.wall + step_s, moment.monotonic, boot) if moment.boot == boot else moment
