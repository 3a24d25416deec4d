"""The runner's loop, with a scripted FFmpeg, disk and clock (tests/scripted.py): nothing here takes time."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import DESCRIPTOR, OPTIONS, RATE, Action, FakeFFmpeg, FakeFile, World, close_well, quit_well

from sdisup.contract import files
from sdisup.contract import status as status_module
from sdisup.contract.options import ENDS, OPTIONAL, REQUIRED, SOUND_MARK, Options
from sdisup.contract.requests import Request, leave_request
from sdisup.contract.status import PortStatus, read_status
from sdisup.ledger.story import Story
from sdisup.runner import memory, report
from sdisup.runner.attempt import FRAMES_CLOSED_A_S
from sdisup.runner.disk import Closed, FirstMedia, Named, Opened, OpenFailed, Sample
from sdisup.runner.ffmpeg import OUTPUT_NAME
from sdisup.runner.main import EXIT_CANNOT_WORK, EXIT_RETRY, EXIT_STOPPED
from sdisup.runner.memory import COMMANDS_KEPT, note_recorded, recorded_commands
from sdisup.runner.notify import Notifier


def records(seconds: float, *, since: float = 0.0, first: int = 0) -> list[tuple[float, Action]]:
    """A script of an FFmpeg that records: a progress block and a look at the file each quarter second."""

    def block(number: int) -> Callable[[World], None]:
        def happens(world: World) -> None:
            frames = first + number * RATE // 4
            world.ffmpeg.counts(frames)
            if number == 1:
                world.file.events.append(FirstMedia())
            world.file.events.append(Sample(frames * 1000, 10**9, "8:1", False, False))

        return happens

    return [(since + number / 4, block(number)) for number in range(1, int(seconds * 4) + 1)]


def stop(world: World) -> None:
    assert world.runner is not None
    world.runner.stop()


class Came:
    """The signals that come to a runner."""

    def __init__(self) -> None:
        self.signals: list[SimpleNamespace] = []

    def send(self, number: signal.Signals, pid: int) -> Callable[[World], None]:
        came = SimpleNamespace(si_signo=number, si_pid=pid, si_uid=1000)
        return lambda _: self.signals.append(came)

    def take(self) -> list[SimpleNamespace]:
        taken, self.signals = self.signals, []
        return taken


CARD = OPTIONS.replaced(
    input="board 0 channel 3", without_signal=ENDS, stall_timeout_s=12.0, audio_options="-nb_channels,-sample_rate",
    command=["/usr/bin/ffmpeg", "-nb_channels", "2", "-sample_rate", "48000", "-i", "x", "-map", "0:a:0", "{output}"],
)  # fmt: skip
NO_SIGNAL = "[error] Stream map '' matches no streams.\n"
LOST = "[error] Timeout while waiting for slot lock\n[error] Failed to get data buffers\n"


pytestmark = pytest.mark.usefixtures("said")


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


Run = Callable[..., int]
Told = Callable[[], list[dict[str, Any]]]


def without_name(file: FakeFile) -> None:
    file.events.append(Opened(file._world.path(file), DESCRIPTOR))


def test_a_file_is_in_the_status_from_its_name_on(tmp_path: Path, run: Run) -> None:
    seen: list[object] = []

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None
        seen.append((status.state, status.current_file, status.files))

    path = "/srv/recordings/CAM3_1.mkv"
    world = World(records(8, since=4.0)).at(3.0, look).at(3.9, lambda w: w.file.events.append(Named(path)))
    world.on_open = without_name
    run(world.at(8.1, look).at(12.1, stop))
    assert seen == [("starting", None, ()), ("recording", path, (path,))]


def test_a_name_that_was_taken_meanwhile_is_in_no_entry(run: Run, told: Told) -> None:
    """Somebody made a file of that name before the first frame came. It is not this port's."""
    world = World(records(8)).at(8.1, stop)
    world.on_open = without_name
    world.at(0.1, lambda w: w.file.events.append(Named("/srv/recordings/CAM3_1_2.mkv")))
    run(world)
    assert kinds(told()) == ["began", "opened", "closed", "opened", "media", "closed", "stopped"]
    story = Story(3)
    for event in told():
        story.take(event)
    assert story.to_count() is None and story.files == []
    entered = [(entry["kind"], entry.get("path")) for entry in story.ready() if entry["kind"] == "file"]
    assert entered == [("file", "/srv/recordings/CAM3_1_2.mkv")]


def test_a_recording_is_told_from_its_begin_to_its_stop(tmp_path: Path, run: Run, told: Told, said: list[str]) -> None:
    world = World(records(8)).at(8.1, stop)
    assert run(world) == EXIT_STOPPED
    assert kinds(told()) == ["began", "opened", "media", "closed", "stopped"]
    began, opened, media, closed, stopped = told()
    assert (began["is_restart"], began["name"]) == (False, "CAM3")
    assert (opened["path"], opened["codec"], opened["is_retry"]) == ("/srv/recordings/CAM3_1.mkv", "h264", False)
    # 6 frames in the first quarter of a second: the first of them came when FFmpeg began.
    assert media["first_frame_at"][1] == pytest.approx(0.25 - 6 / RATE, abs=0.02)
    assert (closed["verdict"], closed["cause"], closed["frames"], closed["missing"]) == ("complete", "stop", 200, 0)
    assert closed["last_frame_at"][1] == pytest.approx(8.0, abs=0.02)
    assert stopped["by"] == "operator"
    assert world.ffmpeg.steps == ["quit"] and world.ffmpeg.is_closed
    status = read_status(3, str(tmp_path))
    assert status is not None and (status.state, status.pid, status.take_frames) == ("stopped", None, 200)
    assert any("closed /srv/recordings/CAM3_1.mkv: 200 frames" in line for line in said)


DAYS_FRAMES = 86400 * RATE


def closes_slowly(world: World, seconds: float, bytes_a_s: int, busy: float) -> World:
    """At 9 s a port is stopped that has recorded for a day, and FFmpeg closes the file for so long."""
    for second in (8.1, 8.2):
        # A count that high is believed when another one follows.
        world.at(second, lambda w: w.ffmpeg.counts(DAYS_FRAMES))
    world.at(9.0, stop)
    world.on_step = lambda ffmpeg, action: ffmpeg.exits(-9) if action == "kill" else None

    def goes_on(world: World) -> None:
        world.ffmpeg.written += bytes_a_s // 10

    def works(world: World) -> None:
        world.ffmpeg.busy = busy

    world.at(9.0, works)
    for tenth in range(1, int(seconds * 10)):
        world.at(9.0 + tenth / 10, goes_on)

    def ends(world: World) -> None:
        if world.ffmpeg.status is None:
            quit_well(world.ffmpeg, "quit")

    return world.at(9.0 + seconds, ends)


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is told."""
    lines: list[str] = []

    def send(_: Notifier, *words: str) -> bool:
        lines.extend(words)
        return True

    monkeypatch.setattr(Notifier, "send", send)
    return lines


@pytest.mark.parametrize(("bytes_a_s", "busy"), [(1_000_000, 0.0), (0, 0.5)])
def test_a_days_file_that_ffmpeg_gets_on_with_is_waited_for(
    run: Run, told: Told, notified: list[str], bytes_a_s: int, busy: float
) -> None:
    world = closes_slowly(World(records(8)), 40, bytes_a_s, busy)
    assert run(world) == EXIT_STOPPED
    assert world.ffmpeg.steps == ["quit"]
    assert told()[-2]["verdict"] == "complete"
    # Not the file's end is what stops the port.
    assert told()[-1]["asked_at"][1] == pytest.approx(9.0, abs=0.1)
    # systemd hears of it in time, each time: its limit counts from the word.
    words = [float(line.removeprefix("EXTEND_TIMEOUT_USEC=")) for line in notified if line.startswith("EXTEND_")]
    assert len(words) > 40
    assert min(words) >= 5e6


@pytest.mark.parametrize("gets_on_s", [0.0, 6.0])
def test_an_ffmpeg_that_hangs_with_a_days_file_is_killed(run: Run, gets_on_s: float) -> None:
    world = closes_slowly(World(records(8)), gets_on_s, 1_000_000, 0.0) if gets_on_s else World(records(8))
    if not gets_on_s:
        world = closes_slowly(world, 20, 0, 0.0)
    world.script = type(world.script)(entry for entry in world.script if entry[0] <= 9.0 or entry[0] < 9.0 + gets_on_s)
    assert run(world) == EXIT_STOPPED
    assert world.ffmpeg.steps == ["quit", "term", "kill"]
    limit_s = OPTIONS.stop_quit_s + OPTIONS.stop_term_s
    assert world.time_s == pytest.approx(9.0 + gets_on_s + limit_s, abs=1.2)


def test_an_ffmpeg_that_never_ends_a_days_file_is_killed_in_the_end(run: Run) -> None:
    world = closes_slowly(World(records(8)), 80, 1_000_000, 0.9)
    run(world)
    assert world.ffmpeg.steps == ["quit", "term", "kill"]
    limit_s = OPTIONS.stop_quit_s + OPTIONS.stop_term_s + DAYS_FRAMES / FRAMES_CLOSED_A_S
    assert world.time_s == pytest.approx(9.0 + limit_s, abs=1.2)


@pytest.mark.parametrize("cause", ["short", "deaf", "cut"])
def test_only_the_stop_of_a_large_file_is_waited_for(run: Run, cause: str) -> None:
    """Not that of a short one, not an FFmpeg that does not read its `q`; and a new recording waits for no old one."""
    world = closes_slowly(World(records(8)), 20, 1_000_000, 0.9)
    if cause == "short":
        world.script = type(world.script)(entry for entry in world.script if entry[0] not in (8.1, 8.2))
    elif cause == "deaf":
        world.at(8.9, lambda w: setattr(w.ffmpeg, "has_read_all", False))
    else:
        world.at(8.9, lambda w: w.ffmpeg.says("[error] Invalid buffer size, packet size 1 < expected frame_size 2\n"))
    run(world)
    assert "kill" in world.ffmpegs[0].steps
    assert world.time_s < 9.0 + OPTIONS.stop_quit_s + OPTIONS.stop_term_s + 1.2


BURST = (1, 1, 40, 80, 120, 145)
"""The frames of FFmpeg 5.1's first blocks: it looked at the input for 5 s, and writes what it buffered meanwhile."""


