"""When the runner's loop leaves a turn out; and that nobody notices: what is decided and told stays the same."""

from __future__ import annotations

import functools
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import test_runner as script
from hypothesis import example, given, settings
from hypothesis import strategies as st
from replay import RECORDINGS, is_same, replayed
from scripted import OPTIONS, Action, FakeFFmpeg, World

from sdisup.contract.options import SOUND_MARK
from sdisup.ledger import spool
from sdisup.runner import decide, main, report, rest
from sdisup.runner.decide import CLOSING, NOTHING, RUNNING, Sight, Situation
from sdisup.runner.disk import Event, FirstMedia, Sample
from sdisup.runner.rest import Marks, may_rest

LONGEST_S = rest.LONGEST_S + 0.002
WELL = Situation(
    100.0,
    RUNNING,
    sight=Sight(recording_s=50.0, blocks=200, frames=1250, frameless_s=0.2, growthless_s=0.5, look_s=0.5),
)

# What of a Situation and of a Sight ends the rest, and what does not matter.
SITUATION = {
    "phase": CLOSING, "is_stopping": True, "terminated": "SIGTERM", "is_ending": True, "no_signal_since": 90.0,
    "sight": None,
}  # fmt: skip
SIGHT = {
    "recording_s": None, "frameless_s": 1.8, "growthless_s": 3.1, "look_s": 3.1, "pace": "cannot keep up",
    "jump": "by 12 s", "format_change": "320x180", "programme": "2", "cut_channels": 6, "soundless_s": 3.1,
    "is_deleted": True, "is_misplaced": True,
}  # fmt: skip
SITUATION_ELSE = {
    "now", "wait_until", "failures", "is_forgetful", "loops", "has_recorded", "cut_at", "cuts", "from_zero", "ended",
}  # fmt: skip
SIGHT_ELSE = {
    "path", "refusal", "began_s", "starting_s", "is_spared", "blocks", "frames", "interval_s", "opening_s",
    "has_sounded",
}  # fmt: skip


def test_a_recording_that_is_plainly_well_may_rest() -> None:
    assert may_rest(WELL)
    assert WELL.sight is not None
    assert may_rest(WELL.replaced(sight=WELL.sight.replaced(soundless_s=1.2, has_sounded=True)))


@pytest.mark.parametrize(("name", "value"), SITUATION.items())
def test_whatever_is_not_well_has_its_turn_at_once(name: str, value: object) -> None:
    assert not may_rest(WELL.replaced(**{name: value}))


@pytest.mark.parametrize(("name", "value"), SIGHT.items())
def test_whatever_is_seen_that_is_not_well_has_its_turn_at_once(name: str, value: object) -> None:
    assert WELL.sight is not None
    assert not may_rest(WELL.replaced(sight=WELL.sight.replaced(has_sounded=True, **{name: value})))


def test_a_sound_that_never_came_is_waited_for() -> None:
    assert WELL.sight is not None
    assert not may_rest(WELL.replaced(sight=WELL.sight.replaced(soundless_s=0.1)))


def test_each_field_of_what_is_seen_was_thought_of() -> None:
    assert {*SITUATION, *SITUATION_ELSE} == {*Situation.defaults()}
    assert {*SIGHT, *SIGHT_ELSE} == {*Sight.defaults()}


def older(sight: Sight, by_s: float) -> Sight:
    """The same a while later, when nothing has come."""
    times = (
        "began_s",
        "starting_s",
        "recording_s",
        "frameless_s",
        "growthless_s",
        "look_s",
        "soundless_s",
        "opening_s",
    )
    ages = {name: age + by_s for name in times if (age := getattr(sight, name)) is not None}
    return sight.replaced(**{name: age for name, age in ages.items() if age > by_s or name != "opening_s"})


