#!/usr/bin/env python3
"""Records what a fault looks like to a runner, for tests/unit/test_replay.py.

    tests/record.py FFMPEG NAME...      for example: tests/record.py /usr/bin/ffmpeg killed cable-3-s

As root. A real runner records with that FFmpeg, or with the stand-in for a card's in front of it, and the fault of that
name is made. All that the runner's FFmpegs and files told it is written to tests/unit/recordings/NAME-VERSION.txt, and
what the runner made of it, by a replay, to NAME-VERSION.expected: read the difference before you keep it. `all` are all
names; `tests/record.py --expect` only replays anew what is recorded. A recording is a text with lines of

    SECONDS spawn                            an FFmpeg begins; the seconds of its lines count from here
    SECONDS > TEXT                           a line of its stderr; a progress block's lines are put into one
    SECONDS media                            its first frame is on disk
    SECONDS sample BYTES FREE MOVED DELETED  a look at the file
    SECONDS no file TEXT                     there was no file, and no FFmpeg
    SECONDS exit STATUS CPU_SECONDS          it ended
    SECONDS closed BYTES KEPT TEXT           its file is closed; with a problem, if TEXT tells one
    SECONDS stop                             an operator stopped the port
    # ...                                    what was done, and what the runner did
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from camera import filming, see  # noqa: E402
from replay import RECORDINGS, TOLD, replayed  # noqa: E402
from standin_control import STANDIN, write_steering  # noqa: E402

from sdisup.config.settings import parse_settings  # noqa: E402
from sdisup.contract.options import ENDS, Options  # noqa: E402
from sdisup.control.units import runner_options  # noqa: E402
from sdisup.encode.command import build_ffmpeg_arguments  # noqa: E402
from sdisup.encode.probe import probe_ffmpeg  # noqa: E402
from sdisup.runner import report  # noqa: E402
from sdisup.runner.begin import Beginning  # noqa: E402
from sdisup.runner.disk import Closed, Event, FirstMedia, OpenFailed, RecordingFile, Sample  # noqa: E402
from sdisup.runner.ffmpeg import FFmpegProcess  # noqa: E402
from sdisup.runner.main import Runner  # noqa: E402

SMALL = {"kind": "test", "size": "160x90", "rate": 25}
CARD = {"kind": "videomaster", "channel": 0}
NO_AUDIO = {"audio": False, "rate": 25}


class Stage:
    """A runner on this machine, and what is done to it: `act` is called in a thread of its own."""

    def __init__(self, ffmpeg: str, directory: Path) -> None:
        self.ffmpeg, self.directory = ffmpeg, directory
        self.lines: list[str] = []
        self.processes: list[FFmpegProcess] = []
        self.runner: Runner | None = None
        self.is_over = False
        self._spawned_at = time.monotonic()
        self._lock = threading.Lock()
        self.recordings = directory / "recordings"
        for path in (self.recordings, directory / "run" / "port-0", directory / "card"):
            path.mkdir(parents=True)

    def write(self, text: str, age_s: float = 0.0) -> None:
        """Write a line of so long ago: before the lines of what came after it."""
        with self._lock:
            at = time.monotonic() - self._spawned_at - age_s
            place = len(self.lines)
            while age_s and place and not self.lines[place - 1].endswith(" spawn"):
                if float(self.lines[place - 1].partition(" ")[0]) <= at:
                    break
                place -= 1
            self.lines.insert(place, f"{at:.3f} {text}")

    def options(self, source: dict[str, Any], change: Callable[[str], str] = str, **defaults: Any) -> Options:
        table = {"source": source, "container": "mkv", "preset": "ultrafast", "bitrate_kbps": 300, **defaults}
        table["recordings"] = str(self.recordings)
        port = parse_settings([("record.toml", {"appliance": {"ports": 1}, "defaults": table})]).ports[0]
        program = str(STANDIN) if source["kind"] == "videomaster" else self.ffmpeg
        command = [change(word) for word in build_ffmpeg_arguments(port, program, probe_ffmpeg(program))]
        return runner_options(port, command, "", "").replaced(run_directory=str(self.directory / "run"))

    def run(self, options: Options, act: Callable[[Stage], None]) -> None:
        stage = self

        class Process(FFmpegProcess):
            """An FFmpeg whose words, steps and end are written down."""

            def __init__(self, arguments: Any, output: int) -> None:
                stage._spawned_at = time.monotonic()
                stage.write("spawn")
                self._partial = b""
                super().__init__(arguments, output)
                stage.processes.append(self)

            def read(self) -> bytes | None:
                data = super().read()
                *lines, self._partial = (self._partial + (data or b"\n" * (data == b""))).split(b"\n")
                for line in filter(None, lines):
                    stage.write("> " + line.decode("utf-8", "replace"))
                return data

            def blocks(self) -> tuple[list[tuple[float, bytes]], bool]:
                found, is_open = super().blocks()
                for age_s, block in found:
                    stage.write(f"> {' '.join(block.decode().replace(' ', '').splitlines())}", age_s)
                return found, is_open

            def step(self, action: str) -> None:
                stage.write(f"# the runner: {action}")
                super().step(action)

            def reap(self) -> int | None:
                status = super().reap()
                if status is not None:
                    stage.write(f"exit {status} {self.cpu_s:.3f}")
                return status

        class File(RecordingFile):
            """A file whose events are written down."""

            def _tell(self, event: Event, *, is_news: bool = True) -> None:
                text = event_text(event)
                if text:
                    stage.write(text)
                super()._tell(event, is_news=is_news)

        os.environ["RUNTIME_DIRECTORY"] = str(self.directory / "run" / "port-0")
        self.beginning = Beginning(options, open_file=File, spawn=Process)
        self.runner = Runner(self.beginning)
        actor = threading.Thread(target=act, args=(self,), daemon=True)
        actor.start()
        with mock.patch.object(report.Journal, "_write", lambda *_: None):
            self.runner.run()
        self.is_over = True
        actor.join(5)

    # What is done to it.

    def does(self, text: str) -> None:
        self.write(f"# {text}")

    def records(self, seconds: float, more_than: int = 0) -> Stage:
        """Wait until an FFmpeg after the first `more_than` ones has counted frames, and then so long."""
        while not any(" > frame=" in line and "frame=0" not in line for line in self.after(more_than)):
            time.sleep(0.02)
        time.sleep(seconds)
        return self

    def after(self, spawns: int) -> list[str]:
        starts = [number for number, line in enumerate(self.lines) if line.endswith(" spawn")]
        return self.lines[starts[spawns] :] if len(starts) > spawns else []

    def spawned(self, count: int) -> Stage:
        while len(self.processes) < count:
            time.sleep(0.02)
        return self

    def kill(self, number: int) -> None:
        self.does(signal.Signals(number).name)
        os.kill(self.processes[-1].pid, number)

    def steer(self, behaviour: str, **parameters: Any) -> None:
        self.does(f"the card: {behaviour} {parameters or ''}".strip())
        write_steering(self.directory / "card", 0, behaviour, **parameters)

    def script(self, text: str) -> Callable[[str], str]:
        """Run a script in FFmpeg's place."""
        path = self.directory / "script"
        path.write_text(text)
        path.chmod(0o755)
        return lambda word: str(path) if word == self.ffmpeg else word

    def stop(self) -> None:
        assert self.runner is not None
        self.write("stop")
        self.runner.stop()
        self.beginning.wake()


