"""What a runner does at each moment: pure, by what it sees, what went before, and the time.

`decide` says whether an FFmpeg is begun, left alone or ended, and what its end leads to; `describe` says what
people are told of the port meanwhile. DESIGN.md, "What restarts what". Times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

import math

from sdisup.contract.options import ENDS, OPTIONAL, Options
from sdisup.contract.records import Record
from sdisup.ledger.spool import TERMINATED
from sdisup.runner.causes import (
    CUT_OFF_CHANNEL,
    FAIL,
    FILE_DELETED,
    FORMAT_CHANGED,
    MISPLACED,
    NO_AUDIO,
    NO_FRAME,
    NO_SOUND,
    OTHER_PROGRAMME,
    RETRY,
    STALLED,
    TIMESTAMPS,
    WAIT,
    Cause,
    Fault,
)
from sdisup.runner.command import sound_input
from sdisup.runner.memory import BACKOFF_S, backoff_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

# Phases of a runner: without an FFmpeg, or those of its attempt.
WAITING, OPENING, RUNNING, CLOSING, ENDED = "waiting", "opening", "running", "closing", "ended"

# Steps that a runner takes.
NOTHING = "nothing"
BEGIN = "begin an attempt"
END_FFMPEG = "end FFmpeg by the ladder"
LET_GO_ON = "let FFmpeg go on"
GO_ON_WITHOUT_AUDIO = "begin again at once, without audio"
GO_ON_WITH_PROGRAMME = "begin again at once, with another programme"
GO_ON_IN_PAIRS = "begin again at once, with the sound in pairs"
AWAIT_SIGNAL = "try again later; the port is healthy"
AWAIT_RETRY = "try again later, after one more failure"
EXIT_STOPPED, EXIT_FOR_RETRY, EXIT_CANNOT_WORK = "exit, stopped", "exit for systemd to restart it", "exit for good"

CUT_AGAIN_S = 70.0
"""A file that could go on is ended for a new one at most once in this time, after which the port's ends count as
the first again (GOOD_RECORDING_S)."""
MOVED_AGAIN_S = 5.0
"""The same where the file's directory was moved: a new file begins at once, though not for ever where each is moved."""
CUT_DOUBLINGS, CUTS_FORGOTTEN_S = 6, 7200.0
"""How often that time doubles while the cuts go on, and after how long without one it is as at first."""
LOSS_IS_TOLD = 50
"""How many more lost pictures are worth a word to the ledger while the file goes on."""
READY_AT_LATEST_S = 5.0
GOOD_RECORDING_S = 60.0
CUTS = (FORMAT_CHANGED, TIMESTAMPS, MISPLACED)
"""Faults of a file that could go on, though not as well as a new one."""
DISK_ANSWER_S = 5.0
NO_AUDIO_S = 5.0
NO_SOUND_S, SOUND_HOLDS_S = 2.0, 7.0
"""How long a sound that is optional may keep the picture: before its first piece, and where it has an input of its own.
By the time that FFmpeg has opened its inputs it has read of each stream that sends."""
SOUND_STOPPED_S = 5.0
"""From when on it is said that no sound comes."""
WAIT_IS_SAID_S = 5.0
"""From when on it is said what a port waits for at its start."""
UNLIMITED_START_FRAMES_S = 30.0
"""Where a source may take for ever to begin: how long after its first frame one has to be on disk."""
INTERVAL_FRAMES = 4
"""So many frames tell how often a source sends one."""
NO_FRAME_S, NO_GROWTH_S = 2.0, 5.0
"""From when on a port that recorded is said to have stalled, without a new frame and with a file that does not grow."""

LOOPS_A_RUNNER, DISK_LOOPS_A_RUNNER, DISK_LOOPS = 6, 2, 10
HOPELESS_EAGER_LOOPS, HOPELESS_RETRY_S = 60, 60.0
"""An FFmpeg that worked and cannot is being replaced, most likely: it is tried as in any crash loop for ten minutes,
then once a minute."""
NO_SIGNAL_RETRY_S, NO_SIGNAL_LATER_S, NO_SIGNAL_EAGER_S = 1.0, 3.0, 60.0
NO_SIGNAL_SHARE, LOOP_SHARE = 0.018, 0.0065
"""Of a core: what FFmpeg's failing starts should cost at most without a signal, and in a crash loop."""
LOOP_LIMIT_S, NO_SIGNAL_LIMIT_S = 15.0, 5.0
"""What such a start costs must not keep a port that could record from it for longer than this."""


