"""What an input does to a recording, told and survived: a camera with faults on each port, on a real systemd.

The camera's pictures are numbered by the wall clock (tests/camera.py), so that what a recording lacks is read from the
recording itself and compared with what the ledger says.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import camera
import pytest
from camera import Seen, filming, see
from drive import BOTH_DEBIANS, RECORDINGS, SMALL, STANDIN_INSTALLED, Machine, small_ports

from sdisup.contract.records import Record

FPS = 25


class Case(Record):
    """A camera's words, and how its port is configured."""

    name: str
    words: tuple[str, ...]
    rate: str = "25"
    container: str = "matroska"
    options: str = ""


class Filmed(Record):
    """What a port made of it: the statuses as they came, the ledger's entries, the pictures of its files."""

    case: Case
    statuses: list[dict[str, Any]]
    entries: list[dict[str, Any]]
    seen: Seen
    per_file: list[Seen]
    took_s: float

    @property
    def reasons(self) -> list[str]:
        found: list[str] = []
        for status in self.statuses:
            if status["reason"] and status["reason"] not in found[-1:]:
                found.append(status["reason"])
        return found

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["kind"] == kind]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Those of a length, or with missing frames, but for the start's."""
        return [gap for gap in self.of("gap") if gap["cause"] != "start"]

    @property
    def missing_s(self) -> float:
        """How much of its pictures a port lacks from its first to its last, by the pictures themselves."""
        return sum(count for _, count in self.seen.missing()) / FPS

    def __repr__(self) -> str:
        gaps = [(gap["cause"], gap["seconds"], gap.get("frames_missing")) for gap in self.gaps]
        files = [(entry["seconds"], entry["frames"], entry["duplicated"], entry["ended"]) for entry in self.of("file")]
        return (
            f"{self.case.name}: {self.seen}\n  reasons {self.reasons}\n  gaps {gaps}\n  files {files}"
            f" restarts {self.statuses[-1]['restarts']} missing {self.statuses[-1]['missing_frames']}"
        )


def port_of(camera: subprocess.Popen[str]) -> int:
    assert camera.stderr is not None
    return int(camera.stderr.readline().rpartition(" ")[2])


@contextlib.contextmanager
def cameras(cases: Sequence[Case]) -> Iterator[list[int]]:
    """A camera for each case, and the ports where they listen."""
    with contextlib.ExitStack() as stack:
        yield [
            port_of(stack.enter_context(filming(*case.words, case.container, "tcp://127.0.0.1:0"))) for case in cases
        ]


def film(appliance: Machine, cases: Sequence[Case], seconds: float) -> list[Filmed]:
    """Record each case on a port of its own for so long, side by side."""
    with cameras(cases) as listening:
        appliance.configure(f"[appliance]\nports = {len(cases)}\n" + "".join(
            f'[port.{index}]\n{case.options}\nsource = {{ kind = "custom", rate = "{case.rate}", '
            f'audio = {json.dumps("--sound" in case.words)}, input = ["-i", "tcp://127.0.0.1:{port}"] }}\n'
            for index, (case, port) in enumerate(zip(cases, listening, strict=True))
        ))  # fmt: skip
        appliance.run(f"sdisup start 0-{len(cases) - 1}", check=False, timeout_s=90)
        began = time.monotonic()
        statuses: list[list[dict[str, Any]]] = [[] for _ in cases]
        while time.monotonic() - began < seconds:
            for index in range(len(cases)):
                statuses[index].append(appliance.status_file(index))
            time.sleep(0.5)
        ended = time.monotonic()
        appliance.sdisup(f"stop 0-{len(cases) - 1}")
        took_s = time.monotonic() - ended
    found = []
    for index, case in enumerate(cases):
        entries = appliance.ledger(index)
        per_file = [see(appliance.path(entry["path"])) for entry in entries if entry["kind"] == "file"]
        seen = Seen([number for one in per_file for number in one.numbers])
        found.append(Filmed(case, statuses[index], entries, seen, per_file, took_s))
    return found


