"""The process inside a unit: runs one port's FFmpeg, says truthfully how it goes, and ends it well.

It supervises nothing: when FFmpeg ends unasked it ends too, and systemd starts it again. What it adds
is what systemd cannot see: whether frames arrive, whether they reach the disk, why FFmpeg ended.

It waits for nothing but its poll (invariant 2). FFmpeg's pipe is drained whatever the disk, the
journal or systemd do; whatever touches the recordings' disk happens in disk.py's threads. Everything
it will ever need is imported before READY, so that an upgrade underneath cannot mix versions.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections import deque
from collections.abc import Sequence

from sdisup import __version__
from sdisup.causes import FAIL, RETRY, WAIT, Cause, End, classify
from sdisup.disk import Closed, FirstMedia, Opened, OpenFailed, RecordingFile, Sample
from sdisup.ffmpeg import FFmpegProcess, Ladder
from sdisup.journal import ERROR, INFO, NOTICE, WARNING, Journal
from sdisup.meter import Meter
from sdisup.notify import Notifier
from sdisup.options import OptionError, Options, parse_options
from sdisup.progress import LogLine, Progress, ProgressParser
from sdisup.status import (
    RUN_DIRECTORY,
    PortStatus,
    boot_id,
    monotonic,
    read_json,
    read_status,
    replace_file,
    take_lock,
    utc_text,
    write_status,
)

EXIT_RETRY, EXIT_CANNOT_WORK = 1, 78
READY_AT_LATEST_S = 5.0
PUBLISH_INTERVAL_S = 0.5
CLOSE_PATIENCE_S = 3.0
GOOD_RECORDING_S = 60.0
BACKOFF_S = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""The wait before a start, by how many ends in a row came before it; the last one is the cap."""
NO_SIGNAL_RETRY_S, NO_SIGNAL_LATER_S, NO_SIGNAL_EAGER_S = 1.0, 3.0, 60.0
LOG_LINES_KEPT = 80
LAST_WORDS_S = 15.0
"""What FFmpeg logged longer before its end does not explain it; a lost SDI signal takes it 10 s."""


def backoff_s(failures: int) -> float:
    """How long to wait before a start that follows `failures` ends without a good minute between them."""
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


class Memory:
    """What outlives the runner through restarts and falls at a stop: the unit's own run directory.

    systemd keeps RuntimeDirectory= through restarts (RuntimeDirectoryPreserve=restart) and removes it at
    a stop, so its presence alone says that this start is a restart.
    """

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/runner.json"
        self.is_restart = False
        self.failures = 0
        self.restarts = 0
        self.take_started_at = ""
        self.reason = ""
        try:
            document = read_json(self._path)
        except (OSError, ValueError):
            return
        if isinstance(document, dict):
            self.is_restart = True
            self.failures = _whole(document.get("failures")) + 1
            self.restarts = _whole(document.get("restarts")) + 1
            self.take_started_at = str(document.get("take_started_at", ""))
            self.reason = str(document.get("reason", ""))

    def save(self) -> None:
        """Write it; without a run directory the next start just begins afresh."""
        content = {name: value for name, value in self.__dict__.items() if name != "_path"}
        try:
            replace_file(self._path, json.dumps(content).encode())
        except OSError:
            return

    def forget(self) -> None:
        """A clean end: the next start is a first one, also where systemd keeps the directory."""
        try:
            os.unlink(self._path)
        except OSError:
            return


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