class Sight(Record):
    """What is seen of an attempt whose file is made or being made, at one moment.

    `blocks` are FFmpeg's progress blocks, `frames` the frames that they counted; `frameless_s` is for how long no new
    frame came (since the start if none did), `interval_s` the time between two of them, as far as FFmpeg knows;
    `growthless_s` is for how long the file has not grown, `look_s` how long ago that was looked at. `programme` is the
    one to record, where FFmpeg records another; `cut_channels` are those of the sound, where AAC would cut one of them
    off; `opening_s` is for how long FFmpeg has had the picture's input open
    and waits for the sound's; `soundless_s` for how long no sound came from the inputs once they were open, None where
    none is watched, and `has_sounded` whether any ever came. `recording_s` is for how long frames are on disk, None
    before the first one; `starting_s` is for how long it has come no further than to FFmpeg's start, its input's
    opening, or its first frame. `is_spared` is whether FFmpeg is to be ended for want of a frame, and does not know of
    it yet. `refusal` is why a file that counts as deleted could have no name. `pace` is what is wrong with the number
    of pictures, `jump` how their timestamps have jumped just now.
    """

    path: str = ""
    began_s: float = 0.0
    starting_s: float = 0.0
    is_spared: bool = False
    recording_s: float | None = None
    blocks: int = 0
    frames: int = 0
    frameless_s: float = 0.0
    interval_s: float = 0.0
    growthless_s: float = 0.0
    look_s: float = 0.0
    pace: str = ""
    jump: str = ""
    format_change: str = ""
    programme: str = ""
    cut_channels: int = 0
    opening_s: float = 0.0
    soundless_s: float | None = None
    has_sounded: bool = False
    is_deleted: bool = False
    refusal: str = ""
    is_misplaced: bool = False


class Ended(Record):
    """What is known of an attempt that has ended: why, what its file is worth (causes.file_verdict), what it cost.

    `kept` whether a file holds frames, `cpu_s` what FFmpeg cost in seconds of a core, `could_open` whether there was
    a file at all, `is_abandoned` whether its disk still has to close it, `lacks_input` whether the picture's input was
    open and another one never was, `was_silent` whether sound was to come from its inputs and none did.
    """

    cause: Cause
    verdict: str = ""
    fault: Fault | None = None
    frames: int = 0
    kept: bool = False
    cpu_s: float = 0.0
    could_open: bool = True
    is_abandoned: bool = False
    wrote_no_audio: bool = False
    lacks_input: bool = False
    was_silent: bool = False


class Situation(Record):
    """All that a decision depends on, but for the port's options.

    `failures` are the ends in a row without a good minute between them; `loops` those that this runner waited out
    itself; `no_signal_since` is None while there is a signal, or nobody knows. `has_recorded` is whether this command
    line has recorded since boot. `cut_at` is when a file was ended that could have gone on, None if none was, and
    `cuts` how many were one after the other. `from_zero` is whether picture and sound begin at zero each now.
    `is_forgetful` is whether the next runner would not know of them. `terminated` says who has sent the runner a signal
    to end that was not systemd; empty if nobody has.
    """

    now: float
    phase: str = WAITING
    is_stopping: bool = False
    terminated: str = ""
    is_ending: bool = False
    wait_until: float = 0.0
    failures: int = 0
    is_forgetful: bool = False
    loops: int = 0
    no_signal_since: float | None = None
    has_recorded: bool = False
    cut_at: float | None = None
    cuts: int = 0
    from_zero: bool = False
    sight: Sight | None = None
    ended: Ended | None = None


class Decision(Record):
    """A step, why FFmpeg is ended (None at a stop), and how long to wait before the next attempt, in seconds."""

    step: str
    fault: Fault | None = None
    wait_s: float = 0.0


def decide(situation: Situation, options: Options) -> Decision:
    """What the runner does now."""
    if situation.phase == WAITING:
        return _while_waiting(situation)
    if situation.ended is not None:
        return _after_end(situation, situation.ended, options)
    if situation.phase == RUNNING and situation.sight is not None and situation.sight.is_spared:
        return _while_spared(situation, situation.sight)
    if situation.phase == CLOSING or situation.is_ending or situation.sight is None:
        return Decision(NOTHING)
    if situation.is_stopping:
        return Decision(END_FFMPEG)
    if situation.terminated:
        return Decision(END_FFMPEG, Fault(TERMINATED, situation.terminated))
    fault = find_fault(situation.sight, options) if situation.phase == RUNNING else None
    if fault is None and situation.phase == RUNNING:
        cut = find_cut(situation.sight)
        fault = cut if cut and _may_cut(situation, cut) else None
    return Decision(END_FFMPEG, fault) if fault else Decision(NOTHING)