def event_text(event: Event) -> str:
    if isinstance(event, FirstMedia):
        return "media"
    if isinstance(event, Sample):
        return f"sample {event.size_bytes} {event.disk_free_bytes} {event.moved:d} {event.deleted:d}"
    if isinstance(event, OpenFailed):
        return f"no file {event.reason}"
    if isinstance(event, Closed):
        return f"closed {event.size_bytes} {event.kept:d} {event.problem}".rstrip()
    return ""


# ---------------------------------------------------------------- the faults

CASES: dict[str, Callable[[Stage], None]] = {}


def case(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
    CASES[function.__name__.replace("_", "-")] = function
    return function


def with_graph(graph: str) -> Callable[[str], str]:
    """Change the test source's graph behind its pacing."""
    return lambda word: word.replace(",realtime", f",realtime{graph}")


@case
def killed(stage: Stage) -> None:
    stage.run(stage.options(SMALL), lambda s: s.records(2).kill(signal.SIGKILL))


@case
def frozen(stage: Stage) -> None:
    stage.run(stage.options(SMALL), lambda s: s.records(2).kill(signal.SIGSTOP))


@case
def source_pauses(stage: Stage) -> None:
    """The source delivers no more, and FFmpeg waits for it."""
    pause = ",setpts='PTS+gte(N,60)*1000/TB',realtime=limit=10000"
    stage.run(stage.options(SMALL, with_graph(pause)), lambda s: None)


@case
def source_ends(stage: Stage) -> None:
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=2,realtime"]}
    stage.run(stage.options({**source, **NO_AUDIO}), lambda s: None)


@case
def cannot_keep_up(stage: Stage) -> None:
    options = stage.options(SMALL, lambda word: word.replace(",realtime", ",realtime=speed=0.5"))
    stage.run(options, lambda s: s.records(23).stop())


@case
def disk_full(stage: Stage) -> None:
    """Somebody else fills the disk."""

    def act(stage: Stage) -> None:
        stage.records(2).does("the disk is filled")
        subprocess.run(f"head -c 100M /dev/zero >{stage.recordings}/other 2>/dev/null", shell=True, check=False)

    with disk_of(stage.recordings, "20M"):
        stage.run(stage.options(SMALL), act)


@case
def disk_full_at_start(stage: Stage) -> None:
    with disk_of(stage.recordings, "400k"):
        stage.run(stage.options(SMALL), lambda s: None)


@case
def disk_full_at_the_end(stage: Stage) -> None:
    """FFmpeg writes nothing while it is frozen; then there is no room for what it holds and for the trailer."""

    def act(stage: Stage) -> None:
        stage.records(2).kill(signal.SIGSTOP)
        subprocess.run(f"head -c 100M /dev/zero >{stage.recordings}/other 2>/dev/null", shell=True, check=False)
        stage.stop()
        time.sleep(0.5)
        stage.kill(signal.SIGCONT)

    with disk_of(stage.recordings, "20M"):
        stage.run(stage.options(SMALL), act)


@case
def stderr_closes(stage: Stage) -> None:
    """After 2 s nobody reads FFmpeg's stderr: no progress arrives, though the file grows."""
    script = f'#!/bin/bash\nexec 3>&2\nexec {stage.ffmpeg} "$@" 2> >(timeout 2 cat >&3) 3>&-\n'
    stage.run(stage.options(SMALL, stage.script(script)), lambda s: None)


@case
def picture_changes(stage: Stage) -> None:
    """A source that is played from files of two sizes."""
    for name, size in (("a", "160x90"), ("b", "320x180")):
        made = ["-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=3", "-c:v", "mpeg2video"]
        subprocess.run([stage.ffmpeg, *made, stage.directory / f"{name}.mpg"], check=True)
    (stage.directory / "list.txt").write_text("file a.mpg\nfile b.mpg\n")
    files = ["-re", "-f", "concat", "-safe", "0", "-i", str(stage.directory / "list.txt")]
    stage.run(stage.options({"kind": "custom", "input": files, **NO_AUDIO}), lambda s: None)


@case
def connection_refused(stage: Stage) -> None:
    source = {"kind": "custom", "input": ["-i", "tcp://127.0.0.1:1"], **NO_AUDIO}
    stage.run(stage.options(source), lambda s: None)


@case
def no_such_device(stage: Stage) -> None:
    stage.run(stage.options({"kind": "v4l2", "device": "/dev/video99", "rate": 25}), lambda s: None)


@case
def unknown_encoder(stage: Stage) -> None:
    stage.run(stage.options(SMALL, lambda word: "nonsense" if word == "libx264" else word), lambda s: None)


@case
def wild_timestamp(stage: Stage) -> None:
    """One frame claims to be 20 s later than it is."""
    stage.run(stage.options(SMALL, with_graph(",setpts='PTS+eq(N,60)*20/TB'")), lambda s: None)


def with_rates(stage: Stage, configured: int, graph: str, act: Callable[[Stage], None]) -> None:
    """A source of a card's kind whose true rate is another one than the configured."""
    lavfi = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=50,realtime"]
    source = {"kind": "custom", "input": lavfi, "audio": False, "rate": configured}
    stage.run(stage.options(source, with_graph(graph)).replaced(without_signal=ENDS), act)


@case
def rate_25_to_50(stage: Stage) -> None:
    with_rates(stage, 25, ",select='gte(n,300)+not(mod(n,2))'", lambda s: None)


@case
def rate_50_to_25(stage: Stage) -> None:
    with_rates(stage, 50, ",select='lt(n,300)+not(mod(n,2))'", lambda s: None)


@case
def half_dropped_from_the_start(stage: Stage) -> None:
    """The source is configured wrong: a new file would be no better."""
    with_rates(stage, 25, "", lambda s: s.records(8).stop())


# A card.


def cable(seconds: float) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        stage.records(2).steer("no-signal")
        time.sleep(seconds)
        stage.steer("ok")
        time.sleep(3)
        stage.stop()

    return act


@case
def cable_1_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), cable(1))