def burst(world: World, ends: Callable[[World], None]) -> World:
    world.at(5.05, lambda w: w.file.events.append(FirstMedia()))
    for number, frames in enumerate(BURST):
        world.at(5 + number / 4, functools.partial(counts, frames, 0))
    return world.at(5.05 + len(BURST) / 4, ends)


def test_what_was_buffered_came_before_the_first_block(run: Run, told: Told) -> None:
    world = burst(World(), lambda w: w.ffmpeg.counts(152))
    for number in range(1, 20):
        world.at(6.5 + number / 4, functools.partial(counts, 151 + number * 25 // 4, 0))
    run(world.at(12.0, stop))
    events = told()
    assert kinds(events) == ["began", "opened", "media", "closed", "stopped"]
    assert events[2]["first_frame_at"][1] == pytest.approx(6.25 - 145 / RATE, abs=0.1)


def test_an_ffmpeg_that_ends_while_it_writes_what_was_buffered_has_recorded(run: Run, told: Told) -> None:
    assert run(burst(World(), lambda w: w.ffmpeg.exits(-9))) == EXIT_RETRY
    assert kinds(told())[:4] == ["began", "opened", "media", "closed"]
    assert told()[2]["first_frame_at"][1] == pytest.approx(6.25 - 145 / RATE, abs=0.1)


def test_a_block_with_the_first_frame_alone_waits_for_no_more_than_five_seconds(run: Run, told: Told) -> None:
    seen: list[list[str]] = []
    world = World(records(0.3)).at(0.3, lambda w: w.file.events.append(FirstMedia()))
    world.at(4.9, lambda _: seen.append(kinds(told()))).at(5.9, lambda _: seen.append(kinds(told())))
    run(world.at(6.0, stop), OPTIONS.replaced(stall_timeout_s=12.0))
    assert seen == [["began", "opened"], ["began", "opened", "media"]]


def test_the_output_is_the_file_that_was_made(run: Run) -> None:
    world = World(records(1)).at(1.1, stop)
    run(world)
    assert world.ffmpeg.command == ["/usr/bin/ffmpeg", "-i", "x", "-f", "matroska", OUTPUT_NAME]


def test_what_ffmpeg_says_of_its_output_names_the_file(run: Run, said: list[str]) -> None:
    world = World([(1.0, lambda w: w.ffmpeg.says(f"[error] {OUTPUT_NAME}: Permission denied\n"))])
    world.at(1.1, lambda w: w.ffmpeg.exits(1))
    assert run(world) == EXIT_RETRY
    assert "<4>port 3 (CAM3): permission: /srv/recordings/CAM3_1.mkv: Permission denied" in said
    assert not any(OUTPUT_NAME in line for line in said)


def test_an_ffmpeg_that_crashes_ends_the_runner_for_systemd_to_restart_it(tmp_path: Path, run: Run, told: Told) -> None:
    world = World(records(2)).at(2.1, lambda w: w.ffmpeg.exits(-9))
    assert run(world) == EXIT_RETRY
    assert kinds(told()) == ["began", "opened", "media", "closed", "waits"]
    assert (told()[3]["verdict"], told()[4]["cause"]) == ("cut off: FFmpeg was killed by signal 9", "killed")
    status = read_status(3, str(tmp_path))
    assert status is not None and (status.state, status.reason) == ("backoff", "FFmpeg was killed by signal 9")


def test_the_next_runner_goes_on_and_counts_restarts(tmp_path: Path, run: Run, told: Told) -> None:
    for _ in range(2):
        assert run(World(records(2)).at(2.1, lambda w: w.ffmpeg.exits(-9))) == EXIT_RETRY
    world = World(records(2, since=1.0)).at(3.1, stop)
    assert run(world) == EXIT_STOPPED
    status = read_status(3, str(tmp_path))
    assert status is not None and (status.restarts, status.take_frames) == (2, 150)
    assert [event["is_restart"] for event in told() if event["kind"] == "began"] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("port-3/runner.json", '{"failures": "7"}', "failures: not a whole number; begins as after a stop"),
        ("port-3/runner.json", '{"request": {"argv": 1}}', "request: argv: not a list; begins as after a stop"),
        ("3.json", '{"schema": 1, "take_frames": null}', "take_frames: not a whole number; the take's frames are"),
        ("requests/3.json", "{}", "boot_id: not there; recording as it is configured"),
        ("requests/3.stop.json", '{"by": 1}', "created_boottime_ns: not there; entering the stop as the operator's"),
    ],
)
def test_what_cannot_be_read_is_said_and_the_port_records(
    tmp_path: Path, run: Run, told: Told, said: list[str], name: str, content: str, words: str
) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / name).write_text(content)
    assert run(World(records(1)).at(1.1, stop)) == EXIT_STOPPED
    assert [line for line in said if words in line and line.startswith("<3>port 3") and f"{tmp_path}/{name}: " in line]
    assert told()[0]["is_restart"] is False
    assert told()[-1]["by"] == "operator"


def test_the_first_retry_comes_at_once_and_the_third_after_a_second(run: Run) -> None:
    begun_at = []
    for _ in range(4):
        world = World().at(5.0, lambda w: w.ffmpeg.exits(1))
        world.on_spawn = lambda ffmpeg, world=world: begun_at.append(world.time_s)  # type: ignore[misc]
        assert run(world) == EXIT_RETRY
    assert begun_at == pytest.approx([0, 0, 1, 2], abs=0.01)


def test_a_good_minute_makes_the_next_end_the_first_one_again(run: Run) -> None:
    for _ in range(5):
        run(World().at(20.0, lambda w: w.ffmpeg.exits(1)))
    assert run(World(records(70, since=8.0)).at(80.0, lambda w: w.ffmpeg.exits(-9))) == EXIT_RETRY
    begun_at = []
    world = World().at(5.0, lambda w: w.ffmpeg.exits(1))
    world.on_spawn = lambda ffmpeg: begun_at.append(world.time_s)
    run(world)
    assert begun_at == pytest.approx([0], abs=0.01)


def test_what_cannot_work_ends_for_good(run: Run, told: Told, said: list[str]) -> None:
    world = World().at(0.1, lambda w: w.ffmpeg.says("[fatal] Unknown encoder 'x'\n"), lambda w: w.ffmpeg.exits(1))
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
    assert run(world) == EXIT_CANNOT_WORK
    assert kinds(told()) == ["began", "opened", "closed", "waits"]
    assert any(line.startswith("<3>") and "Unknown encoder 'x'" in line for line in said)


def cannot_work() -> World:
    """An FFmpeg that was replaced by one without the encoder."""
    world = World()

    def fail(ffmpeg: FakeFFmpeg) -> None:
        ffmpeg.says("[fatal] Unknown encoder 'x'\n")
        ffmpeg.exits(1)

    world.on_spawn = fail
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
    return world


def test_what_has_recorded_since_boot_is_tried_again_and_recorded_within_15_s_of_the_mend(
    tmp_path: Path, run: Run, told: Told, said: list[str]
) -> None:
    assert run(World(records(2)).at(5, stop)) == EXIT_STOPPED
    (tmp_path / "port-3/runner.json").unlink(missing_ok=True)
    said.clear()
    world = cannot_work()
    mended_at: list[float] = []

    def mend(world: World) -> None:
        world.on_spawn = lambda _: mended_at.append(world.time_s)

    world.at(500, mend).at(520, stop)
    assert run(world) == EXIT_STOPPED
    assert 500 <= mended_at[0] <= 515
    assert sum("Unknown encoder" in line for line in said) <= 4, "what is the same again is not said again"
    assert told()[-1]["kind"] == "stopped"


