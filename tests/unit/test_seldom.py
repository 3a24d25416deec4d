"""How often a runner's loop wakes, turns and writes: where a port records well, has no signal, or waits.

A regression guard that holds on any machine, since it counts, in a world that takes no time (tests/scripted.py); and
once with a real runner and a real FFmpeg, as a number for each of FFmpeg's progress blocks.
"""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted import OPTIONS, Action, FakeFFmpeg, World
from test_rest import MARK, block, tells
from test_runner import CARD, NO_SIGNAL, stop

import sdisup
from sdisup.contract.options import Options
from sdisup.contract.status import PortStatus, read_status
from sdisup.ledger import spool
from sdisup.runner import notify, report
from sdisup.runner.disk import Closed, FirstMedia, News, Sample
from sdisup.runner.main import Runner

COUNTED_S, LATEST_FEED_S = 60.0, 3.5


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a runner, and counts what it does in the minute from `since` on."""
    (tmp_path / "port-3").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "port-3"))
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setattr(os, "set_blocking", lambda *_: None)

    def play(world: World, since: float, options: Options = OPTIONS) -> Counter[str]:
        counted: Counter[str] = Counter()
        fed_at: list[float] = []

        def send(_: Any, *assignments: str) -> bool:
            counted["notifications"] += since <= world.time_s < since + COUNTED_S
            if "WATCHDOG=1" in assignments:
                fed_at.append(world.time_s)
            return True

        monkeypatch.setattr(notify.Notifier, "send", send)

        def counts(owner: Any, name: str, kind: str, answer: Any = None) -> None:
            real = getattr(owner, name)

            def called(*args: Any, **values: Any) -> Any:
                counted[kind] += since <= world.time_s < since + COUNTED_S
                return real(*args, **values) if answer is None else answer

            monkeypatch.setattr(owner, name, called)

        counts(Runner, "_turn", "turns")
        counts(World, "poll", "wake-ups")
        counts(World, "spawn", "tries")
        counts(report, "write_status", "status")
        counts(report.Journal, "_write", "journal", answer=0)
        counts(spool.Spool, "tell", "events")
        world.at(since + COUNTED_S + 1, stop)
        world.start(options.replaced(run_directory=str(tmp_path))).run()
        gaps_s = [after - before for before, after in itertools.pairwise(fed_at)]
        assert max(gaps_s, default=0.0) < LATEST_FEED_S, "systemd's watchdog waits for ten seconds"
        return counted

    yield play


def exceeded(counted: Counter[str], limits: dict[str, int]) -> dict[str, int]:
    return {kind: number for kind, number in counted.items() if number > limits.get(kind, 0)}


def counts(frames: int, world: World) -> None:
    world.ffmpeg.reports(block(frames))


def recording(seconds: float) -> Iterator[tuple[float, Action]]:
    """An FFmpeg with sound that records well: a block each 0.28 s, a mark in two pieces and a look each second."""

    def says(text: str) -> Action:
        return lambda world: world.ffmpeg.says(text)

    yield 0.3, functools.partial(tells, [FirstMedia()])
    for number in range(1, int(seconds / 0.28)):
        yield 0.28 * number, functools.partial(counts, 7 * number)
    for second in range(1, int(seconds)):
        yield second + 0.1, says(MARK[:7])
        yield second + 0.1001, says(MARK[7:])
        yield second + 0.4, functools.partial(tells, [Sample(1000 * second, 10**9, "8:1", False, False)])


def test_a_port_that_records_well_turns_to_say_so(count: Any) -> None:
    counted = count(World(list(recording(200))), 100.0)
    # 120 pieces of marks; 214 blocks wake nobody.
    limits = {"wake-ups": 162, "turns": 41, "status": 41, "notifications": 20}
    assert exceeded(counted, limits) == {}
    assert counted["status"] >= 36, "it is said that the port is alive"


def fails(text: str) -> World:
    """An FFmpeg that ends at once with these words, again and again."""
    world = World()

    def fail(ffmpeg: FakeFFmpeg) -> None:
        ffmpeg.says(text)
        ffmpeg.exits(1)

    world.on_spawn = fail
    world.on_finish = lambda file, _: file.events.append(Closed(0, False, ""))
    return world


def test_a_port_without_a_signal_turns_for_its_tries(count: Any) -> None:
    counted = count(fails(NO_SIGNAL), 1000.0, CARD)
    assert 12 <= counted["tries"] <= 20
    tries = counted["tries"]
    limits = {
        "wake-ups": 4 * tries + 26,
        "turns": 4 * tries + 26,
        "status": 26,
        "notifications": 31,
        "events": 3 * tries,
    }
    assert exceeded(counted, {**limits, "tries": 20}) == {}


def test_a_port_that_waits_for_its_first_picture_turns_to_say_so(count: Any) -> None:
    counted = count(World(), 1000.0, OPTIONS.replaced(start_timeout_s=0.0))
    assert exceeded(counted, {"wake-ups": 26, "turns": 26, "status": 26, "notifications": 26}) == {}
    assert counted["status"] >= 20


def test_a_port_in_a_crash_loop_turns_for_its_tries(count: Any) -> None:
    for _ in range(7):
        count(fails("[error] Connection refused\n"), 1000.0)
    counted = count(fails("[error] Connection refused\n"), 0.0)
    tries = counted["tries"]
    assert 4 <= tries <= 6
    limits = {
        "wake-ups": 5 * tries + 26,
        "turns": 5 * tries + 26,
        "status": 26 + 3 * tries,
        "notifications": 26 + 3 * tries,
    }
    assert exceeded(counted, {**limits, "tries": 6, "events": 3 * tries + 1, "journal": tries + 2}) == {}


@pytest.mark.parametrize(
    ("sizes", "news"),
    [
        ([0, 0, 0, 0], [True, False, False, False]),
        ([1, 2, 3, 4], [True, True, False, False]),
        ([1, 2, 3, 3, 3, 4, 5], [True, True, False, True, True, True, False]),
        ([3, 4, 5, 0, 0], [True, True, False, True, False]),
    ],
)
def test_a_file_that_only_grows_is_no_news(sizes: Sequence[int], news: list[bool]) -> None:
    told = News()
    assert [told.is_in(Sample(size, 10**9, "8:1", False, False)) for size in sizes] == news


@pytest.mark.parametrize(
    "change", [{"moved": True}, {"deleted": True}, {"filesystem": "8:2"}, {"place": "/x"}, {"misplaced": True}]
)
def test_a_file_that_is_elsewhere_is_news(change: dict[str, Any]) -> None:
    told = News()
    usual = [Sample(size, 10**9 - size, "8:1", False, False) for size in range(1, 6)]
    assert [told.is_in(sample) for sample in usual] == [True, True, False, False, False]
    assert told.is_in(usual[-1].replaced(size_bytes=6, **change))
    assert {*change, "size_bytes", "disk_free_bytes", "seen_at"} <= {*Sample.defaults()}


RECORD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from sdisup.__main__ import main
main()
"""
FFMPEG = (
    "ffmpeg -y -hide_banner -loglevel repeat+level+info -nostats -progress pipe:2 -stats_period 0.1 -f lavfi "
    "-i testsrc2=size=64x36:rate=50,realtime -c:v libx264 -preset ultrafast -g 5 -flush_packets 1 -f matroska"
).split()
BLOCK_FRAMES = 5
MOST_A_BLOCK = {"waits": 0.6, "reads": 0.3, "writes": 0.3}