AGES = st.floats(0, 30, allow_nan=False)
SIGHTS = st.builds(
    Sight,
    began_s=AGES, starting_s=AGES, recording_s=st.none() | st.floats(0, 100), blocks=st.integers(0, 400),
    frames=st.integers(0, 3000), frameless_s=AGES, interval_s=st.sampled_from([0.04, 1.0, 3.0]), growthless_s=AGES,
    look_s=AGES, pace=st.sampled_from(["", "x"]), jump=st.sampled_from(["", "x"]),
    format_change=st.sampled_from(["", "x"]), soundless_s=st.none() | AGES, has_sounded=st.booleans(),
    is_deleted=st.booleans(), is_misplaced=st.booleans(),
)  # fmt: skip
PORTS = st.builds(
    lambda limit_s, start_s, sound, audio: OPTIONS.replaced(
        stall_timeout_s=limit_s, start_timeout_s=start_s, sound=sound, audio_options=audio
    ),
    st.sampled_from([2.0, 5.0, 12.0]), st.sampled_from([0.0, 30.0]), st.sampled_from(["", "required", "optional"]),
    st.sampled_from(["", "-nb_channels"]),
)  # fmt: skip


@given(sight=SIGHTS, options=PORTS)
def test_nothing_is_judged_late_by_a_rest(sight: Sight, options: Any) -> None:
    """Whoever may rest would decide, and say, the same at the rest's end, even if nothing came."""
    now = Situation(100.0, RUNNING, sight=sight)
    if may_rest(now):
        # Not a moment later than when no frame will have come for too long.
        rest_s = min(LONGEST_S, decide.next_limit_s(sight, options))
        later = Situation(100.0 + rest_s, RUNNING, sight=older(sight, rest_s))
        assert decide.decide(later, options).step == NOTHING
        assert decide.describe(later, options, "", ("", "")) == decide.describe(now, options, "", ("", ""))


@given(sight=SIGHTS, options=PORTS, share=st.floats(0, 0.999))
def test_no_frame_comes_for_too_long_when_the_loop_was_told_and_not_before(
    sight: Sight, options: Any, share: float
) -> None:
    """What depends on the time without a frame alone."""
    sight = sight.replaced(
        growthless_s=0.0, look_s=0.0, soundless_s=None, is_deleted=False, is_misplaced=False, jump=""
    )

    def seen(by_s: float) -> tuple[str, bool]:
        # The file grows on, whatever FFmpeg counts: by the time of a recording two frames are not further apart.
        later = older(sight, by_s).replaced(growthless_s=0.0, look_s=0.0)
        state, reason = decide.describe(Situation(0.0, RUNNING, sight=later), options, "", ("", ""))
        return state + reason.partition(" for ")[0].rstrip("0123456789 s"), bool(decide.find_fault(later, options))

    limit_s = decide.next_limit_s(sight, options)
    if math.isinf(limit_s):
        assert seen(0.001) == seen(3600)
    else:
        assert seen(0.001) == seen(max(0.001, limit_s * share))


MARK = f"[info] {SOUND_MARK}.000000\n"


def block(frames: int, *, dup: int = 0, drop: int = 0, end: str = "continue") -> str:
    return (
        f"frame={frames}\nfps=25.00\nstream_0_0_q=14.0\nbitrate= 310.9kbits/s\ntotal_size=786432\nout_time_us=2000000\n"
        f"out_time_ms=2000000\nout_time=00:00:02.000000\ndup_frames={dup}\ndrop_frames={drop}\nspeed=   1x\n"
        f"progress={end}\n"
    )


@pytest.mark.parametrize(
    ("pieces", "are_all"),
    [
        ([MARK, MARK + MARK], [True, True]),
        ([MARK[:7], MARK[7:], MARK], [True, True, True]),
        ([MARK + MARK[:7], MARK[7:]], [True, True]),
        ([MARK[:7], "x\n", MARK], [True, False, True]),
        ([MARK[:7], MARK[7:] + "x"], [True, False]),
        (["x" + MARK, MARK[1:]], [False, False]),
        (["[error] x\n" + MARK, MARK + "[error] x\n", MARK], [False, False, True]),
        ([MARK[:7] + MARK], [False]),
        (["\n", "", MARK], [False, False, True]),
    ],
)
def test_sound_only_comes_on(pieces: list[str], are_all: list[bool]) -> None:
    marks = Marks()
    assert [marks.are_all(piece.encode()) for piece in pieces] == are_all
    assert not marks.is_amid