@case
def cable_3_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), cable(3))


@case
def cable_9_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), cable(9))


@case
def cable_out_and_back(stage: Stage) -> None:
    def act(stage: Stage) -> None:
        stage.records(2).steer("no-signal")
        stage.spawned(4).steer("ok")
        stage.records(1, more_than=3).stop()

    stage.run(stage.options(CARD), act)


@case
def stop_while_the_cable_is_out(stage: Stage) -> None:
    def act(stage: Stage) -> None:
        stage.records(2).steer("no-signal")
        time.sleep(3)
        stage.stop()

    stage.run(stage.options(CARD), act)


@case
def no_signal_at_start(stage: Stage) -> None:
    def act(stage: Stage) -> None:
        stage.spawned(3).steer("ok")
        stage.records(1, more_than=2).stop()

    stage.steer("no-signal")
    stage.run(stage.options(CARD), act)


@case
def no_frames_at_start(stage: Stage) -> None:
    stage.steer("no-frames", no_frames_s=1)
    stage.run(stage.options(CARD), lambda s: s.spawned(3).stop())


@case
def no_audio(stage: Stage) -> None:
    stage.steer("no-audio")
    stage.run(stage.options(CARD), lambda s: s.records(2, more_than=1).stop())


@case
def card_rate_doubles(stage: Stage) -> None:
    stage.run(stage.options(CARD), lambda s: s.records(6).steer("format-change", mode="double-rate", rate=50))


