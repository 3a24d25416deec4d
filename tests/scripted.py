"""The world of a runner, played: FFmpeg, the disk, the poll and the clock, by a script. Nothing here takes time.

A script is a list of (second, what happens then). The clock moves on to the next of them, or to the moment
that the runner asked its poll to wake it, whichever is first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sdisup.contract.options import Options
from sdisup.runner.begin import Beginning
from sdisup.runner.disk import Closed, Event, Named, News, Opened, Place, Sample
from sdisup.runner.main import Runner
from sdisup.runner.stamp import Stamp

STDERR, PIDFD, DESCRIPTOR, PROGRESS = 10_001, 10_002, 10_003, 10_004
LONG_S = 10_000.0

RATE = 25
OPTIONS = Options(
    ["/usr/bin/ffmpeg", "-i", "x", "{output}"],
    port=3, name="CAM3", codec="h264", container="mkv", source="test", input="FFmpeg's test picture",
    without_signal="", audio_options="", recordings="/srv/recordings", revision="r1", filesystem="",
    rate=float(RATE), stall_timeout_s=5.0, start_timeout_s=30.0, sync_interval_s=1.0, stop_quit_s=3.0,
    stop_start_quit_s=4.0, stop_term_s=2.0,
)  # fmt: skip
"""Those of a port that records."""

Action = Callable[["World"], object]


class FakeFFmpeg:
    """What the runner sees of an FFmpeg process: its log, its progress blocks, an exit, the steps of the ladder."""

    stderr, progress, pidfd, pid = STDERR, PROGRESS, PIDFD, 4711
    cpu_s = 0.05
    has_read_all = True
    busy = 0.0
    written = 0

    def __init__(self, world: World, command: Sequence[str]) -> None:
        self.command = list(command)
        self.spawned_at = world.time_s
        self.steps: list[str] = []
        self.is_closed = False
        self._world = world
        self._output: deque[bytes] = deque()
        self.waiting: list[tuple[float, bytes]] = []
        self.status: int | None = None

    def says(self, text: str) -> None:
        self._output.append(text.encode())

    def counts(self, frames: int, *, progress: str = "continue", dup: int = 0, drop: int = 0) -> None:
        self.reports(f"frame={frames}\ndup_frames={dup}\ndrop_frames={drop}\nspeed=1x\nprogress={progress}\n")

    def reports(self, block: str) -> None:
        self.waiting.append((self._world.time_s, block.encode()))

    def exits(self, status: int) -> None:
        self.status = status

    def ready(self) -> list[tuple[int, int]]:
        """What the poll tells of that it was asked for."""
        found = [STDERR] if self._output else []
        found += [PROGRESS] if self.waiting else []
        found += [PIDFD] if self.status is not None else []
        return [(descriptor, 1) for descriptor in found if self._world.masks.get(descriptor)]

    def is_pressing(self) -> bool:
        return sum(map(len, self._output)) > 1 << 14

    def blocks(self) -> tuple[list[tuple[float, bytes]], bool]:
        found, self.waiting = self.waiting, []
        return [(self._world.time_s - at, block) for at, block in found], self.status is None

    def read(self) -> bytes | None:
        return self._output.popleft() if self._output else (b"" if self.status is not None else None)

    def step(self, action: str) -> None:
        self.steps.append(action)
        self._world.on_step(self, action)

    def thread_times(self) -> dict[str, float]:
        return {"1": 0.0, "2": self.busy * self._world.time_s}

    def effort(self) -> tuple[float, int]:
        return self.busy * self._world.time_s, self.written

    def has_read(self) -> bool:
        return self.has_read_all

    def reap(self) -> int | None:
        return self.status

    def close(self) -> None:
        self.is_closed = True


class Events(deque[Event]):
    """A file's events; `has_woken` is whether its thread has woken the runner since the last poll, as disk.py does."""

    def __init__(self) -> None:
        super().__init__()
        self.has_woken = False
        self._news = News()

    def append(self, event: Event) -> None:
        self.has_woken |= not isinstance(event, Sample) or self._news.is_in(event)
        super().append(event)

    def extend(self, events: Iterable[Event]) -> None:
        for event in events:
            self.append(event)


class FakeFile:
    """What the runner sees of a file's threads."""

    sync_problem = watch_problem = refusal = ""

    def __init__(self, world: World) -> None:
        self.events = Events()
        self.remarks: deque[str] = deque()
        self.is_finished = False
        self.timecode: Stamp | None = None
        self.named_by = ""
        self._world = world

    def hurry(self) -> None: ...

    def name_by(self, place: Place) -> None:
        self.named_by = place.template

    def set_timecode(self, stamp: Stamp) -> None:
        self.timecode = stamp

    def finish(self, *, is_empty: bool = False, is_cut_off: bool = False) -> None:
        self.is_finished = True
        self._world.on_finish(self, is_empty)


