"""Replays a recording of tests/record.py to a runner, with a scripted clock, and tells what the runner made of it.

FFmpeg's words go through ProgressParser, Meter and decide. A second attempt begins when decide says so; what it is told
then is what the recorded second attempt was told. What FFmpeg does comes at its recorded time, asked or not.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from scripted import DESCRIPTOR, FakeFFmpeg, FakeFile, World

from sdisup.contract.options import Options
from sdisup.runner import main, report
from sdisup.runner.begin import Beginning
from sdisup.runner.decide import END_FFMPEG, NOTHING, Decision, Situation, decide, describe
from sdisup.runner.disk import Closed, Event, FirstMedia, Opened, OpenFailed, Sample
from sdisup.runner.main import Runner
from sdisup.runner.rest import LONGEST_S

RECORDINGS = Path(__file__).resolve().parent / "unit" / "recordings"
BASE = Options(
    ["/usr/bin/ffmpeg", "{output}"],
    port=3, name="CAM3", codec="h264", container="mkv", source="", input="its source", without_signal="",
    audio_options="", recordings="/srv/recordings", revision="r1", filesystem="", rate=25.0, stall_timeout_s=5.0,
    start_timeout_s=30.0, sync_interval_s=1.0, stop_quit_s=3.0, stop_start_quit_s=4.0, stop_term_s=2.0,
)  # fmt: skip

# The options of a port on which decisions depend.
WORDS = ("without_signal", "audio_options", "sound")
NUMBERS = ("rate", "stall_timeout_s", "start_timeout_s", "stop_quit_s", "stop_start_quit_s", "stop_term_s")
TOLD = NUMBERS + WORDS
COUNTS = ("frames", "duplicated", "dropped", "missing", "repeated")
Line = tuple[float, str, str]


class Recording:
    """The attempts of a recording, each the lines (second, kind, rest) that follow its `spawn`."""

    def __init__(self, path: Path) -> None:
        self.options = BASE
        self.before: list[Line] = []
        self.attempts: list[list[Line]] = []
        for text in path.read_text().splitlines():
            if text.startswith("# options "):
                given = dict(word.split("=", 1) for word in text.removeprefix("# options ").split())
                numbers = {name: float(given.pop(name)) for name in NUMBERS}
                self.options = BASE.replaced(**given, **numbers)
            if text.startswith("# command "):
                self.options = self.options.replaced(command=json.loads(text.removeprefix("# command ")))
            if text.startswith("#"):
                continue
            second, kind, *rest = text.split(" ", 2)
            if kind == "spawn":
                self.attempts.append([])
            elif kind != "#":
                (self.attempts[-1] if self.attempts else self.before).append((float(second), kind, "".join(rest)))


class Replay:
    """A runner in a world that a recording plays, and what it decided."""

    def __init__(self, recording: Recording, directory: str, piece_bytes: int) -> None:
        self.recording = recording
        self.piece_bytes = piece_bytes
        self.world = World()
        self.said: list[str] = []
        self._told = ("", "")
        self._left = list(recording.attempts)
        self._closed: list[str] = []
        self._run_directory = directory
        self.world.on_open = self._open
        self.world.on_spawn = self._spawn
        self.world.on_step = lambda _, action: self._say(f"FFmpeg: {action}")
        self.world.on_finish = self._finish

    def run(self) -> str:
        os.makedirs(f"{self._run_directory}/port-3")
        world = self.world
        with (
            mock.patch.dict(os.environ, {"RUNTIME_DIRECTORY": f"{self._run_directory}/port-3"}),
            mock.patch.object(main, "decide", self._decide),
            mock.patch.object(main, "describe", self._describe),
            mock.patch.object(report.Journal, "_write", lambda *_: None),
            mock.patch.object(os, "set_blocking", lambda *_: None),
        ):
            for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
                os.environ.pop(name, None)
            options = self.recording.options.replaced(run_directory=self._run_directory)
            edges: dict[str, Any] = {"poll": world, "open_file": world.open_file, "spawn": world.spawn}
            beginning = Beginning(options, now=world.now, wall=world.wall, **edges)
            world.runner = Runner(beginning, raw=world.now)
            status = world.runner.run()
        self._say(f"exit {status}")
        return "\n".join([*self.said, *self._events()]) + "\n"

    def _say(self, text: str) -> None:
        self.said.append(f"{self.world.time_s:5.1f}  {text}")

    # What the runner is told.

    def _open(self, file: FakeFile) -> None:
        failed = [rest for _, kind, rest in self.recording.before if kind == "no"]
        file.events.append(
            OpenFailed(failed[0].removeprefix("file ")) if failed else Opened(self.world.path(file), DESCRIPTOR)
        )

    def _spawn(self, ffmpeg: FakeFFmpeg) -> None:
        assert self._left, "the runner begins one FFmpeg more than the recording has"
        for second, kind, rest in self._left.pop(0):
            self.world.at(self.world.time_s + second, functools.partial(self._happens, ffmpeg, kind, rest))

    def _happens(self, ffmpeg: FakeFFmpeg, kind: str, rest: str, world: World) -> None:
        if kind == ">":
            is_block = " " in rest and rest.rpartition(" ")[2].startswith("progress=")
            text = (rest.replace(" ", "\n") if is_block else rest) + "\n"
            if is_block:
                ffmpeg.reports(text)
                return
            for start in range(0, len(text), self.piece_bytes):
                ffmpeg.says(text[start : start + self.piece_bytes])
        elif kind == "exit":
            status, cpu_s = rest.split()
            ffmpeg.cpu_s = float(cpu_s)
            ffmpeg.exits(int(status))
        elif kind == "stop":
            assert world.runner is not None
            world.runner.stop()
        elif kind == "closed":
            self._closed.append(rest)
        else:
            world.file.events.append(disk_event(kind, rest))

    def _finish(self, file: FakeFile, _is_empty: bool) -> None:
        """FFmpeg has ended, and its file is closed: as the recording says, a moment later."""
        size_bytes, kept, *problem = self._closes().split(" ", 2)
        file.events.append(Closed(int(size_bytes), kept == "1", "".join(problem)))

    def _closes(self) -> str:
        for _, action in self.world.script:
            kind, rest = action.args[1:] if isinstance(action, functools.partial) else ("", "")
            if kind == "closed":
                return str(rest)
        raise AssertionError("the runner closes a file that the recording does not close")

    # What the runner makes of it.

    def _decide(self, situation: Situation, options: Options) -> Decision:
        decision = decide(situation, options)
        if decision.step != NOTHING:
            reason = f": {decision.fault.text}" if decision.fault else ""
            wait = f", in {decision.wait_s:.1f} s" if decision.wait_s else ""
            self._say(f"{decision.step}{reason if decision.step == END_FFMPEG else ''}{wait}")
        return decision

    def _describe(
        self, situation: Situation, options: Options, waits_for: str, told: tuple[str, str]
    ) -> tuple[str, str]:
        state, reason = describe(situation, options, waits_for, told)
        # A reason that counts seconds is said once.
        key = (state, "".join(character for character in reason if not character.isdigit()))
        if key != self._told:
            self._told = key
            self._say(f"is {state}{': ' if reason else ''}{reason}")
        return state, reason

    def _events(self) -> list[str]:
        """What the ledger was told of the files, and of the runner's end."""
        found = []
        for line in Path(self._run_directory, "ports/3/spool").read_bytes().rstrip(b"\0").splitlines():
            event = json.loads(line)
            if event["kind"] == "closed":
                counts = ", ".join(f"{event[name]} {name}" for name in COUNTS if event.get(name))
                found.append(f"file   {event['verdict']}; cause: {event['cause']}; {counts or 'nothing in it'}")
            elif event["kind"] == "missed":
                seconds = event["last_at"][1] - event["first_at"][1]
                found.append(f"hole   {event['cause']}: {seconds:.1f} s, {event['frames']} frames")
            elif event["kind"] == "waits":
                found.append(f"gap    {event['cause']}")
        return found