def test_what_has_recorded_since_boot_is_tried_once_a_minute_for_ever(run: Run, said: list[str]) -> None:
    run(World(records(2)).at(5, stop))
    world = cannot_work()
    tries: list[float] = []
    fails = world.on_spawn

    def spawn(ffmpeg: FakeFFmpeg) -> None:
        tries.append(world.time_s)
        fails(ffmpeg)

    world.on_spawn = spawn
    assert run(world.at(9000, stop)) == EXIT_STOPPED
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert all(wait <= 11 for wait in waits[:60])
    assert all(wait == pytest.approx(60, abs=1) for wait in waits[61:])


@pytest.mark.parametrize("left", ["{", "7", '["x"]', '[["another"]]'])
def test_what_is_not_known_to_have_recorded_ends_for_good(tmp_path: Path, run: Run, left: str) -> None:
    (tmp_path / "3.recorded").write_text(left)
    assert run(cannot_work()) == EXIT_CANNOT_WORK


def test_only_the_last_commands_that_recorded_are_kept(tmp_path: Path) -> None:
    path, commands = str(tmp_path / "3.recorded"), [["ffmpeg", str(number)] for number in range(COMMANDS_KEPT + 3)]
    for command in commands:
        note_recorded(path, command, recorded_commands(path))
    note_recorded(path, commands[5], recorded_commands(path))
    assert recorded_commands(path) == [*commands[3:5], *commands[6:], commands[5]]
    assert os.stat(path).st_mode & 0o777 == 0o600, "a command line may hold a password"


def test_a_stall_is_ended_by_the_ladder(run: Run, told: Told) -> None:
    world = World(records(2))
    world.on_step = lambda ffmpeg, action: ffmpeg.exits(-9) if action == "kill" else None
    assert run(world) == EXIT_RETRY
    assert world.ffmpeg.steps == ["quit", "term", "kill"]
    # 5 s without a frame, 3 s after `q`, 2 s after SIGTERM.
    assert world.time_s == pytest.approx(2 + 5 + 3 + 2, abs=1.1)
    assert told()[-1]["cause"].startswith("stalled: no new frame for 5 s")


@pytest.mark.parametrize(("options", "has_read", "steps"), [
    (OPTIONS, False, ["quit", "kill"]),
    (OPTIONS, True, ["quit", "term", "kill"]),
    (OPTIONS.replaced(container="mxf"), False, ["quit", "term", "kill"]),
    (CARD, False, ["quit", "term", "kill"]),
])  # fmt: skip
def test_an_ffmpeg_that_reads_no_more_is_not_waited_for(
    run: Run, options: Options, has_read: bool, steps: list[str]
) -> None:
    world = World(records(2))

    def step(ffmpeg: FakeFFmpeg, action: str) -> None:
        if action == "kill":
            ffmpeg.exits(-9)

    world.on_step = step
    world.at(0.1, lambda w: setattr(w.ffmpeg, "has_read_all", has_read))
    run(world, options)
    assert world.ffmpeg.steps == steps
    patience_s = 1 if "term" not in steps else options.stop_quit_s + options.stop_term_s
    assert world.time_s == pytest.approx(2 + options.stall_timeout_s + patience_s, abs=0.5)


# What is told of the pictures.


def counts(frames: int, copies: int, world: World) -> None:
    world.ffmpeg.counts(frames, dup=copies)