# The same with and without a rest.


def without_rest() -> Any:
    return mock.patch.object(main, "may_rest", lambda _: False)


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_recorded_fault_is_the_same_without_a_rest(path: Path) -> None:
    with without_rest():
        text = replayed(path)
    assert is_same(replayed(path), text)


def plays(pieces: list[tuple[str, float]]) -> list[tuple[float, Action]]:
    """An FFmpeg that does one thing after the other, each for some seconds; a block each 0.28 s, a look each second."""
    frames, copies, drops, seconds, size = 0, 0, 0, 0.0, 0
    actions: list[tuple[float, Action]] = []

    def says(text: str, at: float) -> None:
        actions.append((at, lambda world: world.ffmpeg.says(text)))

    def reports(text: str, at: float) -> None:
        actions.append((at, lambda world: world.ffmpeg.reports(text)))

    for kind, lasts_s in pieces:
        until = seconds + lasts_s
        if kind == "logs":
            says("[warning] something\n", seconds + 0.1)
        while seconds < until:
            seconds += 0.28
            new = 0 if kind in ("freezes", "silent") else 3 if kind == "slow" else 7
            frames, copies = frames + new, copies + (1 if kind == "copies" else 7 if kind == "repeats" else 0)
            drops += 7 if kind == "drops" else 0
            frames += 120 if kind == "jumps" and seconds - until > -0.28 else 0
            copies += 120 if kind == "jumps" and seconds - until > -0.28 else 0
            if kind != "silent":
                reports(block(frames, dup=copies, drop=drops), seconds)
            if int(seconds) != int(seconds - 0.28):
                if kind not in ("mute", "silent"):
                    says(MARK, seconds + 0.05)
                size += 0 if kind in ("freezes", "silent", "full") else 1000
                events: list[Event] = [Sample(size, 10**9, "8:1", kind == "moved", False, seen_at=seconds + 0.1)]
                events = [FirstMedia(), *events] if len(actions) < 9 else events
                actions.append((seconds + 0.1, functools.partial(tells, events)))
    return [*actions, (seconds + 0.2, script.stop)]


def tells(events: list[Any], world: World) -> None:
    if not world.file.is_finished:
        world.file.events.extend(events)


KINDS = (
    "runs",
    "runs",
    "silent",
    "freezes",
    "slow",
    "copies",
    "repeats",
    "drops",
    "logs",
    "mute",
    "full",
    "moved",
)
SOUND = OPTIONS.replaced(
    command=["/usr/bin/ffmpeg", "-i", "x", "-map", "0:a:0", "-af", f"print({SOUND_MARK})", "{output}"], sound="required"
)


def run(pieces: list[tuple[str, float]]) -> tuple[int, list[dict[str, Any]], list[tuple[float, str, str]], World]:
    """The exit code, the events that the ledger gets, each change of the status with its time, and the world."""
    world = World()

    def spawn(_: FakeFFmpeg) -> None:
        for at, action in plays(pieces):
            world.at(at, action)

    world.on_spawn = spawn
    return *play(world), world


def play(world: World) -> tuple[int, list[dict[str, Any]], list[tuple[float, str, str]]]:
    seen: list[tuple[float, str, str]] = []

    def write(status: Any, _: str) -> None:
        reason = "".join(character for character in status.reason if not character.isdigit())
        if not seen or seen[-1][1:] != (status.state, reason):
            seen.append((world.time_s, status.state, reason))

    with (
        tempfile.TemporaryDirectory(prefix="rest-") as directory,
        mock.patch.dict(os.environ, {"RUNTIME_DIRECTORY": f"{directory}/port-3"}),
        mock.patch.object(report.Journal, "_write", lambda *_: None),
        mock.patch.object(report, "write_status", write),
        mock.patch.object(os, "set_blocking", lambda *_: None),
    ):
        os.mkdir(f"{directory}/port-3")
        code = world.start(SOUND.replaced(run_directory=directory)).run()
        spooled = Path(directory, "ports/3/spool").read_bytes().rstrip(b"\0")
    events = [json.loads(line) for line in spooled.splitlines()]
    # What differs between two runs anyway.
    return code, [{**event, "sequence": 0, "boot_at": 0} for event in events], seen


