"""A recording in several files: no frame is lost or doubled between them, and each is a file of its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import OPTIONS, FakeFFmpeg, FakeFile, World
from test_hold_back import FFMPEGS
from test_runner import Run, Told, records, stop
from test_stamp import timecodes_in

from sdisup.config.settings import numbers_at, parse_settings
from sdisup.contract import requests
from sdisup.contract.files import unix_time
from sdisup.contract.options import Options
from sdisup.contract.requests import Cut, leave_cut
from sdisup.contract.status import PortStatus, read_status
from sdisup.control.units import runner_options
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.ledger.lines import ledger_path, read_ledger
from sdisup.ledger.moments import TakenFile
from sdisup.ledger.story import Story
from sdisup.ledger.writer import Writer
from sdisup.runner import attempt
from sdisup.runner import ffmpeg as ffmpeg_module
from sdisup.runner.begin import Beginning
from sdisup.runner.disk import Closed, Named, Opened, OpenFailed, Place, Sample
from sdisup.runner.ffmpeg import FILES
from sdisup.runner.main import Runner
from sdisup.runner.segments import Closing, closed, opened

DEADLINE_S = 60


@pytest.fixture(autouse=True)
def own_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other tests of this process may have files open that have the numbers of a runner's."""
    monkeypatch.setattr(ffmpeg_module, "FIRST", 900)
    yield
    os.closerange(900, 911)


class Port:
    """A real runner with a real FFmpeg, and the ledger's process, in this process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg: str, **defaults: Any) -> None:
        self.recordings, self.run_directory = directory / "recordings", directory / "run"
        self.ledgers = directory / "ledgers"
        for path in (self.recordings, self.run_directory / "port-0", self.run_directory / "ports", self.ledgers):
            path.mkdir(parents=True)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(self.run_directory / "port-0"))
        monkeypatch.setattr(ffmpeg_module, "FIRST", 900)
        # Sources that are faster than time leave less of it to make the next file.
        monkeypatch.setattr(attempt, "AHEAD", FILES - 2)
        table = {"container": "mkv", "segment_s": 2, **defaults, "recordings": str(self.recordings)}
        port = parse_settings([("x.toml", {"appliance": {"ports": 1}, "defaults": table})]).ports[0]
        command = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
        # No filter that makes such sound may be configured.
        command = [GRAPH if word == PLACE else word for word in command]
        self.options: Options = runner_options(port, command, "", "").replaced(run_directory=str(self.run_directory))

    def record(self, act: Callable[[Port], None]) -> None:
        """Record until `act`, in a thread of its own, stops the port."""
        self.beginning = Beginning(self.options)
        self.beginning.spawn_first()
        self.runner = Runner(self.beginning)
        actor = threading.Thread(target=act, args=(self,), daemon=True)
        actor.start()
        self.runner.run()
        actor.join(DEADLINE_S)

    def entries(self) -> list[dict[str, Any]]:
        Writer(str(self.ledgers), str(self.run_directory)).flush()
        return [entry for entry in read_ledger(ledger_path(0, str(self.ledgers))) if isinstance(entry, dict)]

    def counted(self, files: int) -> list[dict[str, Any]]:
        """The entries of so many files, once the ledger's process has counted their pictures."""
        writer, limit = Writer(str(self.ledgers), str(self.run_directory)), time.monotonic() + DEADLINE_S
        found: list[dict[str, Any]] = []
        while len(found) < files and time.monotonic() < limit:
            writer.turn()
            entries = [entry for entry in read_ledger(ledger_path(0, str(self.ledgers))) if isinstance(entry, dict)]
            found = [entry for entry in entries if entry["kind"] == "file"]
            time.sleep(0.02)
        return found

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.recordings.rglob("*") if path.is_file())


def hashes(path: str, count: int = 10_000, *options: str) -> list[str]:
    """One of each frame, by its contents."""
    words = ["-v", "error", *options, "-i", path, "-map", "0:v", "-frames:v", str(count), "-f", "framehash"]
    answer = subprocess.run(
        [FFMPEGS[0], *words, "-hash", "crc32", "-"], capture_output=True, text=True, check=True
    ).stdout
    return [line.rpartition(",")[2].strip() for line in answer.splitlines() if not line.startswith("#")]