def check(one: Filmed) -> None:
    """What holds whatever the camera does: the ledger leaves no time out, and knows what is missing."""
    events = len(one.gaps) + len(one.of("file"))
    span_s = (max(one.seen.readable) - min(one.seen.readable) + 1) / FPS
    accounted_s = sum(entry["seconds"] for entry in (*one.of("file"), *one.gaps))
    assert accounted_s == pytest.approx(span_s, abs=0.5 * events), one
    known = sum(gap.get("frames_missing") or gap["seconds"] * FPS for gap in one.gaps)
    missing = sum(count for _, count in one.seen.missing())
    assert known == pytest.approx(missing, rel=0.05, abs=0.5 * FPS * len(one.gaps)), one
    for entry, seen in zip(one.of("file"), one.per_file, strict=True):
        longest_s = entry["end_monotonic"] - entry["start_monotonic"] + 2
        assert len(seen.numbers) / FPS <= longest_s, one
    assert one.seen.unreadable == 0, one


def causes(one: Filmed) -> list[str]:
    return [gap["cause"] for gap in one.gaps]


def is_whole(one: Filmed) -> bool:
    """One file, of which no picture is missing, and nothing to say."""
    return (one.reasons, one.gaps, one.seen.missing(), len(one.per_file)) == ([], [], [], 1)


LOSSY = Case("lossy", ("--fault", "3:drop=3/10"), container="mpegts")
SILENT_4 = Case("silent for 4 s", ("--fault", "6:silence=4"))
OUTLIER = Case("outlier", ("--fault", "10:outlier=37600"), container="flv")
JUMP_120 = Case("jump by 120 s", ("--fault", "8:jump=120"), container="flv")
BACK_8 = Case("back by 8 s", ("--fault", "9:jump=-8"))


@pytest.mark.journal_allows("timestamps jumped")
def test_what_a_source_loses_and_how_its_time_jumps(appliance: Machine) -> None:
    cases = [Case("clean", ()), LOSSY, SILENT_4, OUTLIER, JUMP_120, BACK_8]
    # After FFmpeg's look at the input, for which the cameras have run for 5 s.
    clean, lossy, silent, outlier, jump, back = film(appliance, cases, 12)
    for one in (clean, lossy, silent, outlier, jump, back):
        check(one)
    assert is_whole(clean), clean
    assert is_whole(outlier), outlier
    check_lossy(lossy)
    check_hole(silent, 4)
    for one in (jump, back):
        check_new_file(one)


def check_lossy(one: Filmed) -> None:
    assert "the source delivers 17.5 of 25 fps" in one.reasons, one
    assert causes(one) == ["source loses frames"], one
    assert one.gaps[0]["path"] == one.of("file")[0]["path"], one
    assert one.statuses[-1]["is_losing"], one
    assert one.statuses[-1]["restarts"] == 0, one


def check_hole(one: Filmed, length_s: float) -> None:
    """One gap at its time, as long as it was, in a file that goes on."""
    (gap,) = one.gaps
    (file,) = one.of("file")
    assert gap["cause"] == "source silent", one
    assert gap["path"] == file["path"], one
    assert gap["seconds"] == pytest.approx(length_s, abs=0.5), one
    (run,) = one.seen.missing()
    began_s = (run[0] - min(one.seen.readable)) / FPS
    assert gap["start_monotonic"] - file["start_monotonic"] == pytest.approx(began_s, abs=0.5), one
    assert one.statuses[-1]["restarts"] == 0, one


def check_new_file(one: Filmed) -> None:
    assert causes(one) == ["timestamps jumped"], one
    assert len(one.per_file) == 2, one