@case
def card_picture_smaller(stage: Stage) -> None:
    stage.run(stage.options(CARD), lambda s: s.records(2).steer("format-change", mode="smaller", size="160x90"))


@case
def board_missing(stage: Stage) -> None:
    stage.steer("board-missing")
    stage.run(stage.options(CARD), lambda s: None)


@case
def card_unplugged(stage: Stage) -> None:
    words = {"messages": ["No DELTACAST boards detected"], "status": 251}
    stage.run(stage.options(CARD), lambda s: s.records(2).steer("crash", **words))


# A card that has recorded for a while: the rules of a start no longer hold.


def pulls(after_s: float, *seconds: float, every_s: float = 0) -> Callable[[Stage], None]:
    """Pull the cable for so long each time."""

    def act(stage: Stage) -> None:
        stage.records(after_s)
        for out_s in seconds:
            stage.steer("no-signal")
            time.sleep(out_s)
            stage.steer("ok")
            time.sleep(max(0, every_s - out_s))
        # Where FFmpeg waited for the card for 10 s, a new one has the signal again.
        stage.records(5, more_than=len(stage.processes) - 1).stop()

    return act


@case
def cable_1_4_s_after_12_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, 1.4))


@case
def cable_2_s_after_12_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, 2))


@case
def cable_3_s_after_12_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, 3))


