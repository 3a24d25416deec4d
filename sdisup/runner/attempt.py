"""One FFmpeg, from the making of its file to its closing: opening, running, closing, ended.

It decides nothing about what comes after; the runner does. It waits for nothing: the runner's poll calls
it with descriptors that are ready, its disk thread's events, and the time (CLOCK_MONOTONIC, seconds).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Sequence

from sdisup.contract.options import Options
from sdisup.runner.causes import End, is_format_change
from sdisup.runner.disk import Closed, FirstMedia, Opened, OpenFailed, Place, RecordingFile, Sample
from sdisup.runner.ffmpeg import FFmpegProcess, Ladder
from sdisup.runner.meter import Meter
from sdisup.runner.progress import LogLine, Progress, ProgressParser, muxer_version

CLOSE_PATIENCE_S = 3.0
LOG_LINES_KEPT = 80
LAST_WORDS_S = 15.0
"""What FFmpeg logged longer before its end, or before it was told to end, does not explain it; a lost SDI signal takes
it 10 s, and an end by the ladder as long again."""


class Attempt:
    """One try to record. `phase` is `opening`, `running`, `closing` or `ended`.

    `log` gets FFmpeg's log lines as (now, priority, text). `judged` says what the runner ended it for.
    `problem` is why there is no FFmpeg or no proper end, in the operator's words.
    """

    def __init__(
        self,
        options: Options,
        directory: str,
        now: float,
        poll: select.poll,
        wake: Callable[[], None],
        log: Callable[[float, int, str], None],
    ) -> None:
        self.options = options
        self.phase = "opening"
        self.path = ""
        self.began = now
        self.meter = Meter(now, options.rate)
        self.format_change = ""
        self.ffmpeg_version = ""
        self.cpu_s = 0.0
        self.is_entered = False
        """Whether the ledger knows of its first frame."""
        self.sample: Sample | None = None
        self.judged = ""
        self.problem = ""
        self.could_open = True
        self.kept = False
        self.size_bytes = 0
        self.finished = False
        self.frames_gained = 0
        self._poll = poll
        self._log = log
        self._parser = ProgressParser()
        self._lines: deque[tuple[float, int, str]] = deque(maxlen=LOG_LINES_KEPT)
        self._ffmpeg: FFmpegProcess | None = None
        self._ladder: Ladder | None = None
        self._exit_status = 0
        self._close_by = 0.0
        self.is_unwanted = False
        self.is_abandoned = False
        """Whether a thread still waits for the disk, which keeps the process: to end it would not end it."""
        self._ending_since: float | None = None
        place = Place(options.recordings, directory, options.name, options.container, options.filesystem)
        self._file = RecordingFile(place, options.sync_interval_s, wake)

    @property
    def sync_problem(self) -> str:
        """Why the recording may not survive a power cut; empty if it does."""
        return self._file.sync_problem

    @property
    def is_deleted(self) -> bool:
        """Whether its file was removed while it was recorded, with all that was in it."""
        return self.sample is not None and self.sample.deleted

    @property
    def wrote_no_audio(self) -> bool:
        """Whether FFmpeg said at its end that it wrote none: `audio:0KiB`, before 7.0 `audio:0kB`."""
        return any("audio:0KiB" in text or "audio:0kB" in text for _, _, text in self._lines)

    @property
    def watch_problem(self) -> str:
        """Why what `sample` says may be old; empty if it is not."""
        return self._file.watch_problem

    @property
    def ffmpeg_pid(self) -> int | None:
        return self._ffmpeg.pid if self._ffmpeg else None

    def end(self, now: float) -> End:
        """How its FFmpeg ended, for classification."""
        ending_since = now if self._ending_since is None else self._ending_since
        return End(
            status=self._exit_status,
            frames=self.meter.frames,
            lines=[(priority, text) for at, priority, text in self._lines if ending_since - at <= LAST_WORDS_S],
            source=self.options.source,
            judged=self.judged,
            finished=self.finished,
        )

    def wind_down(self, now: float) -> None:
        """Begin to end FFmpeg by the ladder: on request, or because the runner judged it."""
        self.is_unwanted = True
        self._ending_since = now if self._ending_since is None else self._ending_since
        self._close_by = now + CLOSE_PATIENCE_S
        if self._ladder is None and self._ffmpeg is not None:
            options = self.options
            has_started = self.meter.first_media_at is not None
            quit_s = options.stop_quit_s if has_started else options.stop_start_quit_s
            self._ladder = Ladder(now, quit_s, options.stop_term_s)

    def next_at(self, now: float) -> float | None:
        """When it wants to be called again, if nothing else happens."""
        if self.phase == "closing" or (self.phase == "opening" and self.is_unwanted):
            return self._close_by
        return (self._ladder.next_at() or now + 1.0) if self._ladder else None

    def tick(self, now: float) -> str:
        """What is due: disk events, the ladder's next step, the end of patience. Returns the step taken."""
        self._take_disk_events(now)
        if self.phase == "closing" and now >= self._close_by:
            self.problem = "the disk has not closed the file in time; going on without waiting for it"
            self.phase, self.is_abandoned = "ended", True
        elif self.phase == "opening" and self.is_unwanted and now >= self._close_by:
            self.problem = "the disk has not made the file in time"
            self.phase = "ended"
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

    def _take_disk_events(self, now: float) -> None:
        while self._file.events:
            event = self._file.events.popleft()
            if isinstance(event, Opened):
                self.path = event.path
                self._spawn(now)
            elif isinstance(event, OpenFailed):
                self.problem, self.could_open = event.reason, False
                self.phase = "ended"
            elif isinstance(event, FirstMedia) and not self._has_counted_none():
                self.meter.media(now)
            elif isinstance(event, Sample):
                self.sample = event
                self.meter.size(now, event.size_bytes)
            elif isinstance(event, Closed) and self.phase == "closing":
                self.kept, self.size_bytes = event.kept, event.size_bytes
                self.problem = self.problem or event.problem
                self.phase = "ended"

    def _spawn(self, now: float) -> None:
        self.phase = "running"
        self.meter = Meter(now, self.options.rate)
        if self.is_unwanted:
            self._close_file(now)
            return
        command = [self.path if word == "{output}" else word for word in self.options.command]
        try:
            self._ffmpeg = FFmpegProcess(command)
        except OSError as error:
            self.judged = f"{command[0]} cannot be executed: {error.strerror}"
            self._close_file(now)
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
                if is_format_change(record.text) and not self.format_change:
                    self.format_change = record.text
                self._log(now, record.priority, record.text)
                continue
            self.finished = self.finished or record.ended
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
        self._close_file(now)

    def _close_file(self, now: float) -> None:
        self.phase = "closing"
        self._close_by = now + CLOSE_PATIENCE_S
        self._file.finish(is_empty=self._has_counted_none())

    def _has_counted_none(self) -> bool:
        return self.finished and self.meter.frames == 0