@BOTH_DEBIANS
@pytest.mark.slow
@pytest.mark.journal_allows("timestamps jumped", "no frame within")
def test_each_fault_of_pictures_and_timestamps(appliance: Machine) -> None:
    jumps = tuple(word for n in range(5, 35, 3) for word in ("--fault", f"{n}:jump={n * 30}"))
    holes = [
        (Case("pause", ("--fault", "12:pause=4")), 4),
        (Case("pause of flv", ("--fault", "12:pause=4"), "auto", "flv"), 4),
        (Case("silent for 7 s", ("--fault", "12:silence=7"), "auto"), 7),
        (Case("silent for 9 s", ("--fault", "12:silence=9", "--sound"), container="flv"), 9),
    ]
    whole = [
        Case("wrap of mpegts", ("--wrap-after", "12", "--sound"), container="mpegts"),
        Case("wrap of flv", ("--wrap-after", "12", "--sound"), container="flv"),
        Case("outlier with sound", ("--fault", "10:outlier=37600", "--sound")),
        Case("each 50th is wild", ("--fault", "5:ahead=50/15"), container="flv"),
    ]
    new_file = [
        Case("jump of auto", ("--fault", "10:jump=120", "--sound"), "auto"),
        Case("reset", ("--fault", "16:reset"), container="flv"),
        Case("jumps", jumps, container="flv"),
    ]
    counted = [
        (Case("each 50th is ahead", ("--fault", "5:ahead=50/1")), "the timestamps jump: "),
        (Case("slow", ("--fault", "3:slow=0.3"), "auto"), "cannot keep up: 7.5 of 25 fps"),
        (Case("half the rate", ("--rate", "12.5")), "the source delivers 12.5 of 25 fps"),
    ]
    apart = Case("picture and sound far apart", ("--fault", "0:picture-jump=1000", "--sound"))
    cases = [apart, *(case for case, _ in holes), *whole, *new_file, *(case for case, _ in counted)]
    from_zero, *found = film(appliance, cases, 40)
    assert len(from_zero.seen.missing()) == 0, from_zero
    assert causes(from_zero) == ["timestamps jumped"], from_zero
    for one in found[:-1]:
        check(one)
        assert one.took_s < 5, one
    of_holes, found = found[: len(holes)], found[len(holes) :]
    for one, (_, length_s) in zip(of_holes, holes, strict=True):
        check_hole(one, length_s)
    of_whole, found = found[: len(whole)], found[len(whole) :]
    assert [one for one in of_whole if not is_whole(one)] == []
    of_new, found = found[: len(new_file)], found[len(new_file) :]
    for one in of_new:
        check_new_file(one)
        assert one.missing_s <= 2.5, one
    for one, (_, said) in zip(found, counted, strict=True):
        assert any(reason.startswith(said) for reason in one.reasons), one
        assert one.statuses[-1]["restarts"] == 0, one
        assert one.statuses[-1]["is_losing"], one


@BOTH_DEBIANS
@pytest.mark.slow
def test_a_rate_that_is_configured_wrong_and_a_source_that_nothing_paces(appliance: Machine) -> None:
    cases = [
        (Case("50 into 25", ("--rate", "50")), "the source delivers 50 fps; 25 are recorded"),
        (Case("29.97 into 25", ("--rate", "30000/1001")), "the source delivers 29.97 fps; 25 are recorded"),
        (Case("25 into 50", (), "50"), "the source delivers 25.0 of 50 fps"),
    ]
    for one, (_, said) in zip(film(appliance, [case for case, _ in cases], 25), cases, strict=True):
        assert one.reasons[-1] == said, one
        assert one.statuses[-1]["is_losing"], one
        assert one.statuses[-1]["restarts"] == 0, one
    source = '{ kind = "custom", audio = false, input = ["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25"] }'
    appliance.configure(f"[appliance]\nports = 1\n[port.0]\nsource = {source}\n")
    appliance.sdisup("start 0")
    appliance.wait_for(lambda: "nothing paces it" in appliance.status_file(0)["reason"], 20, "it is said")
    assert appliance.sdisup("status", code=3)