class Runner:
    """One port's life between its start and its stop, as an event loop over one poll."""

    def __init__(self, options: Options, run_directory: str = RUN_DIRECTORY) -> None:
        self._options = options
        self._run_directory = run_directory
        self._journal = Journal()
        self._notifier = Notifier()
        self._memory = Memory(os.environ.get("RUNTIME_DIRECTORY") or f"{run_directory}/port-{options.port}")
        self._exit_code: int | None = None
        self._phase = "waiting"
        self._wait_until = 0.0
        self._no_signal_since: float | None = None
        self._stopping = False
        self._ready_sent = self._ready_due = False
        self._spawned_at: float | None = None
        self._watchdog_at = self._published_at = self._close_by = 0.0
        self._status_text = ""
        self._write_problem = ""
        self._file: RecordingFile | None = None
        self._ffmpeg: FFmpegProcess | None = None
        self._ladder: Ladder | None = None
        self._judged = ""
        self._reason = ""
        self._begin_attempt_records(0.0)
        self._status = self._first_status()
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.POLLIN)

    def run(self) -> int:
        """Run until stopped or until FFmpeg ended unasked; returns the exit code."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        self._begin(monotonic())
        while self._exit_code is None:
            self._wait_for_events()
            now = monotonic()
            self._take_disk_events(now)
            self._tick(now)
            self._publish(now)
        return self._exit_code

    # What happens once, at the beginning.

    def _first_status(self) -> PortStatus:
        options = self._options
        before = None
        if self._memory.is_restart:
            try:
                before = read_status(options.port, self._run_directory)
            except ValueError:
                before = None
        started_at = self._memory.take_started_at or utc_text(time.time())
        self._memory.take_started_at = started_at
        return PortStatus(
            port_index=options.port,
            name=options.name,
            unit=f"sdi-record@{options.port}.service",
            state="starting",
            codec=options.codec,
            boot_id=boot_id(),
            take_started_at=started_at,
            take_frames=before.take_frames if before else 0,
            restarts=self._memory.restarts,
            pid=os.getpid(),
            invocation_id=os.environ.get("INVOCATION_ID", ""),
            runner_version=__version__,
            revision=options.revision,
            recordings=options.recordings,
        )

    def _begin(self, now: float) -> None:
        self._memory.save()
        delay_s = backoff_s(self._memory.failures)
        self._wait_until = now + delay_s
        if delay_s:
            self._reason = self._memory.reason
            self._ready_due = True
            self._say(NOTICE, f"waits {delay_s:.0f} s before the next try ({self._reason or 'ended unasked'})")

    # The one poll.

    def _wait_for_events(self) -> None:
        for descriptor, _event in self._poll.poll(self._timeout_ms(monotonic())):
            if descriptor == self._wake_read:
                _drain(self._wake_read)
            elif self._ffmpeg and descriptor == self._ffmpeg.stderr:
                self._read_stderr()
            elif self._ffmpeg and descriptor == self._ffmpeg.pidfd:
                self._on_ffmpeg_exit(monotonic())

    def _timeout_ms(self, now: float) -> int:
        moments = [self._published_at + PUBLISH_INTERVAL_S]
        if self._phase == "waiting":
            moments.append(self._wait_until)
        if self._ladder:
            moments.append(self._ladder.next_at() or now + 1.0)
        if self._spawned_at is not None and not self._ready_sent:
            moments.append(self._spawned_at + READY_AT_LATEST_S)
        return max(0, int((min(moments) - now) * 1000) + 1)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            # The pipe is full of wake-ups already.
            return

    def _on_stop_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _tick(self, now: float) -> None:
        if self._phase == "waiting":
            if self._stopping:
                self._end_stopped()
            elif now >= self._wait_until:
                self._open_file()
        elif self._phase == "running":
            self._judge(now)
            self._climb(now)
        elif self._phase == "closing" and now >= self._close_by:
            self._say(WARNING, "the disk has not closed the file in time; going on without waiting for it")
            self._conclude(now)

    # One attempt: make the file, spawn FFmpeg, watch it, end it, close the file.

    def _begin_attempt_records(self, now: float) -> None:
        self._parser = ProgressParser()
        self._lines: deque[tuple[float, int, str]] = deque(maxlen=LOG_LINES_KEPT)
        self._held_back: list[tuple[int, str]] = []
        self._meter = Meter(now)
        self._finished = False
        self._path = ""
        self._exit_status = 0

    def _open_file(self) -> None:
        options = self._options
        self._phase = "opening"
        self._begin_attempt_records(monotonic())
        self._file = RecordingFile(
            options.recordings, options.name, options.container, options.sync_interval_s, self._wake
        )

    def _take_disk_events(self, now: float) -> None:
        file = self._file
        while file is not None and file.events:
            event = file.events.popleft()
            if isinstance(event, Opened):
                self._path = event.path
                self._spawn(now)
            elif isinstance(event, OpenFailed):
                self._file = None
                self._end_with(Cause("disk", RETRY, event.reason), now)
            elif isinstance(event, FirstMedia):
                self._on_first_media(now)
            elif isinstance(event, Sample):
                self._on_sample(event, now)
            elif isinstance(event, Closed) and self._phase == "closing":
                self._on_closed(event, now)

    def _spawn(self, now: float) -> None:
        if self._stopping:
            self._close_file(now)
            return
        command = [self._path if argument == "{output}" else argument for argument in self._options.command]
        try:
            self._ffmpeg = FFmpegProcess(command)
        except OSError as error:
            self._judged = f"{command[0]} cannot be executed: {error.strerror}"
            self._close_file(now)
            return
        self._poll.register(self._ffmpeg.stderr, select.POLLIN)
        self._poll.register(self._ffmpeg.pidfd, select.POLLIN)
        self._phase = "running"
        self._meter = Meter(now)
        if self._spawned_at is None:
            self._spawned_at = now
        if self._no_signal_since is None:
            self._say(INFO, f"FFmpeg {self._ffmpeg.pid} started; records to {self._path}")

    def _read_stderr(self) -> None:
        """Read once a turn of the loop: a flood must not keep the watchdog or a stop waiting."""
        assert self._ffmpeg is not None
        data = self._ffmpeg.read()
        if data is None:
            return
        if data:
            self._take_records(self._parser.feed(data))
        else:
            self._poll.unregister(self._ffmpeg.stderr)
            self._take_records(self._parser.close())

    def _take_records(self, records: Sequence[LogLine | Progress]) -> None:
        now = monotonic()
        for record in records:
            if isinstance(record, Progress):
                self._finished = self._finished or record.ended
                new = self._meter.progress(now, record.frame, record.dup_frames, record.drop_frames, record.speed)
                self._status.take_frames += new
                continue
            self._lines.append((now, record.priority, record.text))
            if self._is_quiet():
                self._held_back.append((record.priority, record.text))
                del self._held_back[:-LOG_LINES_KEPT]
            else:
                self._journal.forward(now, record.priority, record.text)

    def _is_quiet(self) -> bool:
        """While there is no signal, or a crash repeats, FFmpeg's log is the same again and again."""
        return self._meter.first_media_at is None and (self._no_signal_since is not None or self._memory.failures > 1)

    def _say_held_back(self, now: float) -> None:
        for priority, text in self._held_back:
            self._journal.forward(now, priority, text)
        self._held_back.clear()

    def _on_first_media(self, now: float) -> None:
        self._say_held_back(now)
        self._meter.media(now)
        self._ready_due = True
        if self._no_signal_since is not None:
            self._say(NOTICE, f"the signal is back; records to {self._path}")
        self._no_signal_since = None
        self._reason = ""

    def _on_sample(self, sample: Sample, now: float) -> None:
        self._meter.size(now, sample.size_bytes)
        self._status.update(disk_free_bytes=sample.disk_free_bytes, filesystem=sample.filesystem)
        first_media_at = self._meter.first_media_at
        if self._memory.failures >= 0 and first_media_at and now - first_media_at > GOOD_RECORDING_S:
            # From here on an end is again the first one: retried at once.
            self._memory.failures = -1
            self._memory.reason = ""
            self._memory.save()

    def _judge(self, now: float) -> None:
        """Whether this FFmpeg is to be ended: on request, or because no frame comes any more."""
        if self._ladder:
            return
        frameless_s = self._meter.frameless_s(now)
        if self._stopping:
            self._say(INFO, "stopping")
        elif self._meter.first_media_at is None and frameless_s > self._options.start_timeout_s:
            self._judged = f"no frame within {self._options.start_timeout_s:.0f} s of FFmpeg's start"
        elif self._meter.first_media_at is not None and frameless_s > self._options.stall_timeout_s:
            self._judged = f"stalled: no new frame for {frameless_s:.0f} s"
        else:
            return
        if self._judged:
            self._say(WARNING, f"{self._judged}; ending FFmpeg")
        started = self._meter.first_media_at is not None
        quit_s = self._options.stop_quit_s if started else self._options.stop_start_quit_s
        self._ladder = Ladder(now, quit_s, self._options.stop_term_s)

    def _climb(self, now: float) -> None:
        if self._ladder and self._ffmpeg:
            step = self._ladder.due(now)
            if step:
                self._ffmpeg.step(step)
            if step in ("term", "kill"):
                self._say(WARNING, f"FFmpeg does not answer; sending SIG{step.upper()}")

    def _on_ffmpeg_exit(self, now: float) -> None:
        assert self._ffmpeg is not None
        status = self._ffmpeg.reap()
        if status is None:
            return
        self._exit_status = status
        self._read_rest()
        for descriptor in (self._ffmpeg.stderr, self._ffmpeg.pidfd):
            try:
                self._poll.unregister(descriptor)
            except KeyError:
                # Its stderr had already ended.
                continue
        self._ffmpeg.close()
        self._ffmpeg = None
        self._ladder = None
        self._close_file(now)

    def _read_rest(self) -> None:
        """What FFmpeg said last is still in the pipe, and explains its end; the pipe holds 64 KiB."""
        assert self._ffmpeg is not None
        for _ in range(4):
            data = self._ffmpeg.read()
            if not data:
                break
            self._take_records(self._parser.feed(data))
        self._take_records(self._parser.close())

    def _close_file(self, now: float) -> None:
        assert self._file is not None
        self._phase = "closing"
        self._close_by = now + CLOSE_PATIENCE_S
        self._file.finish()

    def _on_closed(self, event: Closed, now: float) -> None:
        if event.problem:
            self._say(WARNING, event.problem)
        if event.kept and (self._stopping or self._meter.frames):
            self._say(INFO, f"closed {self._path}: {self._meter.frames} frames, {event.size_bytes} bytes")
        self._conclude(now)

    # What an end leads to (DESIGN.md, "What restarts what").

    def _conclude(self, now: float) -> None:
        self._file = None
        if self._stopping:
            self._end_stopped()
            return
        end = End(
            status=self._exit_status,
            frames=self._meter.frames,
            lines=[(priority, text) for at, priority, text in self._lines if now - at <= LAST_WORDS_S],
            source=self._options.source,
            judged=self._judged,
            finished=self._finished,
        )
        self._end_with(classify(end), now)

    def _end_with(self, cause: Cause, now: float) -> None:
        if self._stopping:
            self._end_stopped()
        elif cause.outcome == WAIT:
            self._wait_for_signal(cause, now)
        else:
            self._end_unasked(cause, now)

    def _wait_for_signal(self, cause: Cause, now: float) -> None:
        reason = f"{cause.name} on {self._options.input}; waiting"
        if self._no_signal_since is None:
            self._no_signal_since = now
            self._say(WARNING, reason)
        self._held_back.clear()
        self._reason = reason
        self._ready_due = True
        self._phase = "waiting"
        eager = now - self._no_signal_since < NO_SIGNAL_EAGER_S
        self._wait_until = now + (NO_SIGNAL_RETRY_S if eager else NO_SIGNAL_LATER_S)

    def _end_unasked(self, cause: Cause, now: float) -> None:
        cannot_work = cause.outcome == FAIL
        if not cannot_work or self._memory.failures <= 1:
            self._held_back = [line for line in self._held_back if line[0] <= ERROR][-4:]
        self._say_held_back(now)
        self._journal.report_unsaid()
        self._reason = self._memory.reason = cause.reason
        self._memory.save()
        self._say(ERROR if cannot_work else WARNING, cause.reason)
        self._finish("failed" if cannot_work else "backoff", EXIT_CANNOT_WORK if cannot_work else EXIT_RETRY)

    def _end_stopped(self) -> None:
        self._memory.forget()
        self._reason = ""
        self._finish("stopped", 0)

    def _finish(self, state: str, exit_code: int) -> None:
        self._phase = "ended"
        self._begin_attempt_records(monotonic())
        self._exit_code = exit_code
        self._set_state(state, self._reason, monotonic())
        self._status.update(pid=None)
        self._write(monotonic())
        self._notifier.send(f"STATUS={self._status_text}")

    # What the world is told.

    def _publish(self, now: float) -> None:
        if self._exit_code is not None:
            return
        state, reason = self._state(now)
        changed = self._set_state(state, reason, now)
        if changed or now >= self._published_at + PUBLISH_INTERVAL_S:
            self._write(now)
            self._published_at = now
        self._tell_systemd(now, changed)

    def _state(self, now: float) -> tuple[str, str]:
        if self._stopping:
            return "stopping", ""
        if self._no_signal_since is not None:
            return "no-signal", self._reason
        if self._phase == "waiting":
            return "backoff", self._reason
        if self._phase == "closing":
            return self._status.state, self._status.reason
        return self._meter.state(now)

    def _set_state(self, state: str, reason: str, now: float) -> bool:
        changed = state != self._status.state
        if changed or not self._status.state_since_monotonic:
            self._status.update(state_since=utc_text(time.time()), state_since_monotonic=now)
        self._status.update(state=state, reason=reason, is_recording=state == "recording")
        name = os.path.basename(self._path)
        self._status_text = ": ".join(part for part in (state, reason or name) if part)
        return changed

    def _write(self, now: float) -> None:
        meter, wall = self._meter, time.time()
        running = self._ffmpeg is not None
        self._status.update(
            ffmpeg_pid=self._ffmpeg.pid if self._ffmpeg else None,
            current_file=self._path if running else None,
            frame_count=meter.frames,
            fps=round(meter.fps(now), 2),
            speed=meter.speed,
            bitrate_mbps=round(meter.bitrate_mbps(now), 3),
            bytes_written=meter.size_bytes,
            dropped_frames=meter.drop_frames,
            duplicated_frames=meter.dup_frames,
            uptime_seconds=round(now - meter.started, 3) if running else 0.0,
            started_at=utc_text(wall - (now - meter.started)) if running else None,
            last_frame_at=utc_text(wall - (now - meter.last_frame_at)) if meter.last_frame_at else None,
            updated_at=utc_text(wall),
            updated_monotonic=round(now, 3),
        )
        try:
            write_status(self._status, self._run_directory)
        except OSError as error:
            problem = f"the status cannot be written to {self._run_directory}: {error.strerror}; recording goes on"
            if problem != self._write_problem:
                self._say(ERROR, problem)
            self._write_problem = problem
        else:
            self._write_problem = ""

    def _tell_systemd(self, now: float, changed: bool) -> None:
        if self._spawned_at is not None and now >= self._spawned_at + READY_AT_LATEST_S:
            self._ready_due = True
        if self._ready_due and not self._ready_sent:
            self._ready_sent = self._notifier.send("READY=1", f"STATUS={self._status_text}")
        elif changed:
            self._notifier.send(f"STATUS={self._status_text}")
        interval_s = self._notifier.watchdog_interval_s
        if interval_s and now >= self._watchdog_at and self._notifier.send("WATCHDOG=1"):
            self._watchdog_at = now + interval_s

    def _say(self, priority: int, text: str) -> None:
        self._journal.say(priority, f"port {self._options.port} ({self._options.name}): {text}")


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            continue
    except BlockingIOError:
        return


def main(arguments: Sequence[str]) -> int:
    """`run OPTIONS -- FFMPEG ARGUMENTS… {output}`; the exit code is the unit's."""
    journal = Journal()
    try:
        options = parse_options(arguments)
    except OptionError as error:
        journal.say(ERROR, f"{error}; this command line is written by: sdisup apply")
        return EXIT_CANNOT_WORK
    try:
        # Held, not closed, until this process ends.
        take_lock(options.port)
    except BlockingIOError:
        journal.say(ERROR, f"port {options.port}: another runner records it already")
        return EXIT_RETRY
    except OSError as error:
        journal.say(ERROR, f"port {options.port}: no lock in {RUN_DIRECTORY}: {error.strerror}; "
                           "make it: systemd-tmpfiles --create sdisup.conf")  # fmt: skip
    code = Runner(options).run()
    # Not sys.exit: a thread that waits for a hanging disk must not keep the interpreter.
    os._exit(code)
