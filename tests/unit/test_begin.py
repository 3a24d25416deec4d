"""A port's start: what comes before the spawn of FFmpeg, in which order, and when FFmpeg is not spawned there."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import DESCRIPTOR, OPTIONS, FakeFile, World
from test_runner import records, stop

import sdisup
from sdisup.contract.lean import signal
from sdisup.contract.requests import Request, leave_request
from sdisup.contract.status import read_status
from sdisup.ledger import spool
from sdisup.runner import begin, report
from sdisup.runner.begin import Beginning
from sdisup.runner.disk import FirstMedia, Named, Opened, OpenFailed
from sdisup.runner.main import EXIT_RETRY, EXIT_STOPPED, Runner
from sdisup.runner.memory import Memory, memory_path, recall


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.Journal, "_write", lambda *_: None)
    monkeypatch.setattr(os, "set_blocking", lambda *_: None)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("port-3", "requests"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "port-3"))


@pytest.fixture
def start(tmp_path: Path) -> Callable[[World], Beginning]:
    def begin_in(world: World) -> Beginning:
        edges: dict[str, Any] = {"poll": world, "open_file": world.open_file, "spawn": world.spawn}
        edges.update(now=world.now, wall=world.wall, asleep=lambda: 0.0)
        beginning = Beginning(OPTIONS.replaced(run_directory=str(tmp_path)), **edges)
        beginning.spawn_first()
        beginning.let_start()
        return beginning

    return begin_in


Start = Callable[[World], Beginning]


def told(directory: Path) -> list[str]:
    text = (directory / "ports/3/spool").read_bytes().rstrip(b"\0")
    return [json.loads(line)["kind"] for line in text.splitlines()]


def run(beginning: Beginning, world: World) -> int:
    world.runner = Runner(beginning, raw=world.now)
    return world.runner.run()


def test_all_that_the_next_runner_and_the_ledger_need_is_there_before_the_spawn(tmp_path: Path, start: Start) -> None:
    """A runner that is killed at any moment after it leaves an FFmpeg, and its file."""
    leave_request(3, Request(take="derby", request_id="r1"), str(tmp_path))
    seen: list[Any] = []
    world = World()
    world.on_spawn = lambda _: seen.append(
        (told(tmp_path), os.listdir(tmp_path / "requests"), recall(memory_path(3, str(tmp_path))).request.take)
    )
    start(world)
    assert seen == [(["began", "opened"], [], "derby")]
    assert (tmp_path / "port-3/began").exists()
    # The status is what the rest of the runner has to say.
    assert read_status(3, str(tmp_path)) is None


def test_the_runner_goes_on_with_what_was_begun(tmp_path: Path, start: Start) -> None:
    world = World(records(3)).at(3.5, stop)
    assert run(start(world), world) == EXIT_STOPPED
    assert (len(world.files), len(world.ffmpegs)) == (1, 1)
    assert told(tmp_path) == ["began", "opened", "media", "closed", "stopped"]


def test_a_disk_that_takes_its_time_is_left_to_the_loop(tmp_path: Path, start: Start) -> None:
    world = World(records(3, since=3.0)).at(6.5, stop)

    def open_late(file: FakeFile) -> None:
        opened = (Opened(world.path(file), DESCRIPTOR), Named(world.path(file)))
        world.at(2.0, lambda _: file.events.extend(opened))

    world.on_open = open_late
    beginning = start(world)
    assert (world.time_s, world.ffmpegs, told(tmp_path)) == (begin.FILE_S, [], ["began"])
    assert run(beginning, world) == EXIT_STOPPED
    assert (len(world.files), len(world.ffmpegs)) == (1, 1)
    assert told(tmp_path) == ["began", "opened", "media", "closed", "stopped"]


@pytest.mark.parametrize(("failures", "spawns"), [(-1, True), (0, True), (1, False)])
def test_a_port_that_has_to_wait_waits_before_it_makes_a_file(
    tmp_path: Path, start: Start, failures: int, spawns: bool
) -> None:
    """`failures` are those of the runner before, whose own end is one more."""
    Memory(memory_path(3, str(tmp_path)), failures=failures).save()
    (tmp_path / "port-3/began").touch()
    world = World()
    start(world)
    assert (len(world.files), len(world.ffmpegs)) == (int(spawns), int(spawns))


def test_a_port_that_is_stopped_already_makes_no_file(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setattr(signal, "sigpending", lambda: {15})
    world = World()
    start(world)
    assert (world.files, world.ffmpegs) == ([], [])


def test_an_ffmpeg_that_cannot_be_spawned_is_an_end_like_any_other(tmp_path: Path, start: Start) -> None:
    def refuse(_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    world = World()
    world.on_spawn = refuse
    assert run(start(world), world) in (1, 78)
    assert len(world.ffmpegs) == 1, "it is tried once"
    assert told(tmp_path) == ["began", "opened", "closed", "waits"]


def test_a_file_that_cannot_be_made_is_said_at_once(start: Start) -> None:
    """By the runner's first turn: nothing wakes it for a second one."""
    world = World()
    world.on_open = lambda file: file.events.append(OpenFailed("/srv/recordings does not exist"))
    beginning = start(world)
    assert run(beginning, world) == EXIT_RETRY
    assert world.time_s < 0.1