@BOTH_DEBIANS
@pytest.mark.slow
def test_a_short_take_knows_what_it_lacks(appliance: Machine) -> None:
    slow, silent = film(appliance, [
        Case("slow", ("--fault", "5:slow=0.3")),
        Case("silent at its end", ("--fault", "6:silence=60")),
    ], 9)  # fmt: skip
    check(slow)
    assert causes(slow) == ["cannot keep up"], slow
    assert slow.gaps[0]["path"] == slow.of("file")[0]["path"], slow
    assert causes(silent) == ["source silent"], silent
    assert silent.gaps[0]["seconds"] > 1, silent


@BOTH_DEBIANS
@pytest.mark.slow
@pytest.mark.journal_allows("stalled|does not answer|killed")
def test_a_frozen_ffmpeg_is_not_waited_for(appliance: Machine) -> None:
    """It reads its stdin no more: what it has is on disk, and each further second of patience is not recorded."""
    appliance.configure(small_ports(1, "stall_timeout_s = 5"))
    appliance.sdisup("start 0")
    pid = appliance.wait_recording(0, frames=50)["ffmpeg_pid"]
    appliance.kill(pid, "STOP")
    appliance.wait_restarts(0, 1, timeout_s=30)
    appliance.wait_recording(0, frames=25)
    appliance.sdisup("stop 0")
    gaps = [entry for entry in appliance.ledger(0) if entry["kind"] == "gap" and entry["cause"].startswith("stalled")]
    assert sum(gap["seconds"] for gap in gaps) < 5 + 2, gaps


@pytest.mark.slow
@pytest.mark.limit(6 * 3600)
def test_clean_ports_on_a_busy_machine_for_long(appliance: Machine) -> None:
    """Nothing of the machine's own is taken for a fault of the source. SDISUP_MINUTES=60 for an hour."""
    minutes, ports = float(os.environ.get("SDISUP_MINUTES", "10")), 8
    appliance.configure(small_ports(ports))
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 2):
            load = subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", "while True: pass"])
            stack.callback(load.wait)
            stack.callback(load.kill)
        appliance.sdisup("start --all", timeout_s=120)
        began, said = time.monotonic(), set()
        while time.monotonic() - began < 60 * minutes:
            for port in range(ports):
                status = appliance.status_file(port)
                said.add((port, status["state"], status["reason"], status["restarts"]))
            time.sleep(2)
        appliance.sdisup("stop --all", timeout_s=60)
    print(sorted(said))
    for port in range(ports):
        entries = appliance.ledger(port)
        assert [entry["ended"] for entry in entries if entry["kind"] == "file"] == ["complete"], (port, said)
        assert [entry for entry in entries if entry["kind"] == "gap" and entry["cause"] != "start"] == [], (port, said)


@pytest.mark.slow
def test_a_hiccup_at_any_moment_of_the_first_minute_costs_nothing(appliance: Machine) -> None:
    """A network, or a machine, that stands still for a second, and then delivers all that waited."""
    ports = 8
    with contextlib.ExitStack() as stack:
        filmed = [stack.enter_context(filming("--sound", "matroska", "tcp://127.0.0.1:0")) for _ in range(ports)]
        appliance.configure(f"[appliance]\nports = {ports}\n" + "".join(
            f'[port.{index}]\nsource = {{ kind = "custom", rate = 25, '
            f'input = ["-i", "tcp://127.0.0.1:{port_of(process)}"] }}\n' for index, process in enumerate(filmed)
        ))  # fmt: skip
        appliance.sdisup(f"start 0-{ports - 1}", timeout_s=60)
        began, said = time.monotonic(), set()
        for second in range(1, 60, 7):
            for index, process in enumerate(filmed):
                time.sleep(max(0.0, began + second + index * 0.25 - time.monotonic()))
                process.send_signal(signal.SIGSTOP)
                if index >= 4:
                    filmed[index - 4].send_signal(signal.SIGCONT)
            for index, process in enumerate(filmed[-4:]):
                time.sleep(max(0.0, began + second + 2 + index * 0.25 - time.monotonic()))
                process.send_signal(signal.SIGCONT)
            time.sleep(1)
            for index in range(ports):
                status = appliance.status_file(index)
                # What a step of the count owes may still come: what is missing for good, the ledger says.
                said.add((status["state"], status["reason"], status["restarts"]))
        appliance.sdisup("stop --all")
    assert said == {("recording", "", 0)}
    for index in range(ports):
        (entry,) = [entry for entry in appliance.ledger(index) if entry["kind"] == "file"]
        assert [gap["cause"] for gap in appliance.ledger(index) if gap["kind"] == "gap"] == ["start"], index
        assert see(appliance.path(entry["path"])).missing() == [], index