def samples(path: str) -> list[int]:
    """The samples of the sound, 24 bits each, as they are decoded."""
    words = ["-v", "error", "-i", path, "-map", "0:a", "-f", "s32le", "-c:a", "pcm_s32le", "-"]
    decoded = subprocess.run([FFMPEGS[0], *words], capture_output=True, check=True).stdout
    return [sample >> 8 for sample in array("i", decoded)]


def packets(path: str) -> tuple[int, int]:
    """How many packets of picture and sound are in a file."""
    words = "-v error -count_packets -show_entries stream=codec_type,nb_read_packets -of csv=p=0".split()
    ffprobe = str(Path(FFMPEGS[0]).with_name("ffprobe"))
    answer = subprocess.run([ffprobe, *words, path], capture_output=True, text=True, check=True).stdout
    # A mov has a track for its timecode too.
    counts = dict(line.split(",")[:2] for line in answer.splitlines())
    return int(counts["video"]), int(counts["audio"])


def stop_after(files: int) -> Callable[[Port], None]:
    def act(port: Port) -> None:
        limit = time.monotonic() + DEADLINE_S
        while len(port.files()) < files and time.monotonic() < limit:
            time.sleep(0.02)
        port.runner.stop()
        port.beginning.wake()

    return act


SPEED, BOUNDARIES = 5, 20
PICTURES = "testsrc2=size=160x90:rate=25"
# Each sample is its own number.
SAMPLES = "aevalsrc=n/8388608:s=48000"
GRAPH = f"{PICTURES},realtime=speed={SPEED}[out0];{SAMPLES}[out1]"
PLACE = "sine=frequency=1000"
FAST = {"kind": "custom", "rate": "25", "input": ["-f", "lavfi", "-i", PLACE]}


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_no_frame_and_no_sample_is_lost_or_doubled_between_files(
    ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over twenty boundaries, by the contents of the pictures and the numbers of the samples as a player has them."""
    port = Port(tmp_path, monkeypatch, ffmpeg, codec="ffv1", pixel_format="yuv420p", source=FAST)
    port.record(stop_after(files=BOUNDARIES + 2))
    files = [entry for entry in port.entries() if entry["kind"] == "file"]
    assert [entry["path"] for entry in files] == port.files() and len(files) > BOUNDARIES
    assert {entry["frames"] for entry in files[:-1]} == {50}, "each begins with a key frame"
    assert {entry["ended"] for entry in files} == {"complete"}
    pictures = [hashes(path) for path in port.files()]
    assert [len(frames) for frames in pictures] == [entry["frames"] for entry in files]
    recorded = [frame for frames in pictures for frame in frames]
    assert recorded == hashes(PICTURES, len(recorded), "-f", "lavfi")
    starts = [numbers_at("25").frame(text) for path in port.files() for text in timecodes_in(Path(path))]
    assert {after - before for before, after in pairwise(starts)} == {50}, "the timecode runs on"
    numbers = [number for path in port.files() for number in samples(path)]
    assert numbers == list(range(len(numbers)))
    assert abs(len(numbers) / 48000 - len(recorded) / 25) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize(("codec", "container"), [("h264", "mp4"), ("h264", "mkv"), ("h264", "mov"), ("hevc", "mp4")])
def test_no_packet_is_lost_or_doubled_between_files(
    codec: str, container: str, ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets of AAC overlap: as a player that goes from file to file has them, each once, 1024 samples apart."""
    port = Port(tmp_path, monkeypatch, ffmpeg, codec=codec, container=container, source=FAST, preset="ultrafast")
    port.record(stop_after(files=BOUNDARIES + 2))
    files = [entry for entry in port.entries() if entry["kind"] == "file"]
    assert [entry["path"] for entry in files] == port.files() and len(files) > BOUNDARIES
    counts = [packets(path) for path in port.files()]
    assert [pictures for pictures, _ in counts] == [entry["frames"] for entry in files]
    frames, sounds = sum(pictures for pictures, _ in counts), sum(sound for _, sound in counts)
    # The encoder's delay is one packet.
    assert abs(sounds * 1024 / 48000 - frames / 25) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("lossy", ["", ",select='gt(mod(n,70),6)'"])
def test_no_picture_of_a_copy_is_lost_or_doubled_between_files(
    lossy: str, ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender with B frames, and one that loses pictures too: each file has those that the ledger says."""
    sent = tmp_path / "sent.ts"
    encoded = "-fps_mode vfr -c:v libx264 -preset veryfast -g 25 -bf 2 -c:a aac -t 60".split()
    inputs = ["-f", "lavfi", "-i", f"{PICTURES}{lossy}", "-f", "lavfi", "-i", "sine=sample_rate=48000"]
    subprocess.run([FFMPEGS[0], "-v", "error", *inputs, *encoded, str(sent)], check=True)
    source = {"kind": "custom", "rate": "25", "input": ["-readrate", str(SPEED), "-i", str(sent)]}
    port = Port(tmp_path, monkeypatch, ffmpeg, codec="copy", source=source)
    port.record(stop_after(files=BOUNDARIES + 2))
    files = port.counted(len(port.files()))
    assert [entry["path"] for entry in files] == port.files() and len(files) > BOUNDARIES
    counts = [packets(path) for path in port.files()]
    assert [pictures for pictures, _ in counts] == [entry["frames"] for entry in files]
    recorded = [frame for path in port.files() for frame in hashes(path)]
    # At the stop some pictures have come that are to be shown after others that have not.
    assert recorded[:-4] == hashes(str(sent), len(recorded))[:-4]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("[segment @ 0x55d] Opening '/proc/{pid}/fd/901' for writing", 901),
        ("[segment @ 0x55d] Opening '/proc/{pid}/fd/910' for writing", None),
        ("[segment @ 0x55d] Opening '/proc/1/fd/901' for writing", None),
        ("[segment @ 0x55d] Opening 'pipe:2' for writing", None),
        ("title: [segment @ 0x55d] Opening '/proc/{pid}/fd/901' for writing", None),
        ("[hls @ 0x55d] Opening '/proc/{pid}/fd/901' for reading", None),
    ],
)
def test_which_file_ffmpeg_opens(text: str, number: int | None) -> None:
    assert opened(text.format(pid=os.getpid())) == number


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("901,2.000000,4.000000", Closing(901, 4.0)),
        ("909,0.000000,86400.040000", Closing(909, 86400.04)),
        ("899,2.000000,4.000000", None),
        ("910,2.000000,4.000000", None),
        ("901,2.0,4.0", None),
        ("901,-2.000000,4.000000", None),
        ("901,2.000000", None),
        ("901,2.000000,4.000000,5.000000", None),
        ("901,nan,inf", None),
        ("901,2.000000,\u0664.000000", None),
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
        self.is_opening = False
        self.begun: list[str] = []
        self.segments: list[int] = []
        """By which templates the files after the first one were named."""
        self.descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.on_open = self.open_well
        self.on_begin: Callable[[FakeFile], None] = lambda file: file.events.append(Named(self.path(file)))

    def open_file(self, place: Place, *rest: object, is_ahead: bool = False) -> FakeFile:
        self.is_ahead, self.is_opening = is_ahead, True
        file = super().open_file(place, *rest)
        self.is_opening = False
        return file

    def open_well(self, file: FakeFile) -> None:
        file.begin = lambda place: self.begin(file, place)  # type: ignore[attr-defined]
        file.discard = lambda: None  # type: ignore[attr-defined]
        if self.is_ahead:
            file.events.append(Opened("", self.descriptor))
        else:
            file.events.extend((Opened(self.path(file), self.descriptor), Named(self.path(file))))

    @property
    def file(self) -> FakeFile:
        """The one that FFmpeg writes to, or that was just made."""
        return self.files[-1] if self.is_opening else self.files[len(self.begun)]

    def begin(self, file: FakeFile, place: Place) -> None:
        self.begun.append(place.template)
        self.segments.append(place.segment)
        self.on_begin(file)

    def spawn(self, command: Sequence[str], output: int) -> FakeFFmpeg:
        assert output == -1 and command[-1] == f"/proc/{os.getpid()}/fd/90%d"
        assert is_open(900)
        self.ffmpegs.append(FakeFFmpeg(self, command))
        self.opens(0)
        return self.ffmpeg

    def opens(self, index: int) -> None:
        self.ffmpeg.says(f"[segment @ 0x55] [info] Opening '/proc/{os.getpid()}/fd/90{index % 10}' for writing\n")

    def grows(self, at: float) -> World:
        return self.at(at, lambda w: w.files[0].events.append(Sample(int(1e6 * (1 + at)), 10**9, "8:1", False, False)))

    def closes(self, index: int, start_s: float, end_s: float) -> None:
        self.ffmpeg.says(f"90{index % 10},{start_s:.6f},{end_s:.6f}\n")

    def goes_on(self, index: int, start_s: float, end_s: float) -> Callable[[World], None]:
        """FFmpeg closes a file and opens the next one."""

        def act(_: World) -> None:
            self.closes(index, start_s, end_s)
            self.opens(index + 1)

        return act


def is_open(descriptor: int) -> bool:
    """Whether it is one of a file's, and does not merely hold the number."""
    try:
        return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except FileNotFoundError:
        return False


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
    assert not any(is_open(descriptor) for descriptor in range(900, 910)), "none is left open"


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


def test_a_file_of_which_nothing_came_to_the_disk_is_no_file(run: Run, told: Told) -> None:
    """FFmpeg had counted frames of it. The file is removed, and the next runner's has its name: nobody counts that."""
    world = Files([*records(5)])

    def close(file: FakeFile, _: bool) -> None:
        is_first = file is world.files[0]
        file.events.append(Closed(1000 * is_first, is_first, ""))

    world.on_finish = close
    world.at(4.04, world.goes_on(0, 0, 4)).at(4.6, lambda w: w.ffmpeg.exits(-9)).at(20.0, stop)
    run(world, SEGMENTED)
    story = Story(3)
    for event in told():
        story.take(event)
    assert story.to_count() is None
    assert summary(story.ready())[1:] == [("file", 100, "complete")]
    assert story.interval is not None and story.interval.what == "killed"
    assert story.interval.start.monotonic == pytest.approx(4.0, abs=0.05), "from the end of the file before it"


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
        w.ffmpeg.says("[segment @ 0x55] [error] Failed to open segment '/proc/1/fd/901'\n")
        w.ffmpeg.exits(1)

    world.at(4.04, world.goes_on(0, 0, 4)).at(4.05, fail).at(20.0, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1] == ("file", 100, "complete")
    assert told()[-2]["cause"] == "disk"


# ---- Cuts ----


def cuts(directory: Path, take: str | None, request_id: str = "c1") -> Callable[[World], None]:
    def act(world: World) -> None:
        (directory / "requests").mkdir(exist_ok=True)
        leave_cut(3, Cut(take, request_id, world.time_s), str(directory))

    return act


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """Lets the age of a cut be told by the world's clock."""

    def set_clock(world: World) -> None:
        monkeypatch.setattr(requests, "monotonic", lambda: world.time_s)

    return set_clock


Clock = Callable[[World], None]


def test_a_cut_marks_the_frame_and_names_the_next_files(tmp_path: Path, run: Run, told: Told, clock: Clock) -> None:
    """The mark is at the frame of the moment at which the cut was asked for, and the recording goes on."""
    seen: list[PortStatus | None] = []
    world = Files([*records(12)])
    clock(world)
    world.at(6.02, cuts(tmp_path, "NEXT")).at(7.9, lambda _: seen.append(read_status(3, str(tmp_path))))
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED.replaced(file_name="{take}_{utc}"))
    (mark,) = [event for event in told() if event["kind"] == "mark"]
    assert mark["path"] == world.path(world.files[1]) and mark["take"] == "NEXT"
    # 6.02 s after FFmpeg's start, in a file that begins with its frame 100.
    assert mark["frame"] == pytest.approx(50, abs=2)
    assert [event["take"] for event in told() if event["kind"] == "opened"] == [None, None, "NEXT"]
    assert world.begun == ["untitled_{utc}", "NEXT_{utc}"]
    status = seen[0]
    assert status is not None
    assert (status.take, status.request_id, status.take_first_frame) == ("NEXT", "c1", mark["frame"])
    assert status.take_first_file == mark["path"] and 20 <= status.take_frames <= 50
    assert summary(entered(told()))[1:] == [
        ("file", 100, "complete"),
        ("mark", None, None),
        ("file", 100, "complete"),
        ("file", 100, "complete"),
    ]
    assert not list((tmp_path / "requests").iterdir()), "it is taken away"


def test_a_cut_in_one_file_marks_it(tmp_path: Path, run: Run, told: Told, clock: Clock) -> None:
    world = World(records(6))
    clock(world)
    run(world.at(3.0, cuts(tmp_path, "NEXT")).at(6.1, stop), OPTIONS)
    (mark,) = [event for event in told() if event["kind"] == "mark"]
    assert mark["frame"] == pytest.approx(75, abs=2)


def test_a_cut_without_a_recording_is_the_next_files(tmp_path: Path, run: Run, told: Told, clock: Clock) -> None:
    """Without a frame there is none to mark."""
    world = World(records(6, since=4.0))
    clock(world)
    run(world.at(3.0, cuts(tmp_path, "NEXT")).at(10.1, stop), OPTIONS)
    assert not [entry for entry in entered(told()) if entry["kind"] == "mark"]
    assert told()[-1]["take"] == "NEXT"


def test_a_runner_that_follows_a_crash_goes_on_with_the_take(
    tmp_path: Path, run: Run, told: Told, clock: Clock
) -> None:
    world = World(records(4))
    clock(world)
    run(world.at(3.0, cuts(tmp_path, "NEXT")).at(4.1, lambda w: w.ffmpeg.exits(-9)), OPTIONS)
    following = World(records(4)).at(4.1, stop)
    run(following, OPTIONS.replaced(file_name="{take}_{utc}"))
    assert [event["take"] for event in told() if event["kind"] == "opened"] == [None, "NEXT"]
    assert following.places[0].template == "NEXT_{utc}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"take": "../x"}', b"x" * 100_000],
)
def test_what_is_no_cut_is_said_once_and_the_recording_goes_on(
    content: bytes, tmp_path: Path, run: Run, told: Told, said: list[str]
) -> None:
    def plant(_: World) -> None:
        (tmp_path / "requests").mkdir()
        (tmp_path / "requests" / "3.cut").write_bytes(content)

    run(World(records(6)).at(3.0, plant).at(6.1, stop), OPTIONS)
    assert sum("no cut is made" in line for line in said) == 1
    assert summary(entered(told()))[1:] == [("file", 150, "complete")]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_planted_as_a_cut_costs_nothing(
    kind: str, tmp_path: Path, run: Run, told: Told, said: list[str], clock: Clock
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("somebody's")

    def plant(_: World) -> None:
        (tmp_path / "requests").mkdir()
        path = tmp_path / "requests" / "3.cut"
        if kind == "link":
            path.symlink_to(victim)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            (path / "full").mkdir(parents=True)

    world = World(records(8))
    clock(world)
    run(world.at(3.0, plant).at(5.0, cuts(tmp_path, "NEXT")).at(8.1, stop), OPTIONS)
    assert victim.read_text() == "somebody's"
    assert [event["take"] for event in told() if event["kind"] == "mark"] == ["NEXT"]


def test_where_no_rate_tells_the_frames_each_file_is_counted(run: Run, told: Told) -> None:
    """A copied stream has the rate that it has: what FFmpeg counts of all files is near to a file's."""
    command = ["/usr/bin/ffmpeg", "-i", "x", "-c:v", "copy", "-f", "segment", "{output}"]
    world = Files([*records(8)])
    run(world.at(4.04, world.goes_on(0, 0, 4)).at(8.1, stop), OPTIONS.replaced(command=command, container="mkv"))
    story = Story(3)
    for event in told():
        story.take(event)
    first, second = [item for item in story.waiting() if isinstance(item, TakenFile)]
    story.counted(first, 97, 1000)
    story.counted(second, 101, 1000)
    assert summary(story.ready())[1:] == [("file", 97, "complete"), ("file", 101, "complete")]
    assert story.interval is not None and story.interval.kind == "stop"


# ---- By the clock ----


PLAIN, NOISE = (f"testsrc2=size=160x90:rate=25{more},realtime" for more in ("", ",noise=alls=60:allf=t"))
"""For x264 each picture is another scene, which begins with a key frame."""


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["h264", "hevc", "prores"])
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_files_begin_by_the_clock_and_none_is_below_two_seconds(
    ffmpeg: str, codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording begins a second before a file should: the first one goes on for two."""
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", PLAIN], "rate": 25, "audio": False}
    port = Port(tmp_path, monkeypatch, ffmpeg, source=source, codec=codec, segment_s=10, segment_on_clock=True)
    command = [word.replace(PLAIN, NOISE) for word in port.options.command]
    port.options = port.options.replaced(command=command)
    while not 8.4 < time.time() % 10 < 8.6:
        time.sleep(0.05)
    port.record(stop_after(files=3))
    files = [entry for entry in port.entries() if entry["kind"] == "file"]
    assert len(files) == 3
    begins = unix_time(files[1]["start"]) % 10
    if codec == "prores":
        # Each of its pictures would do, as `check` says.
        assert files[0]["seconds"] < 2.0 and (begins + 0.5) % 10 < 1.0
        return
    assert files[0]["seconds"] >= 2.0
    # It begins late, with the key frame after two seconds.
    assert begins <= 2.0 + 0.5
    assert files[1]["seconds"] <= 10 + 0.5


STEPPED = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
int gettimeofday(struct timeval *now, void *zone) {
    int (*real)(struct timeval *, void *) = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int answer = real(now, zone);
    long ahead_s = 0;
    FILE *file = fopen(getenv("AHEAD_FILE"), "r");
    if (file) {
        if (fscanf(file, "%ld", &ahead_s) != 1)
            ahead_s = 0;
        fclose(file);
    }
    now->tv_sec += ahead_s;
    return answer;
}
"""
"""FFmpeg's clock, ahead by what a file says."""


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_a_step_of_the_clock_makes_at_most_one_short_file(
    ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the moment at which a file begins and back again a second later, twice. It needs a C compiler."""
    library, ahead = tmp_path / "stepped.so", tmp_path / "ahead"
    compiled = ["cc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-", "-ldl"]
    subprocess.run(compiled, input=STEPPED, text=True, check=True)
    source = {"kind": "test", "size": "160x90", "rate": 25}
    port = Port(tmp_path, monkeypatch, ffmpeg, source=source, segment_s=20, segment_on_clock=True)
    monkeypatch.setenv("AHEAD_FILE", str(ahead))
    monkeypatch.setenv("LD_PRELOAD", str(library))

    def until(second: float) -> None:
        limit = time.monotonic() + DEADLINE_S
        while abs(time.time() % 20 - second) > 0.1 and time.monotonic() < limit:
            time.sleep(0.02)

    def act(port: Port) -> None:
        for steps in ((3, 0), (3, 0)):
            for second, seconds_ahead in zip((18.5, 19.5), steps, strict=True):
                until(second)
                ahead.with_suffix(".new").write_text(str(seconds_ahead))
                ahead.with_suffix(".new").rename(ahead)
        until(5)
        port.runner.stop()
        port.beginning.wake()

    until(1)
    port.record(act)
    seconds = [entry["seconds"] for entry in port.entries() if entry["kind"] == "file"]
    print(f"\n{ffmpeg}: {seconds}")
    # To the first moment that the clock passes; from there to the one that it passes again; and so on.
    assert len(seconds) == 5
    assert min(seconds[:-1]) >= 2.0
    assert [one < 10 for one in seconds[:-1]] == [False, True, False, True]
    assert max(seconds) <= 20 + 2.0