def test_a_time_without_pictures_is_told_at_its_time_before_the_file_is_closed(run: Run, told: Told) -> None:
    world = World(records(8)).at(11.25, lambda w: w.ffmpeg.counts(281, dup=75))
    for number in range(1, 17):
        world.at(11.25 + number / 4, functools.partial(counts, 281 + number * 25 // 4, 75))
    run(world.at(15.5, stop), CARD)
    assert kinds(told()) == ["began", "opened", "media", "missed", "closed", "stopped"]
    missed, closed = told()[3:5]
    assert (missed["cause"], missed["path"], closed["cause"]) == ("signal lost", closed["path"], "stop")
    assert (missed["frames"], missed["filled"]) == (75, 75)
    assert (missed["first_at"][1], missed["last_at"][1]) == (pytest.approx(8, abs=0.3), pytest.approx(11, abs=0.3))
    assert (closed["missing"], closed["repeated"]) == (0, 0)
    assert world.ffmpeg.steps == ["quit"]


@pytest.mark.parametrize(("options", "cause"), [(OPTIONS, "source silent"), (CARD, "signal lost")])
def test_a_stop_while_no_picture_comes_ends_a_gap_of_its_own_cause(
    run: Run, told: Told, options: Options, cause: str
) -> None:
    run(World(records(4)).at(7.0, stop), options)
    assert [event["cause"] for event in told() if event["kind"] == "closed"] == [cause]
    run(World(records(4)).at(4.5, stop), options)
    assert [event["cause"] for event in told() if event["kind"] == "closed"][1:] == ["stop"]


@pytest.mark.parametrize(("busy", "said", "cause"), [
    (0.3, "the source delivers 12.5 of 25 fps", "source loses frames"),
    (0.97, "cannot keep up: 12.5 of 25 fps", "cannot keep up"),
])  # fmt: skip
def test_an_ffmpeg_that_has_no_time_is_told_from_a_source_that_loses_pictures(
    run: Run, told: Told, tmp_path: Path, busy: float, said: str, cause: str
) -> None:
    """The card drops what FFmpeg does not take in time: gaps in the timestamps, and copies, as of a lossy signal."""
    world = World().at(0.1, lambda w: setattr(w.ffmpeg, "busy", busy))
    for number in range(1, 121):
        world.at(number / 4, functools.partial(counts, number * 25 // 4, number * 25 // 8))
        world.at(number / 4, lambda w: w.file.events.append(Sample(int(w.time_s * 1e6), 10**9, "8:1", False, False)))
    reasons: list[str] = []
    world.at(0.3, lambda w: w.file.events.append(FirstMedia()))
    world.at(28.1, lambda _: reasons.append(read_status(3, str(tmp_path)).reason))  # type: ignore[union-attr]
    run(world.at(30.1, stop), CARD)
    assert reasons == [said]
    closed = next(event for event in told() if event["kind"] == "closed")
    assert closed["repeated_cause"] == cause


def test_a_short_take_of_a_slow_encoder_lacks_frames(run: Run, told: Told) -> None:
    world = World()
    for number in range(1, 33):
        world.at(number / 4, functools.partial(counts, number * 2, 0))
    run(world.at(0.3, lambda w: w.file.events.append(FirstMedia())).at(8.1, stop))
    assert told()[3]["missing"] == pytest.approx(200 - 64, abs=10)


WILD = (
    "[warning] DTS 37610000, next:10000000 st:0 invalid dropping\n"
    "[warning] PTS 37610000, next:1 invalid dropping st:0\n"
)


def test_one_wild_timestamp_ends_nothing_and_is_no_line_in_the_journal(run: Run, said: list[str]) -> None:
    world = World(records(20))
    for second in range(3, 20, 2):
        world.at(second, says_wild)
    run(world.at(20.1, stop))
    assert world.ffmpeg.steps == ["quit"]
    assert not [line for line in said if "invalid" in line or "jumped" in line]


def jumping(since: float) -> World:
    """FFmpeg begins at `since`, and after 3 s believes no timestamp for another 3 s."""
    world = World(records(20, since=since))
    world.time_s = since
    for number in range(75):
        world.at(since + 3 + number / 25, says_wild)
    return world.at(since + 20.1, stop)


def test_sound_whose_timestamps_jump_is_said_and_ends_nothing(run: Run, tmp_path: Path) -> None:
    mapping = "[info]   Stream #0:1 -> #0:0 (h264 (native) -> h264)\n[info]   Stream #0:0 -> #0:1 (aac (native))\n"
    world = World(records(12)).at(0.05, lambda w: w.ffmpeg.says(mapping))
    for number in range(100):
        world.at(3 + number / 25, says_wild)
    reasons: list[str] = []
    world.at(11.9, lambda _: reasons.append(read_status(3, str(tmp_path)).reason))  # type: ignore[union-attr]
    assert run(world.at(12.1, stop)) == EXIT_STOPPED
    assert world.ffmpeg.steps == ["quit"]
    assert "the sound may not be in step" in reasons[0]


def says_wild(world: World) -> None:
    world.ffmpeg.says(WILD)


def test_a_jump_begins_a_new_file_though_not_a_second_one_within_a_minute(run: Run, told: Told) -> None:
    assert run(jumping(0.0)) == EXIT_RETRY
    assert (told()[-2]["cause"], told()[-1]["cause"]) == ("timestamps jumped", "timestamps jumped")
    assert run(jumping(10.0)) == EXIT_STOPPED
    assert run(jumping(100.0)) == EXIT_RETRY


def test_picture_and_sound_that_are_far_apart_are_recorded_from_zero_each(run: Run, told: Told, tmp_path: Path) -> None:
    apart = World()
    for number in range(50):
        apart.at(0.5 + number / 25, lambda w: w.ffmpeg.says("[error] 25000 frame duplication too large, skipping\n"))
    assert run(apart) == EXIT_RETRY
    assert told()[-1]["cause"] == "timestamps jumped"
    world = World(records(9)).at(9.1, stop)
    world.at(9.0, lambda _: states.append(read_status(3, str(tmp_path))))
    states: list[Any] = []
    assert run(world) == EXIT_STOPPED
    assert "setpts=PTS-STARTPTS,null" in world.ffmpeg.command
    assert "may not be in step" in states[0].reason


COPY = OPTIONS.replaced(codec="copy", command="/usr/bin/ffmpeg -i x -map 0:v:0 -c:v copy {output}".split())
BACK = "[vost#0:0/copy @ 0x55] [warning] Non-monotonic DTS; previous: 11960, current: 4000; changing to 11960. This …\n"
BACK_5_1 = "[matroska @ 0x55] [warning] Non-monotonous DTS in output stream 0:0; previous: 11960, current: 4000; …\n"
SOUND_BACK = "[aost#0:1/copy @ 0x55] [warning] Non-monotonic DTS; previous: 11960, current: 4000; changing to 11960.\n"


def test_a_copy_whose_timestamps_are_wild_from_the_start_is_left_alone(run: Run, told: Told) -> None:
    """FFmpeg gives the packets the time that it expects, and takes no filter that would begin at zero."""
    world = World(records(9, since=2.0)).at(12.0, stop)
    for number in range(30):
        world.at(0.5 + number / 25, lambda w: w.ffmpeg.says("[warning] DTS 9, next:10000000 st:0 invalid dropping\n"))
    assert run(world, COPY) == EXIT_STOPPED
    assert len(world.ffmpegs) == 1
    assert told()[-2]["verdict"] == "complete"


@pytest.mark.parametrize(("line", "lines", "is_cut"), [
    (BACK, 100, True), (BACK_5_1, 100, True), (BACK, 15, False), (SOUND_BACK, 100, False),
])  # fmt: skip
def test_a_copy_whose_timestamps_step_back_goes_on_in_a_new_file(
    run: Run, told: Told, said: list[str], line: str, lines: int, is_cut: bool
) -> None:
    world = World(records(12)).at(12.1, stop)
    for number in range(lines):
        world.at(5.0 + number / 25, lambda w: w.ffmpeg.says(line))
    assert run(world, COPY) == (EXIT_RETRY if is_cut else EXIT_STOPPED)
    assert told()[-2]["cause"] == ("timestamps jumped" if is_cut else "stop")
    # A line for each picture is none for the journal.
    assert not any("Non-monoton" in text for text in said)


def test_a_start_from_zero_is_for_one_attempt(run: Run) -> None:
    apart = World()
    for number in range(50):
        apart.at(0.5 + number / 25, lambda w: w.ffmpeg.says("[error] 25000 frame duplication too large, skipping\n"))
    assert run(apart) == EXIT_RETRY
    world = World(records(2, since=5.0)).at(7.1, lambda w: w.ffmpeg.exits(-9))
    assert run(world) == EXIT_RETRY
    assert "setpts=PTS-STARTPTS,null" in world.ffmpeg.command
    again = World(records(2, since=5.0)).at(7.1, stop)
    assert run(again) == EXIT_STOPPED
    assert "setpts=PTS-STARTPTS,null" not in again.ffmpeg.command


def test_what_is_lost_so_far_is_told_while_it_grows_and_not_each_second(run: Run, told: Told) -> None:
    world = World().at(0.3, lambda w: w.file.events.append(FirstMedia()))
    for number in range(1, 4 * 300):
        world.at(number / 4, functools.partial(counts, number * 25 // 4, number * 25 * 3 // 40))
        world.at(number / 4, lambda w: w.file.events.append(Sample(int(w.time_s * 1e6), 10**9, "8:1", False, False)))
    assert run(world.at(299.9, lambda w: w.ffmpeg.exits(-9))) == EXIT_RETRY
    losing = [event for event in told() if event["kind"] == "losing"]
    assert 5 < len(losing) < 30
    assert losing[-1]["repeated"] > 0.75 * told()[-2]["repeated"] > 1000
    assert losing[-1]["repeated_cause"] == "source loses frames"


def test_the_rate_that_ffmpeg_found_is_the_files(run: Run, told: Told) -> None:
    def begins(world: World) -> None:
        world.ffmpeg.says("[info]   Stream #0:0: Video: h264, yuv420p, 640x360, 50 fps, 50 tbr, 90k tbn\n")
        world.ffmpeg.says("[info] Output #0, matroska, to '/srv/x':\n")
        world.ffmpeg.says("[info]   Stream #0:0: Video: h264, yuv420p, 640x360, q=2-31, 25 fps, 1k tbn (default)\n")

    run(World(records(12)).at(0.05, begins).at(12.1, stop), OPTIONS.replaced(rate=0.0))
    assert (told()[1]["rate"], told()[2]["rate"]) == (0.0, 25.0)


def test_blocks_that_count_the_same_frame_are_a_stall_too(run: Run, told: Told) -> None:
    world = World(records(2))
    for second in range(3, 30):
        world.at(float(second), lambda w: w.ffmpeg.counts(50))
    assert run(world) == EXIT_RETRY
    assert told()[-1]["cause"].startswith("stalled: no new frame")


def test_frames_that_do_not_reach_the_file_are_a_stall(run: Run, told: Told) -> None:
    world = World(records(2))
    for quarter in range(9, 80):
        world.at(quarter / 4, lambda w, frames=quarter * 6: w.ffmpeg.counts(frames))  # type: ignore[misc]
        world.at(quarter / 4, lambda w: w.file.events.append(Sample(50_000, 10**9, "8:1", False, False)))
    assert run(world) == EXIT_RETRY
    assert told()[-1]["cause"].startswith("stalled: the file has not grown")


def no_signal(world: World) -> None:
    """An FFmpeg that ends at once, since there is no signal."""

    def spawned(ffmpeg: FakeFFmpeg) -> None:
        ffmpeg.says(NO_SIGNAL)
        ffmpeg.exits(234)

    world.on_spawn = spawned
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))


def signal_comes(world: World) -> None:
    world.on_spawn = lambda ffmpeg: None
    world.on_finish = close_well


def test_a_missing_signal_is_waited_for_by_the_runner_itself(
    tmp_path: Path, run: Run, told: Told, said: list[str]
) -> None:
    world = World().at(61.5, signal_comes)
    no_signal(world)
    # The next look is a second later, from the first minute's end on three.
    world.at(64.1, lambda w: w.at(w.time_s, *(action for _, action in records(0.25))))
    world.at(65.0, stop)
    assert run(world, CARD) == EXIT_STOPPED
    tries = [event for event in told() if event["kind"] == "opened"]
    assert 55 <= len(tries) <= 65
    assert [event["is_retry"] for event in tries] == [False, *[True] * (len(tries) - 1)]
    assert sum("waiting" in line for line in said) == 1, "it is said once"
    assert sum("the signal is back" in line for line in said) == 1
    status = read_status(3, str(tmp_path))
    assert status is not None and status.restarts == 0


def test_a_lost_signal_closes_the_file_and_is_no_restart(run: Run, told: Told) -> None:
    world = World(records(3))
    world.at(13.0, lambda w: w.ffmpeg.says(LOST), lambda w: w.ffmpeg.counts(75, progress="end"))
    world.at(13.0, no_signal, lambda w: w.ffmpeg.exits(0))
    world.on_finish = close_well
    world.at(20.0, stop)
    assert run(world, CARD) == EXIT_STOPPED
    closed = next(event for event in told() if event["kind"] == "closed")
    assert (closed["cause"], closed["frames"]) == ("signal lost", 75)
    assert world.ffmpegs[0].steps == []


def test_a_signal_without_audio_is_recorded_without(run: Run, said: list[str]) -> None:
    world = World()

    def quit_writes_it_out(ffmpeg: FakeFFmpeg, action: str) -> None:
        ffmpeg.says("[info] video:9kB audio:0KiB\n")
        ffmpeg.counts(130, progress="end")
        ffmpeg.exits(0)
        world.on_step = quit_well

    world.on_step = quit_writes_it_out
    world.at(8.0, lambda w: w.ffmpeg.counts(50), lambda w: w.file.events.append(FirstMedia())).at(9.0, stop)
    assert run(world, CARD) == EXIT_STOPPED
    assert len(world.ffmpegs) == 2
    assert "-nb_channels" in world.ffmpegs[0].command
    assert world.ffmpegs[1].command == ["/usr/bin/ffmpeg", "-i", "x", "-f", "matroska", OUTPUT_NAME]
    assert any("no audio embedded on board 0 channel 3" in line for line in said)


# A source whose sound may be left out, and what FFmpeg 7.1 logs of it.
WITH_SOUND = OPTIONS.replaced(
    input="tcp://camera:1", sound=OPTIONAL,
    command=["/usr/bin/ffmpeg", "-i", "x", "-map", "0:a:0?", "-af", f"aselect=print({SOUND_MARK})", "{output}"],
)  # fmt: skip
OPENS = "[info] Input #0, mpegts, from 'tcp://camera:1':\n"
MAPS = "[info] Stream mapping:\n[info]   Stream #0:0 -> #0:0 (h264)\n[info]   Stream #0:1 -> #0:1 (aac (native))\n"
SOUNDS = f"[info] {SOUND_MARK}.000000\n"


def sounds_until(seconds: float) -> list[tuple[float, Action]]:
    return [(0.2 + second, lambda world: world.ffmpeg.says(SOUNDS)) for second in range(int(seconds))]


@pytest.mark.parametrize("sound", [REQUIRED, OPTIONAL])
def test_sound_that_stops_and_comes_back_is_said_and_ends_nothing(
    run: Run, said: list[str], tmp_path: Path, sound: str
) -> None:
    reasons: list[str] = []
    losing: list[bool] = []

    def look(_world: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None
        reasons.append(f"{status.state}: {status.reason}")
        losing.append(status.is_losing)

    world = World(records(30)).at(0.1, lambda w: w.ffmpeg.says(OPENS + MAPS))
    for second, happens in [*sounds_until(8), (20.1, lambda w: w.ffmpeg.says(SOUNDS))]:
        world.at(second, happens)
    for second in (7.1, 16.3, 22.1):
        world.at(second, look)
    world.at(22.2, stop)
    assert run(world, WITH_SOUND.replaced(sound=sound)) == EXIT_STOPPED
    # What is said is at most 2 s old.
    assert reasons in [["recording: ", f"recording: no sound for {seconds} s", "recording: "] for seconds in (7, 8, 9)]
    assert losing == [False, sound == REQUIRED, False]
    assert len(world.ffmpegs) == 1 and not any("pts_time" in line for line in said)


UNKNOWN = "[mpegts @ 0x5] [warning] Could not find codec parameters for stream 1 (Audio: aac, 0 channels): …\n"


@pytest.mark.parametrize(("says", "patience_s"), [(OPENS + MAPS, 2.0), (UNKNOWN + OPENS + MAPS, 0.5)])
def test_sound_that_never_comes_is_left_out_where_it_may_be(
    run: Run, said: list[str], says: str, patience_s: float
) -> None:
    world = World().at(2.0, lambda w: w.ffmpeg.says(says))
    spawned: list[float] = []

    def quits(ffmpeg: FakeFFmpeg, _action: str) -> None:
        ffmpeg.says("[error] Error initializing filters!\n")
        ffmpeg.exits(234)
        world.on_step = quit_well

    world.on_step = quits
    world.on_spawn = lambda _ffmpeg: spawned.append(world.time_s)
    world.at(6.5, lambda w: w.ffmpeg.counts(50), lambda w: w.file.events.append(FirstMedia())).at(9.0, stop)
    assert run(world, WITH_SOUND) == EXIT_STOPPED
    assert len(spawned) == 2
    assert 2.0 + patience_s <= spawned[1] < 2.0 + patience_s + 0.3
    assert not any(":a:" in word or SOUND_MARK in word for word in world.ffmpegs[1].command)
    assert any("no sound on tcp://camera:1; recording without" in line for line in said)
    assert not any("Error initializing" in line for line in said)


def test_an_input_of_the_sound_that_stalls_is_left_out_at_once(run: Run, told: Told) -> None:
    """FFmpeg reads that it is to end, and waits for that input all the same."""
    command = [
        "/usr/bin/ffmpeg",
        "-i",
        "x",
        "-i",
        "y",
        "-map",
        "0:v:0",
        "-map",
        "1:a:0?",
        "-af",
        SOUND_MARK,
        "{output}",
    ]
    world = World(records(4)).at(0.1, lambda w: w.ffmpeg.says(OPENS + MAPS))
    for second, happens in sounds_until(4):
        world.at(second, happens)
    world.on_step = lambda ffmpeg, action: ffmpeg.exits(-9) if action == "kill" else None
    spawned: list[float] = []
    world.on_spawn = lambda _ffmpeg: spawned.append(world.time_s)
    world.at(16.0, stop, lambda w: w.ffmpeg.exits(0))
    options = WITH_SOUND.replaced(command=command, stall_timeout_s=15.0)
    assert run(world, options) == EXIT_STOPPED
    assert world.ffmpegs[0].steps == ["quit", "kill"]
    assert spawned[1] == pytest.approx(4 + 7 + 1, abs=0.5)
    assert world.ffmpegs[1].command == [*"/usr/bin/ffmpeg -i x -map 0:v:0 -f matroska".split(), OUTPUT_NAME]
    assert told()[-1]["kind"] == "stopped"


def test_a_source_that_brings_no_picture_either_is_asked_for_sound_again(run: Run) -> None:
    world = World().at(2.0, lambda w: w.ffmpeg.says(OPENS + MAPS))
    world.on_step = lambda ffmpeg, _action: ffmpeg.exits(234)
    world.on_finish = lambda file, _is_empty: file.events.append(Closed(0, False, ""))
    world.at(5.0, lambda w: w.ffmpeg.says("[error] Connection refused\n"), lambda w: w.ffmpeg.exits(1))
    assert run(world, WITH_SOUND) == EXIT_RETRY
    assert not any(":a:" in word for word in world.ffmpegs[1].command)
    for attempt in (2, 3):
        again = World().at(5.0, lambda w: w.ffmpeg.says("[error] Connection refused\n"), lambda w: w.ffmpeg.exits(1))
        again.on_finish = world.on_finish
        assert run(again, WITH_SOUND) == EXIT_RETRY
        assert "0:a:0?" not in again.ffmpegs[0].command, attempt
    back = World(records(3, since=5.0)).at(9.0, stop)
    assert run(back, WITH_SOUND) == EXIT_STOPPED
    assert "0:a:0?" in back.ffmpegs[0].command


OPENED = "[info] Input #0, flv, from 'rtmp://…':\n"
RUNS = "[info] Press [q] to stop, [?] for help\n"


@pytest.mark.parametrize("caller_at", [29.9, 30.5, 37.5])
def test_a_caller_who_comes_when_ffmpeg_is_to_end_is_recorded(
    tmp_path: Path, run: Run, told: Told, said: list[str], caller_at: float
) -> None:
    world = World([(caller_at, lambda w: w.ffmpeg.says(OPENED + RUNS)), *records(60, since=caller_at + 0.2)])
    assert run(world.at(caller_at + 60, stop)) == EXIT_STOPPED
    assert [ffmpeg.steps for ffmpeg in world.ffmpegs] == [["quit"]]
    (closed,) = [event for event in told() if event["kind"] == "closed"]
    assert (closed["verdict"], closed["cause"], closed["frames"]) == ("complete", "stop", pytest.approx(1495, abs=10))
    assert sum("the first frame has come" in line for line in said) == (caller_at > 30)


def test_nobody_comes_and_ffmpeg_is_ended(run: Run, told: Told) -> None:
    world = World()
    world.on_step = lambda ffmpeg, action: ffmpeg.exits(255) if action == "term" else None
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
    assert run(world) == EXIT_RETRY
    assert world.ffmpeg.steps == ["term"], "a `q` is not read before FFmpeg says so"
    assert world.time_s == pytest.approx(38, abs=0.2)
    assert told()[-1]["cause"] == "no frame within 30 s of FFmpeg's start"


def test_an_ffmpeg_that_reads_its_stdin_is_ended_by_q(run: Run) -> None:
    world = World().at(1, lambda w: w.ffmpeg.says(OPENED + RUNS))
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
    assert run(world) == EXIT_RETRY
    assert world.ffmpeg.steps == ["quit"]
    assert world.time_s == pytest.approx(31, abs=0.2), "thirty seconds from when its input was opened"


def test_a_stop_while_ffmpeg_is_to_end_is_told_to_it_at_once(run: Run) -> None:
    world = World().at(31, stop)
    assert run(world) == EXIT_STOPPED
    assert world.ffmpeg.steps == ["quit"]
    assert world.time_s == pytest.approx(31, abs=0.1)


def test_a_listener_waits_for_ever_and_its_caller_is_recorded(tmp_path: Path, run: Run) -> None:
    states: list[tuple[str, str]] = []

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None
        states.append((status.state, status.reason))

    world = World([(9000, lambda w: w.ffmpeg.says(OPENED + RUNS)), *records(30, since=9000)])
    world.at(60, look).at(8990, look).at(9020, look).at(9031, stop)
    assert run(world, OPTIONS.replaced(start_timeout_s=0.0)) == EXIT_STOPPED
    assert states == [("no-signal", "waits for FFmpeg's test picture")] * 2 + [("recording", "")]
    assert len(world.ffmpegs) == 1


def test_a_filesystem_of_unstable_inodes_is_recorded_on(run: Run) -> None:
    """What is looked at has another inode each time, so that the file seems to be another one."""
    world = World(records(40, since=2))
    for second in range(1, 40):
        world.at(second, lambda w: w.file.events.append(Sample(1, 10**9, "8:1", moved=True, deleted=False)))
    assert run(world.at(41, stop)) == EXIT_STOPPED
    assert len(world.ffmpegs) == 1


MADE = "[info] Output #0, matroska, to 'x':\n[info]   Stream #0:0: Video: h264, yuv420p, {}, q=2-31, 25 fps\n"
CHANGED = "[vf#0:0 @ 0x55] [info] Reconfiguring filter graph because video parameters changed to yuv420p({}), {}\n"


@pytest.mark.parametrize("size", ["640x360", "640x362"])
def test_a_picture_that_changes_in_its_colours_or_a_line_stays_in_one_file(run: Run, size: str) -> None:
    """FFmpeg 7.1 says the same of a change of range or matrix as of one of the size."""
    world = World(records(9)).at(0.1, lambda w: w.ffmpeg.says(MADE.format("640x360")))
    says = [CHANGED.format(colours, size) for colours in ("pc, bt709", "tv, smpte170m")]
    for second in range(4):
        world.at(1.1 + 2 * second, lambda w: w.ffmpeg.says(says[0])).at(
            2.1 + 2 * second, lambda w: w.ffmpeg.says(says[1])
        )
    world.at(9.5, stop)
    assert run(world) == EXIT_STOPPED
    assert len(world.ffmpegs) == 1


def test_a_slate_of_another_size_at_each_connection_is_cut_once(run: Run, told: Told, tmp_path: Path) -> None:
    slate = World(records(3)).at(0.1, lambda w: w.ffmpeg.says(MADE.format("320x240")))
    slate.at(0.3, lambda w: w.ffmpeg.says(CHANGED.format("tv", "640x360")))
    slate.on_step = quit_well
    assert run(slate) == EXIT_RETRY
    assert told()[-1]["cause"] == "format changed: 640x360 instead of 320x240"
    # The next file has the picture's size from the slate on, and none after it is told one.
    again = World(records(9)).at(0.1, lambda w: w.ffmpeg.says(MADE.format("640x360")))
    again.at(0.3, lambda w: w.ffmpeg.says(CHANGED.format("tv", "640x360"))).at(9.5, stop)
    assert run(again) == EXIT_STOPPED
    assert len(again.ffmpegs) == 1
    assert again.ffmpegs[0].command[-5:-3] == ["-s", "640x360"]


TWO_PROGRAMMES = """[info] Input #0, mpegts, from 'udp://x':
[info]   Program 7
[info]   Stream #0:0[0x100]: Video: h264, yuv420p, 160x90, 25 fps
[info]   Program 9
[info]   Stream #0:1[0x101]: Video: h264, yuv420p, 320x180, 25 fps
[info] Stream mapping:
"""


def test_the_best_programme_is_recorded_from_the_second_start_on(run: Run, tmp_path: Path) -> None:
    reasons: list[str] = []

    def look(_world: World) -> None:
        status = read_status(3, str(tmp_path))
        reasons.append(status.reason if status else "")

    options = OPTIONS.replaced(command=["/usr/bin/ffmpeg", "-i", "x", "-map", "0:v:0", "{output}"])
    world = World().at(1.0, lambda w: w.ffmpeg.says(TWO_PROGRAMMES))
    world.on_step = quit_well
    world.at(2.0, lambda w: w.ffmpeg.says(TWO_PROGRAMMES))
    for second, happens in records(5, since=2.0):
        world.at(second, happens)
    world.at(6.0, look).at(6.5, stop)
    assert run(world, options) == EXIT_STOPPED
    assert [ffmpeg.command[4] for ffmpeg in world.ffmpegs] == ["0:v:0", "0:p:9:v:0"]
    assert reasons == ["records programme 9 of 2, 320x180"]


SIX_CHANNELS = """[info] Input #0, mpegts, from 'x':
[info]   Stream #0:0[0x100]: Video: h264, yuv420p, 320x180, 25 fps
[info]   Stream #0:1[0x101](deu): Audio: aac (LC) ([15][0][0][0] / 0x000F), 48000 Hz, 5.1, fltp, 341 kb/s
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (h264 (native) -> h264 (libx264))
[info]   Stream #0:1 -> #0:1 (aac (native) -> aac (native))
"""


def test_channels_of_which_aac_would_cut_one_off_are_in_pairs_from_the_second_start_on(
    run: Run, told: Told, tmp_path: Path
) -> None:
    reasons: list[str] = []

    def look(_world: World) -> None:
        status = read_status(3, str(tmp_path))
        reasons.append(status.reason if status else "")

    words = "/usr/bin/ffmpeg -i x -map 0:v:0 -map 0:a:0 -af aresample=async=1 -c:a aac -b:a 192k {output}"
    world = World().at(1.0, lambda w: w.ffmpeg.says(SIX_CHANNELS))
    world.on_step = quit_well
    world.at(2.0, lambda w: w.ffmpeg.says(SIX_CHANNELS))
    for second, happens in records(5, since=2.0):
        world.at(second, happens)
    world.at(6.0, look).at(6.5, stop)
    assert run(world, OPTIONS.replaced(command=words.split())) == EXIT_STOPPED
    assert [ffmpeg.command.count("-map") for ffmpeg in world.ffmpegs] == [2, 4]
    assert reasons == ["the sound's 6 channels are in pairs: in one track AAC cuts one off"]


def test_a_disk_that_makes_no_file_is_an_end_with_its_reason(run: Run, told: Told) -> None:
    world = World()
    world.on_open = lambda file: file.events.append(OpenFailed("disk full: /srv/recordings has 0.1 MB free"))
    assert run(world) == EXIT_RETRY
    assert world.ffmpegs == []
    assert kinds(told()) == ["began", "waits"] and told()[1]["cause"] == "disk"


def test_a_disk_that_hangs_while_it_makes_the_file_is_said_and_a_stop_still_ends(tmp_path: Path, run: Run) -> None:
    world = World()
    world.on_open = lambda file: None
    found: list[str] = []

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        found.append(status.reason if status else "")

    world.at(10.0, look).at(11.0, stop)
    assert run(world) == EXIT_STOPPED
    assert "does not answer" in found[0]
    assert world.time_s == pytest.approx(11 + 3, abs=0.1)


def test_a_disk_that_does_not_close_the_file_is_not_waited_for(run: Run, told: Told) -> None:
    world = World(records(2)).at(2.1, lambda w: w.ffmpeg.exits(-9))
    world.on_finish = lambda file, _: setattr(world, "on_finish", close_well)
    world.at(2.2, lambda w: w.at(7.0, stop))
    assert run(world) == EXIT_STOPPED
    # The runner stays, since a thread of it is in the disk; it begins another attempt.
    assert len(world.ffmpegs) == 2
    assert told()[3]["size_bytes"] == 50_000


def test_a_file_that_is_deleted_counts_for_nothing(run: Run, told: Told) -> None:
    world = World(records(2)).at(2.1, lambda w: w.file.events.append(Sample(9, 10**9, "8:1", True, True)))
    assert run(world) == EXIT_RETRY
    closed = told()[3]
    assert closed["verdict"] == "lost: deleted while it was recorded"
    assert "frames" not in closed
    assert closed["cause"].startswith("file deleted: ")


def test_a_crash_loop_at_its_slowest_is_waited_out_by_the_runner(run: Run, told: Told, said: list[str]) -> None:
    def crash(ffmpeg: FakeFFmpeg) -> None:
        ffmpeg.says("[error] something is wrong\n")
        ffmpeg.exits(1)

    def crashing() -> World:
        world = World()
        world.on_spawn = crash
        world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
        return world

    tries = []
    for _ in range(8):
        world = crashing()
        assert run(world) == EXIT_RETRY
        tries.append(len(world.ffmpegs))
    assert tries[:6] == [1] * 6
    assert tries[6:] == [7, 7], "six waits, then systemd starts it anew"
    assert sum("ffmpeg: something is wrong" in line for line in said) == 2, "what is the same again is not said again"


@pytest.mark.parametrize("is_asked", [True, False])
def test_room_that_retention_makes_ends_the_wait(tmp_path: Path, run: Run, is_asked: bool) -> None:
    """A port whose disk was full records at once, and not after what is left of its wait."""
    for _ in range(6):
        run(World().at(20.0, lambda w: w.ffmpeg.exits(1)))
    begun_at: list[float] = []
    world = World().at(1.0, lambda _: (tmp_path / "retention.made").write_bytes(b"\n")).at(30, stop)
    world.on_spawn = lambda _: begun_at.append(world.time_s)
    run(world, OPTIONS.replaced(min_free_bytes=1 if is_asked else 0))
    assert begun_at[0] == pytest.approx(2.0 if is_asked else 10.0, abs=1.01)


def test_a_clock_that_is_moved_is_told_before_anything_else(run: Run, told: Told, said: list[str]) -> None:
    def move(world: World) -> None:
        world.wall_ahead_s += 3600

    world = World(records(3)).at(1.6, move).at(3.1, stop)
    assert run(world) == EXIT_STOPPED
    steps = [event["step_s"] for event in told() if event["kind"] == "clock"]
    assert steps == [pytest.approx(3600)]
    assert any("the clock was moved by +3600.0 s" in line for line in said)


@pytest.mark.parametrize("step_s", [0.0, 3600.0])
def test_a_suspension_is_told_as_one_and_is_no_step_of_the_clock(
    run: Run, told: Told, said: list[str], step_s: float
) -> None:
    """CLOCK_BOOTTIME and the wall clock went on for 40 s, CLOCK_MONOTONIC did not. The clock may be put right too."""

    def sleep(world: World) -> None:
        world.asleep_s += 40
        world.wall_ahead_s += 40 + step_s

    world = World(records(8)).at(4.6, sleep).at(8.1, stop)
    assert run(world) == EXIT_STOPPED
    assert [event["asleep_s"] for event in told() if event["kind"] in ("began", "slept")] == [0, 40]
    steps = [event["step_s"] for event in told() if event["kind"] == "clock"]
    assert steps == ([pytest.approx(3600)] if step_s else [])
    assert any("the system was suspended for 40.0 s" in line for line in said)
    assert kinds(told())[-2:] == ["closed", "stopped"]


def test_a_suspension_before_the_first_frame_is_told_says_when_that_came(run: Run, told: Told) -> None:
    def sleep(world: World) -> None:
        world.asleep_s += 40
        world.wall_ahead_s += 40

    world = World(records(8)).at(0.3, sleep).at(8.1, stop)
    assert run(world) == EXIT_STOPPED
    assert kinds(told())[:4] == ["began", "opened", "slept", "media"]
    assert told()[2]["path"] == told()[3]["path"]
    assert told()[2]["first_frame_at"][1] == pytest.approx(told()[3]["first_frame_at"][1], abs=0.1)


def test_a_runner_that_stood_still_gives_ffmpeg_the_time_that_both_lost(run: Run, told: Told, said: list[str]) -> None:
    """Both were stopped for 15 s: the file goes on, and its hole has the true cause."""
    frozen_s = 15.0

    def freeze(world: World) -> None:
        world.time_s += frozen_s

    later = [(at + frozen_s, act) for at, act in records(16) if at > 6]
    world = World([entry for entry in records(16) if entry[0] <= 6]).at(6.1, freeze)
    for at, act in later:
        world.at(at, act)
    world.at(31.5, stop)
    assert run(world) == EXIT_STOPPED
    assert any("stood still for 1" in line for line in said)
    assert kinds(told()) == ["began", "opened", "media", "missed", "closed", "stopped"]
    assert told()[3]["cause"] == "stood still"
    assert told()[3]["last_at"][1] - told()[3]["first_at"][1] == pytest.approx(15, abs=1)


@pytest.mark.parametrize(("silent_s", "stood_still"), [(2.0, False), (8.0, True)])
def test_the_next_runner_knows_whether_a_killed_one_had_stood_still(
    run: Run, told: Told, silent_s: float, stood_still: bool
) -> None:
    """systemd's watchdog kills a runner that has not turned for 10 s, and says so to nobody."""

    def kill(world: World) -> None:
        raise Killed

    first = World(records(8)).at(8.05, kill)
    with pytest.raises(Killed):
        run(first)
    second = World().at(first.time_s + silent_s + 2, stop)
    second.time_s = first.time_s + silent_s
    run(second)
    began = [event for event in told() if event["kind"] == "began"]
    assert [event["stood_still"] for event in began] == [False, stood_still]


class Killed(Exception):
    """The runner's process is gone."""


def test_other_programs_between_two_readings_of_the_clocks_are_no_step(run: Run, told: Told) -> None:
    """Each fourth reading of the wall clock comes half a second late: the runner was not running in between."""
    world = World(records(8)).at(8.1, stop)
    readings = itertools.count()
    wall = world.wall

    def late() -> float:
        if next(readings) % 4 == 3:
            world.time_s += 0.5
        return wall()

    world.wall = late  # type: ignore[method-assign]
    run(world)
    assert "clock" not in kinds(told())


def test_a_stop_while_it_waits_starts_nothing(run: Run, told: Told) -> None:
    for _ in range(3):
        run(World().at(20.0, lambda w: w.ffmpeg.exits(1)))
    world = World().at(0.5, stop)
    assert run(world) == EXIT_STOPPED
    assert world.ffmpegs == []
    assert kinds(told())[-2:] == ["began", "stopped"]


def test_a_stop_while_ffmpeg_ends_by_itself_is_a_stop(run: Run, told: Told) -> None:
    """Both come in one turn of the loop."""
    world = World(records(2)).at(2.1, stop, lambda w: w.ffmpeg.exits(-9))
    assert run(world) == EXIT_STOPPED
    assert kinds(told())[-1] == "stopped"


def test_a_disk_problem_is_told_and_the_recording_goes_on(tmp_path: Path, run: Run) -> None:
    world = World(records(4))
    reasons: list[str] = []
    world.at(1.1, lambda w: setattr(w.file, "sync_problem", "disk error: not durable"))

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None and status.is_recording
        reasons.append(status.reason)

    world.at(3.6, look).at(4.1, stop)
    assert run(world) == EXIT_STOPPED
    assert reasons == ["disk error: not durable"]


def test_events_that_found_no_room_are_written_when_there_is_some_without_a_further_event(
    tmp_path: Path, run: Run, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full /run would keep the file of a recording that goes on well from its ledger for days."""
    write = os.pwrite
    is_full = True

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    def look(expected: str) -> Callable[[World], None]:
        def happens(_: World) -> None:
            status = read_status(3, str(tmp_path))
            assert status is not None and status.is_recording
            assert expected in status.reason and bool(expected) == bool(status.reason)

        return happens

    def heal(_: World) -> None:
        nonlocal is_full
        is_full = False

    monkeypatch.setattr(os, "pwrite", pwrite)
    world = World(records(9)).at(3.6, look("3 events for the ledger wait in memory")).at(4.1, heal)
    world.at(6.6, look(""), lambda _: kinds_told.extend(kinds(told())))
    kinds_told: list[str] = []
    assert run(world.at(8.1, stop)) == EXIT_STOPPED
    assert kinds_told == ["began", "opened", "media"]


def test_no_descriptor_is_left(run: Run) -> None:
    before = os.listdir("/proc/self/fd")
    run(World(records(1)).at(1.1, stop))
    # The spool's file is closed with the process.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1


def test_the_loop_needs_no_signal_handler(run: Run) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(World(records(1)).at(1.1, stop))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


NOBODY = 4_194_305
"""Above the largest process id (proc(5), pid_max)."""


def in_a_take(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir(exist_ok=True)
    leave_request(3, Request(take="cup", codec="prores", request_id="a1"), str(tmp_path))


FOLDERS = "{utc_date}/{port}/{name}_{take}_{codec}"


@pytest.mark.parametrize(
    ("file_name", "request_", "directory", "template"),
    [
        ("", Request(), "", "CAM3_{utc}"),
        ("", Request(take="cup"), "", "CAM3_{utc}"),
        (FOLDERS, Request(), "", "{utc_date}/3/CAM3_untitled_h264"),
        (FOLDERS, Request(take="cup", codec="prores"), "", "{utc_date}/3/CAM3_cup_prores"),
        # Where a program says where the files are to be, or what they are to be called, they are.
        (FOLDERS, Request(name="FINAL"), "", "FINAL_{utc}"),
        (FOLDERS, Request(recording_path="/srv/recordings/day"), "/day", "CAM3_{utc}"),
        (FOLDERS, Request(recording_path="/srv/recordings/day", name="FINAL"), "/day", "FINAL_{utc}"),
    ],
)
def test_how_a_takes_files_are_named(
    tmp_path: Path, run: Run, told: Told, file_name: str, request_: Request, directory: str, template: str
) -> None:
    (tmp_path / "requests").mkdir()
    leave_request(3, request_, str(tmp_path))
    world = World(records(1)).at(1.1, stop)
    run(world, OPTIONS.replaced(file_name=file_name))
    assert {(place.directory, place.template) for place in world.places} == {(f"/srv/recordings{directory}", template)}
    # By these the ledger's process knows the port's files, whatever take they are of.
    assert told()[0]["file_name"] == (file_name and "{utc_date}/3/CAM3_{take}_{codec}")


def stop_of_systemd(tmp_path: Path) -> None:
    """systemd removes the run directory at a stop, and at a failure that it gives up."""
    for name in (tmp_path / "port-3").iterdir():
        name.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at_s", [0.0, 0.3, 2.1])
def test_a_signal_from_elsewhere_ends_the_file_well_and_stops_nothing(
    tmp_path: Path, run: Run, told: Told, said: list[str], number: signal.Signals, at_s: float
) -> None:
    in_a_take(tmp_path)
    came = Came()
    world = World(records(3)).at(at_s, came.send(number, NOBODY))
    assert run(world, signals=came) == EXIT_RETRY
    who = f"terminated from outside: {number.name} by process {NOBODY} of user 1000"
    status = read_status(3, str(tmp_path))
    assert status is not None and (status.state, status.reason, status.take) == ("backoff", who, "cup")
    assert "stopped" not in kinds(told())
    assert len([line for line in said if who in line and "sdisup stop 3" in line]) == 1
    if at_s > 2:
        closed, waits = told()[-2:]
        assert (closed["verdict"], closed["cause"], waits["cause"]) == ("complete", *["terminated from outside"] * 2)
        assert world.ffmpeg.steps == ["quit"]
    world = World(records(1)).at(1.1, stop)
    assert run(world) == EXIT_STOPPED
    assert told()[-1]["take"] == "cup"
    assert [event["is_restart"] for event in told() if event["kind"] == "began"] == [False, True]


def test_a_signal_from_elsewhere_while_nothing_runs_ends_the_runner_for_the_next(run: Run, told: Told) -> None:
    for _ in range(4):
        run(World().at(5.0, lambda w: w.ffmpeg.exits(1)))
    came = Came()
    world = World().at(1.0, came.send(signal.SIGTERM, NOBODY))
    assert run(world, signals=came) == EXIT_RETRY
    assert (world.time_s, world.ffmpegs) == (1.0, [])
    assert "stopped" not in kinds(told())


def test_a_signal_from_elsewhere_during_a_stop_and_a_stop_after_it_are_a_stop(run: Run, told: Told) -> None:
    for first, second in ((1, NOBODY), (NOBODY, 1)):
        came = Came()
        world = World(records(3)).at(2.1, came.send(signal.SIGTERM, first), came.send(signal.SIGTERM, second))
        assert run(world, signals=came) == EXIT_STOPPED
        assert kinds(told())[-2:] == ["closed", "stopped"]


def test_a_take_goes_on_through_a_restart_and_ends_with_a_stop_and_systemd_tells_which(
    tmp_path: Path, run: Run, told: Told
) -> None:
    in_a_take(tmp_path)
    for number, is_restart in ((signal.SIGINT, True), (signal.SIGTERM, False)):
        came = Came()
        assert run(World(records(2)).at(1.1, came.send(number, 1)), signals=came) == EXIT_STOPPED
        assert (told()[-1]["is_restart"], told()[-1]["take"]) == (is_restart, "cup")
    status = read_status(3, str(tmp_path))
    # What ended since systemd asked for it is no restart after a failure.
    assert status is not None and (status.restarts, status.take, status.codec) == (0, "cup", "prores")
    stop_of_systemd(tmp_path)
    run(World(records(1)).at(1.1, stop))
    status = read_status(3, str(tmp_path))
    assert status is not None and (status.take, status.codec) == (None, "h264")


def test_what_failed_before_is_forgotten_by_a_restart_by_hand(run: Run) -> None:
    for _ in range(5):
        run(World().at(20.0, lambda w: w.ffmpeg.exits(1)))
    assert run(World().at(1.0, stop)) == EXIT_STOPPED
    begun_at = []
    world = World().at(5.0, stop)
    world.on_spawn = lambda _: begun_at.append(world.time_s)
    run(world)
    assert begun_at == pytest.approx([0], abs=0.01)


def test_the_take_goes_on_where_the_start_limit_had_ended_the_restarts(tmp_path: Path, run: Run, told: Told) -> None:
    in_a_take(tmp_path)
    assert run(World(records(2)).at(1.1, lambda w: w.ffmpeg.exits(-9))) == EXIT_RETRY
    stop_of_systemd(tmp_path)
    (tmp_path / "3.again").touch()
    assert run(World(records(2)).at(1.1, stop)) == EXIT_STOPPED
    assert (told()[-1]["take"], (tmp_path / "3.again").exists()) == ("cup", False)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """/run has no room for a new file, or has some again."""
    real = files.replace_file

    def fill(is_full: bool) -> None:
        def refuse(path: str, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        for module in (memory, status_module):
            monkeypatch.setattr(module, "replace_file", refuse if is_full else real)

    return fill


def test_a_full_run_costs_no_back_off_and_is_said(
    tmp_path: Path, run: Run, said: list[str], full: Callable[[bool], None]
) -> None:
    """The next runner would know of no failure, and begin without a wait."""
    full(True)
    begun_at: list[float] = []
    world = World().at(40.0, lambda _: full(False))

    def fail(ffmpeg: FakeFFmpeg) -> None:
        begun_at.append(world.time_s)
        ffmpeg.exits(1)

    world.on_spawn = fail
    assert run(world) == EXIT_RETRY
    assert [later - earlier for earlier, later in itertools.pairwise(begun_at[:7])] == pytest.approx(
        [0, 1, 2, 4, 8, 10], abs=0.05
    )
    assert begun_at[-1] >= 40
    text = f"{tmp_path}: No space left on device: after a crash the port may go on without its take"
    assert [line for line in said if text in line] == [f"<3>port 3 (CAM3): {text}"]


def test_the_status_tells_how_it_goes_in_a_full_run(tmp_path: Path, run: Run, full: Callable[[bool], None]) -> None:
    seen: list[PortStatus | None] = []
    world = World(records(6))
    world.at(1.0, lambda _: full(True)).at(5.5, lambda _: seen.append(read_status(3, str(tmp_path)))).at(6.1, stop)
    run(world)
    assert seen[0] is not None
    assert seen[0].state == "recording"
    assert seen[0].frame_count >= 25 * 4
    stopped = read_status(3, str(tmp_path))
    assert stopped is not None and stopped.state == "stopped"


def test_a_take_is_claimed_only_when_it_is_kept(
    tmp_path: Path, run: Run, said: list[str], told: Told, full: Callable[[bool], None]
) -> None:
    in_a_take(tmp_path)
    full(True)
    run(World(records(1)).at(1.1, stop))
    assert told()[-1]["take"] is None
    assert any("its take cannot be kept; recording as it is configured" in line for line in said)
    full(False)
    stop_of_systemd(tmp_path)
    run(World(records(1)).at(1.1, stop))
    assert told()[-1]["take"] == "cup"


def test_a_stop_that_comes_while_the_runner_ends_is_a_stop(
    run: Run, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(records(2)).at(2.1, lambda w: w.ffmpeg.exits(-9))

    def stop_when_it_says_why(_journal: report.Journal, line: bytes) -> None:
        if line.endswith(b"(CAM3): FFmpeg was killed by signal 9\n"):
            stop(world)

    monkeypatch.setattr(report.Journal, "_write", stop_when_it_says_why)
    assert run(world) == EXIT_STOPPED
    assert kinds(told())[-3:] == ["closed", "waits", "stopped"]


def sample(**changed: Any) -> Action:
    told = {"size_bytes": 1, "disk_free_bytes": 10**9, "filesystem": "8:1", "moved": False, "deleted": False}
    return lambda w: w.file.events.append(Sample(**{**told, **changed}))


def test_where_a_file_was_moved_to_is_told(run: Run, told: Told) -> None:
    world = World(records(4))
    away = sample(moved=True, place="/old/a.mkv")
    world.at(4.1, away).at(4.2, away).at(4.3, sample(moved=True)).at(4.4, sample()).at(4.5, stop)
    assert run(world) == EXIT_STOPPED
    moved = [event for event in told() if event["kind"] == "moved"]
    assert [(event["place"], event["is_hidden"]) for event in moved] == [("/old/a.mkv", False), ("", True), ("", False)]
    assert len(world.ffmpegs) == 1


@pytest.mark.parametrize("first", [2.0, 0.5], ids=["while it records", "before its first frame"])
def test_a_directory_that_was_moved_is_followed_by_a_file_in_the_right_place(
    run: Run, told: Told, tmp_path: Path, first: float
) -> None:
    world = World(records(9, since=1.0)).at(first, sample(moved=True, place="/old/a.mkv", misplaced=True))
    assert run(world) == EXIT_RETRY
    assert world.ffmpeg.steps == ["quit"] and world.time_s < first + 0.5
    (closed,) = [event for event in told() if event["kind"] == "closed"]
    assert closed["cause"].startswith("directory moved: the path of /srv/recordings/CAM3_1.mkv leads to another")
    # The next file begins at once and as any other.
    again = World(records(2)).at(2.1, stop)
    assert run(again) == EXIT_STOPPED
    assert again.ffmpeg.command == world.ffmpeg.command


def test_what_a_filesystem_cannot_do_is_said_once(run: Run, said: list[str]) -> None:
    world = World(records(9)).at(9, stop)
    for second in range(1, 6):
        world.at(second, lambda w: w.file.remarks.append("/srv/recordings cannot"))
    assert run(world) == EXIT_STOPPED
    assert [line for line in said if "cannot" in line] == [
        "<5>port 3 (CAM3): /srv/recordings cannot; recording goes on"
    ]


def test_the_next_runner_tells_what_a_killed_one_had_counted(run: Run, told: Told, tmp_path: Path) -> None:
    def kill(_: World) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(World(records(9)).at(9, kill))
    assert run(World(records(2)).at(2.1, stop)) == EXIT_STOPPED
    began = [event for event in told() if event["kind"] == "began"][-1]
    assert began["left_path"] == "/srv/recordings/CAM3_1.mkv" and began["left_bytes"] > 0
    assert began["left_frames"] == pytest.approx(225, abs=30)
    assert run(World(records(2)).at(2.1, stop)) == EXIT_STOPPED
    assert "left_path" not in [event for event in told() if event["kind"] == "began"][-1]
