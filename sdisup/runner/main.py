"""The process inside a unit: runs one port's FFmpeg, says truthfully how it goes, and ends it well.

It supervises nothing: when FFmpeg ends unasked it ends too, and systemd starts it again. What it adds
is what systemd cannot see: whether frames arrive, whether they reach the disk, why FFmpeg ended.

It waits for nothing but its poll (invariant 2). FFmpeg's pipe is drained whatever the disk, the
journal or systemd do; whatever touches the recordings' disk happens in disk.py's threads. Everything
it will ever need is imported before READY, so that an upgrade underneath cannot mix versions.

It moves things: what it does next, decide.py says.
"""

from __future__ import annotations

import math
import os

from sdisup.contract.disks import changed_ns, made_path
from sdisup.contract.files import RUN_DIRECTORY, Exhausted, Unreadable, monotonic_raw
from sdisup.contract.lean import signal
from sdisup.contract.requests import CutWatch, noted_stopper
from sdisup.ledger import spool
from sdisup.runner import decide as steps
from sdisup.runner.attempt import Attempt, File
from sdisup.runner.begin import drain
from sdisup.runner.causes import COMPLETE, CUT_OFF_CHANNEL, FILE_DELETED, NO_SOUND, OTHER_PROGRAMME, TIMESTAMPS
from sdisup.runner.command import next_options
from sdisup.runner.decide import (
    Decision,
    Ended,
    Sight,
    Situation,
    decide,
    describe,
    next_limit_s,
    sound_remark,
)
from sdisup.runner.disk import place_of
from sdisup.runner.memory import backoff_s, note_recorded, recorded_commands, recorded_path
from sdisup.runner.notify import Notifier
from sdisup.runner.pace import BLOCK_S
from sdisup.runner.report import ERROR, INFO, NOTICE, WARNING, FFmpegLog, Journal, Reporter, shell_text
from sdisup.runner.rest import may_rest
from sdisup.runner.signals import BOTH, RESTARTS, SYSTEMD, Signals, text_of
from sdisup.runner.timecodes import Timecodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from sdisup.contract.options import OptionError, Options
    from sdisup.contract.requests import Cut
    from sdisup.runner.begin import Beginning, First
    from sdisup.runner.disk import RecordingFile
    from sdisup.runner.ffmpeg import FFmpegProcess
    from sdisup.runner.pace import Hole

EXIT_STOPPED, EXIT_RETRY, EXIT_CANNOT_WORK = 0, 1, 78
FRUITLESS_ATTEMPTS = 3
"""A server may take some seconds before it lets the same client in again."""
STILL_S, STILLS_KEPT = 2.0, 4
"""A loop that turns by so much later than it should has stood still."""
BEGIN_AGAIN_S = 1.0
LOCK_WAIT_S = 8.0
"""Below the unit's WatchdogSec=."""
HOLE_PATIENCE_S = 10.0
"""How long the end of a file waits to be told for a hole whose end is not known yet."""
NEXT_FILE = "next file"
"""What follows a file that ended at its length."""
FORGETS = "after a crash the port may go on without its take"