def sends(number: int) -> Any:
    """To this thread alone: another one of the test run's would die of it."""
    return lambda _: signal.pthread_kill(threading.get_ident(), number)


@pytest.mark.parametrize(
    ("script", "at_s"),
    [
        # The first frame of records() is on disk at 0.25 s.
        (records(3), 0.25),
        ([], begin.START_S),
        ([(0.3, lambda world: world.ffmpeg.exits(1))], 0.3),
        ([(0.3, lambda world: world.ffmpeg.says("[info] a line\n"))], begin.START_S),
        ([(0.32, lambda world: world.ffmpeg.says("[info] a line\n" * 2000))], 0.32 + begin.LOOK_S),
        ([(0.32, sends(signal.SIGTERM))], 0.32 + begin.LOOK_S),
        ([(0.32, sends(signal.SIGINT))], 0.32 + begin.LOOK_S),
    ],
)
def test_it_does_nothing_until_ffmpeg_records_or_ends_or_somebody_wants_something(
    start: Start, script: Any, at_s: float
) -> None:
    world = World(script)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    try:
        start(world)
        assert at_s - begin.LOOK_S <= world.time_s <= at_s + 0.01
    finally:
        while signal.sigtimedwait([signal.SIGTERM, signal.SIGINT], 0) is not None:
            continue
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_ffmpeg_said_meanwhile_follows_on_its_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(report.Journal, "_write", lambda _, line: said.append(line.decode()))
    world = World(records(3)).at(0.1, lambda w: w.ffmpeg.says("[info] line\n" * 100)).at(2.0, stop)
    run(start(world), world)
    kinds = ["ffmpeg" if "ffmpeg: line" in line else line.split()[3] for line in said]
    assert kinds[:102] == ["runs", "FFmpeg", *["ffmpeg"] * 100]


def test_what_ffmpeg_said_meanwhile_is_known_with_the_first_frame(start: Start, tmp_path: Path) -> None:
    """Of its log, and when its frames came."""
    world = World().at(0.15, lambda w: w.ffmpeg.says("[info]   encoder         : Lavf61.7.103\n"))
    world.at(0.2, lambda w: w.ffmpeg.counts(1)).at(0.3, lambda w: w.file.events.append(FirstMedia()))
    for number in range(2, 20):
        world.at(0.28 * number, lambda w, frames=number * 7 - 6: w.ffmpeg.counts(frames))  # type: ignore[misc]
    run(start(world.at(5.0, stop)), world)
    text = (tmp_path / "ports/3/spool").read_bytes().rstrip(b"\0")
    media = next(event for event in map(json.loads, text.splitlines()) if event["kind"] == spool.MEDIA)
    assert media["ffmpeg_version"] == "Lavf61.7.103"
    assert media["first_frame_at"][1] == pytest.approx(0.16, abs=0.01)


def test_ffmpeg_does_not_get_what_the_unit_says_to_the_runner(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(begin.OWN_ENVIRONMENT, "1")
    seen: list[bool] = []
    world = World()
    world.on_spawn = lambda _: seen.append(begin.OWN_ENVIRONMENT in os.environ)
    start(world)
    assert seen == [False]
    unit = (Path(sdisup.__file__).parents[1] / "units" / "sdi-record@.service.j2").read_text()
    assert f"\nEnvironment={begin.OWN_ENVIRONMENT}=1\n" in unit