@case
def cable_9_s_after_12_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, 9))


@case
def cable_20_s_after_12_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, 20))


@case
def cable_3_s_and_9_s_after_70_s(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(70, 3, 9, every_s=12))


@case
def cable_that_flaps(stage: Stage) -> None:
    stage.run(stage.options(CARD), pulls(12, *[1.7] * 6, every_s=8))


@case
def card_loses_5_percent(stage: Stage) -> None:
    """For long enough to be said: 1 % over a minute."""
    stage.steer("losses")
    stage.run(stage.options(CARD), lambda s: s.records(64).stop())


@case
def card_loses_30_percent(stage: Stage) -> None:
    stage.steer("losses", share=0.3)
    stage.run(stage.options(CARD), lambda s: s.records(14).stop())


@case
def card_signal_of_29_97(stage: Stage) -> None:
    """25 are configured."""
    stage.steer("ok", rate="30000/1001")
    stage.run(stage.options(CARD), lambda s: s.records(14).stop())


@case
def card_with_a_slow_encoder(stage: Stage) -> None:
    stage.steer("slow")
    stage.run(stage.options(CARD), lambda s: s.records(14).stop())


@case
def card_audio_vanishes(stage: Stage) -> None:
    def act(stage: Stage) -> None:
        stage.records(5).steer("no-audio")
        time.sleep(14)
        stage.steer("ok")
        time.sleep(4)
        stage.stop()

    stage.run(stage.options(CARD), act)


@case
def card_slot_fault(stage: Stage) -> None:
    stage.run(stage.options(CARD), lambda s: s.records(3).steer("slot-fault"))


@case
def library_missing(stage: Stage) -> None:
    """After an upgrade of the card's SDK."""

    def act(stage: Stage) -> None:
        (stage.directory / "card" / "library-missing").touch()
        stage.records(2).kill(signal.SIGKILL)

    stage.run(stage.options(CARD), act)


# A stream, sent by the tests' camera; what the recording's pictures show is told at its end.


def films(
    stage: Stage,
    container: str,
    fault: str,
    seconds: float = 8,
    at_s: float = 12,
    codec: str = "h264",
    **source: Any,
) -> None:
    """Record a camera with a fault after `at_s` seconds, and until `seconds` after it."""
    sound = ["--sound"] if source.get("audio") else []
    with filming(*sound, "--fault", f"{at_s:g}:{fault}", container, "tcp://127.0.0.1:0") as camera:
        assert camera.stderr is not None
        port = camera.stderr.readline().split()[-1]
        arguments = ["-f", container, "-i", f"tcp://127.0.0.1:{port}"]

        def act(stage: Stage) -> None:
            assert camera.stderr is not None
            for line in camera.stderr:
                stage.does(f"the camera: {line.strip()}")
                if line.split()[-1] == fault:
                    break
            time.sleep(seconds)
            if not stage.is_over:
                stage.stop()

        stage.run(stage.options({"kind": "custom", "input": arguments, **NO_AUDIO, **source}, codec=codec), act)
    stage.does(f"recorded: {see(*sorted(stage.recordings.iterdir()), ffmpeg=stage.ffmpeg)}")


@case
def stream_silent_for_4_s(stage: Stage) -> None:
    films(stage, "mpegts", "silence=4", 12)


