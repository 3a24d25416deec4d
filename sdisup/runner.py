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

from sdisup.attempt import Attempt
from sdisup.causes import FAIL, RETRY, WAIT, Cause, classify
from sdisup.journal import ERROR, INFO, NOTICE, WARNING, FFmpegLog, Journal
from sdisup.memory import Memory
from sdisup.options import OptionError, Options, parse_options
from sdisup.reporter import Reporter
from sdisup.requests import RequestError, claim_request
from sdisup.status import RUN_DIRECTORY, monotonic, take_lock, utc_text

EXIT_RETRY, EXIT_CANNOT_WORK = 1, 78
READY_AT_LATEST_S = 5.0
GOOD_RECORDING_S = 60.0
BACKOFF_S = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""The wait before a start, by how many ends in a row came before it; the last one is the cap."""
NO_SIGNAL_RETRY_S, NO_SIGNAL_LATER_S, NO_SIGNAL_EAGER_S = 1.0, 3.0, 60.0


def backoff_s(failures: int) -> float:
    """How long to wait before a start that follows `failures` ends without a good minute between them."""
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


class Runner:
    """One port's life between its start and its stop, as an event loop over one poll."""

    def __init__(self, options: Options, run_directory: str = RUN_DIRECTORY) -> None:
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
        self._reporter = Reporter(self._options, memory, run_directory)
        self._log = FFmpegLog(self._reporter.journal)
        self._say = self._reporter.say
        self._exit_code: int | None = None
        self._attempt: Attempt | None = None
        self._spawned_at: float | None = None
        self._no_signal_since: float | None = None
        self._is_stopping = False
        self._reason = ""
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
        while self._exit_code is None:
            self._wait_for_events()
            now = monotonic()
            self._tick(now)
            if self._exit_code is None:
                self._reporter.publish(now, *self._state(now), self._attempt)
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
        if self._spawned_at is not None and not self._reporter.is_ready:
            moments.append(self._spawned_at + READY_AT_LATEST_S)
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
        had_media, pid = attempt.meter.first_media_at is not None, attempt.ffmpeg_pid
        step = attempt.tick(now)
        if step in ("term", "kill"):
            self._say(WARNING, f"FFmpeg does not answer; sending SIG{step.upper()}")
        if attempt.ffmpeg_pid and not pid:
            self._on_spawned(attempt, now)
        if not had_media and attempt.meter.first_media_at is not None:
            self._on_first_media(attempt, now)
        self._reporter.status.take_frames += attempt.frames_gained
        attempt.frames_gained = 0
        if attempt.phase == "ended":
            self._conclude(attempt, now)
        else:
            self._judge(attempt, now)

    def _new_attempt(self, now: float) -> Attempt:
        return Attempt(self._options, self._directory, now, self._poll, self._wake, self._log.take)

    # While FFmpeg runs.

    def _on_spawned(self, attempt: Attempt, now: float) -> None:
        if self._spawned_at is None:
            self._spawned_at = now
            self._say(INFO, f"runs {shlex.join(attempt.options.command)}")
        if not self._log.is_quiet:
            self._say(INFO, f"FFmpeg {attempt.ffmpeg_pid} started; records to {attempt.path}")

    def _on_first_media(self, attempt: Attempt, now: float) -> None:
        self._log.release(now)
        self._log.is_quiet = False
        self._reporter.is_ready = True
        if self._no_signal_since is not None:
            self._say(NOTICE, f"the signal is back; records to {attempt.path}")
        self._no_signal_since = None
        self._reason = ""

    def _judge(self, attempt: Attempt, now: float) -> None:
        """Whether this FFmpeg is to be ended: on request, or because no frame comes any more."""
        if self._spawned_at is not None and now >= self._spawned_at + READY_AT_LATEST_S:
            self._reporter.is_ready = True
        if attempt.phase == "closing" or attempt.is_unwanted:
            return
        if self._is_stopping:
            self._say(INFO, "stopping")
            attempt.wind_down(now)
            return
        meter, options = attempt.meter, self._options
        frameless_s = meter.frameless_s(now)
        if meter.first_media_at is None:
            if frameless_s > options.start_timeout_s:
                attempt.judged = f"no frame within {options.start_timeout_s:.0f} s of FFmpeg's start"
        elif frameless_s > options.stall_timeout_s:
            attempt.judged = f"stalled: no new frame for {frameless_s:.0f} s"
        elif now - meter.first_media_at > GOOD_RECORDING_S:
            self._memory.good_minute()
        if attempt.judged:
            self._say(WARNING, f"{attempt.judged}; ending FFmpeg")
            attempt.wind_down(now)

    # What an end leads to (DESIGN.md, "What restarts what").

    def _conclude(self, attempt: Attempt, now: float) -> None:
        self._attempt = None
        if attempt.kept:
            words = f"closed {attempt.path}: {attempt.meter.frames} frames, {attempt.size_bytes} bytes"
            self._say(INFO, words)
        if attempt.problem and attempt.could_open:
            self._say(WARNING, attempt.problem)
        cause = classify(attempt.end(now)) if attempt.could_open else Cause("disk", RETRY, attempt.problem)
        if self._is_stopping:
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
        self._log.discard()
        self._reason = reason
        self._reporter.is_ready = True
        is_eager = now - self._no_signal_since < NO_SIGNAL_EAGER_S
        self._wait_until = now + (NO_SIGNAL_RETRY_S if is_eager else NO_SIGNAL_LATER_S)

    def _end_unasked(self, cause: Cause, now: float) -> None:
        cannot_work = cause.outcome == FAIL
        self._log.release(now, only_errors=True)
        self._reporter.journal.report_unsaid()
        self._memory.reason = cause.reason
        self._memory.save()
        self._say(ERROR if cannot_work else WARNING, cause.reason)
        self._reporter.finish(now, "failed" if cannot_work else "backoff", cause.reason)
        self._exit_code = EXIT_CANNOT_WORK if cannot_work else EXIT_RETRY

    def _end_stopped(self) -> None:
        self._memory.forget()
        self._reporter.finish(monotonic(), "stopped", "")
        self._exit_code = 0

    def _state(self, now: float) -> tuple[str, str]:
        attempt, status = self._attempt, self._reporter.status
        if self._is_stopping:
            return "stopping", ""
        if self._no_signal_since is not None:
            return "no-signal", self._reason
        if attempt is None:
            return "backoff", self._reason
        if attempt.phase == "closing":
            return status.state, status.reason
        return attempt.meter.state(now)


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
        hint = "make it: systemd-tmpfiles --create sdisup.conf"
        journal.say(ERROR, f"port {options.port}: no lock in {RUN_DIRECTORY}: {error.strerror}; {hint}")
    code = Runner(options).run()
    # Not sys.exit: a thread that waits for a hanging disk must not keep the interpreter.
    os._exit(code)