# FFmpeg, whose log and progress are joined by words that are not its own.
TALKATIVE_FFMPEG = """#!/usr/bin/python3 -IS
import os, sys, time
if "-progress" in sys.argv and not os.fork():
    time.sleep(2)
    for words in ("frame=N/A", "progress=end", "frame=987654321", "progress=continue", "[tcp] Connection timed out"):
        os.write(2, f"[error] {words}\\n{words}\\n".encode())
    os._exit(0)
os.execv("/usr/bin/ffmpeg", ["/usr/bin/ffmpeg", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.journal_allows("timed out", "frame=", "progress=", "killed", "Immediate exit")
def test_words_delete_no_recording_and_make_no_stop_incomplete(appliance: Machine) -> None:
    own = "/usr/local/bin/talkative-ffmpeg"
    appliance.write(own, TALKATIVE_FFMPEG, mode=0o755)
    appliance.configure(small_ports(2).replace("ports = 2", f'ports = 2\nffmpeg = "{own}"'))
    appliance.sdisup("start --all")
    killed = appliance.wait_recording(0, frames=100)
    appliance.kill(killed["ffmpeg_pid"])
    appliance.wait_restarts(0, 1)
    appliance.wait_recording(1, frames=200)
    appliance.sdisup("stop --all")
    files = {port: [entry for entry in appliance.ledger(port) if entry["kind"] == "file"] for port in (0, 1)}
    assert files[0][0]["path"] == killed["current_file"]
    assert appliance.count_frames(killed["current_file"]) >= killed["frame_count"] - FPS
    assert [entry["ended"] for entry in files[1]] == ["complete"]
    for entry in (*files[0], *files[1]):
        assert entry["frames"] <= (entry["seconds"] + 1) * FPS, entry
    appliance.run(f"rm {own}")


# An FFmpeg whose start costs half a second of a processor, and fails. It notes its starts beside the recordings.
COSTLY_FFMPEG = """#!/usr/bin/python3 -IS
import os, sys, time
if "-progress" in sys.argv:
    is_card = "videomaster" in sys.argv
    with open(f"{recordings}/starts-{{0 if is_card else 1}}", "a") as starts:
        starts.write(f"{{time.monotonic()}}\\n")
    while time.process_time() < 0.5:
        pass
    if not is_card:
        sys.exit("[error] it does not work today")