class Runner:
    """One port's life between its start and its stop, as an event loop over one poll.

    It goes on with what `beginning` has; `raw` is a clock, and `signals` waits for SIGTERM and SIGINT.
    """

    def __init__(
        self,
        beginning: Beginning,
        *,
        raw: Callable[[], float] = monotonic_raw,
        signals: Callable[[Callable[[], None]], Signals] | None = None,
    ) -> None:
        self._beginning = beginning
        self._options, self._memory, self._run_directory = beginning.options, beginning.memory, beginning.run_directory
        self._spool, self._poll = beginning.spool, beginning.poll
        self._recorded = _recorded(self._options.port, self._run_directory, beginning.problems)
        """The command lines that have recorded since boot."""
        self._reporter = Reporter(
            self._options, self._memory, self._run_directory, beginning.status_before, beginning.notifier
        )
        self._log = FFmpegLog(self._reporter.journal)
        self._say = self._reporter.say
        self._now, self._wall, self._raw, self._asleep = beginning.now, beginning.wall, raw, beginning.asleep
        self._clock_offset, self._asleep_s = self._wall() - self._now(), beginning.asleep_s
        self._seen_at = self._now()
        """When the loop was last seen to turn."""
        self._still: list[tuple[float, float]] = []
        """From when to when the loop stood still, of late."""
        self._exit_code: int | None = None
        self._attempt: Attempt | None = None
        self._begun_at: float | None = None
        self._has_run = False
        self._no_signal_since: float | None = None
        self._is_stopping = self._is_restarting = False
        self._terminated = self._lack = ""
        self._asked_at: float | None = None
        """When a stop was asked for that took long."""
        self._loops = 0
        self._cuts = CutWatch(self._options.port, self._run_directory)
        self._cut: Cut | None = None
        """One that waits until its frame is known."""
        self._started_at = self._now()
        self._remarked: set[str] = set()
        self._rests_until = 0.0
        """Until when what FFmpeg only counts on needs no turn; 0 where it needs one."""
        self._limit_at = math.inf
        """When no frame will have come for too long."""
        self._waits_for = ""
        """Why there is no FFmpeg just now, in the operator's words."""
        self._timecodes = Timecodes(
            self._options, self._memory, self._wall, self._now, lambda text: self._say(INFO, text), self._remark_once
        )
        self._signals = signals(beginning.wake) if signals else None
        self._wait_until = self._now() + backoff_s(self._memory.failures)
        self._room = made_path(self._options.run_directory or RUN_DIRECTORY) if self._options.min_free_bytes else ""
        """What is written to when retention has made room; empty where nobody does."""
        self._room_made_ns = changed_ns(self._room) if self._room else 0
        for problem in beginning.problems:
            self._say(ERROR, problem)

    def stop(self) -> None:
        """Stop the port at the next turn of the loop."""
        self._is_stopping = True

    def terminate(self, who: str) -> None:
        """End FFmpeg and the runner, and let systemd start the port again: `who` asked for it that was not systemd."""
        if not (self._terminated or self._is_stopping):
            self._terminated = who
            self._say(WARNING, f"{who}; only systemd stops this port (sdisup stop {self._options.port})")

    def run(self) -> int:
        """Run until stopped or until FFmpeg ended unasked; returns the exit code."""
        self._announce_wait()
        while self._exit_code is None:
            self._wait_for_events()
            # Before anything is told by a clock that was moved.
            self._watch_clock()
            self._heed_signals()
            self._turn(self._now())
        self._heed_signals()
        if self._is_stopping and self._exit_code == EXIT_RETRY:
            # The stop came while FFmpeg's own end was being dealt with; it is a stop all the same.
            self._exit_stopped(self._now())
        os.close(self._beginning.wake_read)
        os.close(self._beginning.wake_write)
        return self._exit_code

    def _announce_wait(self) -> None:
        delay_s = backoff_s(self._memory.failures)
        if delay_s:
            self._waits_for = self._memory.reason
            self._reporter.is_ready = True
            self._say(NOTICE, f"waits {delay_s:.0f} s before the next try ({self._waits_for or 'ended unasked'})")

    def _tell(self, kind: str, now: float, **fields: object) -> None:
        """Tell the ledger; what it is told, and what it makes of it, never keeps the recording waiting."""
        self._spool.tell(kind, now, **fields)

    # The one poll.

    def _wait_for_events(self) -> None:
        """Wait for what the next turn is about: while all is well, past what says that sound comes on (rest.py)."""
        self._watch_standstill(0.0)
        while True:
            timeout_ms = self._timeout_ms(self._seen_at)
            ready = self._poll.poll(timeout_ms)
            now, attempt = self._now(), self._attempt
            if now - self._seen_at >= STILL_S:
                self._watch_standstill(timeout_ms / 1000)
            self._seen_at = now
            # What was moved is told by the turn.
            is_said = not ready or abs(self._wall() - now - self._clock_offset) > spool.CLOCK_STEP_S
            for descriptor, _event in ready:
                if descriptor == self._beginning.wake_read:
                    drain(descriptor)
                    is_said = True
                elif attempt is not None and not attempt.on_ready(descriptor, now):
                    is_said = True
            is_due = now >= min(self._rests_until, self._limit_at) and not (attempt and attempt.marks.is_amid)
            if is_said or is_due:
                return

    def _timeout_ms(self, now: float) -> int:
        if self._rests_until:
            # A little later: a mark of the sound is to wake the runner for the turn.
            return max(0, int((min(self._rests_until + BLOCK_S, self._limit_at) - now) * 1000) + 1)
        moments = [self._reporter.next_at()]
        if self._attempt is None:
            moments.append(self._wait_until)
        else:
            moments += [self._attempt.next_at(now) or math.inf, self._limit_at]
        if self._begun_at is not None and not self._reporter.is_ready:
            moments.append(self._begun_at + steps.READY_AT_LATEST_S)
        return max(0, int((min(moments) - now) * 1000) + 1)

    def _heed_signals(self) -> None:
        for came in self._signals.take() if self._signals else ():
            if came.si_pid == SYSTEMD:
                self._is_restarting = came.si_signo == RESTARTS
                self.stop()
            else:
                self.terminate(text_of(came))

    def _watch_standstill(self, expected_s: float) -> None:
        """Find out that this process did not run: it was stopped or frozen, most likely with its FFmpeg, or the machine
        is too busy."""
        now, before = self._now(), self._seen_at
        self._seen_at = now
        if now - before - expected_s < STILL_S:
            return
        self._still = [*self._still[1 - STILLS_KEPT :], (before, now)]
        self._say(WARNING, f"stood still for {now - before:.1f} s: stopped, frozen, or without processor time")
        if self._attempt is not None:
            self._attempt.stood_still(now)

    def _watch_clock(self) -> None:
        """A wall clock that was moved is told, since the names and times of files follow it. So is a suspension, in
        which CLOCK_MONOTONIC stood still."""
        now = self._now()
        offset, asleep_s = self._wall() - now, self._asleep()
        if self._now() - now > spool.CLOCK_STEP_S / 2:
            # Other programs ran between the two readings; the next turn reads them again.
            return
        slept_s = asleep_s - self._asleep_s
        if slept_s < spool.CLOCK_STEP_S:
            slept_s = 0.0
        else:
            self._asleep_s = asleep_s
            attempt = self._attempt
            untold: dict[str, object] = {}
            if attempt is not None and attempt.meter.frames and not attempt.is_told:
                # The file has begun before, and its beginning is told later.
                untold = {"path": attempt.files[0].path, "first_frame_at": attempt.meter.first_frame_at(now)}
            self._tell(spool.SLEPT, now, asleep_s=round(asleep_s, 3), **untold)
            self._say(NOTICE, f"the system was suspended for {slept_s:.1f} s")
        step_s, self._clock_offset = offset - self._clock_offset - slept_s, offset
        if abs(step_s) > spool.CLOCK_STEP_S:
            self._tell(spool.CLOCK, now, step_s=round(step_s, 3))
            self._say(NOTICE, f"the clock was moved by {step_s:+.1f} s")

    # One turn of the loop.

    def _turn(self, now: float) -> None:
        if self._beginning.first is not None:
            self._adopt(self._beginning.first)
        attempt = self._attempt
        self._look_for_cut(attempt)
        if attempt is not None:
            self._follow(attempt, now)
        elif self._room:
            self._look_for_room(now)
        self._make_cut(attempt, now)
        situation = self._situation(now)
        decision = decide(situation, self._options)
        if attempt is not None and situation.ended is not None:
            self._conclude(attempt, situation.ended, now)
        self._take_step(decision, situation.ended, now)
        if self._spool.problem:
            self._spool.retry()
        self._say_lack()
        if self._exit_code is None:
            if decision.step != steps.NOTHING or situation.ended is not None:
                situation = self._situation(now)
            told = (self._reporter.status.state, self._reporter.status.reason)
            state, reason = describe(situation, self._options, self._waits_for, told)
            reason = "; ".join(filter(None, (reason, *self._remarks(situation.sight))))
            self._reporter.publish(now, state, reason, self._attempt)
        rests = self._is_all_told(now) and may_rest(situation)
        self._rests_until = self._reporter.rests_until() - BLOCK_S / 2 if rests else 0.0
        if self._attempt is not None:
            self._attempt.heed_blocks(at_once=not rests)
        self._limit_at = now + next_limit_s(situation.sight, self._options) if situation.sight else math.inf

    def _look_for_room(self, now: float) -> None:
        """Wait no longer where retention has made room."""
        made_ns = changed_ns(self._room)
        if made_ns != self._room_made_ns:
            self._room_made_ns, self._wait_until = made_ns, min(self._wait_until, now)

    def _look_for_cut(self, attempt: Attempt | None) -> None:
        """See whether somebody asks for a cut. It comes before what FFmpeg has said since: the next file is its."""
        if self._cut is not None:
            return
        try:
            cut = self._cuts.look()
        except Unreadable as error:
            self._say(WARNING, f"{error}; no cut is made")
            return
        if cut is not None and cut.at < self._started_at and not self._memory.is_restart:
            self._say(WARNING, "a cut was asked for before the port was started; it is not made")
        elif cut is not None:
            self._cut = cut
            if attempt is not None:
                attempt.name_next(self._beginning.after_cut(cut.take, cut.request_id)[1])

    def _make_cut(self, attempt: Attempt | None, now: float, *, is_over: bool = False) -> None:
        """Begin the next take that somebody has asked for: with a frame of the file, or where none is recorded with all
        that comes. `is_over`: no more of the attempt's files will be told of."""
        cut = self._cut
        recording = attempt if attempt is not None and attempt.has_recorded else None
        if cut is None or (recording is not None and not (is_over or recording.may_cut(cut.at, now))):
            return
        self._cut = None
        self._beginning.cut(cut.take, cut.request_id)
        self._options = self._beginning.options
        request, status, path, first = self._memory.request, self._reporter.status, None, 0
        if recording is not None:
            frame = recording.cut_at(cut.at)
            file = recording.file_of(frame)
            path, first = file.path, max(0, frame - (file.first_frame or 0))
            self._tell(spool.MARK, now, path=path, frame=first, take=request.take)
            status.take_frames = recording.meter.frames - frame
        else:
            self._name_by_take(attempt, now)
            status.take_frames = 0
        status.update(
            take=request.take,
            request_id=request.request_id,
            take_started_at=self._memory.take_started_at,
            take_first_file=path,
            take_first_frame=first,
        )
        self._reporter.has_news = True
        self._say(NOTICE, f"cut: the take {request.take or 'without a name'} begins" + (f" in {path}" if path else ""))

    def _name_by_take(self, attempt: Attempt | None, now: float) -> None:
        """Give a file that has no frame yet to the take that begins."""
        for file in attempt.files if attempt is not None else ():
            file.thread.name_by(place_of(self._options, self._beginning.directory))
            if file.path_told:
                self._tell(spool.MARK, now, path=file.path_told, frame=0, take=self._memory.request.take)

    def _is_all_told(self, now: float) -> bool:
        """Whether nothing waits to be told, or to be told again."""
        is_steady = self._attempt is not None and self._attempt.is_steady(now)
        return is_steady and self._reporter.is_up_to_date and not (self._spool.problem or self._memory.lack)

    def _say_lack(self) -> None:
        if self._memory.lack and self._memory.lack != self._lack:
            self._say(ERROR, f"{self._memory.lack}: {FORGETS}")
        self._lack = self._memory.lack

    def _situation(self, now: float) -> Situation:
        attempt = self._attempt
        ended = attempt.ended(now) if attempt is not None and attempt.phase == steps.ENDED else None
        return Situation(
            now=now,
            phase=attempt.phase if attempt else steps.WAITING,
            is_stopping=self._is_stopping,
            terminated=self._terminated,
            is_ending=attempt is not None and attempt.is_ending,
            wait_until=self._wait_until,
            failures=self._memory.failures,
            is_forgetful=bool(self._memory.lack),
            loops=self._loops,
            no_signal_since=self._no_signal_since,
            has_recorded=self._options.command in self._recorded,
            cut_at=self._memory.cut_at,
            cuts=self._memory.cuts,
            from_zero=attempt is not None and attempt.is_from_zero,
            sight=attempt.sight(now) if attempt else None,
            ended=ended,
        )

    def _take_step(self, decision: Decision, ended: Ended | None, now: float) -> None:
        step = decision.step
        if step == steps.BEGIN:
            self._begin(now)
        elif step == steps.END_FFMPEG and self._attempt:
            self._say(
                WARNING if decision.fault else INFO,
                f"{decision.fault.text}; ending FFmpeg" if decision.fault else "stopping",
            )
            # What FFmpeg says of a track without a packet is no news.
            self._log.is_quiet = self._log.is_quiet or (decision.fault is not None and decision.fault.kind == NO_SOUND)
            self._attempt.wind_down(now, decision.fault)
            if decision.fault and decision.fault.kind in steps.CUTS:
                self._remember_cut(self._attempt, decision.fault.kind, now)
            elif decision.fault and decision.fault.kind == OTHER_PROGRAMME:
                self._memory.programme, self._memory.fruitless = self._attempt.streams.choice.number, 0
                self._memory.save()
            elif decision.fault and decision.fault.kind == CUT_OFF_CHANNEL:
                self._memory.channels, self._memory.fruitless = self._attempt.streams.cut_channels, 0
                self._memory.save()
        elif step == steps.LET_GO_ON and self._attempt:
            self._say(INFO, "the first frame has come; going on")
            self._attempt.go_on(now)
        elif step == steps.EXIT_STOPPED:
            self._exit_stopped(now)
        elif ended is None and step == steps.EXIT_FOR_RETRY:
            self._exit_terminated(now)
        elif ended is None:
            return
        elif step == steps.GO_ON_WITHOUT_AUDIO:
            self._go_on_without_audio(now)
        elif step == steps.GO_ON_WITH_PROGRAMME:
            self._say(INFO, f"records programme {self._memory.programme} from here on")
        elif step == steps.GO_ON_IN_PAIRS:
            self._say(INFO, f"records the sound's {self._memory.channels} channels in pairs from here on")
        elif step == steps.AWAIT_SIGNAL:
            self._await_signal(ended, now)
        elif step == steps.AWAIT_RETRY:
            self._await_retry(ended)
        elif step in (steps.EXIT_FOR_RETRY, steps.EXIT_CANNOT_WORK):
            self._exit_unasked(ended, now, cannot_work=step == steps.EXIT_CANNOT_WORK)
        self._wait_until = now + decision.wait_s if ended else self._wait_until

    def _remember_cut(self, attempt: Attempt, kind: str, now: float) -> None:
        """What the next file is to be like."""
        if attempt.meter.first_media_at is None:
            # Nothing was recorded: its tracks are too far apart.
            self._memory.from_zero = kind == TIMESTAMPS
        else:
            memory = self._memory
            goes_on = memory.cut_at is not None and now - memory.cut_at < steps.CUTS_FORGOTTEN_S
            memory.cuts, memory.cut_at = memory.cuts + 1 if goes_on else 1, now
            memory.size = attempt.streams.new_size
        self._memory.save()

    def _begin(self, now: float) -> None:
        if self._begun_at is None:
            self._begun_at = now
        self._log.is_quiet = self._is_retry()
        begun, options = self._beginning, next_options(self._options, self._memory)
        self._attempt = self._new_attempt(options, now, begun.open_file, begun.spawn)

    def _adopt(self, first: First) -> None:
        """Go on with the attempt that was begun before there was this runner."""
        self._beginning.first = None
        self._log.is_early = True
        self._begun_at = first.began
        self._attempt = self._new_attempt(first.options, first.began, first.give_file, first.give_ffmpeg)
        self._attempt.files[0].path_told = first.path

    def _new_attempt(
        self,
        options: Options,
        now: float,
        open_file: Callable[..., RecordingFile],
        spawn: Callable[[Sequence[str], int], FFmpegProcess],
    ) -> Attempt:
        begun, log = self._beginning, self._log.take
        return Attempt(
            *(options, begun.directory, now, self._poll, begun.wake, log, open_file, spawn, self._raw, self._timecodes)
        )

    def _is_retry(self) -> bool:
        return self._no_signal_since is not None or self._memory.failures > 1

    # While FFmpeg runs.

    def _follow(self, attempt: Attempt, now: float) -> None:
        """Let an attempt go on, and tell what has become of it."""
        had_media, pid = attempt.meter.first_media_at is not None, attempt.ffmpeg_pid
        step = attempt.tick(now)
        if attempt.extension_s:
            self._beginning.notifier.send(f"EXTEND_TIMEOUT_USEC={round(attempt.extension_s * 1e6)}")
            attempt.extension_s = 0.0
        if step in ("term", "kill"):
            self._say(WARNING, f"FFmpeg does not answer; sending SIG{step.upper()}")
        self._tell_opened(attempt, now)
        if attempt.ffmpeg_pid and not pid:
            self._on_spawned(attempt)
        self._log.begin(now)
        media_at = attempt.meter.first_media_at
        if not had_media and media_at is not None:
            self._on_first_media(attempt, now)
        if not attempt.is_told and media_at is not None and not attempt.meter.is_beginning(now):
            self._tell_media(attempt, attempt.files[0], attempt.meter.first_frame_at(now), now)
        self._tell_next(attempt, now)
        self._tell_holes(attempt, now)
        self._tell_losing(attempt, now)
        self._tell_moved(attempt, now)
        if media_at is not None and now - media_at > steps.GOOD_RECORDING_S:
            self._memory.good_minute()
        self._reporter.status.take_frames += attempt.frames_gained
        attempt.frames_gained = 0
        if self._begun_at is not None and now >= self._begun_at + steps.READY_AT_LATEST_S:
            self._reporter.is_ready = True

    def _tell_opened(self, attempt: Attempt, now: float) -> None:
        """Tell of files that have a path, or have got another one: something had theirs, and is not this port's."""
        is_retry = self._is_retry()
        for file in attempt.named():
            if file.path == file.path_told:
                continue
            if file.path_told:
                self._tell(spool.CLOSED, now, path=file.path_told, verdict=COMPLETE, cause="")
            self._beginning.tell_opened(attempt.options, file.path, now, began=attempt.began, is_retry=is_retry)
            file.path_told = file.path
            self._reporter.has_news = self._reporter.has_news or file.index > 0

    def _tell_media(self, attempt: Attempt, file: File, first_frame_at: float, now: float) -> None:
        """The ledger gets the first frame's own moment, which the progress blocks tell once FFmpeg has written what
        it buffered: what is on disk by now came earlier."""
        file.begun_at = first_frame_at
        self._tell(
            spool.MEDIA,
            now,
            path=file.path,
            first_frame_at=first_frame_at,
            ffmpeg_version=attempt.streams.ffmpeg_version,
            rate=attempt.meter.rate,
        )

    def _tell_next(self, attempt: Attempt, now: float) -> None:
        """Tell of the files that follow the first one: a file begins, by the ledger, when the one before it ends."""
        for file in attempt.named() if attempt.is_told else []:
            first_at = None if file.first_frame is None else attempt.meter.moment_of(file.first_frame)
            if file.begun_at is not None or first_at is None:
                continue
            self._tell_media(attempt, file, max(first_at, attempt.current.begun_at or 0.0), now)
        while len(attempt.files) > 1 and attempt.files[0].is_closed and attempt.files[1].begun_at is not None:
            file, is_late = attempt.files[0], now - (attempt.files[0].closed_at or now) > HOLE_PATIENCE_S
            if attempt.meter.pace.is_settling and not is_late:
                # What a hole lacks, and in which file, is known in a moment.
                return
            self._tell_holes(attempt, now)
            self._tell_closed(attempt, file, file.verdict, NEXT_FILE, now)
            attempt.forget(file)

    def _tell_losing(self, attempt: Attempt, now: float) -> None:
        """A runner that is killed after months leaves its last word on what its file lacks, which is a quarter off."""
        pace = attempt.meter.pace
        lost = pace.short + pace.repeated
        if not attempt.is_told or pace.is_settling or lost <= 1.25 * attempt.lost_told + steps.LOSS_IS_TOLD:
            return
        attempt.lost_told = lost
        file, part = attempt.current, attempt.account.part(attempt.meter)
        cause = pace.repeated_cause
        self._tell(
            spool.LOSING, now, path=file.path, missing=part.missing, repeated=part.repeated, repeated_cause=cause
        )

    def _tell_moved(self, attempt: Attempt, now: float) -> None:
        """The ledger's process looks for a file that was cut off where it is by then."""
        for file in attempt.files:
            if attempt.is_told and file.whereabouts != file.whereabouts_told:
                place, is_hidden = file.whereabouts_told = file.whereabouts
                self._tell(spool.MOVED, now, path=file.path, place=place, is_hidden=is_hidden)
            while file.thread.remarks:
                self._remark_once(file.thread.remarks.popleft())

    def _remark_once(self, text: str) -> None:
        """Say what is so for as long as this filesystem is used."""
        if text not in self._remarked:
            self._remarked.add(text)
            self._say(NOTICE, f"{text}; recording goes on")

    def _tell_holes(self, attempt: Attempt, now: float) -> None:
        """The ledger gets each time without pictures once it is over, before the file that it is in is closed."""
        holes = attempt.meter.pace.holes
        while holes and attempt.is_told:
            hole = holes.pop(0)
            cause = spool.STOOD_STILL if _is_within(hole.start, hole.end, self._still) else hole.cause
            self._say(WARNING, f"{cause}: {hole.end - hole.start:.1f} s without pictures; recording went on")
            parts = [
                {"path": file.path, "frames": frames, "filled": filled}
                for file, frames, filled in parts_of(hole, attempt.files)
            ]
            self._tell(
                spool.MISSED,
                now,
                path=parts[0]["path"],
                first_at=hole.start,
                last_at=hole.end,
                frames=hole.frames,
                filled=hole.filled,
                cause=cause,
                **({"others": parts[1:]} if len(parts) > 1 else {}),
            )

    def _on_spawned(self, attempt: Attempt) -> None:
        if not self._has_run:
            self._has_run = True
            self._say(INFO, f"runs {shell_text(attempt.options.command)}")
        if not self._log.is_quiet:
            self._say(INFO, f"FFmpeg {attempt.ffmpeg_pid} started; records to {attempt.path}")

    def _on_first_media(self, attempt: Attempt, now: float) -> None:
        if self._no_signal_since is None:
            # A crash loop that gets this far each time would say all of it each time.
            self._log.discard()
        self._log.release(now)
        self._log.is_quiet = False
        self._reporter.is_ready = True
        if self._no_signal_since is not None:
            self._say(NOTICE, f"the signal is back; records to {attempt.path}")
        self._no_signal_since = None
        self._waits_for = ""
        self._note_recorded()

    def _note_recorded(self) -> None:
        """Whatever FFmpeg says of this command line until the next boot, it is not what is wrong."""
        command = self._options.command
        if command not in self._recorded:
            try:
                note_recorded(recorded_path(self._options.port, self._run_directory), command, self._recorded)
            except OSError as error:
                self._say(
                    ERROR, f"{self._run_directory}: {error.strerror}: the next runner will not know of this recording"
                )
            self._recorded = [*self._recorded, command]

    # What an end leads to (DESIGN.md, "What restarts what").

    def _conclude(self, attempt: Attempt, ended: Ended, now: float) -> None:
        """Tell how an attempt's files ended, and let go of it."""
        self._attempt, self._asked_at = None, attempt.asked_at
        self._tell_opened(attempt, now)
        if not attempt.is_told and attempt.meter.first_media_at is not None:
            self._tell_media(attempt, attempt.files[0], attempt.meter.first_frame_at(now), now)
        self._tell_next(attempt, now)
        self._tell_holes(attempt, now)
        self._make_cut(attempt, now, is_over=True)
        cause = (attempt.silence or "stop") if self._is_stopping else ended.cause.name
        for file in list(attempt.files):
            if file.path:
                verdict = ended.verdict if file.closed_at is None else file.verdict
                self._tell_closed(attempt, file, verdict, cause, now)
        if attempt.problem and attempt.could_open:
            self._say(WARNING, attempt.problem)
        if not self._is_stopping:
            self._tell(spool.WAITS, now, cause=ended.cause.name, take=self._memory.request.take)

    def _tell_closed(self, attempt: Attempt, file: File, verdict: str, cause: str, now: float) -> None:
        meter, counts = attempt.meter, {}
        part, frames, end_frame = attempt.account.part(meter), file.frames_of(meter.frames), file.end_frame
        attempt.account.enter(part)
        last_at = None if end_frame is None else meter.moment_of(end_frame)
        following = next((other for other in attempt.files if other.index == file.index + 1), None)
        if following is not None and following.begun_at is not None:
            last_at = following.begun_at
        if file.is_deleted:
            # What it held counts for nothing: its time is a gap.
            verdict, cause = "lost: deleted while it was recorded", FILE_DELETED if cause == NEXT_FILE else cause
        elif file.index and file.is_closed and not file.kept:
            # The first one is told of when its first frame is on disk. This one is gone, and another may have its name.
            verdict = "lost: nothing of it had come to the disk"
        else:
            counts = {
                "frames": frames,
                "duplicated": part.duplicated,
                "dropped": part.dropped,
                "missing": part.missing,
                "repeated": part.repeated,
                "repeated_cause": meter.pace.repeated_cause,
                "last_frame_at": meter.last_frame_at if last_at is None else last_at,
                "is_estimate": attempt.is_estimate(file),
                "size_bytes": file.size_bytes if file.kept or attempt.is_abandoned else 0,
                "inode": file.inode,
            }
        self._tell(spool.CLOSED, now, path=file.path, verdict=verdict, cause=cause, **counts)
        if file.kept:
            words = f"closed {file.path}: {frames} frames, {file.size_bytes} bytes, {verdict}"
            words += f"; goes on in {following.path}" if following is not None and following.path else ""
            self._say(INFO if verdict == COMPLETE else WARNING, words)

    def _go_on_without_audio(self, now: float) -> None:
        """VIDEOMASTER.md 3: what FFmpeg held in memory is written out; the same start would hang again."""
        self._log.discard()
        self._memory.without_audio = True
        self._memory.fruitless = 0
        self._memory.save()
        what = "no audio embedded" if self._options.audio_options else "no sound"
        self._say(WARNING, f"{what} on {self._options.input}; recording without, until the next start")

    def _forget_findings(self, ended: Ended) -> None:
        """A source that brings no picture either, more than once, is away, and may come back as another."""
        memory = self._memory
        if self._options.audio_options or not (memory.without_audio or memory.programme or memory.channels):
            return
        self._memory.fruitless = 0 if ended.kept else self._memory.fruitless + 1
        if self._memory.fruitless >= FRUITLESS_ATTEMPTS:
            memory.without_audio, memory.programme, memory.channels = False, "", 0

    def _await_retry(self, ended: Ended) -> None:
        cause, now = ended.cause, self._now()
        if cause.reason != self._memory.reason:
            self._log.release(now, only_errors=True)
            self._say(WARNING, cause.reason)
        self._log.discard()
        self._forget_findings(ended)
        self._loops += 1
        self._no_signal_since = None
        self._memory.failures += 1
        self._memory.restarts += 1
        self._memory.reason = self._waits_for = cause.reason
        self._memory.save()
        # The first failure can be one that is waited out.
        self._reporter.is_ready = True
        self._reporter.status.restarts = self._memory.restarts

    def _await_signal(self, ended: Ended, now: float) -> None:
        reason = f"{ended.cause.name} on {self._options.input}; waiting"
        if self._no_signal_since is None:
            self._no_signal_since = now
            self._say(WARNING, reason)
            # The signal that comes back may carry audio.
            self._memory.without_audio = False
            self._memory.save()
        self._log.discard()
        self._waits_for = reason
        self._reporter.is_ready = True

    def _exit_unasked(self, ended: Ended, now: float, *, cannot_work: bool) -> None:
        reason = ended.cause.reason
        is_news = cannot_work or reason != self._memory.reason
        if reason != self._memory.reason:
            self._log.release(now, only_errors=True)
        self._reporter.journal.report_unsaid()
        self._memory.reason = reason
        self._forget_findings(ended)
        self._memory.save()
        if is_news:
            self._say(ERROR if cannot_work else WARNING, reason)
        self._reporter.finish(now, "failed" if cannot_work else "backoff", reason)
        self._exit_code = EXIT_CANNOT_WORK if cannot_work else EXIT_RETRY

    def _exit_terminated(self, now: float) -> None:
        """Without an FFmpeg: what the port waits for is the next runner's to find out."""
        self._memory.save()
        self._reporter.finish(now, "backoff", self._terminated)
        self._exit_code = EXIT_RETRY

    def _exit_stopped(self, now: float) -> None:
        """Whether systemd stops the port or starts it again, the next runner sees, and the ledger by that runner."""
        self._memory.end_as_asked()
        by = ""
        try:
            by = noted_stopper(self._options.port, self._run_directory)
        except Unreadable as error:
            self._say(ERROR, f"{error}; entering the stop as the operator's")
        take = self._memory.request.take
        asked = {} if self._asked_at is None else {"asked_at": self._asked_at}
        self._tell(spool.STOPPED, now, by=by or "operator", take=take, is_restart=self._is_restarting, **asked)
        self._reporter.status.update(stopped_by=by or "operator")
        self._reporter.finish(now, "stopped", "")
        self._exit_code = EXIT_STOPPED

    def _remarks(self, sight: Sight | None) -> list[str]:
        """What an operator should know of a port that records; `sight` is that of its attempt."""
        attempt, lack = self._attempt, self._memory.lack
        remarks = [f"{lack}: {FORGETS}"] if lack and not self._is_stopping else []
        if attempt is None or sight is None or attempt.phase != steps.RUNNING:
            return remarks
        if self._is_stopping or self._no_signal_since is not None:
            return remarks
        if self._memory.without_audio:
            where = "is embedded in the signal" if self._options.audio_options else "came from the input"
            remarks.append(f"without audio: none {where}")
        if self._memory.channels and not self._memory.without_audio:
            remarks.append(f"the sound's {self._memory.channels} channels are in pairs: in one track AAC cuts one off")
        remarks += [sound_remark(sight), attempt.streams.choice.remark]
        if attempt.streams.has_sound_jumped:
            remarks.append("the sound may not be in step with the picture: its timestamps jumped by more than 10 s")
        if attempt.is_from_zero:
            remarks.append("picture and sound may not be in step: their timestamps are too far apart")
        if attempt.streams.scaling:
            remarks.append(f"the picture is scaled: it is {attempt.streams.scaling}")
        remarks += [attempt.streams.cropped, attempt.watch_problem]
        remarks += [f"{file.path} was moved away; recording goes on in it" for file in attempt.files if file.is_moved]
        remarks += [attempt.sync_problem, attempt.ahead_problem, self._spool.problem]
        return remarks