def numbers(path: Path) -> dict[str, int]:
    """The lines `name: number` of a file of /proc."""
    pairs = (line.split(":") for line in path.read_text().splitlines() if line.count(":") == 1)
    return {name: int(value) for name, value in pairs if value.strip().isdigit()}


def spent(pid: int) -> Counter[str]:
    """How often a process has waited, by any of its threads, and how often it has read and written (proc(5))."""
    io = numbers(Path(f"/proc/{pid}/io"))
    waits = [numbers(task / "status")["voluntary_ctxt_switches"] for task in Path(f"/proc/{pid}/task").iterdir()]
    return Counter(waits=sum(waits), reads=io["syscr"], writes=io["syscw"])


def test_a_real_runner_waits_reads_and_writes_less_often_than_ffmpeg_counts(tmp_path: Path) -> None:
    for name in ("port-3", "recordings"):
        (tmp_path / name).mkdir()
    options = [f"--run-directory={tmp_path}", f"--recordings={tmp_path}/recordings", "--port=3", "--rate=50"]
    words = [*options, "--sync-interval-s=60", "--", *FFMPEG, "{output}"]
    program = [sys.executable, "-I", "-S", "-c", RECORD, str(Path(sdisup.__file__).parents[1]), "run", *words]
    environment = {**os.environ, "RUNTIME_DIRECTORY": f"{tmp_path}/port-3"}
    environment.pop("NOTIFY_SOCKET", None)
    with subprocess.Popen(program, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:

        def counted(frames: int) -> PortStatus:
            deadline = time.monotonic() + 60
            while True:
                status = read_status(3, str(tmp_path))
                if status is not None and status.frame_count >= frames:
                    return status
                assert time.monotonic() < deadline, f"no {frames} frames: {status}"
                time.sleep(0.01)

        try:
            begun, before = counted(50), spent(runner.pid)
            ended, after = counted(begun.frame_count + 100), spent(runner.pid)
        finally:
            runner.terminate()
    assert ended.state == "recording"
    blocks = (ended.frame_count - begun.frame_count) / BLOCK_FRAMES
    found = {kind: (after[kind] - before[kind]) / blocks for kind in after}
    # Woken by each block it waited 1.1 times for one; now it is 0.25, and 0.09 for what it writes.
    assert {kind: number for kind, number in found.items() if number > MOST_A_BLOCK[kind]} == {}
