"""One attempt: one FFmpeg, from the making of its file to the file's closing. Phases: opening, running, closing, ended.

What comes after an attempt is decided in decide.py. An attempt waits for nothing: the runner's loop calls it with
descriptors that are ready and with the time (CLOCK_MONOTONIC, seconds), and it reads the events of its disk threads.
"""

from __future__ import annotations

import math
import os

# os.wait4 loads it, at the latest (posixmodule.c): nothing is to be loaded once a port records.
import resource  # noqa: F401
import select

from sdisup.contract.files import monotonic_raw
from sdisup.contract.lean import deque
from sdisup.contract.options import ENDS, REQUIRED, Options
from sdisup.contract.records import Record
from sdisup.runner.causes import (
    COMPLETE,
    DISK,
    NO_FRAME,
    NO_SOUND,
    NOT_EXECUTED,
    RETRY,
    STALLED,
    TIMESTAMPS,
    Cause,
    End,
    Fault,
    classify,
    file_verdict,
)
from sdisup.runner.command import is_copied, is_from_zero, is_segmented
from sdisup.runner.decide import (
    CLOSING,
    ENDED,
    NO_SOUND_S,
    OPENING,
    RUNNING,
    Ended,
    Sight,
    sound_remark,
)
from sdisup.runner.disk import (
    Closed,
    Event,
    FirstMedia,
    Named,
    Opened,
    OpenFailed,
    RecordingFile,
    Sample,
    place_of,
)
from sdisup.runner.ffmpeg import (
    FILES,
    FFmpegProcess,
    Ladder,
    descriptor_of,
    lend,
    output_name,
    spawn_into,
    take_back,
)
from sdisup.runner.meter import Meter
from sdisup.runner.pace import SIGNAL_LOST, SOURCE_SILENT
from sdisup.runner.progress import (
    FrameCheck,
    LogLine,
    Progress,
    ProgressParser,
)
from sdisup.runner.rest import Marks
from sdisup.runner.segments import AHEAD, Account, closed, is_list, opened
from sdisup.runner.streams import Streams
from sdisup.runner.timecodes import Timecodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CLOSE_PATIENCE_S = 3.0
FRAMES_CLOSED_A_S, PATIENCE_AT_MOST_S = 50_000, 240.0
"""At a stop a file that FFmpeg gets on with is waited for by its frames, since FFmpeg lists each in it: a day's at 50
frames a second for 86 s longer. FFmpeg 7.1 lists a million and a half in a second, on a disk that takes them."""
EFFORT_S, EFFORT_BYTES, EFFORT_SHARE = 0.5, 4096, 0.05
"""How often FFmpeg is looked at then, and what it has to have written, or the share of this time that it has to have
run, to get on."""
EXTENSION_MARGIN_S = 4.0
PROBE_S = 8.0
"""FFmpeg looks at a stream for 5 s before it says that it has one (-analyzeduration)."""
SILENT_S = 1.0
"""Where no picture came for longer than this before a stop, that time is a gap."""
DEAF_S = 1.0
"""An FFmpeg that has not read its stdin for this long does not read it: it looks there twice a second (FACTS 3)."""
UNSAFE_CONTAINERS = ("mxf",)
"""Containers whose files a kill damages."""
LOAD_S, BUSY = 4.0, 0.9
"""How long FFmpeg's threads are watched, and the share of this time from which on a thread has no idle time."""
LOG_LINES_KEPT = 80
LOG_LATE_S = 0.05
"""By how much later than it came a line of the log may be read, while of a block it is known when it came."""
CUT_PATIENCE_S = 1.0
"""How long a cut waits for the progress block that counts its frame."""
AHEAD_AGAIN_S = 5.0
"""The time to the next try to make the next file."""
LAST_WORDS_S = 15.0
"""What FFmpeg logged longer ago than this, before its end or before it was told to end, does not explain the end. It
logs a lost SDI signal after 10 s, and an end by the ladder may take as long again."""