def parts_of(hole: Hole, files: Sequence[File]) -> list[tuple[File, int, int]]:
    """The files that a hole is in, and how many frames are missing in each, and how many of these it has as copies."""
    begun = [(file, file.begun_at) for file in files if file.begun_at is not None and file.begun_at < hole.end]
    begun = begun or [(files[0], hole.start)]
    ends = [*(at for _, at in begun[1:]), hole.end]
    parts, seconds, share = [], hole.end - hole.start, 0.0
    for (file, _), end in zip(begun, ends, strict=True):
        before, share = share, min(1.0, max(0.0, (end - hole.start) / seconds)) if seconds > 0 else 1.0
        if share > before:
            counts = [round(count * share) - round(count * before) for count in (hole.frames, hole.filled)]
            parts.append((file, counts[0], counts[1]))
    return parts


def _is_within(start: float, end: float, still: Sequence[tuple[float, float]]) -> bool:
    """Whether most of a time lies in one in which the runner stood still."""
    return any(min(end, until) - max(start, since) > (end - start) / 2 for since, until in still)


def _recorded(port_index: int, run_directory: str, problems: list[str]) -> list[list[str]]:
    """The command lines that have recorded since boot; none where that cannot be read."""
    try:
        return recorded_commands(recorded_path(port_index, run_directory))
    except Unreadable as error:
        problems.append(f"{error}; an FFmpeg that cannot work may end the port")
        return []


