"""One FFmpeg, from the making of its file to its closing: opening, running, closing, ended.

It decides nothing about what comes after; decide.py does. It waits for nothing: the runner's poll calls
it with descriptors that are ready, its disk thread's events, and the time (CLOCK_MONOTONIC, seconds).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sdisup.contract.options import ENDS, Options
from sdisup.contract.records import Record
from sdisup.runner.causes import (
    DISK,
    NOT_EXECUTED,
    RETRY,
    Cause,
    End,
    Fault,
    classify,
    file_verdict,
    is_format_change,
    plain,
)
from sdisup.runner.decide import CLOSING, ENDED, OPENING, RUNNING, Ended, Sight
from sdisup.runner.disk import Closed, Event, FirstMedia, Opened, OpenFailed, Place, RecordingFile, Sample
from sdisup.runner.ffmpeg import FFmpegProcess, Ladder
from sdisup.runner.meter import Meter
from sdisup.runner.progress import LogLine, Progress, ProgressParser, muxer_version

CLOSE_PATIENCE_S = 3.0
LOG_LINES_KEPT = 80
LAST_WORDS_S = 15.0
"""What FFmpeg logged longer before its end, or before it was told to end, does not explain it. A lost SDI signal
takes it 10 s, and an end by the ladder as long again."""


class File(Record, frozen=False):
    """One file of an attempt: what its disk thread has told of it so far."""

    thread: RecordingFile
    path: str = ""
    sample: Sample | None = None
    is_closed: bool = False
    kept: bool = False
    size_bytes: int = 0

    @property
    def is_moved(self) -> bool:
        """Whether its path no longer leads to it."""
        return self.sample is not None and self.sample.moved

    @property
    def is_deleted(self) -> bool:
        """Whether it was removed while it was recorded, with all that was in it."""
        return self.sample is not None and self.sample.deleted


class Attempt:
    """One try to record, into `files`, of which the last one is the newest.

    `log` gets FFmpeg's log lines as (now, priority, text); `fault` is what the runner ended it for; `problem` is why
    there is no FFmpeg or no proper end, in the operator's words. `open_file` and `spawn` are the disk's threads and
    FFmpeg's process.
    """

    def __init__(
        self,
        options: Options,
        directory: str,
        now: float,
        poll: select.poll,
        wake: Callable[[], None],
        log: Callable[[float, int, str], None],
        open_file: Callable[[Place, float, Callable[[], None]], RecordingFile] = RecordingFile,
        spawn: Callable[[Sequence[str]], FFmpegProcess] = FFmpegProcess,
    ) -> None:
        self.options = options
        self.phase = OPENING
        self.began = now
        self.meter = Meter(now, options.rate)
        self.ffmpeg_version = ""
        self.cpu_s = 0.0
        self.is_told = False
        """Whether the ledger was told of its first frame."""
        self.fault: Fault | None = None
        self.problem = ""
        self.could_open = True
        self.frames_gained = 0
        self.is_ending = False
        self.is_abandoned = False
        """Whether a thread still waits for the disk, which keeps the process: to end it would not end it."""
        self._poll = poll
        self._log = log
        self._spawn_ffmpeg = spawn
        self._format_change = ""
        self._finished = False
        self._parser = ProgressParser()
        self._lines: deque[tuple[float, int, str]] = deque(maxlen=LOG_LINES_KEPT)
        self._ffmpeg: FFmpegProcess | None = None
        self._ladder: Ladder | None = None
        self._exit_status = 0
        self._close_by = 0.0
        self._ending_since: float | None = None
        place = Place(options.recordings, directory, options.name, options.container, options.filesystem)
        self.files = [File(open_file(place, options.sync_interval_s, wake))]

    # What is known of it.

    @property
    def newest(self) -> File:
        return self.files[-1]

    @property
    def path(self) -> str:
        """The newest file's; empty before it is made."""
        return self.newest.path

    @property
    def ffmpeg_pid(self) -> int | None:
        return self._ffmpeg.pid if self._ffmpeg else None

    @property
    def kept(self) -> bool:
        """Whether any of its files holds frames."""
        return any(file.kept for file in self.files)

    @property
    def sync_problem(self) -> str:
        """Why what is recorded may not survive a power cut; empty if it does."""
        return self._first_of(file.thread.sync_problem for file in self.files)

    @property
    def watch_problem(self) -> str:
        """Why what the files' samples say may be old; empty if it is not."""
        return self._first_of(file.thread.watch_problem for file in self.files)

    @staticmethod
    def _first_of(problems: Iterable[str]) -> str:
        return next(filter(None, problems), "")

    def sight(self, now: float) -> Sight:
        """What is seen of it now, for decide.py."""
        # Where FFmpeg ends without a signal, a signal of another rate is a new one.
        rate_change = self.meter.rate_change(now) if self.options.without_signal == ENDS else ""
        return self.meter.sight(now).replaced(
            path=self.path,
            began_s=now - self.began,
            format_change=self._format_change or rate_change,
            is_moved=self.newest.is_moved,
            is_deleted=self.newest.is_deleted,
        )

    def end(self, now: float) -> End:
        """How its FFmpeg ended, for classification."""
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
        """What is known of it once it has ended."""
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
            # FFmpeg's last line: `audio:0KiB`, before 7.0 `audio:0kB`.
            wrote_no_audio=any("audio:0KiB" in text or "audio:0kB" in text for _, _, text in self._lines),
        )

    def _verdict(self, end: End) -> str:
        verdict = file_verdict(end, self.meter.frames)
        problem = self.problem or self.sync_problem
        return f"incomplete: {problem}" if verdict == "complete" and problem else verdict

    # What is done with it.

    def wind_down(self, now: float, fault: Fault | None = None) -> None:
        """Begin to end FFmpeg by the ladder: on request, or for a fault."""
        self.fault = self.fault or fault
        self.is_ending = True
        self._ending_since = now if self._ending_since is None else self._ending_since
        self._close_by = now + CLOSE_PATIENCE_S
        if self._ladder is None and self._ffmpeg is not None:
            options = self.options
            has_started = self.meter.first_media_at is not None
            quit_s = options.stop_quit_s if has_started else options.stop_start_quit_s
            self._ladder = Ladder(now, quit_s, options.stop_term_s)

    def next_at(self, now: float) -> float | None:
        """When it wants to be called again, if nothing else happens."""
        if self.phase == CLOSING or (self.phase == OPENING and self.is_ending):
            return self._close_by
        return (self._ladder.next_at() or now + 1.0) if self._ladder else None

    def tick(self, now: float) -> str:
        """What is due: disk events, the ladder's next step, the end of patience. Returns the step taken."""
        self._take_disk_events(now)
        if self.phase == CLOSING and now >= self._close_by:
            self.problem = "the disk has not closed the file in time; going on without waiting for it"
            self.phase, self.is_abandoned = ENDED, True
        elif self.phase == OPENING and self.is_ending and now >= self._close_by:
            self.problem = "the disk has not made the file in time"
            self.phase = ENDED
        step = self._ladder.due(now) if self._ladder and self._ffmpeg else ""
        if step and self._ffmpeg:
            self._ffmpeg.step(step)
        return step

    def on_ready(self, descriptor: int, now: float) -> None:
        """A descriptor that was polled is ready; one that is not FFmpeg's is left alone."""
        if self._ffmpeg is None:
            return
        if descriptor == self._ffmpeg.stderr:
            self._read_stderr(now)
        elif descriptor == self._ffmpeg.pidfd:
            self._on_exit(now)

    # The disk.

    def _take_disk_events(self, now: float) -> None:
        for file in self.files:
            while file.thread.events:
                self._take_disk_event(file, file.thread.events.popleft(), now)

    def _take_disk_event(self, file: File, event: Event, now: float) -> None:
        if isinstance(event, Opened):
            file.path = event.path
            self._spawn(now)
        elif isinstance(event, OpenFailed):
            self.problem, self.could_open = event.reason, False
            self.phase = ENDED
        elif isinstance(event, FirstMedia) and not self._has_counted_none():
            self.meter.media(now)
        elif isinstance(event, Sample):
            file.sample = event
            file.size_bytes = event.size_bytes
            self.meter.size(now, sum(file.size_bytes for file in self.files))
        elif isinstance(event, Closed) and self.phase == CLOSING:
            file.is_closed, file.kept, file.size_bytes = True, event.kept, event.size_bytes
            self.problem = self.problem or event.problem
            if all(file.is_closed for file in self.files):
                self.phase = ENDED

    def _close_files(self, now: float) -> None:
        self.phase = CLOSING
        self._close_by = now + CLOSE_PATIENCE_S
        for file in self.files:
            file.thread.finish(is_empty=self._has_counted_none())

    def _has_counted_none(self) -> bool:
        return self._finished and self.meter.frames == 0

    # FFmpeg.

    def _spawn(self, now: float) -> None:
        self.phase = RUNNING
        self.meter = Meter(now, self.options.rate)
        if self.is_ending:
            self._close_files(now)
            return
        command = [self.path if word == "{output}" else word for word in self.options.command]
        try:
            self._ffmpeg = self._spawn_ffmpeg(command)
        except OSError as error:
            self.fault = Fault(NOT_EXECUTED, f"{command[0]} cannot be executed: {error.strerror}")
            self._close_files(now)
            return
        self._poll.register(self._ffmpeg.stderr, select.POLLIN)
        self._poll.register(self._ffmpeg.pidfd, select.POLLIN)

    def _read_stderr(self, now: float) -> None:
        """Read once a turn of the loop: a flood must not keep the watchdog or a stop waiting."""
        assert self._ffmpeg is not None
        data = self._ffmpeg.read()
        if data is None:
            return
        if data:
            self._take_records(self._parser.feed(data), now)
        else:
            self._poll.unregister(self._ffmpeg.stderr)
            self._take_records(self._parser.close(), now)

    def _take_records(self, records: Sequence[LogLine | Progress], now: float) -> None:
        for record in records:
            if isinstance(record, LogLine):
                self._lines.append((now, record.priority, record.text))
                self.ffmpeg_version = self.ffmpeg_version or muxer_version(record.text)
                if is_format_change(record.text) and not self._format_change:
                    self._format_change = plain(record.text)
                self._log(now, record.priority, record.text)
                continue
            self._finished = self._finished or record.ended
            self.frames_gained += self.meter.progress(
                now, record.frame, record.dup_frames, record.drop_frames, record.speed
            )

    def _on_exit(self, now: float) -> None:
        assert self._ffmpeg is not None
        status = self._ffmpeg.reap()
        if status is None:
            return
        self._exit_status = status
        self.cpu_s = self._ffmpeg.cpu_s
        # What it said last is still in the pipe, and explains its end; the pipe holds 64 KiB.
        for _ in range(4):
            data = self._ffmpeg.read()
            if not data:
                break
            self._take_records(self._parser.feed(data), now)
        self._take_records(self._parser.close(), now)
        for descriptor in (self._ffmpeg.stderr, self._ffmpeg.pidfd):
            try:
                self._poll.unregister(descriptor)
            except KeyError:
                # Its stderr had ended before.
                continue
        self._ffmpeg.close()
        self._ffmpeg = self._ladder = None
        self._close_files(now)