class File(Record, frozen=False):
    """One file of an attempt: what its disk thread has reported so far, and what the ledger was told.

    It is FFmpeg's `index`-th file, counted from 0. It begins with FFmpeg's frame `first_frame`, counted from 0 too, and
    the next file with `end_frame`; None where that is not known yet. `is_guessed`: one of them FFmpeg did not tell.
    `path_told` is the path that the ledger knows, and
    `begun_at` is when its first frame came, by what the ledger was told. `closed_at` is when FFmpeg had closed it, and
    `is_finished` says that its threads are to close it too.
    """

    thread: RecordingFile
    index: int = 0
    first_frame: int | None = 0
    end_frame: int | None = None
    is_guessed: bool = False
    path_told: str = ""
    begun_at: float | None = None
    closed_at: float | None = None
    is_finished: bool = False
    path: str = ""
    is_named: bool = False
    is_ready: bool = False
    sample: Sample | None = None
    is_closed: bool = False
    kept: bool = False
    problem: str = ""
    size_bytes: int = 0
    inode: int = 0
    whereabouts_told: tuple[str, bool] = ("", False)

    @property
    def is_moved(self) -> bool:
        """Whether the file's path no longer leads to the file."""
        return self.sample is not None and self.sample.moved

    @property
    def whereabouts(self) -> tuple[str, bool]:
        """Where a file that was moved is now, empty for no such place, and whether it is where no path leads."""
        sample = self.sample
        return (sample.place, sample.moved and not sample.deleted and not sample.place) if sample else ("", False)

    @property
    def is_deleted(self) -> bool:
        """Whether the file was removed while it was recorded, or could have no name when FFmpeg wrote to it already."""
        is_refused = self.index > 0 and not self.is_named and bool(self.thread.refusal)
        return is_refused or (self.sample is not None and self.sample.deleted)

    @property
    def verdict(self) -> str:
        """How a file ended that FFmpeg has closed."""
        return f"incomplete: {self.problem}" if self.problem else COMPLETE

    def frames_of(self, frames: int) -> int:
        """How many of FFmpeg's `frames` are in the file."""
        end = frames if self.end_frame is None else self.end_frame
        return 0 if self.first_frame is None else max(0, end - self.first_frame)


