"""Which timecode a recording's file gets: by the clock or by a number, through FFmpeg's start and through crashes."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_segments
from hypothesis import given
from hypothesis import strategies as st
from scripted import Action, FakeFile, World
from test_hold_back import FFMPEGS
from test_segments import own_descriptors
from test_stamp import timecodes_in

from sdisup.config.settings import numbers_at
from sdisup.contract.options import Options
from sdisup.contract.timecode import CLOCK, Counting
from sdisup.runner.disk import FirstMedia
from sdisup.runner.main import EXIT_RETRY
from sdisup.runner.memory import Memory
from sdisup.runner.meter import Meter
from sdisup.runner.streams import Streams
from sdisup.runner.timecodes import Timecodes, first_number, second_of_day
from sdisup.sources.values import FPS

# The fixture holds for each test here.
__all__ = ["own_descriptors"]

RATE = 25
OPTIONS = Options(
    ["/usr/bin/ffmpeg", "-i", "x", "-metadata", "timecode=00:00:00:00", "{output}"],
    port=3, name="CAM3", codec="h264", container="mkv", source="test", input="FFmpeg's test picture",
    without_signal="", audio_options="", recordings="/srv/recordings", revision="r1", filesystem="",
    rate=float(RATE), stall_timeout_s=5.0, start_timeout_s=30.0, sync_interval_s=1.0, stop_quit_s=3.0,
    stop_start_quit_s=4.0, stop_term_s=2.0, timecode=CLOCK,
)  # fmt: skip
NOON = 1769860800.0  # 2026-01-31T12:00:00Z, 13:00 in Berlin
SUMMER = 1785499200.5  # 2026-07-31T12:00:00.5Z, 14:00 in Berlin


pytestmark = pytest.mark.usefixtures("in_berlin", "said")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a runner in a world to its end. The run directory lives through restarts."""
    (tmp_path / "port-3").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "port-3"))

    def play(world: World, **changes: object) -> int:
        return world.start(OPTIONS.replaced(run_directory=str(tmp_path), **changes), None).run()

    return play


Run = Callable[..., int]


def counts(frames: int, world: World) -> None:
    world.ffmpeg.counts(frames)


def stop(world: World) -> None:
    assert world.runner is not None
    world.runner.stop()


def records(begin: float, end: float, *, rate: float = RATE) -> list[tuple[float, Action]]:
    """A script of an FFmpeg whose first frame comes then: each quarter second it says how many it has."""
    script: list[tuple[float, Action]] = [(begin + 0.1, lambda world: world.file.events.append(FirstMedia()))]
    quarters = int((end - begin) * 4)
    script += [(begin + at / 4, functools.partial(counts, int(at / 4 * rate))) for at in range(1, quarters + 1)]
    return script


def world_at(wall: float, script: list[tuple[float, Action]]) -> World:
    world = World(script)
    world.wall_ahead_s = wall
    return world


def text_of(world: World) -> str:
    assert world.file.timecode is not None
    return world.file.timecode.text


# ---- One number ----


@pytest.mark.parametrize(
    ("now", "expected"), [(NOON, 13 * 3600), (SUMMER, 14 * 3600 + 0.5), (NOON + 11 * 3600, 0), (NOON + 10.25, 46810.25)]
)
def test_the_time_of_day_is_local(now: float, expected: float) -> None:
    assert second_of_day(now) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("timecode", "rate", "wall", "elapsed_s", "expected"),
    [
        (CLOCK, "25", NOON, 0.0, "13:00:00:00"),
        (CLOCK, "25", NOON + 0.5, 99.0, "13:00:00:12"),
        (CLOCK, "25", SUMMER, 0.0, "14:00:00:12"),
        (CLOCK, "30000/1001", NOON, 0.0, "13:00:00;01"),
        (CLOCK, "60000/1001", NOON + 60.1, 0.0, "13:01:00;09"),
        (CLOCK, "24000/1001", NOON + 1.5, 0.0, "13:00:01:12"),
        (CLOCK, "25", NOON + 11 * 3600 - 0.01, 0.0, "23:59:59:24"),
        ("10:00:00:00", "25", NOON, 0.0, "10:00:00:00"),
        ("10:00:00:00", "25", NOON, 10.02, "10:00:10:00"),
        ("10:00:00:00", "30000/1001", NOON, 600.0, "10:10:00;00"),
        ("10:00:00;00", "30000/1001", NOON, 0.0, "10:00:00;00"),
        ("23:59:59:24", "25", NOON, 0.04, "00:00:00:00"),
    ],
)
def test_the_first_number(timecode: str, rate: str, wall: float, elapsed_s: float, expected: str) -> None:
    numbers = numbers_at(rate)
    assert numbers.text(first_number(timecode, numbers, FPS[rate], wall, elapsed_s)) == expected