def _may_cut(situation: Situation, cut: Fault) -> bool:
    """Whether a new file is worth it. What happens again and again would cost more by new files than by itself: so each
    further cut waits twice as long. A start that brings no frame loses nothing, but is tried from zero once only."""
    if situation.sight is not None and situation.sight.recording_s is None:
        return not situation.sight.frames and not situation.from_zero
    first_s = MOVED_AGAIN_S if cut.kind == MISPLACED else CUT_AGAIN_S
    again_s = first_s * 2.0 ** min(max(situation.cuts - 1, 0), CUT_DOUBLINGS)
    return situation.cut_at is None or situation.now - situation.cut_at > again_s


def _while_spared(situation: Situation, sight: Sight) -> Decision:
    """FFmpeg is to end for want of a frame and does not know of it yet: when one comes it goes on."""
    if situation.is_stopping or situation.terminated:
        return Decision(END_FFMPEG)
    return Decision(LET_GO_ON if sight.frames or sight.recording_s is not None else NOTHING)


def _while_waiting(situation: Situation) -> Decision:
    if situation.is_stopping:
        return Decision(EXIT_STOPPED)
    if situation.terminated:
        return Decision(EXIT_FOR_RETRY)
    return Decision(BEGIN if situation.now >= situation.wait_until else NOTHING)


def find_fault(sight: Sight, options: Options) -> Fault | None:
    """What a running FFmpeg is to be ended for, if anything."""
    if sight.programme:
        return Fault(OTHER_PROGRAMME, "another programme is the best one")
    if sight.cut_channels:
        return Fault(CUT_OFF_CHANNEL, f"AAC would cut off one of the sound's {sight.cut_channels} channels")
    if sight.is_deleted:
        what = f"could have no name: {sight.refusal}" if sight.refusal else "was removed while it was recorded"
        return Fault(FILE_DELETED, f"file deleted: {sight.path} {what}")
    fault = _sound_fault(sight, options)
    if fault:
        return fault
    if sight.recording_s is None:
        return _fault_before_media(sight, options)
    if sight.frameless_s > options.stall_timeout_s:
        return Fault(STALLED, f"stalled: no new frame for {sight.frameless_s:.0f} s")
    # Only what was looked at counts: a look that hangs says nothing of the file.
    growthless_s = sight.growthless_s - sight.look_s
    if growthless_s > max(NO_GROWTH_S, options.stall_timeout_s):
        return Fault(STALLED, f"stalled: the file has not grown for {growthless_s:.0f} s")
    return None


def _sound_fault(sight: Sight, options: Options) -> Fault | None:
    """What to end FFmpeg for where a sound that may be left out keeps the picture from the file.

    A card's signal is judged by its first block alone: what FFmpeg logs at its end tells whether it had frames.
    """
    if options.sound != OPTIONAL or options.audio_options:
        return None
    if sight.opening_s > NO_AUDIO_S:
        return Fault(NO_SOUND, "the sound's input does not open")
    if sight.soundless_s is None:
        return None
    if not sight.has_sounded and not sight.blocks and sight.soundless_s > NO_SOUND_S:
        return Fault(NO_SOUND, "no sound comes from the input")
    both_for_s = min(sight.soundless_s, sight.frameless_s)
    if sight.has_sounded and both_for_s > SOUND_HOLDS_S and sound_input(options.command):
        return Fault(NO_SOUND, "the sound's input has stalled and holds the picture")
    return None


def find_cut(sight: Sight) -> Fault | None:
    """Why a new file would record more than a file that could go on, if it would."""
    if sight.jump:
        return Fault(TIMESTAMPS, f"timestamps jumped {sight.jump}")
    if sight.recording_s is not None and sight.format_change:
        return Fault(FORMAT_CHANGED, f"format changed: {sight.format_change}")
    if sight.is_misplaced:
        return Fault(MISPLACED, f"directory moved: the path of {sight.path} leads to another directory now")
    return None


def _fault_before_media(sight: Sight, options: Options) -> Fault | None:
    if options.audio_options and not sight.blocks and sight.frameless_s > NO_AUDIO_S:
        return Fault(NO_AUDIO, f"no frame within {NO_AUDIO_S:.0f} s of the start: the signal may carry no audio")
    limit_s = start_limit_s(sight, options)
    if sight.starting_s > limit_s:
        # Frames that arrive and are not in the file count for nothing.
        where = " on disk" if sight.frames else ""
        is_silent = sight.soundless_s is not None and not sight.has_sounded and not sight.blocks
        why = ": the picture waits for the sound, and none comes" if is_silent else ""
        return Fault(NO_FRAME, f"no frame{where} within {limit_s:.0f} s of FFmpeg's start{why}")
    return None