class Attempt:
    """One try to record, into `files`: those that are recorded or not told of to their end, the newest last.

    `log` gets FFmpeg's log lines as (now, priority, text). `fault` is why the runner ends FFmpeg. `problem` is why
    there is no FFmpeg or no proper end, in the operator's words. `open_file` makes a file and its disk thread, `spawn`
    starts FFmpeg. `timecodes` gives the files theirs.
    """

    def __init__(
        self,
        options: Options,
        directory: str,
        now: float,
        poll: select.poll,
        wake: Callable[[], None],
        log: Callable[[float, int, str], None],
        open_file: Callable[..., RecordingFile] = RecordingFile,
        spawn: Callable[[Sequence[str], int], FFmpegProcess] = FFmpegProcess,
        raw: Callable[[], float] = monotonic_raw,
        timecodes: Timecodes | None = None,
    ) -> None:
        self.options = options
        self._timecodes = timecodes
        self.phase = OPENING
        self.began = now
        self.meter = self._new_meter(now)
        self.silence = ""
        """Why no pictures came when FFmpeg was told to end; "" if pictures came."""
        self.streams = Streams(options.command)
        self.cpu_s = 0.0
        self.lost_told = 0
        """How many lost pictures the ledger was told of."""
        self.account = Account()
        self.holes_told = 0
        """How many frames were missing in the holes when the last file was told of to its end."""
        self.fault: Fault | None = None
        self.problem = ""
        self.could_open = True
        self.frames_gained = 0
        self.is_ending = False
        self.is_abandoned = False
        """Whether a thread still waits for the disk: then the process cannot end."""
        self.ahead_problem = ""
        """Why the next file cannot be made yet, in the operator's words; "" if it can."""
        self._poll = poll
        self._log = log
        self._spawn_ffmpeg = spawn
        self._raw = raw
        self._load: tuple[float, dict[str, float]] = (-math.inf, {})
        """When the processor times of FFmpeg's threads were read, and these times."""
        self._awake_at = -math.inf
        """Until when this process stood still."""
        self._finished = self._counted_none = False
        self._frame_check = FrameCheck(now)
        self._stage_since = now
        """When the last stage of the start was reached: FFmpeg's start, its input's opening, its first frame."""
        self._reads_stdin = False
        self._parser = ProgressParser()
        self._kept: list[tuple[float, float, bytes]] = []
        """What FFmpeg wrote to stderr and nobody has looked at yet, each piece with its times (now, raw)."""
        self.marks = Marks()
        self._blocks = ProgressParser()
        self._counted_at = now
        """When the last progress block came."""
        self._is_told_blocks, self._are_blocks_over = True, False
        """Whether the poll tells of each block, and not of their end alone; and whether that has come."""
        self._lines: deque[tuple[float, int, str]] = deque(maxlen=LOG_LINES_KEPT)
        self.is_from_zero = is_from_zero(options.command)
        self._ffmpeg: FFmpegProcess | None = None
        self._ladder: Ladder | None = None
        self._exit_status = 0
        self._close_by = self._patience_s = 0.0
        self._effort: tuple[float, float, int] = (math.inf, 0.0, 0)
        """When it was looked at how much FFmpeg has run and written, and how much that was."""
        self.extension_s = 0.0
        """For how long from now on systemd has to wait for the end, since it takes longer than its unit says; 0 where
        systemd was told."""
        self._ending_since: float | None = None
        self._is_segmented = is_segmented(options.command)
        self._ahead: deque[File] = deque()
        """The files that FFmpeg opens next."""
        self._lent: deque[int] = deque()
        """The indexes of the files that FFmpeg may open, or has just opened, by this process' descriptors."""
        self._opened = 0
        """How many files FFmpeg has opened."""
        self._ends: dict[int, float] = {}
        """When the files end of which FFmpeg has said that it closes them, by their descriptors. A server's words may
        look like it: what was said last before the next file is opened is FFmpeg's."""
        self._ahead_at = -math.inf
        """When the next file is to be made."""
        self._cut_frame = 0
        self._told_bytes = 0
        self._has_kept = False
        """Whether a file that was told of to its end holds frames, and how many bytes those have."""
        self._open = open_file
        self._place = (place_of(options, directory), options.sync_interval_s, wake)
        self.files = [File(open_file(*self._place))]

    def _new_meter(self, now: float) -> Meter:
        silent = SIGNAL_LOST if self.options.without_signal == ENDS else SOURCE_SILENT
        return Meter(now, self.options.rate, silent, is_copied=is_copied(self.options.command))

    # What is known of the attempt.

    @property
    def newest(self) -> File:
        return self.files[-1]

    @property
    def path(self) -> str:
        """The newest file's path; "" before the file is made."""
        return self.newest.path

    @property
    def is_told(self) -> bool:
        """Whether the ledger was told of the attempt's first frame."""
        return self.files[0].begun_at is not None or self.files[0].index > 0

    @property
    def has_recorded(self) -> bool:
        """Whether frames have been counted, and are on disk."""
        return self.meter.frames > 0 and self.meter.first_media_at is not None

    @property
    def current(self) -> File:
        """The newest file of whose first frame the ledger was told; else the first one."""
        return next((file for file in reversed(self.files) if file.begun_at is not None), self.files[0])

    @property
    def ffmpeg_pid(self) -> int | None:
        return self._ffmpeg.pid if self._ffmpeg else None

    @property
    def kept(self) -> bool:
        """Whether any of the attempt's files holds frames."""
        return self._has_kept or any(file.kept for file in self.files)

    @property
    def sync_problem(self) -> str:
        """Why the recording may not survive a power cut; "" if it does."""
        return self._first_of(file.thread.sync_problem for file in self.files)

    @property
    def watch_problem(self) -> str:
        """Why the files' samples may be out of date; "" if they are not."""
        return self._first_of(file.thread.watch_problem for file in self.files)

    @staticmethod
    def _first_of(problems: Iterable[str]) -> str:
        return next(filter(None, problems), "")

    def sight(self, now: float) -> Sight:
        """What is seen of the attempt now, for decide.py."""
        streams, awake_s = self.streams, now - self._awake_at
        soundless_s = streams.soundless_s(now)
        return self.meter.sight(
            now,
            awake_s,
            path=self.path,
            began_s=now - self.began,
            starting_s=now - self._stage_since,
            interval_s=1 / self.meter.rate if self.meter.rate else 0.0,
            is_spared=self._is_spared(),
            format_change=streams.format_change,
            programme="" if streams.has_choice else streams.choice.number,
            cut_channels=streams.cut_channels,
            opening_s=now - (streams.opened_at or now) if streams.is_half_open else 0.0,
            soundless_s=None if soundless_s is None else min(soundless_s, awake_s),
            has_sounded=streams.sound_at is not None,
            is_deleted=self.newest.is_deleted,
            refusal=self.newest.thread.refusal,
            is_misplaced=self.newest.sample is not None and self.newest.sample.misplaced,
        )

    def is_losing(self, now: float) -> bool:
        """Whether pictures are missing, by the clock and the rate, or a sound that the port is to record."""
        return bool(self.meter.pace.remark) or (self.options.sound == REQUIRED and bool(sound_remark(self.sight(now))))

    def end(self, now: float) -> End:
        """How the attempt's FFmpeg ended, for `classify`."""
        ending_since = now if self._ending_since is None else self._ending_since
        return End(
            status=self._exit_status,
            frames=self.meter.frames,
            lines=tuple((priority, text) for at, priority, text in self._lines if ending_since - at <= LAST_WORDS_S),
            without_signal=self.options.without_signal,
            fault=self.fault,
            finished=self._finished,
            command=tuple(self.options.command),
        )

    def ended(self, now: float) -> Ended:
        """What is known of the attempt once it has ended."""
        end = self.end(now)
        return Ended(
            cause=classify(end) if self.could_open else Cause(DISK, RETRY, self.problem),
            verdict=self._verdict(end),
            fault=self.fault,
            frames=self.meter.frames,
            kept=self.kept,
            cpu_s=self.cpu_s,
            could_open=self.could_open,
            is_abandoned=self.is_abandoned,
            lacks_input=self.streams.is_half_open,
            was_silent=self.streams.is_silent_copy
            or (self.streams.sound_awaited_at is not None and self.streams.sound_at is None),
            # FFmpeg's last line: `audio:0KiB`, before 7.0 `audio:0kB`.
            wrote_no_audio=any("audio:0KiB" in text or "audio:0kB" in text for _, _, text in self._lines),
        )

    def _verdict(self, end: End) -> str:
        verdict = file_verdict(end, self.meter.frames)
        problem = self.problem or self._first_of(file.problem for file in self.files) or self.sync_problem
        return f"incomplete: {problem}" if verdict == "complete" and problem else verdict

    # What the runner does with the attempt.

    def wind_down(self, now: float, fault: Fault | None = None) -> None:
        """Begin to end FFmpeg by the ladder: on request, or for a fault."""
        self.fault = self.fault or fault
        self.is_ending = True
        if self._ending_since is None:
            self._ending_since = now
            if self.meter.frames or not fault or fault.kind != NO_FRAME:
                self.meter.pace.stop(self._raw())
            is_silent = self.meter.last_frame_at is not None and self.meter.frameless_s(now) > SILENT_S
            self.silence = self.meter.silent if is_silent else ""
            # A new recording waits for the end of the one before it, and is worth more than a list of frames.
            is_large = self.meter.frames >= FRAMES_CLOSED_A_S and not self._is_segmented
            if fault is None and is_large:
                self._patience_s = min(self.meter.frames / FRAMES_CLOSED_A_S, PATIENCE_AT_MOST_S)
        self._close_by = now + CLOSE_PATIENCE_S
        is_at_rest = self._ladder is None or (fault is None and self._ladder.is_at_rest)
        if is_at_rest and self._ffmpeg is not None:
            options = self.options
            has_started = self.meter.first_media_at is not None
            quit_s = options.stop_quit_s if has_started else options.stop_start_quit_s
            # A `q` that FFmpeg does not read yet would end it later, when its source has come after all.
            is_heard = self._reads_stdin or fault is None or fault.kind != NO_FRAME
            quit_s = quit_s if is_heard else max(quit_s, PROBE_S)
            self._ladder = Ladder(now, quit_s, options.stop_term_s, quits=is_heard, patience_s=self._patience_s)

    def _is_spared(self) -> bool:
        """Whether FFmpeg is to end since no frame came, and was not told to end yet."""
        is_starting = self.fault is not None and self.fault.kind == NO_FRAME and self.is_ending
        return is_starting and self._ladder is not None and self._ladder.is_at_rest

    def stood_still(self, until: float) -> None:
        """This process did not run until then: what did not come meanwhile has time to come, since FFmpeg did not run
        either, or waits in its pipe."""
        self._awake_at = until
        self._stage_since = max(self._stage_since, until)

    def go_on(self, now: float) -> None:
        """Take back the fault for which FFmpeg was to end."""
        self.fault = self._ladder = self._ending_since = None
        self.is_ending = False
        self._stage_since = now

    def next_at(self, now: float) -> float | None:
        """When `tick` has to be called next if nothing else happens; None for no such time."""
        if self.phase == CLOSING or (self.phase == OPENING and self.is_ending):
            return self._close_by
        if self._ladder is None:
            awaited_at = self.streams.sound_awaited_at
            if awaited_at is None or self.streams.sound_at is not None or self.phase != RUNNING:
                return None
            return max(awaited_at + NO_SOUND_S, now + 0.1)
        deaf_at = now + 1.0 if self._ending_since is None else max(now + 0.05, self._ending_since + DEAF_S)
        return min(self._ladder.next_at() or now + 1.0, deaf_at)

    def is_steady(self, now: float) -> bool:
        """Whether all that was seen of the attempt is told, and nothing of it waits for its time."""
        pace = self.meter.pace
        is_between = not self._kept and self._parser.is_between_blocks
        is_all_told = self.is_told and len(self.files) == 1 and not (pace.holes or pace.is_settling)
        return is_between and is_all_told and self.next_at(now) is None

    def tick(self, now: float) -> str:
        """Do what is due: take FFmpeg's words, and the disk's events; end long waits; take the ladder's next step.
        Returns that step."""
        self._take_words(now)
        self._take_disk_events(now)
        self._give_timecodes(now)
        self._make_ahead(now)
        if self.phase == CLOSING and now >= self._close_by:
            self.problem = "the disk has not closed the file in time; going on without waiting for it"
            self.phase, self.is_abandoned = ENDED, True
        elif self.phase == OPENING and self.is_ending and now >= self._close_by:
            self.problem = "the disk has not made the file in time"
            self.phase = ENDED
        self._look_at_load(now)
        self._look_at_effort(now)
        step = self._ladder.due(now) if self._ladder and self._ffmpeg else ""
        if self._ladder and not step and self._is_deaf(now):
            step = self._ladder.skip()
        if step and self._ffmpeg:
            self._ffmpeg.step(step)
        return step

    def _look_at_effort(self, now: float) -> None:
        """Wait longer for an FFmpeg that has read its `q` and gets on with the end of a large file."""
        if self._ladder is None or self._ffmpeg is None or not (self._patience_s and self._ladder.is_patient):
            return
        before_at, ran_s, written = self._effort
        if before_at < math.inf and now - before_at < EFFORT_S:
            return
        self._effort = (now, *self._ffmpeg.effort())
        share = (self._effort[1] - ran_s) / (now - before_at) if now > before_at else 0.0
        gets_on = before_at < now and (share > EFFORT_SHARE or self._effort[2] - written > EFFORT_BYTES)
        if gets_on and self._ffmpeg.has_read():
            self._ladder.wait_on(now)
            self._extend(self._ladder.last_at() - now + CLOSE_PATIENCE_S)

    @property
    def asked_at(self) -> float | None:
        """When the stop of a large file was asked for, whose end may take long; None for any other."""
        return self._ending_since if self._patience_s else None

    def _extend(self, seconds: float) -> None:
        """Ask systemd for so much time from now on."""
        if self._patience_s:
            self.extension_s = seconds + EXTENSION_MARGIN_S

    def _look_at_load(self, now: float) -> None:
        """Find out whether FFmpeg gets too little processor time to read all pictures.

        Its card then drops pictures, which looks like a source that loses them. But one of FFmpeg's threads then has no
        idle time: it runs, or waits for a core.
        """
        if self._ffmpeg is None or not self.meter.pace.loses_pictures or now - self._load[0] < LOAD_S:
            return
        before_at, before = self._load
        self._load = (now, self._ffmpeg.thread_times())
        if now - before_at < 2 * LOAD_S:
            busiest_s = max((at - before[name] for name, at in self._load[1].items() if name in before), default=0.0)
            self.meter.pace.is_starved = busiest_s > BUSY * (now - before_at)

    def _is_deaf(self, now: float) -> bool:
        """Whether FFmpeg will not end its file: it does not read its stdin any more, or waits for sound.

        Then it is killed at once: the container survives a kill, and each second of waiting is a second that is not
        recorded. Where a source can block FFmpeg for seconds, the ladder keeps its times.
        """
        if self._ladder is None or self._ffmpeg is None or self.fault is None or self._ending_since is None:
            return False
        return (
            self.fault.kind in (STALLED, TIMESTAMPS, NO_SOUND)
            and self.options.without_signal != ENDS
            and self.options.container not in UNSAFE_CONTAINERS
            and now - self._ending_since >= DEAF_S
            and self._ladder.next_at() is not None
            and (self._waits_for_sound() or not self._ffmpeg.has_read())
        )

    def _waits_for_sound(self) -> bool:
        """Whether FFmpeg, which is to end, waits for an input of the sound alone, although it has read its stdin."""
        is_sound = self.fault is not None and self.fault.kind == NO_SOUND and self.streams.has_sound_input
        return is_sound and (self.streams.sound_at is not None or not self.streams.are_open)

    def on_ready(self, descriptor: int, now: float) -> bool:
        """Read a descriptor that is ready; one that is not FFmpeg's is left alone. Returns whether FFmpeg has only
        said that sound comes on; what it said waits for the next tick."""
        ffmpeg = self._ffmpeg
        if ffmpeg is not None and descriptor == ffmpeg.stderr:
            # Once: a flood of log lines must not delay the watchdog or a stop.
            data = ffmpeg.read()
            if data is None:
                return False
            if not data:
                self._poll.unregister(descriptor)
            if self.meter.first_media_at is None:
                self.newest.thread.hurry()
            self._kept.append((now, self._raw(), data))
            return self.marks.are_all(data)
        if ffmpeg is not None and descriptor == ffmpeg.pidfd:
            self._on_exit(now)
        return False

    def heed_blocks(self, *, at_once: bool) -> None:
        """Let each progress block wake the runner's poll, or let them wait for the next tick."""
        if self._ffmpeg is not None and at_once != self._is_told_blocks and not self._are_blocks_over:
            self._is_told_blocks = at_once
            # Their end wakes it all the same (poll(2), POLLHUP).
            self._poll.modify(self._ffmpeg.progress, select.POLLIN if at_once else 0)

    # The disk.

    def _take_disk_events(self, now: float) -> None:
        for file in [*self.files, *self._ahead]:
            while file.thread.events:
                self._take_disk_event(file, file.thread.events.popleft(), now)
        if self.phase == CLOSING and all(file.is_closed for file in self.files):
            self.phase = ENDED

    def _take_disk_event(self, file: File, event: Event, now: float) -> None:
        if file in self._ahead:
            self._take_ahead(file, event, now)
        elif isinstance(event, Opened):
            file.path = event.path
            self._spawn(now, event.descriptor)
        elif isinstance(event, Named):
            file.path, file.is_named = event.path, True
        elif isinstance(event, OpenFailed):
            self.problem, self.could_open = event.reason, not event.is_disk
            if not event.is_disk:
                self.fault = Fault(NOT_EXECUTED, event.reason)
            self.phase = ENDED
        elif isinstance(event, FirstMedia) and not self._has_counted_none():
            self.meter.media(now)
        elif isinstance(event, Sample):
            file.sample = event
            file.size_bytes = event.size_bytes
            self.meter.size(event.seen_at or now, self._told_bytes + sum(file.size_bytes for file in self.files))
        elif isinstance(event, Closed) and (self.phase == CLOSING or file.closed_at is not None):
            file.is_closed, file.kept, file.size_bytes = True, event.kept, event.size_bytes
            file.problem, file.inode = event.problem, event.inode

    def _give_timecodes(self, now: float) -> None:
        """Give the files their timecodes, and let go of those that FFmpeg has closed once theirs are certain: it may
        write what it buffered at its start in several short files."""
        if self._timecodes is None or self._timecodes.give(self, now):
            for file in self.files:
                if file.closed_at is not None and not file.is_finished:
                    file.is_finished = True
                    file.thread.finish()

    def _close_files(self, now: float) -> None:
        while self._ahead and self._ahead[0].is_ready and descriptor_of(self._ahead[0].index) in self._ends:
            # FFmpeg has closed it: that it opened it nobody has heard.
            self._begin_next(now)
        self._give_timecodes(now)
        self.phase = CLOSING
        self._close_by = now + CLOSE_PATIENCE_S + self._patience_s
        self._extend(self._close_by - now)
        frames = self.meter.frames
        if self._finished and self.newest.closed_at is None:
            # FFmpeg counts the frames of its last file itself.
            self.newest.end_frame = None
        for file in self.files:
            if not file.is_finished:
                is_empty = file.closed_at is None and (self._counted_none if file.index == 0 else self._finished)
                file.is_finished = True
                is_asked = self.is_ending and self.fault is None
                is_cut_off = file.closed_at is None and self._exit_status < 0 and not is_asked
                file.thread.finish(is_empty=is_empty and not file.frames_of(frames), is_cut_off=is_cut_off)
        while self._ahead:
            self._ahead.popleft().thread.discard()
        while self._lent:
            take_back(self._lent.popleft())

    def _has_counted_none(self) -> bool:
        return self._counted_none and self.meter.frames == 0

    # The files after the first one.

    def _with_paths(self, text: str) -> str:
        """A line of FFmpeg's with the paths of the files in place of its names for them."""
        text = text.replace(output_name(self.options.command), self.path)
        if self._is_segmented:
            for file in self.files:
                text = text.replace(f"/proc/{os.getpid()}/fd/{descriptor_of(file.index)}", file.path)
        return text

    def _make_ahead(self, now: float) -> None:
        """Make the files that FFmpeg opens next, one after the other."""
        if not self._opened or self.phase != RUNNING or self.is_ending:
            return
        is_making = bool(self._ahead) and not self._ahead[-1].is_ready
        if is_making or len(self._ahead) >= AHEAD or now < self._ahead_at:
            return
        index = self._opened + len(self._ahead)
        self._ahead.append(File(self._open(*self._place, is_ahead=True), index, None))

    def _take_ahead(self, file: File, event: Event, now: float) -> None:
        problem = ""
        if isinstance(event, Opened):
            try:
                lend(event.descriptor, file.index)
            except OSError as error:
                problem = str(error.strerror)
                file.thread.discard()
            else:
                self._lent.append(file.index)
                file.is_ready = True
        elif isinstance(event, OpenFailed):
            problem = event.reason
        self.ahead_problem = problem and f"the next file cannot be made yet: {problem}"
        if problem:
            self._ahead.remove(file)
            self._ahead_at = now + AHEAD_AGAIN_S

    def _take_segment(self, text: str, now: float) -> bool:
        """Take what FFmpeg logs of its files. Returns whether it was that, and no line for people."""
        number = opened(text)
        if number is not None:
            self._begin_up_to(number, now)
            return True
        closing = closed(text)
        if closing is not None:
            self._ends[closing.descriptor] = closing.end_s
            return True
        return is_list(text)

    def _begin_up_to(self, number: int, now: float) -> None:
        """FFmpeg opens its next file; of one before it the line may have been torn by another program's word."""
        missed = (number - descriptor_of(self._opened)) % FILES
        if missed <= len(self._ahead):
            for _ in range(missed + 1):
                self._begin_next(now)

    def _begin_next(self, now: float) -> None:
        index, before = self._opened, self.newest
        self._opened += 1
        # It logs this before it opens the file: the one before is open by now.
        while self._lent and self._lent[0] < index:
            take_back(self._lent.popleft())
        if not index:
            return
        end_s, rate = self._ends.pop(descriptor_of(index - 1), None), self.meter.rate
        before.is_guessed = before.is_guessed or end_s is None
        end_frame = round(end_s * rate) if end_s is not None and rate else self.meter.frames
        before.end_frame, before.closed_at = max(before.first_frame or 0, end_frame), now
        if self._ahead and self._ahead[0].is_ready:
            file = self._ahead.popleft()
            file.first_frame, file.is_guessed = before.end_frame, end_s is None
            self.files.append(file)
            file.thread.begin(self._place[0].replaced(segment=file.index + 1))
        self._give_timecodes(now)

    def named(self) -> list[File]:
        """The files that have a path, in their order: none of them is before one that is still to get one."""
        is_over = self.phase == ENDED
        awaited = (at for at, file in enumerate(self.files) if not (file.path or file.is_deleted or is_over))
        return [file for file in self.files[: next(awaited, None)] if file.path]

    def is_estimate(self, file: File) -> bool:
        """Whether it is not known exactly with which frames a file begins and ends: a constant rate alone tells."""
        is_one_of_several = file.index > 0 or file.end_frame is not None
        is_exact = self.meter.is_rate_exact and not (file.is_guessed or is_copied(self.options.command))
        return is_one_of_several and not is_exact

    def name_next(self, options: Options) -> None:
        """Name the files that follow by these options."""
        place, sync_interval_s, wake = self._place
        self._place = (place_of(options, place.directory), sync_interval_s, wake)

    def may_cut(self, moment: float, now: float) -> bool:
        """Whether it is known which frame came at a moment, and in which file it is; or that none has come since."""
        has_come = (self.meter.last_frame_at or 0.0) >= moment or now - moment > CUT_PATIENCE_S
        return has_come and self.is_told and all(file.begun_at is not None for file in self.files)

    def cut_at(self, moment: float) -> int:
        """The frame with which a take begins that is asked for at that moment; no take begins before the last one."""
        self._cut_frame = max(self._cut_frame, self.meter.frame_at(moment))
        return self._cut_frame

    def file_of(self, frame: int) -> File:
        """The file that has FFmpeg's frame of this number."""
        begun = [file for file in self.files if file.begun_at is not None and (file.first_frame or 0) <= frame]
        return begun[-1] if begun else self.current

    def forget(self, file: File) -> None:
        """Let go of a file that the ledger was told of to its end."""
        self.files.remove(file)
        pace = self.meter.pace
        self.holes_told = pace.missing - pace.short - pace.repeated
        self._has_kept = self._has_kept or file.kept
        self._told_bytes += file.size_bytes

    # FFmpeg.

    def _spawn(self, now: float, output: int) -> None:
        self.phase = RUNNING
        self._start_at(now)
        if self.is_ending:
            self._close_files(now)
            return
        try:
            options = self.options
            self._ffmpeg = spawn_into(self._spawn_ffmpeg, options.command, options.container, output)
        except OSError as error:
            self.fault = Fault(NOT_EXECUTED, f"{self.options.command[0]} cannot be executed: {error.strerror}")
            self._close_files(now)
            return
        if self._is_segmented:
            self._lent.append(0)
        # The first one was, before there was this attempt (begin.py).
        self._start_at(self._ffmpeg.spawned_at)
        self._poll.register(self._ffmpeg.stderr, select.POLLIN)
        self._poll.register(self._ffmpeg.progress, select.POLLIN)
        self._poll.register(self._ffmpeg.pidfd, select.POLLIN)
        self._take_log(now)

    def _take_log(self, now: float) -> None:
        """Take in what is in FFmpeg's pipe, which holds 64 KiB, before anything else that is known by now."""
        for _ in range(4):
            data = self._ffmpeg.read() if self._ffmpeg else None
            if not data:
                break
            self._take_records(self._parser.feed(data), now)

    def _start_at(self, now: float) -> None:
        self.meter = self._new_meter(now)
        self._stage_since = now
        self._frame_check = FrameCheck(now)

    def _take_words(self, now: float) -> None:
        """Take in what FFmpeg has said, its log and its progress blocks in the order in which they came."""
        said = [(at - LOG_LATE_S, at, raw, self._parser, data) for at, raw, data in self._kept]
        self._kept = []
        for age_s, block in self._new_blocks():
            self._counted_at = max(self._counted_at, now - age_s)
            said.append((self._counted_at, self._counted_at, self._raw() - age_s, self._blocks, block))
        for _, at, raw, parser, data in sorted(said, key=lambda word: word[0]):
            self._take_records(parser.feed(data) if data else parser.close(), at, raw)

    def _new_blocks(self) -> list[tuple[float, bytes]]:
        if self._ffmpeg is None or self._are_blocks_over:
            return []
        blocks, is_open = self._ffmpeg.blocks()
        if blocks and self.meter.first_media_at is None:
            self.newest.thread.hurry()
        if not is_open:
            self._are_blocks_over = True
            self._poll.unregister(self._ffmpeg.progress)
        return blocks

    def _take_records(self, records: Sequence[LogLine | Progress], now: float, raw: float | None = None) -> None:
        for record in records:
            if isinstance(record, LogLine):
                if self._is_segmented and self._take_segment(record.text, now):
                    continue
                text = self._with_paths(record.text)
                if self.streams.take(now, text, self.meter):
                    self._lines.append((now, record.priority, text))
                    self._log(now, record.priority, text)
                    self._note_stage(now, text)
                continue
            # FFmpeg's last block says `end`. One that another block follows was not FFmpeg's.
            self._finished = record.ended
            self._counted_none = record.ended and record.frame == 0
            if record.frame is not None and self._frame_check.believes(now, record.frame):
                had_frames = self.meter.frames > 0
                self.frames_gained += self.meter.progress(
                    now,
                    record.frame,
                    record.dup_frames,
                    record.drop_frames,
                    record.speed,
                    self._raw() if raw is None else raw,
                )
                if self.meter.frames and not had_frames:
                    self._stage_since = now

    def _note_stage(self, now: float, text: str) -> None:
        """Note how far FFmpeg has come with its start: fftools/ffmpeg.c logs both lines before it reads its stdin."""
        if text.startswith("Input #"):
            self._stage_since = now
        self._reads_stdin = self._reads_stdin or text.startswith("Press [q] to stop")

    def _on_exit(self, now: float) -> None:
        assert self._ffmpeg is not None
        status = self._ffmpeg.reap()
        if status is None:
            return
        self._exit_status = status
        self._take_words(now)
        self.meter.pace.stop(self._raw())
        self.cpu_s = self._ffmpeg.cpu_s
        # FFmpeg's last log lines are still in the pipe; they explain the end.
        self._take_log(now)
        self._take_records(self._parser.close(), now)
        self.meter.pace.finish()
        for descriptor in (self._ffmpeg.stderr, self._ffmpeg.progress, self._ffmpeg.pidfd):
            try:
                self._poll.unregister(descriptor)
            except KeyError:
                # The end of its stderr has unregistered it before.
                continue
        self._ffmpeg.close()
        self._ffmpeg = self._ladder = None
        self._close_files(now)