@given(st.sampled_from(list(FPS)), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_later_file_s_number_is_that_of_its_first_frame(rate: str, first: int, frames: int) -> None:
    """Where one file of FFmpeg's run ends, the next one goes on, over whatever minutes and midnights."""
    numbers = numbers_at(rate)
    last, following = numbers.text(first + frames - 1), numbers.text(first + frames)
    assert (numbers.frame(following) - numbers.frame(last)) % numbers.a_day == 1


# ---- Through a runner's life ----


def test_the_clock_s_time_at_the_first_frame(run: Run, said: list[str]) -> None:
    """FFmpeg takes two seconds to its first frame, and tells of it late."""
    world = world_at(NOON, records(2.0, 20.0)).at(20.0, stop)
    run(world)
    assert text_of(world) == "13:00:02:00"
    assert sum("the first frame's timecode is 13:00:02:00" in line for line in said) == 1


def test_what_was_buffered_came_before_the_first_block(run: Run) -> None:
    """The first blocks of a source that FFmpeg looked at for five seconds; the estimate is mended as they come."""
    world = World().at(5.05, lambda w: w.file.events.append(FirstMedia()))
    world.wall_ahead_s = NOON
    estimates: list[str] = []
    for number, frames in enumerate((1, 1, 40, 80, 120, 145)):
        world.at(5 + number / 4, functools.partial(counts, frames))
    for number in range(1, 20):
        world.at(6.5 + number / 4, functools.partial(counts, 151 + number * RATE // 4))
    for at in (5.2, 5.9, 12.0):
        world.at(at, lambda w: estimates.append(text_of(w)))
    run(world.at(12.1, stop))
    assert estimates[0] > estimates[1] > estimates[2]
    assert text_of(world) == estimates[2] == "13:00:00:11"


def test_a_clock_that_steps_later_changes_nothing(run: Run) -> None:
    def step(world: World) -> None:
        world.wall_ahead_s += 3600

    world = world_at(NOON, records(1.0, 30.0)).at(15.0, step).at(30.0, stop)
    run(world)
    assert text_of(world) == "13:00:01:00"


def test_a_recording_of_a_second_has_its_timecode_when_it_is_closed(run: Run) -> None:
    """FFmpeg ends before anybody has looked at the file."""
    finished: list[str] = []
    world = world_at(NOON, [(1.5, functools.partial(counts, 12)), (1.6, lambda w: w.ffmpeg.exits(1))])
    close = world.on_finish

    def on_finish(file: object, is_empty: bool) -> None:
        finished.append(text_of(world))
        close(file, is_empty)  # type: ignore[arg-type]

    world.on_finish = on_finish
    run(world)
    assert finished == ["13:00:01:00"]


@pytest.mark.parametrize(
    ("timecode", "expected"),
    [
        # The clock is read again: it tells how long nothing was recorded.
        (CLOCK, ["13:00:01:00", "13:00:31:12"]),
        # The take's time goes on: 30.5 s after its first frame.
        ("10:00:00:00", ["10:00:00:00", "10:00:30:12"]),
    ],
)
def test_after_a_crash(run: Run, timecode: str, expected: list[str]) -> None:
    first = world_at(NOON, records(1.0, 20.0)).at(20.5, lambda w: w.ffmpeg.exits(1))
    assert run(first, timecode=timecode) == EXIT_RETRY
    second = world_at(NOON, [(30.0 + at, action) for at, action in records(1.5, 20.0)]).at(60.0, stop)
    second.time_s = 30.0
    run(second, timecode=timecode)
    assert [text_of(first), text_of(second)] == expected


def test_a_crash_before_the_first_frame_was_certain(run: Run) -> None:
    """The take's time is known from the first frame on."""
    first = world_at(NOON, records(1.0, 2.0)).at(2.2, lambda w: w.ffmpeg.exits(1))
    run(first, timecode="10:00:00:00")
    second = world_at(NOON, [(30.0 + at, action) for at, action in records(1.0, 20.0)]).at(60.0, stop)
    second.time_s = 30.0
    run(second, timecode="10:00:00:00")
    assert (text_of(first), text_of(second)) == ("10:00:00:00", "10:00:30:00")


def test_a_take_after_a_stop_begins_with_its_first_number(run: Run, tmp_path: Path) -> None:
    run(world_at(NOON, records(1.0, 8.0)).at(8.0, stop), timecode="10:00:00:00")
    # systemd removes the unit's run directory at a stop.
    for left in (tmp_path / "port-3").iterdir():
        left.unlink()
    second = world_at(NOON, [(30.0 + at, action) for at, action in records(1.0, 8.0)]).at(39.0, stop)
    second.time_s = 30.0
    run(second, timecode="10:00:00:00")
    assert text_of(second) == "10:00:00:00"


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"timecode": ""}, ""), ({"rate": 0.0}, ""), ({"timecode": "25:00:00:00"}, "no time of a day"),
     ({"timecode": "soon"}, "is no timecode")],
)  # fmt: skip
def test_without_one_it_records_all_the_same(run: Run, said: list[str], changes: dict[str, object], why: str) -> None:
    world = world_at(NOON, records(1.0, 8.0)).at(8.0, stop)
    run(world, **changes)
    assert world.file.timecode is None
    assert world.ffmpeg.steps == ["quit"]
    assert sum(f"{why}" in line and "no timecode is recorded" in line for line in said) == (1 if why else 0)