os.execv("{standin}", ["{standin}", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.limit(400)
@pytest.mark.journal_allows(r"sdi-record@.*ffmpeg: |it does not work today|no signal")
def test_no_wait_is_longer_than_its_limit_whatever_a_start_costs(appliance: Machine) -> None:
    appliance.install_standin()
    appliance.steer(0, "no-signal")
    own = "/usr/local/bin/costly-ffmpeg"
    appliance.write(own, COSTLY_FFMPEG.format(standin=STANDIN_INSTALLED, recordings=RECORDINGS), mode=0o755)
    card = '[port.0]\nsource = { kind = "videomaster", board = 0, channel = 0 }\n'
    broken = f"[port.1]\n{SMALL}\n"
    appliance.configure(f'[appliance]\nports = 2\nffmpeg = "{own}"\n{card}{broken}')
    appliance.run("systemctl start --no-block sdi-record@0 sdi-record@1")

    def waits_s(port: int) -> list[float]:
        """The times from each start to the next one, without what FFmpeg's start itself costs at least."""
        path = appliance.path(f"{RECORDINGS}/starts-{port}")
        starts = [float(line) for line in path.read_text().split()] if path.exists() else []
        return [after - before - 0.5 for before, after in pairwise(starts)]

    def are_slow() -> bool:
        return len(waits_s(1)) > 8 and len(waits_s(0)) > 2 and min(waits_s(0)[-2:]) > 3

    appliance.wait_for(are_slow, 300, "both wait as long as they ever do", poll_s=1)
    appliance.run(f"rm {own}")
    # Two more seconds for FFmpeg's start and the runner's on a busy machine.
    assert max(waits_s(0)) < 5 + 2, waits_s(0)
    assert 10 < max(waits_s(1)) < 15 + 2, waits_s(1)


@BOTH_DEBIANS
@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@.*ffmpeg: |stalled|does not answer|killed|source silent")
def test_what_came_before_a_source_fell_silent_is_in_the_file(appliance: Machine) -> None:
    """FFmpeg 5.1 reads no `q` then and hears no SIGTERM: what it holds when it is killed is lost (invariant 5: 1 s)."""
    cases = [
        Case(f"silent {container}", ("--fault", "12:silence=60", "--sound"), "25", container, "stall_timeout_s = 5")
        for container in ("matroska", "flv", "mpegts")
    ]
    for one in film(appliance, cases, 30):
        assert causes(one)[0].startswith(("stalled", "source silent")), one
        first = one.per_file[0]
        came = FPS * 12
        assert first.readable[-1] - first.readable[0] + 1 >= came - FPS, (one, first)
        assert first.missing() == [], one


ADJ_TICK, TICK_US = 0x4000, 10_000


def slew(tick_us: int) -> bool:
    """Let this machine's clock run faster or slower, as NTP's daemons do; False where nobody may. adjtimex(2)"""
    # struct timex: modes, then tick after ten longs and the timeval.
    buffer = bytearray(208)
    struct.pack_into("I", buffer, 0, ADJ_TICK)
    struct.pack_into("q", buffer, 88, tick_us)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.adjtimex((ctypes.c_char * len(buffer)).from_buffer(buffer)) >= 0)


RAW_CAMERA = """
import runpy, sys, time
time.monotonic = lambda: time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_clock_that_is_slewed_costs_nothing(appliance: Machine) -> None:
    """chrony slews by up to 83 ms a second: CLOCK_MONOTONIC and CLOCK_REALTIME, and not CLOCK_MONOTONIC_RAW."""
    if not slew(TICK_US):
        pytest.skip("nobody may slew this machine's clock")
    with contextlib.ExitStack() as stack:
        stack.callback(slew, TICK_US)
        words = [sys.executable, "-c", RAW_CAMERA, camera.__file__, "--sound", "matroska", "tcp://127.0.0.1:0"]
        process = stack.enter_context(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
        stack.callback(process.terminate)
        appliance.configure(
            '[appliance]\nports = 1\n[port.0]\nsource = { kind = "custom", rate = "25", '
            f'input = ["-i", "tcp://127.0.0.1:{port_of(process)}"] }}\n'
        )
        appliance.sdisup("start 0")
        said = set()
        for tick_us, frames in ((TICK_US * 1.083, 1000), (TICK_US * 0.917, 2000)):
            assert slew(int(tick_us))
            while appliance.status_file(0)["frame_count"] < frames:
                said.add(appliance.status_file(0)["reason"])
                time.sleep(0.5)
        slew(TICK_US)
        appliance.sdisup("stop 0")
    assert said == {""}
    entries = [entry for entry in appliance.ledger(0) if entry.get("cause") != "start"]
    assert [entry["kind"] for entry in entries] == ["file"], entries
    assert entries[0]["ended"] == "complete", entries
