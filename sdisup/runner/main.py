"""The process inside a unit: runs one port's FFmpeg, says truthfully how it goes, and ends it well.

It supervises nothing: when FFmpeg ends unasked it ends too, and systemd starts it again. What it adds
is what systemd cannot see: whether frames arrive, whether they reach the disk, why FFmpeg ended.

It waits for nothing but its poll (invariant 2). FFmpeg's pipe is drained whatever the disk, the
journal or systemd do; whatever touches the recordings' disk happens in disk.py's threads. Everything
it will ever need is imported before READY, so that an upgrade underneath cannot mix versions.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import time
from collections.abc import Sequence

from sdisup.contract.files import RUN_DIRECTORY, monotonic, utc_text
from sdisup.contract.media import ffprobe_beside
from sdisup.contract.options import OptionError, Options, parse_options
from sdisup.contract.requests import RequestError, claim_request
from sdisup.contract.status import find_status, take_lock
from sdisup.ledger.lines import LEDGER_DIRECTORY
from sdisup.ledger.moments import stopped_at
from sdisup.ledger.story import CLOCK_STEP_S, FileEnd, file_end_from
from sdisup.runner.attempt import Attempt
from sdisup.runner.causes import FAIL, RETRY, VIDEOMASTER, WAIT, Cause, End, classify, file_verdict
from sdisup.runner.chronicle import Chronicle
from sdisup.runner.decide import BACKOFF_S, backoff_s, expects_audio, loop_wait_s, no_signal_wait_s, without_audio
from sdisup.runner.journal import ERROR, INFO, NOTICE, WARNING, FFmpegLog, Journal
from sdisup.runner.memory import Memory
from sdisup.runner.meter import NO_GROWTH_S
from sdisup.runner.notify import Notifier
from sdisup.runner.report import Reporter

EXIT_RETRY, EXIT_CANNOT_WORK = 1, 78
READY_AT_LATEST_S = 5.0
GOOD_RECORDING_S = 60.0
LOCK_WAIT_S = 8.0
"""Below the unit's WatchdogSec=."""
DISK_ANSWER_S = 5.0
LEDGER_PATIENCE_S = 2.0
LOOPS_A_RUNNER, DISK_LOOPS_A_RUNNER, DISK_LOOPS = 6, 2, 10
WANTS_DIRECTORY = "/etc/systemd/system/sdi-record.target.wants"
NO_AUDIO_S = 5.0
NO_AUDIO = "no frame within 5 s of the start: the signal may carry no audio"