def start_limit_s(sight: Sight, options: Options) -> float:
    return options.start_timeout_s or (UNLIMITED_START_FRAMES_S if sight.frames else math.inf)


# What an end leads to.


def _after_end(situation: Situation, ended: Ended, options: Options) -> Decision:
    if situation.is_stopping:
        return Decision(EXIT_STOPPED)
    if situation.terminated:
        return Decision(EXIT_FOR_RETRY)
    if ended.fault is not None and ended.fault.kind == OTHER_PROGRAMME:
        return Decision(GO_ON_WITH_PROGRAMME)
    if ended.fault is not None and ended.fault.kind == CUT_OFF_CHANNEL:
        return Decision(GO_ON_IN_PAIRS)
    if held_video(ended, options) or lacks_sound(ended, options):
        return Decision(GO_ON_WITHOUT_AUDIO)
    if ended.cause.outcome == WAIT:
        since = situation.now if situation.no_signal_since is None else situation.no_signal_since
        return Decision(AWAIT_SIGNAL, wait_s=no_signal_wait_s(situation.now - since, ended.cpu_s))
    if ended.cause.outcome == FAIL and situation.has_recorded:
        return Decision(AWAIT_RETRY, wait_s=hopeless_wait_s(situation))
    is_loop = _is_loop(situation, ended)
    if ended.is_abandoned or is_loop or (situation.is_forgetful and ended.cause.outcome == RETRY):
        # Where nothing can be left to the next runner, as in a full /run, it would begin without a wait.
        cpu_s = 0.0 if ended.frames or not (ended.is_abandoned or is_loop) else ended.cpu_s
        return Decision(AWAIT_RETRY, wait_s=loop_wait_s(situation.failures + 1, cpu_s))
    return Decision(EXIT_CANNOT_WORK if ended.cause.outcome == FAIL else EXIT_FOR_RETRY)


def held_video(ended: Ended, options: Options) -> bool:
    """Whether FFmpeg had held video back for want of audio: then `q` wrote out all the seconds of it.

    A disk that took its time to make the file looks the same until FFmpeg counts what it wrote.
    """
    least_frames = NO_AUDIO_S / 2 * (options.rate or 1.0)
    is_held = ended.fault is not None and ended.fault.kind == NO_AUDIO and ended.frames >= least_frames
    return is_held and ended.kept and ended.wrote_no_audio


def lacks_sound(ended: Ended, options: Options) -> bool:
    """Whether FFmpeg ended for a sound that may be left out."""
    if ended.fault is not None:
        return ended.fault.kind == NO_SOUND
    # What no decoder understands ends an FFmpeg 5.1 before its first frame.
    is_sound = ended.lacks_input or (ended.was_silent and not ended.frames and not ended.cause.is_disk)
    return is_sound and options.sound == OPTIONAL and not options.audio_options and ended.could_open


def _is_loop(situation: Situation, ended: Ended) -> bool:
    """Whether this is a crash loop at its slowest, which the runner waits out itself.

    Its restarts by systemd would cost as much as FFmpeg's own failing starts, and seven journal lines each. Once a
    minute it is started anew all the same: only a new sandbox sees a device that came since, or a disk that was
    mounted. A disk's trouble of less than two minutes is looked at anew each time.
    """
    is_disk = ended.cause.is_disk or not ended.could_open
    least_failures = len(BACKOFF_S) - 1 + (DISK_LOOPS if is_disk else 0)
    return (
        ended.cause.outcome == RETRY
        and situation.failures >= least_failures
        and situation.loops < (DISK_LOOPS_A_RUNNER if is_disk else LOOPS_A_RUNNER)
    )


def loop_wait_s(failures: int, cpu_s: float) -> float:
    """How long to wait in a crash loop at its slowest, where FFmpeg's failing start cost `cpu_s` of a core."""
    return max(backoff_s(failures), min(cpu_s / LOOP_SHARE, LOOP_LIMIT_S))


def hopeless_wait_s(situation: Situation) -> float:
    """How long to wait where FFmpeg cannot work with a command line that has recorded since boot."""
    return backoff_s(situation.failures + 1) if situation.loops < HOPELESS_EAGER_LOOPS else HOPELESS_RETRY_S