@case
def stream_loses_30_percent(stage: Stage) -> None:
    films(stage, "mpegts", "drop=3/10", 12)


@case
def stream_jumps_120_s_ahead(stage: Stage) -> None:
    films(stage, "flv", "jump=120")


@case
def stream_steps_8_s_back(stage: Stage) -> None:
    films(stage, "flv", "jump=-8")


@case
def stream_with_an_outlier(stage: Stage) -> None:
    films(stage, "flv", "outlier=37600")


@case
def stream_with_each_50th_picture_ahead(stage: Stage) -> None:
    films(stage, "flv", "ahead=50/1", 12)


@case
def sound_stops(stage: Stage) -> None:
    films(stage, "mpegts", "mute", 12, audio=True)


@case
def sound_never_comes(stage: Stage) -> None:
    films(stage, "mpegts", "mute", 12, at_s=0, audio="optional")


@case
def sound_comes_late(stage: Stage) -> None:
    films(stage, "mpegts", "mute=24", 32, at_s=0, audio=True)


@case
def copy_silent_for_4_s(stage: Stage) -> None:
    films(stage, "mpegts", "silence=4", 12, codec="copy")


@case
def copy_loses_30_percent(stage: Stage) -> None:
    films(stage, "mpegts", "drop=3/10", 24, codec="copy", rate=25)


@case
def copy_jumps_120_s_ahead(stage: Stage) -> None:
    films(stage, "flv", "jump=120", codec="copy")


@case
def copy_steps_8_s_back(stage: Stage) -> None:
    films(stage, "flv", "jump=-8", codec="copy")


@case
def copy_with_an_outlier(stage: Stage) -> None:
    films(stage, "flv", "outlier=37600", codec="copy")


@case
def copy_of_sound_that_never_comes(stage: Stage) -> None:
    films(stage, "mpegts", "mute", 14, at_s=0, codec="copy", audio="optional")


@case
def copy_changes_size(stage: Stage) -> None:
    films(stage, "mpegts", "size=640x368", codec="copy")


@contextlib.contextmanager
def disk_of(where: Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "disk", where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


# ---------------------------------------------------------------- writing it


def record(ffmpeg: str, name: str) -> Path:
    """Record a case, replay it, and write both; returns the recording's path."""
    version = probe_ffmpeg(ffmpeg).version.split("-")[0]
    with tempfile.TemporaryDirectory(prefix="record-") as directory:
        os.environ["SDISUP_STANDIN_DIR"], os.environ["SDISUP_STANDIN_FFMPEG"] = f"{directory}/card", ffmpeg
        stage = Stage(ffmpeg, Path(directory))
        CASES[name](stage)
        text = "\n".join(stage.lines)
        options = stage.runner._options  # type: ignore[union-attr]
    told = " ".join(f"{name}={getattr(options, name)}" for name in TOLD)
    path = RECORDINGS / f"{name}-{'.'.join(version.split('.')[:2])}.txt"
    path.parent.mkdir(exist_ok=True)
    text = (
        f"# {name}, FFmpeg {version}\n# options {told} stall_timeout_s={options.stall_timeout_s:g}\n"
        f"# command {json.dumps(options.command)}\n{text}\n"
    )
    # Nothing of this machine.
    for here, there in ((directory, "/srv"), (str(STANDIN), "ffmpeg"), (ffmpeg, "ffmpeg")):
        text = text.replace(here, there)
    path.write_text(text)
    path.with_suffix(".expected").write_text(replayed(path))
    return path


if __name__ == "__main__":
    if sys.argv[1:] == ["--expect"]:
        for recorded in RECORDINGS.glob("*.txt"):
            recorded.with_suffix(".expected").write_text(replayed(recorded))
        sys.exit()
    program, names = sys.argv[1], sys.argv[2:]
    for chosen in list(CASES) if names == ["all"] else names:
        print(record(program, chosen), flush=True)