def is_same(text: str, turned: str) -> bool:
    """Whether two replays of a recording lead to the same, `turned` with a turn at each block: what is said of a port
    that records, and done about timestamps that jump, may come later by a rest (runner/rest.py)."""
    (done, told), (done_first, told_first) = _split(text), _split(turned)
    late_s = [after - before for (after, _), (before, _) in zip(done, done_first, strict=False)]
    is_done = [_without_numbers(words) for _, words in done] == [_without_numbers(words) for _, words in done_first]
    return told == told_first and is_done and all(-0.05 <= late <= LONGEST_S + 0.1 for late in late_s)


def _split(text: str) -> tuple[list[tuple[float, str]], list[str]]:
    """What was decided and said of the port, with its times; and what the ledger was told.

    A recorded FFmpeg ends when it did. So it may be gone before the ladder, which began later, comes to its last steps.
    """
    lines = [line for line in text.splitlines() if line[5:] not in ("  FFmpeg: term", "  FFmpeg: kill")]
    done = [(float(line[:5]), line[5:]) for line in lines if line[:5].strip()[:1].isdigit()]
    return done, [line for line in lines if not line[:5].strip()[:1].isdigit()]


def _without_numbers(words: str) -> str:
    return "".join(character for character in words if not character.isdigit())


def disk_event(kind: str, rest: str) -> Event:
    if kind == "media":
        return FirstMedia()
    if kind == "sample":
        size_bytes, free_bytes, moved, deleted = (int(word) for word in rest.split())
        return Sample(size_bytes, free_bytes, "8:1", bool(moved), bool(deleted))
    raise ValueError(f"a recording has no {kind!r}")


def replayed(path: Path, piece_bytes: int = 1 << 16) -> str:
    """What a runner makes of that recording, as the text of its .expected file.

    A line of FFmpeg's stderr comes in pieces of `piece_bytes`.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as directory:
        return Replay(Recording(path), directory, piece_bytes).run()