def changes(seen: list[tuple[float, str, str]]) -> list[tuple[float, str]]:
    return [(at, state) for number, (at, state, _) in enumerate(seen) if not number or seen[number - 1][1] != state]


def timeless(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "at"}


def said(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the ledger is told, but for counts of what the file lacks so far, which a later word makes true."""
    return [event for event in events if event["kind"] != spool.LOSING]


@settings(max_examples=60, deadline=None)
@example([("runs", 1.0), ("runs", 1.0), ("slow", 3.0), ("runs", 8.0), ("slow", 1.0)])
@example([("repeats", 2.0)])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0.3, 9)), min_size=1, max_size=6))
def test_whatever_ffmpeg_does_the_ledger_is_told_the_same_without_a_rest(pieces: list[tuple[str, float]]) -> None:
    begins = [("runs", 3.0), *pieces, ("runs", 3.0)]
    code, events, seen, world = run(begins)
    with without_rest():
        code_without, events_without, seen_without, world_without = run(begins)
    assert (code, world.ffmpeg.steps) == (code_without, world_without.ffmpeg.steps)
    assert [timeless(event) for event in said(events)] == [timeless(event) for event in said(events_without)]
    for event, event_without in zip(said(events), said(events_without), strict=True):
        # A hole, which is told with its own times, is told by the turn after it.
        late_s = event["at"][1] - event_without["at"][1]
        assert 0 <= late_s <= (LONGEST_S if event["kind"] == spool.MISSED else 0)
    states, states_without = changes(seen), changes(seen_without)
    assert [state for _, state in states] == [state for _, state in states_without]
    for (at, _), (at_without, _) in zip(states, states_without, strict=True):
        assert abs(at - at_without) < 0.01


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 9))
def test_a_jump_of_the_timestamps_ends_the_file_by_the_next_turn(seconds: float) -> None:
    begins = [("runs", 3.0), ("jumps", seconds), ("runs", 3.0)]
    events = run(begins)[1]
    with without_rest():
        events_without = run(begins)[1]
    at, at_without = (
        next(event["at"][1] for event in told if event["kind"] == spool.CLOSED) for told in (events, events_without)
    )
    assert 0 <= at - at_without <= LONGEST_S


def writes(seconds: float, stops_at: float) -> list[tuple[float, Action]]:
    """Looks at a file that stops growing, each half a second; the last one at which it has grown is at `stops_at`."""
    moments = [stops_at + number / 2 for number in range(int(-2 * stops_at) + 2, int(2 * seconds))]
    return [
        (at, functools.partial(tells, [Sample(int(1000 * min(at, stops_at)), 10**9, "8:1", False, False, seen_at=at)]))
        for at in moments
    ]


@pytest.mark.parametrize("stops_at", [10.1, 10.3, 10.6, 10.8])
def test_a_file_has_not_grown_since_the_look_at_it_whenever_that_was_heard_of(stops_at: float) -> None:
    world = World([(number / 4, functools.partial(counts, number * 25 // 4)) for number in range(1, 100)])
    world.at(0.3, functools.partial(tells, [FirstMedia()])).at(20.0, script.stop)
    for at, action in writes(10.0, stops_at):
        world.at(at, action)
    ended_at: list[float] = []
    quits = world.on_step

    def step(ffmpeg: FakeFFmpeg, action: str) -> None:
        ended_at.append(world.time_s)
        quits(ffmpeg, action)

    world.on_step = step
    play(world)
    assert ended_at[0] == pytest.approx(stops_at + 5.5, abs=0.01)


def counts(frames: int, world: World) -> None:
    world.ffmpeg.says(block(frames))