# What begin.py goes on with, once this module is loaded.


def _journal(passed_over: Sequence[str]) -> Journal:
    """The journal, which says first what was passed over of the command line."""
    journal = Journal()
    for text in passed_over:
        journal.say(WARNING, f"{text}; sdisup apply writes the unit anew")
    return journal


def refuse(error: OptionError, passed_over: Sequence[str]) -> int:
    """End for good: nobody knows what to record."""
    _journal(passed_over).say(ERROR, f"{error}; this command line is written by: sdisup apply")
    return EXIT_CANNOT_WORK


def wait_for_former_runner(port_index: int, passed_over: Sequence[str]) -> int:
    """A runner that was killed is not gone while a thread of it waits for a hanging disk, and keeps its lock.

    Without a wait systemd would start the next one at once, and again.
    """
    text = f"port {port_index}: another runner records it already, or was killed and waits for a disk that hangs"
    _journal(passed_over).say(ERROR, text)
    Notifier().send("READY=1", f"STATUS={text}")
    came = signal.sigtimedwait(BOTH, LOCK_WAIT_S)
    return EXIT_STOPPED if came is not None and came.si_pid == SYSTEMD else EXIT_RETRY


def begin_again(port_index: int, error: Exception, passed_over: Sequence[str]) -> NoReturn:
    """Let systemd start the next runner, in a second."""
    _journal(passed_over).say(ERROR, f"port {port_index}: cannot begin: {error}; it is tried again")
    signal.sigtimedwait(BOTH, BEGIN_AGAIN_S)
    os._exit(EXIT_RETRY)


def go_on(beginning: Beginning, passed_over: Sequence[str]) -> NoReturn:
    """Run the port."""
    _journal(passed_over)
    try:
        runner = Runner(beginning, signals=Signals)
    except (OSError, Exhausted) as error:
        begin_again(beginning.options.port, error, ())
    code = runner.run()
    # Not sys.exit: a thread that waits for a hanging disk must not keep the interpreter.
    os._exit(code)
