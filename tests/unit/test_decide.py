"""What a runner does at each moment, as a table: a situation, and the decision that it leads to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract import options as words
from sdisup.contract.options import Options
from sdisup.runner.causes import (
    DISK,
    DISK_FULL,
    FAIL,
    FILE_DELETED,
    FORMAT_CHANGED,
    MISPLACED,
    NO_AUDIO,
    NO_FRAME,
    RETRY,
    STALLED,
    TIMESTAMPS,
    WAIT,
    Cause,
    Fault,
)
from sdisup.runner.command import from_zero
from sdisup.runner.decide import (
    AWAIT_RETRY,
    AWAIT_SIGNAL,
    BEGIN,
    CLOSING,
    DISK_LOOPS,
    DISK_LOOPS_A_RUNNER,
    END_FFMPEG,
    ENDED,
    EXIT_CANNOT_WORK,
    EXIT_FOR_RETRY,
    EXIT_STOPPED,
    GO_ON_WITHOUT_AUDIO,
    HOPELESS_EAGER_LOOPS,
    HOPELESS_RETRY_S,
    LET_GO_ON,
    LOOPS_A_RUNNER,
    NOTHING,
    OPENING,
    RUNNING,
    WAITING,
    Ended,
    Sight,
    Situation,
    decide,
    describe,
)
from sdisup.runner.memory import BACKOFF_S

PATH = "/srv/recordings/CAM3.mkv"
OPTIONS = Options(
    ["ffmpeg", "{output}"],
    port=3, name="CAM3", codec="h264", container="mkv", source="test", input="FFmpeg's test picture",
    without_signal="", audio_options="", recordings="/srv/recordings", revision="r1", filesystem="", rate=25.0,
    stall_timeout_s=5.0, start_timeout_s=30.0, sync_interval_s=1.0, stop_quit_s=3.0, stop_start_quit_s=4.0,
    stop_term_s=2.0,
)  # fmt: skip
CARD = OPTIONS.replaced(audio_options="-nb_channels,-sample_rate,-sample_size", stall_timeout_s=12.0)
LISTENER = OPTIONS.replaced(start_timeout_s=0.0, stall_timeout_s=60.0)

CRASH = Cause("crash", RETRY, "FFmpeg exited with 1")
FULL = Cause(DISK_FULL, RETRY, "disk full: no space")
LOST = Cause("signal lost", WAIT, "signal lost")
HOPELESS = Cause("cannot work", FAIL, "cannot work: Unknown encoder")
HELD = Ended(CRASH, fault=Fault(NO_AUDIO, ""), frames=200, kept=True, wrote_no_audio=True)
SLOWEST = len(BACKOFF_S) - 1
SPARED = Sight(path=PATH, starting_s=31.0, frameless_s=31.0, is_spared=True)
GOOD = Sight(path=PATH, starting_s=9.0, recording_s=8.0, blocks=32, frames=200)


def running(sight: Sight, **more: object) -> Situation:
    return Situation(now=100.0, phase=RUNNING, sight=sight).replaced(**more)


def after(ended: Ended, **more: object) -> Situation:
    return Situation(now=100.0, phase=ENDED, sight=Sight(), ended=ended).replaced(**more)


# name, situation, options, step, kind of the fault, seconds to wait
CASES = [
    # Without an FFmpeg.
    ("it is time", Situation(now=100.0, wait_until=100.0), OPTIONS, BEGIN, "", 0),
    ("it is not time yet", Situation(now=99.9, wait_until=100.0), OPTIONS, NOTHING, "", 0),
    ("stopped while it waits", Situation(now=9.0, wait_until=100.0, is_stopping=True), OPTIONS, EXIT_STOPPED, "", 0),
    ("stopped before it began", Situation(now=100.0, is_stopping=True), OPTIONS, EXIT_STOPPED, "", 0),
    # While the disk makes the file.
    ("the disk takes its time", Situation(now=1.0, phase=OPENING, sight=Sight(began_s=60)), CARD, NOTHING, "", 0),
    ("stopped meanwhile", Situation(now=1.0, phase=OPENING, is_stopping=True, sight=Sight()), CARD, END_FFMPEG, "", 0),
    # Before the first frame.
    ("it starts", running(Sight(starting_s=4.9, frameless_s=4.9)), CARD, NOTHING, "", 0),
    ("a card without frames", running(Sight(starting_s=5.1, frameless_s=5.1)), CARD, END_FFMPEG, NO_AUDIO, 0),
    ("a card that counts", running(Sight(starting_s=5.1, frameless_s=5.1, blocks=1)), CARD, NOTHING, "", 0),
    ("another source", running(Sight(starting_s=29.9, frameless_s=29.9)), OPTIONS, NOTHING, "", 0),
    ("no frame", running(Sight(starting_s=30.1, frameless_s=30.1)), OPTIONS, END_FFMPEG, NO_FRAME, 0),
    ("its input was opened late", running(Sight(starting_s=21.0)), OPTIONS, NOTHING, "", 0),
    ("no frame on disk", running(Sight(starting_s=30.1, frames=700, blocks=9)), OPTIONS, END_FFMPEG, NO_FRAME, 0),
    ("a listener waits", running(Sight(starting_s=90_000.0, frameless_s=90_000.0)), LISTENER, NOTHING, "", 0),
    ("a listener's caller", running(Sight(starting_s=2.0, frames=50)), LISTENER, NOTHING, "", 0),
    ("its frames go nowhere", running(Sight(starting_s=30.1, frames=700)), LISTENER, END_FFMPEG, NO_FRAME, 0),
    ("the file is gone", running(Sight(starting_s=0.1, is_deleted=True)), OPTIONS, END_FFMPEG, FILE_DELETED, 0),
    # It is to end for want of a frame, and does not know of it.
    ("still none", running(SPARED, is_ending=True), OPTIONS, NOTHING, "", 0),
    ("one is counted", running(SPARED.replaced(frames=1), is_ending=True), OPTIONS, LET_GO_ON, "", 0),
    ("one is on disk", running(SPARED.replaced(recording_s=0.0), is_ending=True), OPTIONS, LET_GO_ON, "", 0),
    ("it knows", running(SPARED.replaced(frames=1, is_spared=False), is_ending=True), OPTIONS, NOTHING, "", 0),
    ("one comes at a stop", running(SPARED.replaced(frames=1), is_ending=True, is_stopping=True), OPTIONS, END_FFMPEG,
     "", 0),
    # While it records.
    ("it records", running(GOOD), OPTIONS, NOTHING, "", 0),
    ("a hiccup", running(GOOD.replaced(frameless_s=5.0)), OPTIONS, NOTHING, "", 0),
    ("a stall", running(GOOD.replaced(frameless_s=5.1)), OPTIONS, END_FFMPEG, STALLED, 0),
    ("a card may be silent for longer", running(GOOD.replaced(frameless_s=11.9)), CARD, NOTHING, "", 0),
    ("a card's stall", running(GOOD.replaced(frameless_s=12.1)), CARD, END_FFMPEG, STALLED, 0),
    ("the file stands still", running(GOOD.replaced(growthless_s=6.0, look_s=0.5)), OPTIONS, END_FFMPEG, STALLED, 0),
    ("nobody could look", running(GOOD.replaced(growthless_s=60.0, look_s=59.0)), OPTIONS, NOTHING, "", 0),
    ("another format", running(GOOD.replaced(format_change="640x480")), OPTIONS, END_FFMPEG, FORMAT_CHANGED, 0),
    ("another format again", running(GOOD.replaced(format_change="640x480"), cut_at=31.0), OPTIONS, NOTHING, "", 0),
    ("and much later", running(GOOD.replaced(format_change="640x480"), cut_at=29.0), OPTIONS, END_FFMPEG,
     FORMAT_CHANGED, 0),
    ("the second cut", running(GOOD.replaced(jump="x"), cut_at=0.0, cuts=2), OPTIONS, NOTHING, "", 0),
    ("the second cut, later", running(GOOD.replaced(jump="x"), cut_at=-41.0, cuts=2), OPTIONS, END_FFMPEG, TIMESTAMPS,
     0),
    ("the twelfth cut", running(GOOD.replaced(jump="x"), cut_at=-4300.0, cuts=12), OPTIONS, NOTHING, "", 0),
    ("the twelfth cut, later", running(GOOD.replaced(jump="x"), cut_at=-4400.0, cuts=12), OPTIONS, END_FFMPEG,
     TIMESTAMPS, 0),
    ("far apart", running(Sight(jump="x"), cut_at=99.0), OPTIONS, END_FFMPEG, TIMESTAMPS, 0),
    ("far apart, from zero too", running(Sight(jump="x"), from_zero=True), OPTIONS, NOTHING, "", 0),
    ("a jump before the file is", running(Sight(jump="x", frames=9)), OPTIONS, NOTHING, "", 0),
    ("timestamps jump", running(GOOD.replaced(jump="20 s ahead")), OPTIONS, END_FFMPEG, TIMESTAMPS, 0),
    ("they jump again", running(GOOD.replaced(jump="20 s ahead"), cut_at=90.0), OPTIONS, NOTHING, "", 0),
    ("they jump and stand still", running(GOOD.replaced(jump="back", frameless_s=9.0), cut_at=90.0), OPTIONS,
     END_FFMPEG, STALLED, 0),
    ("its directory was moved", running(GOOD.replaced(is_misplaced=True)), OPTIONS, END_FFMPEG, MISPLACED, 0),
    ("before a frame", running(Sight(starting_s=1.0, is_misplaced=True)), OPTIONS, END_FFMPEG, MISPLACED, 0),
    ("it was moved again at once", running(GOOD.replaced(is_misplaced=True), cut_at=96.0), OPTIONS, NOTHING, "", 0),
    ("it was moved again", running(GOOD.replaced(is_misplaced=True), cut_at=94.0), OPTIONS, END_FFMPEG, MISPLACED, 0),
    ("and again", running(GOOD.replaced(is_misplaced=True), cut_at=91.0, cuts=2), OPTIONS, NOTHING, "", 0),
    ("deleted", running(GOOD.replaced(is_deleted=True)), OPTIONS, END_FFMPEG, FILE_DELETED, 0),
    ("too slow", running(GOOD.replaced(pace="cannot keep up: 20.0 of 25 fps")), OPTIONS, NOTHING, "", 0),
    ("stopped", running(GOOD, is_stopping=True), OPTIONS, END_FFMPEG, "", 0),
    ("stopped and stalled", running(GOOD.replaced(frameless_s=60.0), is_stopping=True), OPTIONS, END_FFMPEG, "", 0),
    # While FFmpeg is being ended.
    ("it is ending", running(GOOD.replaced(frameless_s=60.0), is_ending=True), OPTIONS, NOTHING, "", 0),
    ("it is ending, and stopped", running(GOOD, is_ending=True, is_stopping=True), OPTIONS, NOTHING, "", 0),
    ("the file is closed", running(GOOD.replaced(frameless_s=60.0), phase=CLOSING), OPTIONS, NOTHING, "", 0),
    # What an end leads to.
    ("a crash", after(Ended(CRASH)), OPTIONS, EXIT_FOR_RETRY, "", 0),
    ("a crash at a stop", after(Ended(CRASH), is_stopping=True), OPTIONS, EXIT_STOPPED, "", 0),
    ("hopeless", after(Ended(HOPELESS)), OPTIONS, EXIT_CANNOT_WORK, "", 0),
    ("hopeless, and it has recorded", after(Ended(HOPELESS), has_recorded=True), OPTIONS, AWAIT_RETRY, "", 0),
    ("hopeless for a while", after(Ended(HOPELESS), has_recorded=True, failures=99, loops=HOPELESS_EAGER_LOOPS - 1),
     OPTIONS, AWAIT_RETRY, "", 10.0),
    ("hopeless for long", after(Ended(HOPELESS), has_recorded=True, failures=99, loops=HOPELESS_EAGER_LOOPS), OPTIONS,
     AWAIT_RETRY, "", 60.0),
    ("another end after that", after(Ended(CRASH), has_recorded=True, failures=99, loops=HOPELESS_EAGER_LOOPS), OPTIONS,
     EXIT_FOR_RETRY, "", 0),
    ("hopeless, has recorded, stopped", after(Ended(HOPELESS), has_recorded=True, is_stopping=True), OPTIONS,
     EXIT_STOPPED, "", 0),
    ("hopeless at a stop", after(Ended(HOPELESS), is_stopping=True), OPTIONS, EXIT_STOPPED, "", 0),
    ("a lost signal", after(Ended(LOST, frames=9)), CARD, AWAIT_SIGNAL, "", 1.0),
    ("still none", after(Ended(LOST), no_signal_since=50.0), CARD, AWAIT_SIGNAL, "", 1.0),
    ("none for a minute", after(Ended(LOST, cpu_s=0.01), no_signal_since=40.0), CARD, AWAIT_SIGNAL, "", 3.0),
    ("none, and starts are slow", after(Ended(LOST, cpu_s=0.18), no_signal_since=0.0), CARD, AWAIT_SIGNAL, "", 5.0),
    ("none, and starts are very slow", after(Ended(LOST, cpu_s=0.45), no_signal_since=0.0), CARD, AWAIT_SIGNAL, "",
     5.0),
    ("no signal at a stop", after(Ended(LOST), is_stopping=True), CARD, EXIT_STOPPED, "", 0),
    # A signal without audio.
    ("video was held back", after(HELD), CARD, GO_ON_WITHOUT_AUDIO, "", 0),
    ("at a stop", after(HELD, is_stopping=True), CARD, EXIT_STOPPED, "", 0),
    ("too few frames", after(HELD.replaced(frames=9)), CARD, EXIT_FOR_RETRY, "", 0),
    ("there was audio", after(HELD.replaced(wrote_no_audio=False)), CARD, EXIT_FOR_RETRY, "", 0),
    ("nothing was kept", after(HELD.replaced(kept=False)), CARD, EXIT_FOR_RETRY, "", 0),
    # Crash loops.
    ("not yet a loop", after(Ended(CRASH), failures=SLOWEST - 1), OPTIONS, EXIT_FOR_RETRY, "", 0),
    ("a loop", after(Ended(CRASH), failures=SLOWEST), OPTIONS, AWAIT_RETRY, "", 10.0),
    ("a slow loop", after(Ended(CRASH, cpu_s=0.13), failures=SLOWEST), OPTIONS, AWAIT_RETRY, "", 15.0),
    ("a loop whose starts are very slow", after(Ended(CRASH, cpu_s=0.45), failures=SLOWEST), OPTIONS, AWAIT_RETRY, "",
     15.0),
    ("frames cost what they cost", after(Ended(CRASH, frames=9, cpu_s=0.13), failures=SLOWEST), OPTIONS,
     AWAIT_RETRY, "", 10.0),
    ("a new sandbox is due", after(Ended(CRASH), failures=99, loops=LOOPS_A_RUNNER), OPTIONS, EXIT_FOR_RETRY, "", 0),
    ("a hopeless loop", after(Ended(HOPELESS), failures=99), OPTIONS, EXIT_CANNOT_WORK, "", 0),
    ("a disk's first trouble", after(Ended(FULL), failures=SLOWEST), OPTIONS, EXIT_FOR_RETRY, "", 0),
    ("a disk's loop", after(Ended(FULL), failures=SLOWEST + DISK_LOOPS), OPTIONS, AWAIT_RETRY, "", 10.0),
    ("a disk is looked at anew", after(Ended(FULL), failures=99, loops=DISK_LOOPS_A_RUNNER), OPTIONS,
     EXIT_FOR_RETRY, "", 0),
    ("no file could be made", after(Ended(Cause(DISK, RETRY, ""), could_open=False), failures=SLOWEST), OPTIONS,
     EXIT_FOR_RETRY, "", 0),
    ("its disk hangs", after(Ended(CRASH, is_abandoned=True)), OPTIONS, AWAIT_RETRY, "", 0),
]  # fmt: skip


@pytest.mark.parametrize(("situation", "options", "step", "kind", "wait_s"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_a_situation_leads_to_a_step(
    situation: Situation, options: Options, step: str, kind: str, wait_s: float
) -> None:
    decision = decide(situation, options)
    assert decision.step == step
    assert (decision.fault.kind if decision.fault else "") == kind
    assert decision.wait_s == pytest.approx(wait_s)


TOLD = ("recording", "")

DESCRIPTIONS = [
    ("it records", running(GOOD), "recording", ""),
    ("a hiccup", running(GOOD.replaced(frameless_s=2.0)), "recording", ""),
    ("frames stand still", running(GOOD.replaced(frameless_s=3.0)), "stalled", "no new frame for 3 s"),
    ("the file stands still", running(GOOD.replaced(growthless_s=6.0)), "stalled",
     "frames arrive, but the file has not grown for 6 s"),
    ("too slow", running(GOOD.replaced(pace="cannot keep up")), "recording", "cannot keep up"),
    ("a picture now and then", running(Sight(recording_s=100.0, frameless_s=19.0, growthless_s=39.0, frames=5)),
     "recording", "a picture every 20 s"),
    ("its second picture", running(Sight(recording_s=20.0, frameless_s=19.0, interval_s=20.0, frames=2)), "recording",
     ""),
    ("a rate that was found wrong", running(GOOD.replaced(interval_s=20.0)), "recording", ""),
    ("none now and then", running(Sight(recording_s=122.0, frameless_s=41.0, frames=5)), "stalled",
     "no new frame for 41 s"),
    ("it starts", running(Sight(starting_s=5.0)), "starting", ""),
    ("it waits for a frame", running(Sight(starting_s=6.0)), "starting",
     "waits for the first frame of FFmpeg's test picture for 6 s; FFmpeg is started again after 30 s"),
    ("it waits for its disk", running(Sight(starting_s=6.0, frames=150)), "starting",
     "frames arrive, and none is on disk for 6 s"),
    ("the disk answers", Situation(now=1.0, phase=OPENING, sight=Sight(began_s=4.0)), "starting", ""),
    ("the disk hangs", Situation(now=1.0, phase=OPENING, sight=Sight(began_s=6.0)), "starting",
     "/srv/recordings does not answer for 6 s"),
    ("it waits", Situation(now=1.0), "backoff", "why"),
    ("no signal", Situation(now=1.0, no_signal_since=0.0), "no-signal", "why"),
    ("it looks for a signal", running(Sight(starting_s=0.1), no_signal_since=0.0), "no-signal", "why"),
    ("it stops", running(GOOD, is_stopping=True), "stopping", ""),
    ("it closes", running(GOOD, phase=CLOSING), "stalled", "FFmpeg ended; its file is being closed"),
]  # fmt: skip


@pytest.mark.parametrize(("situation", "state", "reason"), [case[1:] for case in DESCRIPTIONS],
                         ids=[case[0] for case in DESCRIPTIONS])  # fmt: skip
def test_a_situation_is_described(situation: Situation, state: str, reason: str) -> None:
    assert describe(situation, OPTIONS, "why", TOLD) == (state, reason)


def test_a_card_that_is_locked_without_frames_says_so() -> None:
    card = CARD.replaced(without_signal=words.ENDS, input="board 0 channel 3")
    said = describe(running(Sight(starting_s=6.0)), card, "", ("starting", ""))
    assert said == ("starting", "board 0 channel 3 has a signal, and no frame has come for 6 s")


def test_a_listener_has_no_signal_until_it_has_a_caller() -> None:
    for waited_s, state in ((1.0, "starting"), (6.0, "no-signal"), (90_000.0, "no-signal")):
        said = describe(running(Sight(starting_s=waited_s)), LISTENER, "", ("starting", ""))
        assert said == (state, "" if state == "starting" else "waits for FFmpeg's test picture")


def test_a_command_from_zero_has_its_filters_first() -> None:
    assert from_zero(["f", "-i", "x", "o"]) == ["f", "-i", "x", "-vf", "setpts=PTS-STARTPTS,null", "o"]
    assert from_zero(["f", "-vf", "a", "-filter:a:1", "b", "o"])[-2] == "asetpts=PTS-STARTPTS,b"
    assert from_zero(["f", "-vf", "a", "-af", "b", "o"]) == [
        "f", "-vf", "setpts=PTS-STARTPTS,a", "-af", "asetpts=PTS-STARTPTS,b", "o",
    ]  # fmt: skip


def test_a_file_that_is_closed_keeps_what_was_said_before() -> None:
    closing = running(GOOD, phase=CLOSING)
    assert describe(closing, OPTIONS, "", ("stalled", "no new frame for 7 s")) == ("stalled", "no new frame for 7 s")
    assert describe(closing, OPTIONS, "", ("starting", ""))[0] == "starting"


SECONDS = st.floats(0, 1e6)
SIGHTS = st.builds(
    Sight, starting_s=SECONDS, is_spared=st.booleans(),
    recording_s=st.none() | SECONDS, blocks=st.integers(0, 9), frames=st.integers(0, 999),
    frameless_s=SECONDS, growthless_s=SECONDS, look_s=SECONDS, format_change=st.sampled_from(["", "x"]),
    jump=st.sampled_from(["", "x"]),
    is_deleted=st.booleans(), is_misplaced=st.booleans(),
)  # fmt: skip
ENDS = st.builds(
    Ended, st.sampled_from([CRASH, FULL, LOST, HOPELESS]), fault=st.sampled_from([None, HELD.fault]),
    frames=st.integers(0, 999), kept=st.booleans(), cpu_s=st.floats(0, 100), could_open=st.booleans(),
    is_abandoned=st.booleans(), wrote_no_audio=st.booleans(),
)  # fmt: skip
SITUATIONS = st.builds(
    Situation, now=SECONDS, phase=st.sampled_from([WAITING, OPENING, RUNNING, CLOSING]), is_stopping=st.booleans(),
    is_ending=st.booleans(), wait_until=SECONDS, failures=st.integers(-1, 10**6), loops=st.integers(0, 99),
    no_signal_since=st.none() | SECONDS, has_recorded=st.booleans(), cut_at=st.none() | SECONDS, sight=SIGHTS,
)  # fmt: skip


@given(SITUATIONS, st.sampled_from([OPTIONS, CARD]))
def test_a_stop_is_never_answered_by_a_start_or_a_fault(situation: Situation, options: Options) -> None:
    decision = decide(situation.replaced(is_stopping=True), options)
    assert decision.step in (NOTHING, END_FFMPEG, EXIT_STOPPED)
    assert decision.fault is None


@given(SITUATIONS, ENDS, st.sampled_from([OPTIONS, CARD]))
def test_every_end_leads_somewhere_and_no_wait_is_without_a_bound(
    situation: Situation, ended: Ended, options: Options
) -> None:
    decision = decide(situation.replaced(phase=ENDED, ended=ended), options)
    assert decision.step not in (NOTHING, BEGIN, END_FFMPEG)
    is_hopeless = ended.cause.outcome == FAIL and situation.has_recorded and situation.loops >= HOPELESS_EAGER_LOOPS
    limit_s = HOPELESS_RETRY_S if is_hopeless else 5.0 if decision.step == AWAIT_SIGNAL else 15.0
    assert 0 <= decision.wait_s <= limit_s
    assert decision.step != EXIT_CANNOT_WORK or (ended.cause.outcome == FAIL and not situation.has_recorded)