# ---- The source's ----

LOG = """\
Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'in.mov':
  Metadata:
    timecode        : 01:00:00:00
  Stream #0:0[0x1]: Video: mpeg4, yuv420p, 320x180, 29.97 fps, 29.97 tbr, 30k tbn (default)
Stream mapping:
Output #0, segment, to 'x':
  Stream #0:0: Video: h264, yuv420p(progressive), 320x180, q=2-31, 200 kb/s, 29.97 fps, 1k tbn (default)
      timecode        : {}
      timecode        : 02:00:00:00
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("10:00:58;20", [None, "10:01:00;02"]),
        ("10:00:58:20", [None, "10:01:00:00"]),
        ("soon", [None, None]),
        ("25:00:00:00", [None, None]),
    ],
)
def test_a_later_file_goes_on_with_the_source_s(said: str, expected: list[str | None]) -> None:
    """FFmpeg gives each file that of the first one, in the words of its log."""
    remarks: list[str] = []
    options = OPTIONS.replaced(timecode="source", rate=30000 / 1001)
    meter, streams = Meter(0.0, options.rate), Streams(options.command)
    for line in LOG.format(said).splitlines():
        streams.take(1.0, line.strip(), meter)
    threads = [FakeFile(World()) for _ in expected]
    files = [SimpleNamespace(index=at, first_frame=40 * at, thread=thread) for at, thread in enumerate(threads)]
    attempt: Any = SimpleNamespace(options=options, meter=meter, streams=streams, files=files)
    timecodes = Timecodes(options, Memory("/nowhere"), time.time, time.monotonic, remarks.append, remarks.append)
    assert timecodes.give(attempt, 2.0)
    assert [thread.timecode and thread.timecode.text for thread in threads] == expected
    assert len(remarks) == (expected[1] is None)


# ---- In real files ----


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize(
    ("rate", "timecode", "container"),
    [("25", "10:00:58:20", "mkv"), ("30000/1001", "10:00:58;20", "mov"), ("30000/1001", "10:00:58:20", "mp4")],
)
def test_the_source_s_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg: str, rate: str, timecode: str, container: str
) -> None:
    """FFmpeg gives each file that of the first one. The source says whether it is drop-frame."""
    sent = tmp_path / "sent.mov"
    graph = f"testsrc2=size=160x90:rate={rate}:duration=30"
    made = ["-f", "lavfi", "-i", graph, "-c:v", "mpeg4", "-metadata", f"timecode={timecode}", str(sent)]
    subprocess.run([ffmpeg, "-v", "error", *made], check=True, stdin=subprocess.DEVNULL)
    source = {"kind": "custom", "input": ["-re", "-i", str(sent)], "rate": rate, "audio": False}
    port = test_segments.Port(
        tmp_path, monkeypatch, ffmpeg, source=source, container=container, preset="ultrafast", timecode="source"
    )
    port.record(test_segments.stop_after(files=3))
    paths = [entry["path"] for entry in port.entries() if entry["kind"] == "file"]
    assert len(paths) >= 3
    base = numbers_at(rate).base
    numbers = Counting(base, base // 15 if ";" in timecode else 0)
    expected = numbers.frame(timecode)
    for path in paths:
        assert timecodes_in(Path(path)) == {numbers.text(expected)}, path
        expected += count_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize(
    ("rate", "gop_frames", "container"), [("25", 36, "mkv"), ("30000/1001", 37, "mov"), ("60000/1001", 77, "mp4")]
)
def test_it_runs_on_over_a_hundred_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg: str, rate: str, gop_frames: int, container: str
) -> None:
    """Eight times as fast as the clock; the length of a GOP does not divide that of a file."""
    graph = f"testsrc2=size=160x90:rate={rate},realtime=speed=8[out0]"
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": rate, "audio": False}
    port = test_segments.Port(
        tmp_path, monkeypatch, ffmpeg, source=source, container=container, gop_frames=gop_frames, preset="ultrafast",
        timecode="09:59:30:00",
    )  # fmt: skip
    wanted = 101

    port.record(test_segments.stop_after(files=wanted))
    numbers, paths = numbers_at(rate), [entry["path"] for entry in port.entries() if entry["kind"] == "file"]
    assert sorted(paths) == port.files() and len(paths) >= wanted
    expected = numbers.frame("09:59:30:00")
    for path in paths:
        assert timecodes_in(Path(path)) == {numbers.text(expected)}, path
        expected += count_of(path)


def count_of(path: str) -> int:
    words = ["ffprobe", "-v", "error", "-select_streams", "v", "-count_packets", "-show_entries"]
    answer = subprocess.run(
        [*words, "stream=nb_read_packets", "-of", "csv=p=0", path], capture_output=True, text=True, check=True
    ).stdout
    return int(answer)