class Runner:
    """One port's life between its start and its stop, as an event loop over one poll."""

    def __init__(self, options: Options) -> None:
        run_directory = options.run_directory or RUN_DIRECTORY
        memory = Memory(os.environ.get("RUNTIME_DIRECTORY") or f"{run_directory}/port-{options.port}")
        problem = _begin_take(memory, options, run_directory)
        request = memory.request
        self._memory = memory
        self._options = options.replaced(
            name=request.name,
            codec=request.codec,
            container=request.container,
            command=request.argv,
        )
        self._directory = request.recording_path or options.recordings
        status_before = find_status(options.port, run_directory)
        self._reporter = Reporter(self._options, memory, run_directory)
        self._log = FFmpegLog(self._reporter.journal)
        self._say = self._reporter.say
        self._exit_code: int | None = None
        self._attempt: Attempt | None = None
        self._begun_at: float | None = None
        self._has_run = False
        self._no_signal_since: float | None = None
        self._is_stopping = False
        self._loops = 0
        self._reason = ""
        ledger_directory = options.ledger_directory or LEDGER_DIRECTORY
        ffprobe = ffprobe_beside(self._options.command[0])
        self._chronicle = Chronicle(options.port, ledger_directory, ffprobe, run_directory)
        self._clock = self._chronicle.now()
        self._stopped_at = stopped_at(status_before, self._clock)
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.POLLIN)
        self._wait_until = monotonic() + backoff_s(memory.failures)
        if problem:
            self._say(ERROR, f"{problem}; recording as it is configured")

    def run(self) -> int:
        """Run until stopped or until FFmpeg ended unasked; returns the exit code."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        self._announce_wait()
        self._chronicle.begin(
            file_end_from(self._memory.last_end),
            self._memory.cause,
            is_restart=self._memory.is_restart,
            records_at_boot=os.path.lexists(f"{WANTS_DIRECTORY}/{self._reporter.status.unit}"),
            take=self._memory.request.take,
            stopped_at=self._stopped_at,
        )
        while self._exit_code is None:
            self._wait_for_events()
            # Before anything is entered by a clock that was moved.
            self._watch_clock()
            now = monotonic()
            self._tick(now)
            if self._exit_code is None:
                self._reporter.publish(now, *self._state(now), self._attempt)
        if self._is_stopping and self._exit_code == EXIT_RETRY:
            # The stop came while FFmpeg's own end was being dealt with; it is a stop all the same.
            self._end_stopped(file_end_from(self._memory.last_end))
        return self._exit_code

    def _announce_wait(self) -> None:
        delay_s = backoff_s(self._memory.failures)
        if delay_s:
            self._reason = self._memory.reason
            self._reporter.is_ready = True
            self._say(NOTICE, f"waits {delay_s:.0f} s before the next try ({self._reason or 'ended unasked'})")

    # The one poll.

    def _wait_for_events(self) -> None:
        for descriptor, _event in self._poll.poll(self._timeout_ms(monotonic())):
            if descriptor == self._wake_read:
                _drain(self._wake_read)
            elif self._attempt:
                self._attempt.on_ready(descriptor, monotonic())

    def _timeout_ms(self, now: float) -> int:
        moments = [self._reporter.next_at()]
        if self._attempt is None:
            moments.append(self._wait_until)
        else:
            moments.append(self._attempt.next_at(now) or now + 1.0)
        if self._begun_at is not None and not self._reporter.is_ready:
            moments.append(self._begun_at + READY_AT_LATEST_S)
        return max(0, int((min(moments) - now) * 1000) + 1)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            # The pipe is full of wake-ups already.
            return

    def _on_stop_signal(self, _number: int, _frame: object) -> None:
        self._is_stopping = True

    def _tick(self, now: float) -> None:
        attempt = self._attempt
        if attempt is None:
            if self._is_stopping:
                self._end_stopped()
            elif now >= self._wait_until:
                self._log.is_quiet = self._no_signal_since is not None or self._memory.failures > 1
                self._attempt = self._new_attempt(now)
            return
        had_media, pid, path = attempt.meter.first_media_at is not None, attempt.ffmpeg_pid, attempt.path
        step = attempt.tick(now)
        if step in ("term", "kill"):
            self._say(WARNING, f"FFmpeg does not answer; sending SIG{step.upper()}")
        if attempt.path and not path:
            options = attempt.options
            self._chronicle.opened(attempt.path, self._memory.request.take, options.codec, options.rate)
        if attempt.ffmpeg_pid and not pid:
            self._on_spawned(attempt, now)
        if not had_media and attempt.meter.first_media_at is not None:
            self._on_first_media(attempt, now)
        if not attempt.is_entered and attempt.meter.first_media_at is not None:
            self._enter_start(attempt, now)
        self._reporter.status.take_frames += attempt.frames_gained
        attempt.frames_gained = 0
        if attempt.phase == "ended":
            self._conclude(attempt, now)
        else:
            self._judge(attempt, now)

    def _watch_clock(self) -> None:
        """A wall clock that was moved is entered, since the names and times of files follow it."""
        before, now = self._clock, self._chronicle.now()
        if abs((now.wall - before.wall) - (now.monotonic - before.monotonic)) > CLOCK_STEP_S:
            self._chronicle.clock_stepped(before)
            self._say(
                NOTICE, f"the clock was moved by {(now.wall - before.wall) - (now.monotonic - before.monotonic):+.1f} s"
            )
        self._clock = now

    def _new_attempt(self, now: float) -> Attempt:
        if self._begun_at is None:
            self._begun_at = now
        options = self._options
        if self._memory.without_audio:
            options = options.replaced(command=without_audio(options.command))
        return Attempt(options, self._directory, now, self._poll, self._wake, self._log.take)

    # While FFmpeg runs.

    def _on_spawned(self, attempt: Attempt, now: float) -> None:
        if not self._has_run:
            self._has_run = True
            self._say(INFO, f"runs {shlex.join(attempt.options.command)}")
        if not self._log.is_quiet:
            self._say(INFO, f"FFmpeg {attempt.ffmpeg_pid} started; records to {attempt.path}")

    def _on_first_media(self, attempt: Attempt, now: float) -> None:
        if self._no_signal_since is None:
            # A crash loop that gets this far each time would say all of it each time.
            self._log.discard()
        self._log.release(now)
        self._log.is_quiet = False
        if self._memory.cause:
            self._memory.cause, self._memory.last_end = "", None
            self._memory.save()
        self._reporter.is_ready = True
        if self._no_signal_since is not None:
            self._say(NOTICE, f"the signal is back; records to {attempt.path}")
        self._no_signal_since = None
        self._reason = ""

    def _enter_start(self, attempt: Attempt, now: float) -> None:
        """The ledger gets the first frame's own moment, which a progress block tells: what is on disk by now
        came a fragment earlier."""
        meter = attempt.meter
        at = self._chronicle.now()
        if meter.rate:
            if meter.last_frame_at is None:
                return
            at = at.plus(meter.last_frame_at - now - meter.frames / meter.rate)
        attempt.is_entered = True
        self._chronicle.media(at, attempt.ffmpeg_version)

    def _judge(self, attempt: Attempt, now: float) -> None:
        """Whether this FFmpeg is to be ended: on request, or because it does not record as it should."""
        if self._begun_at is not None and now >= self._begun_at + READY_AT_LATEST_S:
            self._reporter.is_ready = True
        if attempt.phase == "closing" or attempt.is_unwanted:
            return
        if self._is_stopping:
            self._say(INFO, "stopping")
            attempt.wind_down(now)
            return
        attempt.judged = self._fault(attempt, now)
        if attempt.judged:
            self._say(WARNING, f"{attempt.judged}; ending FFmpeg")
            attempt.wind_down(now)

    def _fault(self, attempt: Attempt, now: float) -> str:
        """What a running FFmpeg is to be ended for, if anything."""
        meter, options = attempt.meter, attempt.options
        frameless_s = meter.frameless_s(now)
        if attempt.phase == "opening":
            return ""
        if meter.first_media_at is None:
            if expects_audio(options) and meter.blocks == 0 and frameless_s > NO_AUDIO_S:
                return NO_AUDIO
            if attempt.sample and attempt.sample.moved:
                return f"file deleted: {attempt.path} was removed, or moved away, before its first frame"
            if now - meter.started > options.start_timeout_s:
                # Frames that arrive and are not in the file count for nothing.
                where = " on disk" if meter.frames else ""
                return f"no frame{where} within {options.start_timeout_s:.0f} s of FFmpeg's start"
            return ""
        if frameless_s > options.stall_timeout_s:
            return f"stalled: no new frame for {frameless_s:.0f} s"
        if meter.growthless_s() > max(NO_GROWTH_S, options.stall_timeout_s):
            return f"stalled: the file has not grown for {meter.growthless_s():.0f} s"
        format_change = attempt.format_change or (options.source == VIDEOMASTER and meter.rate_change(now))
        if format_change:
            return f"format changed: {format_change}"
        if attempt.is_deleted:
            return f"file deleted: {attempt.path} was removed while it was recorded"
        if now - meter.first_media_at > GOOD_RECORDING_S:
            self._memory.good_minute()
        return ""

    # What an end leads to (DESIGN.md, "What restarts what").

    def _conclude(self, attempt: Attempt, now: float) -> None:
        self._attempt = None
        end = attempt.end(now)
        if attempt.judged == NO_AUDIO and attempt.meter.frames == 0 and end.status >= 0:
            # A channel without frames looks the same at first; what FFmpeg says of its end tells them apart.
            end.judged = ""
        cause = classify(end) if attempt.could_open else Cause("disk", RETRY, attempt.problem)
        file_end = self._file_end(attempt, end, cause, now)
        if attempt.kept:
            words = (
                f"closed {attempt.path}: {attempt.meter.frames} frames, {attempt.size_bytes} bytes, {file_end.verdict}"
            )
            self._say(INFO if file_end.verdict == "complete" else WARNING, words)
        if attempt.problem and attempt.could_open:
            self._say(WARNING, attempt.problem)
        if self._is_stopping:
            file_end.cause = "stop"
            self._end_stopped(file_end)
        elif cause.outcome in (RETRY, FAIL) and not self._stays(attempt, cause):
            self._end_unasked(cause, file_end, now)
        else:
            self._chronicle.closed(file_end)
            self._chronicle.waits(cause.name, self._memory.request.take)
            self._stay(attempt, cause, now)

    def _file_end(self, attempt: Attempt, end: End, cause: Cause, now: float) -> FileEnd:
        meter = attempt.meter
        if attempt.is_deleted:
            # What it held counts for nothing: its time is a gap.
            return FileEnd(attempt.path, verdict="lost: deleted while it was recorded", cause=cause.name)
        last_frame = None
        if meter.last_frame_at is not None:
            last_frame = self._chronicle.now().plus(meter.last_frame_at - now)
        return FileEnd(
            attempt.path,
            verdict=self._verdict(attempt, end),
            cause=cause.name,
            frames=meter.frames,
            duplicated=meter.dup_frames,
            dropped=meter.drop_frames,
            missing=meter.deficit.frames,
            last_frame=last_frame,
        )

    def _verdict(self, attempt: Attempt, end: End) -> str:
        verdict = file_verdict(end, attempt.meter.frames)
        problem = attempt.problem or attempt.sync_problem
        return f"incomplete: {problem}" if verdict == "complete" and problem else verdict

    def _stays(self, attempt: Attempt, cause: Cause) -> bool:
        """Whether the runner itself tries again, instead of ending for systemd to start it again."""
        return self._held_video(attempt) or attempt.is_abandoned or self._is_loop(attempt, cause)

    def _held_video(self, attempt: Attempt) -> bool:
        """Whether FFmpeg had held video back for want of audio: then `q` wrote out all the seconds of it."""
        least_frames = NO_AUDIO_S / 2 * (attempt.options.rate or 1.0)
        is_held = attempt.judged == NO_AUDIO and attempt.kept and attempt.meter.frames >= least_frames
        # A disk that took its time to make the file looks the same until FFmpeg counts what it wrote.
        return is_held and attempt.wrote_no_audio

    def _stay(self, attempt: Attempt, cause: Cause, now: float) -> None:
        if self._held_video(attempt):
            self._go_on_without_audio(now)
        elif cause.outcome == WAIT:
            self._wait_for_signal(cause, attempt.cpu_s, now)
        else:
            self._wait_in_loop(cause, 0.0 if attempt.meter.frames else attempt.cpu_s, now)

    def _go_on_without_audio(self, now: float) -> None:
        """VIDEOMASTER.md 3: what FFmpeg held in memory is written out; the same start would hang again."""
        self._memory.without_audio = True
        self._memory.save()
        self._say(WARNING, f"no audio embedded on {self._options.input}; recording without, until the next start")
        self._wait_until = now

    def _is_loop(self, attempt: Attempt, cause: Cause) -> bool:
        """Whether this is a crash loop at its slowest.

        Its restarts by systemd would cost as much as FFmpeg's own failing starts, and seven journal lines
        each. Once a minute it is started anew all the same: only a new sandbox sees a device that came since, or a
        disk that was mounted; a disk's trouble of less than two minutes is looked at anew each time.
        """
        is_disk = cause.name.startswith("disk") or not attempt.could_open
        slowest = len(BACKOFF_S) - 1
        return (
            cause.outcome == RETRY
            and self._memory.failures >= slowest + (DISK_LOOPS if is_disk else 0)
            and self._loops < (DISK_LOOPS_A_RUNNER if is_disk else LOOPS_A_RUNNER)
        )

    def _wait_in_loop(self, cause: Cause, cpu_s: float, now: float) -> None:
        if cause.reason != self._memory.reason:
            self._log.release(now, only_errors=True)
            self._say(WARNING, cause.reason)
        self._log.discard()
        self._loops += 1
        self._no_signal_since = None
        self._memory.failures += 1
        self._memory.restarts += 1
        self._memory.reason = self._reason = cause.reason
        self._memory.save()
        self._reporter.status.restarts = self._memory.restarts
        self._wait_until = now + loop_wait_s(self._memory.failures, cpu_s)

    def _wait_for_signal(self, cause: Cause, cpu_s: float, now: float) -> None:
        reason = f"{cause.name} on {self._options.input}; waiting"
        if self._no_signal_since is None:
            self._no_signal_since = now
            self._say(WARNING, reason)
            # The signal that comes back may carry audio.
            self._memory.without_audio = False
            self._memory.save()
        self._log.discard()
        self._reason = reason
        self._reporter.is_ready = True
        self._wait_until = now + no_signal_wait_s(now - self._no_signal_since, cpu_s)

    def _end_unasked(self, cause: Cause, file_end: FileEnd, now: float) -> None:
        """The next runner enters the file's end: waiting for the ledger's disk here would cost recording."""
        cannot_work = cause.outcome == FAIL
        if cannot_work:
            # No next runner will enter this one's end, and nothing is lost by waiting for the ledger.
            self._chronicle.closed(file_end)
            self._chronicle.waits(cause.name, self._memory.request.take)
            self._chronicle.finish(LEDGER_PATIENCE_S)
        if cause.reason != self._memory.reason:
            self._log.release(now, only_errors=True)
        else:
            self._chronicle.hand_over()
        self._reporter.journal.report_unsaid()
        is_news = cannot_work or cause.reason != self._memory.reason
        self._memory.reason, self._memory.cause = cause.reason, cause.name
        self._memory.last_end = file_end.as_dict() if file_end.path else self._memory.last_end
        self._memory.save()
        if is_news:
            self._say(ERROR if cannot_work else WARNING, cause.reason)
        self._reporter.finish(now, "failed" if cannot_work else "backoff", cause.reason)
        self._exit_code = EXIT_CANNOT_WORK if cannot_work else EXIT_RETRY

    def _end_stopped(self, file_end: FileEnd | None = None) -> None:
        self._memory.forget()
        if file_end is not None:
            self._chronicle.closed(file_end)
        self._chronicle.stopped(self._memory.request.take)
        if not self._chronicle.finish(LEDGER_PATIENCE_S):
            self._say(ERROR, self._chronicle.problem or "the ledger's disk does not answer; its entries wait in memory")
        self._reporter.finish(monotonic(), "stopped", "")
        self._exit_code = 0

    def _state(self, now: float) -> tuple[str, str]:
        attempt, status = self._attempt, self._reporter.status
        if self._is_stopping:
            return "stopping", ""
        if attempt is not None and attempt.phase == "opening" and now - attempt.began > DISK_ANSWER_S:
            return "starting", f"{self._options.recordings} does not answer for {now - attempt.began:.0f} s"
        if self._no_signal_since is not None:
            return "no-signal", self._reason
        if attempt is None:
            return "backoff", self._reason
        if attempt.phase == "closing":
            state = "stalled" if status.state == "recording" else status.state
            return state, status.reason or "FFmpeg ended; its file is being closed"
        state, reason = attempt.meter.state(now)
        return state, "; ".join(part for part in (reason, *self._remarks(attempt, now)) if part)

    def _remarks(self, attempt: Attempt, now: float) -> list[str]:
        """What an operator should know of a port that records."""
        remarks = []
        if self._memory.without_audio:
            remarks.append("without audio: none is embedded in the signal")
        if attempt.watch_problem:
            remarks.append(attempt.watch_problem)
        if attempt.sample and attempt.sample.moved:
            remarks.append(f"{attempt.path} was moved away; recording goes on in it")
        if attempt.sync_problem:
            remarks.append(attempt.sync_problem)
        if self._chronicle.problem:
            remarks.append(self._chronicle.problem)
        if attempt.meter.drops_half(now):
            remarks.append(f"half of the frames are dropped: has the signal more than {self._options.rate:g} fps?")
        return remarks


def _begin_take(memory: Memory, options: Options, run_directory: str) -> str:
    """Claim the request for a take at a first start; at a restart the memory holds it. Returns a problem."""
    problem = ""
    if not memory.is_restart:
        memory.take_started_at = utc_text(time.time())
        try:
            memory.request = claim_request(options.port, options.recordings, run_directory) or memory.request
        except RequestError as error:
            problem = str(error)
    memory.save()
    return problem


def _wait_for_former_runner(port_index: int, journal: Journal) -> int:
    """A runner that was killed is not gone while a thread of it waits for a hanging disk, and keeps its lock.

    Without a wait systemd would start the next one at once, and again.
    """
    text = f"port {port_index}: another runner records it already, or was killed and waits for a disk that hangs"
    journal.say(ERROR, text)
    Notifier().send("READY=1", f"STATUS={text}")
    time.sleep(LOCK_WAIT_S)
    return EXIT_RETRY


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
    run_directory = options.run_directory or RUN_DIRECTORY
    try:
        # Held, not closed, until this process ends.
        take_lock(options.port, run_directory)
    except BlockingIOError:
        return _wait_for_former_runner(options.port, journal)
    except OSError as error:
        hint = "make it: systemd-tmpfiles --create sdisup.conf"
        journal.say(ERROR, f"port {options.port}: no lock in {run_directory}: {error.strerror}; {hint}")
    code = Runner(options).run()
    # Not sys.exit: a thread that waits for a hanging disk must not keep the interpreter.
    os._exit(code)
