"""A recording in several files: no frame is lost or doubled between them, and each is a file of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import OPTIONS, FakeFFmpeg, FakeFile, World
from test_runner import Run, Told, records, stop
from test_stamp import timecodes_in

from sdisup.config.settings import numbers_at, parse_settings
from sdisup.contract.options import Options
from sdisup.contract.status import read_status
from sdisup.control.units import runner_options
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.ledger.lines import ledger_path, read_ledger
from sdisup.ledger.moments import TakenFile
from sdisup.ledger.spool import read_spool, spool_path
from sdisup.ledger.story import Story
from sdisup.ledger.writer import Writer
from sdisup.runner.begin import Beginning
from sdisup.runner.disk import Closed, Named, Opened, OpenFailed, Place, Sample
from sdisup.runner.main import Runner
from sdisup.runner.segments import Closing, closed, opened

FFMPEG = shutil.which("ffmpeg") or "/usr/bin/ffmpeg"


class Port:
    """A real runner with a real FFmpeg, and the ledger's process, in this process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, **defaults: Any) -> None:
        self.recordings, self.run_directory = directory / "recordings", directory / "run"
        self.ledgers = directory / "ledgers"
        for path in (self.recordings, self.run_directory / "port-0", self.run_directory / "ports", self.ledgers):
            path.mkdir(parents=True)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(self.run_directory / "port-0"))
        source = {"kind": "test", "size": "160x90", "rate": 25, "tone": False}
        table = {"source": source, "container": "mkv", "segment_s": 2, **defaults, "recordings": str(self.recordings)}
        port = parse_settings([("x.toml", {"appliance": {"ports": 1}, "defaults": table})]).ports[0]
        command = build_ffmpeg_arguments(port, FFMPEG, probe_ffmpeg(FFMPEG))
        self.options: Options = runner_options(port, command, "", "").replaced(run_directory=str(self.run_directory))

    def record(self, act: Callable[[Runner], None]) -> None:
        beginning = Beginning(self.options)
        beginning.spawn_first()
        runner = Runner(beginning)
        actor = threading.Thread(target=act, args=(runner,), daemon=True)
        actor.start()
        runner.run()
        actor.join(5)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        events, problems = read_spool(spool_path(0, str(self.run_directory)))
        assert not problems
        return [event for event in events if event["kind"] in kinds]

    def entries(self) -> list[dict[str, Any]]:
        Writer(str(self.ledgers), str(self.run_directory)).flush()
        return [entry for entry in read_ledger(ledger_path(0, str(self.ledgers))) if isinstance(entry, dict)]

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.recordings.rglob("*") if path.is_file())


def hashes(path: str, *options: str) -> list[str]:
    """One of each frame, by its contents."""
    words = [
        "-v",
        "error",
        *options,
        "-i",
        path,
        "-map",
        "0:v",
        "-frames:v",
        "200",
        "-f",
        "framehash",
        "-hash",
        "crc32",
    ]
    words.append("-")
    answer = subprocess.run([FFMPEG, *words], capture_output=True, text=True, check=True).stdout
    return [line.rpartition(",")[2].strip() for line in answer.splitlines() if not line.startswith("#")]


def stop_after(seconds: float) -> Callable[[Runner], None]:
    def act(runner: Runner) -> None:
        time.sleep(seconds)
        runner.stop()
        runner._beginning.wake()

    return act