def no_signal_wait_s(waited_s: float, cpu_s: float) -> float:
    """How long to wait for a signal before the next look, which costs `cpu_s` of a core.

    A cable that was just pulled is soon back. An input that has been idle for a minute may stay so for months,
    and should not cost more than NO_SIGNAL_SHARE of a core, as far as NO_SIGNAL_LIMIT_S allows.
    """
    if waited_s < NO_SIGNAL_EAGER_S:
        return NO_SIGNAL_RETRY_S
    return max(NO_SIGNAL_LATER_S, min(cpu_s / NO_SIGNAL_SHARE, NO_SIGNAL_LIMIT_S))


# What people are told.


def describe(situation: Situation, options: Options, waits_for: str, told: tuple[str, str]) -> tuple[str, str]:
    """The port's state and its reason. `waits_for` is why there is no FFmpeg, `told` what was said last."""
    sight = situation.sight
    if situation.is_stopping:
        return "stopping", ""
    if sight is not None and situation.phase == OPENING and sight.began_s > DISK_ANSWER_S:
        return "starting", f"{options.recordings} does not answer for {sight.began_s:.0f} s"
    if situation.no_signal_since is not None:
        return "no-signal", waits_for
    if sight is None:
        return "backoff", waits_for
    if situation.phase == CLOSING:
        state, reason = told
        return "stalled" if state == "recording" else state, reason or "FFmpeg ended; its file is being closed"
    if sight.recording_s is None:
        return describe_start(sight, options)
    return describe_media(sight)


def describe_start(sight: Sight, options: Options) -> tuple[str, str]:
    """`starting` and what is waited for; `no-signal` where a source may take for ever to begin."""
    if sight.starting_s <= WAIT_IS_SAID_S:
        return "starting", ""
    if sight.frames:
        return "starting", f"frames arrive, and none is on disk for {sight.starting_s:.0f} s"
    if not options.start_timeout_s:
        return "no-signal", f"waits for {options.input}"
    if options.without_signal == ENDS:
        return "starting", f"{options.input} has a signal, and no frame has come for {sight.starting_s:.0f} s"
    ends = f"; FFmpeg is started again after {options.start_timeout_s:g} s"
    return "starting", f"waits for the first frame of {options.input} for {sight.starting_s:.0f} s{ends}"


def describe_media(sight: Sight) -> tuple[str, str]:
    """`starting`, `recording` or `stalled`, and the reason. A source may send a picture now and then."""
    if sight.recording_s is None:
        return "starting", ""
    seen_s = seen_interval_s(sight)
    interval_s = max(sight.interval_s, seen_s)
    if sight.frameless_s > max(NO_FRAME_S, 2 * interval_s):
        return "stalled", f"no new frame for {sight.frameless_s:.0f} s"
    if sight.growthless_s > max(NO_GROWTH_S, 3 * interval_s):
        return "stalled", f"frames arrive, but the file has not grown for {sight.growthless_s:.0f} s"
    return "recording", sight.pace or (f"a picture every {interval_s:.0f} s" if seen_s > NO_FRAME_S else "")


def seen_interval_s(sight: Sight) -> float:
    """The time from one frame to the next as it is once there are a few; 0 before."""
    has_few = sight.frames < INTERVAL_FRAMES or sight.recording_s is None
    return 0.0 if has_few else max(0.0, (sight.recording_s or 0.0) - sight.frameless_s) / (sight.frames - 1)


def next_limit_s(sight: Sight, options: Options) -> float:
    """In how many seconds no frame will have come for too long: for a recording, or for a start. A time that is over
    counts no more; infinite where all are."""
    if sight.recording_s is None:
        limits = [WAIT_IS_SAID_S - sight.starting_s, start_limit_s(sight, options) - sight.starting_s]
        limits += [NO_AUDIO_S - sight.frameless_s] if options.audio_options else []
    else:
        said_s = max(NO_FRAME_S, 2 * max(sight.interval_s, seen_interval_s(sight)))
        limits = [said_s - sight.frameless_s, options.stall_timeout_s - sight.frameless_s]
    return min((limit_s for limit_s in limits if limit_s >= 0), default=math.inf)


def sound_remark(sight: Sight) -> str:
    """What people are told of a sound that does not come; "" if it does."""
    if sight.soundless_s is None:
        return ""
    if not sight.has_sounded and not sight.blocks and sight.soundless_s > NO_SOUND_S:
        return f"no sound has come for {sight.soundless_s:.0f} s, and the picture waits for it"
    # A stream that comes in pieces brings both, and a source that stalls neither.
    if sight.soundless_s > SOUND_STOPPED_S + sight.frameless_s:
        return f"no sound for {sight.soundless_s:.0f} s"
    return ""