class World:
    """The clock, the poll, the disk and the FFmpegs of one runner. A test changes the `on_…` to misbehave."""

    def __init__(self, script: Sequence[tuple[float, Action]] = ()) -> None:
        self.time_s = 0.0
        self.wall_ahead_s = 1_800_000_000.0
        self.asleep_s = 0.0
        self.script = deque(sorted(script, key=lambda entry: entry[0]))
        self.ffmpegs: list[FakeFFmpeg] = []
        self.files: list[FakeFile] = []
        self.places: list[Place] = []
        self.runner: Runner | None = None
        self.turns = 0
        self.masks: dict[int, int] = {}
        """What the poll tells of."""
        self.on_open: Callable[[FakeFile], None] = lambda file: file.events.extend(
            (Opened(self.path(file), DESCRIPTOR), Named(self.path(file)))
        )
        self.on_spawn: Callable[[FakeFFmpeg], None] = lambda ffmpeg: None
        self.on_step: Callable[[FakeFFmpeg, str], None] = quit_well
        self.on_finish: Callable[[FakeFile, bool], None] = close_well

    def path(self, file: FakeFile) -> str:
        return f"/srv/recordings/CAM3_{self.files.index(file) + 1}.mkv"

    @property
    def ffmpeg(self) -> FakeFFmpeg:
        return self.ffmpegs[-1]

    @property
    def file(self) -> FakeFile:
        return self.files[-1]

    def at(self, second: float, *actions: Action) -> World:
        """Add to the script."""
        for action in actions:
            self.script.append((second, action))
        self.script = deque(sorted(self.script, key=lambda entry: entry[0]))
        return self

    def start(self, options: Options, signals: Any = None) -> Runner:
        """A runner in this world that has spawned its first FFmpeg, as far as that may be."""
        edges: dict[str, Any] = {"poll": self, "open_file": self.open_file, "spawn": self.spawn}
        beginning = Beginning(options, now=self.now, wall=self.wall, asleep=lambda: self.asleep_s, **edges)
        beginning.spawn_first()
        beginning.let_start()
        self.runner = Runner(beginning, raw=self.now, signals=signals and (lambda _: signals))
        return self.runner

    # What the runner is given.

    def now(self) -> float:
        return self.time_s

    def wall(self) -> float:
        return self.time_s + self.wall_ahead_s

    def open_file(self, place: Place, *_: object) -> FakeFile:
        self.places.append(place)
        self.files.append(FakeFile(self))
        self.on_open(self.file)
        return self.file

    def spawn(self, command: Sequence[str], output: int) -> FakeFFmpeg:
        assert output == DESCRIPTOR, "FFmpeg gets the file itself"
        self.ffmpegs.append(FakeFFmpeg(self, command))
        self.on_spawn(self.ffmpeg)
        return self.ffmpeg

    def register(self, descriptor: int, mask: int) -> None:
        self.masks[descriptor] = mask

    modify = register

    def unregister(self, descriptor: int) -> None:
        del self.masks[descriptor]

    def _pending(self) -> int:
        """How much waits for the runner, whether it is woken for it or not."""
        return sum(len(file.events) for file in self.files) + sum(len(ffmpeg.waiting) for ffmpeg in self.ffmpegs)

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        """Move the clock on to what comes first; what FFmpeg or the disk has to say comes at once."""
        self.turns += 1
        assert self.turns < 100_000, "the runner turns without end"
        assert timeout_ms >= 0, "a runner that waits for ever is not alive"
        if self.ffmpegs and (ready := self.ffmpeg.ready()) and not self.ffmpeg.is_closed:
            return ready
        woken = [file for file in self.files if file.events.has_woken]
        for file in woken:
            file.events.has_woken = False
        if woken:
            return []
        until_s = self.time_s + timeout_ms / 1000
        while self.script and self.script[0][0] <= until_s:
            second, action = self.script.popleft()
            self.time_s = max(self.time_s, second)
            pending = self._pending()
            action(self)
            ready = self.ffmpeg.ready() if self.ffmpegs and not self.ffmpeg.is_closed else []
            is_quiet = self._pending() > pending and not any(file.events.has_woken for file in self.files)
            if ready or not is_quiet:
                return ready
        self.time_s = until_s
        assert self.time_s < LONG_S, "the runner does not end"
        return []


def quit_well(ffmpeg: FakeFFmpeg, action: str) -> None:
    if action == "quit":
        ffmpeg.reports("speed=1x\nprogress=end\n")
        ffmpeg.exits(0)


def close_well(file: FakeFile, is_empty: bool) -> None:
    file.events.append(Closed(1000, not is_empty, ""))