def test_no_frame_is_lost_or_doubled_between_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(tmp_path, monkeypatch, codec="ffv1", pixel_format="yuv420p")
    port.record(stop_after(5.3))
    entries = port.entries()
    files = [entry for entry in entries if entry["kind"] == "file"]
    assert [entry["path"] for entry in files] == port.files() and len(files) == 3
    assert [entry["frames"] for entry in files[:2]] == [50, 50], "each begins with a key frame"
    assert {entry["ended"] for entry in files} == {"complete"}
    recorded = [hashes(path) for path in port.files()]
    assert [len(frames) for frames in recorded] == [entry["frames"] for entry in files]
    count = sum(len(frames) for frames in recorded)
    whole = [frame for frames in recorded for frame in frames]
    assert whole == hashes("testsrc2=size=160x90:rate=25", "-f", "lavfi")[:count]
    assert [entry["kind"] for entry in entries] == ["gap", "file", "file", "file"], "the first gap is the start"
    for before, after in pairwise(files):
        assert after["start_monotonic"] == before["end_monotonic"], "nothing is between two files"
    starts = [numbers_at("25").frame(text) for path in port.files() for text in timecodes_in(Path(path))]
    assert [after - before for before, after in pairwise(starts)] == [50, 50], "the timecode runs on"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("[segment @ 0x55d] Opening '/proc/{pid}/fd/101' for writing", 101),
        ("[segment @ 0x55d] Opening '/proc/{pid}/fd/110' for writing", None),
        ("[segment @ 0x55d] Opening '/proc/1/fd/101' for writing", None),
        ("[segment @ 0x55d] Opening 'pipe:2' for writing", None),
        ("title: [segment @ 0x55d] Opening '/proc/{pid}/fd/101' for writing", None),
        ("[hls @ 0x55d] Opening '/proc/{pid}/fd/101' for reading", None),
    ],
)
def test_which_file_ffmpeg_opens(text: str, number: int | None) -> None:
    assert opened(text.format(pid=os.getpid())) == number


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("101,2.000000,4.000000", Closing(101, 4.0)),
        ("109,0.000000,86400.040000", Closing(109, 86400.04)),
        ("99,2.000000,4.000000", None),
        ("110,2.000000,4.000000", None),
        ("101,2.0,4.0", None),
        ("101,-2.000000,4.000000", None),
        ("101,2.000000", None),
        ("101,2.000000,4.000000,5.000000", None),
        ("101,nan,inf", None),
        ("101,2.000000,\u0664.000000", None),
        ("", None),
    ],
)
def test_which_file_ffmpeg_has_closed(text: str, closing: Closing | None) -> None:
    assert closed(text) == closing


# ---- In a world that is played ----

SEGMENTED = OPTIONS.replaced(command=["/usr/bin/ffmpeg", "-i", "x", "-f", "segment", "{output}"])


class Files(World):
    """A world whose FFmpeg writes several files: `opens` and `closes` are what it logs of them."""

    def __init__(self, script: list[Any]) -> None:
        super().__init__(script)
        # An attempt is known by when it began.
        self.time_s = 0.001
        self.descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.on_open = self.open_well
        self.on_begin: Callable[[FakeFile], None] = lambda file: file.events.append(Named(self.path(file)))

    def open_file(self, place: Place, *rest: object, is_ahead: bool = False) -> FakeFile:
        self.is_ahead = is_ahead
        return super().open_file(place, *rest)

    def open_well(self, file: FakeFile) -> None:
        file.begin = lambda: self.on_begin(file)  # type: ignore[attr-defined]
        file.discard = lambda: None  # type: ignore[attr-defined]
        if self.is_ahead:
            file.events.append(Opened("", self.descriptor))
        else:
            file.events.extend((Opened(self.path(file), self.descriptor), Named(self.path(file))))

    def spawn(self, command: Sequence[str], output: int) -> FakeFFmpeg:
        assert output == -1 and command[-1] == f"/proc/{os.getpid()}/fd/10%d"
        assert is_open(100)
        self.ffmpegs.append(FakeFFmpeg(self, command))
        self.opens(0)
        return self.ffmpeg

    def opens(self, index: int) -> None:
        self.ffmpeg.says(f"[segment @ 0x55] [info] Opening '/proc/{os.getpid()}/fd/10{index % 10}' for writing\n")

    def grows(self, at: float) -> World:
        return self.at(at, lambda w: w.files[0].events.append(Sample(int(1e6 * (1 + at)), 10**9, "8:1", False, False)))

    def closes(self, index: int, start_s: float, end_s: float) -> None:
        self.ffmpeg.says(f"10{index % 10},{start_s:.6f},{end_s:.6f}\n")

    def goes_on(self, index: int, start_s: float, end_s: float) -> Callable[[World], None]:
        """FFmpeg closes a file and opens the next one."""

        def act(_: World) -> None:
            self.closes(index, start_s, end_s)
            self.opens(index + 1)

        return act


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def entered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    story = Story(3)
    for event in events:
        story.take(event)
    assert not story.files
    for item in [item for item in story.waiting() if isinstance(item, TakenFile)]:
        story.counted(item, item.end.frames if item.end else 0, item.size_bytes)
    return story.ready()


def summary(entries: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [(entry["kind"], entry.get("frames"), entry.get("ended") or entry.get("cause")) for entry in entries]


def test_each_file_is_told_with_its_own_frames_and_no_time_between(run: Run, told: Told, said: list[str]) -> None:
    world = Files([*records(12)])
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED)
    entries = entered(told())
    assert summary(entries)[1:] == [("file", 100, "complete"), ("file", 100, "complete"), ("file", 100, "complete")]
    for before, after in pairwise(entries):
        assert after["start_monotonic"] == pytest.approx(before["end_monotonic"], abs=0.002)
    assert not any("closed" in line and "300 frames" in line for line in said)
    assert sum("goes on in" in line for line in said) == 2
    assert not any(is_open(descriptor) for descriptor in range(100, 110)), "none is left open"


def test_a_kill_costs_the_open_file_alone(run: Run, told: Told) -> None:
    world = Files([*records(6)])
    world.at(4.04, world.goes_on(0, 0, 4)).at(6.1, lambda w: w.ffmpeg.exits(-9)).at(20.0, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1:3] == [
        ("file", 100, "complete"),
        ("file", 50, "cut off: FFmpeg was killed by signal 9"),
    ]


def test_a_kill_between_two_files_costs_none(run: Run, told: Told) -> None:
    """FFmpeg has closed one and opened the other, which is empty."""
    world = Files([*records(4)])
    world.at(4.04, world.goes_on(0, 0, 4)).at(4.05, lambda w: w.ffmpeg.exits(-9)).at(20.0, stop)
    world.on_finish = lambda file, _: file.events.append(
        Closed(1000 * (file is world.files[0]), file is world.files[0], "")
    )
    run(world, SEGMENTED)
    assert summary(entered(told()))[1][:2] == ("file", 100)
    assert [entry for entry in summary(entered(told())) if entry[0] == "file"][1:] == []


def test_a_hole_is_entered_in_the_file_in_which_it_began(run: Run, told: Told) -> None:
    world = Files([*records(3)])
    # Silent from 3 s to 5 s, which FFmpeg fills with 50 copies when the source is back, over the end of the first file.
    world.at(5.0, lambda w: w.ffmpeg.counts(126, dup=50)).at(5.01, world.goes_on(0, 0, 4))

    def block(number: int) -> Callable[[World], None]:
        return lambda w: w.ffmpeg.counts(126 + int(number * 6.25), dup=50)

    for number in range(1, 41):
        world.at(5.0 + number / 4, block(number))
    run(world.at(15.1, stop), SEGMENTED)
    entries = entered(told())
    holes = [entry for entry in entries if entry.get("cause") == "source silent"]
    assert [hole["path"] for hole in holes] == [world.path(world.files[0])]
    assert sum(entry["frames"] for entry in entries if entry["kind"] == "file") == 376


def test_where_no_next_file_can_be_made_it_is_said_and_tried_again(tmp_path: Path, run: Run) -> None:
    world = Files([*records(8)])
    reasons: list[str] = []

    def open_badly(file: FakeFile) -> None:
        world.open_well(file)
        if world.is_ahead:
            file.events.clear()
            file.events.append(OpenFailed("the disk is full"))

    world.on_open = open_badly

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None
        reasons.append(status.reason)

    def mend(_: World) -> None:
        world.on_open = world.open_well

    for second in range(8):
        world.grows(second + 0.6)
    run(world.at(2.0, look).at(2.1, mend).at(7.9, look).at(8.1, stop), SEGMENTED)
    assert reasons == ["the next file cannot be made yet: the disk is full", ""]


def test_a_file_that_was_not_lent_in_time_is_none_of_the_recording(run: Run, told: Told) -> None:
    """FFmpeg has failed to open it; that the disk answers later changes nothing."""
    world = Files([*records(4)])

    def open_late(file: FakeFile) -> None:
        world.open_well(file)
        if world.is_ahead:
            file.events.clear()

    world.on_open = open_late

    def fail(w: World) -> None:
        w.ffmpeg.says("[segment @ 0x55] [error] Failed to open segment '/proc/1/fd/101'\n")
        w.ffmpeg.exits(1)

    world.at(4.04, world.goes_on(0, 0, 4)).at(4.05, fail).at(20.0, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1] == ("file", 100, "complete")
    assert told()[-2]["cause"] == "disk"
