"""The ledger's writer: from spools to ledgers, on files, with real child processes; and what its disk may do to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from appliance import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_exhausted import MAKERS, Exhaustion

from sdisup.contract.files import boot_id, monotonic, up_seconds
from sdisup.contract.programs import COUNT_GENTLY, count_frames, says
from sdisup.contract.status import PortStatus, write_status
from sdisup.ledger import spool as events
from sdisup.ledger import writer as module
from sdisup.ledger.cut_off import LIMIT_BYTES
from sdisup.ledger.health import all_problems, health_path, ledger_problem, port_problem
from sdisup.ledger.lines import Entry, append_entries, read_ledger
from sdisup.ledger.open_record import load_story, save_story
from sdisup.ledger.spool import Spool, read_spool, spool_path
from sdisup.ledger.story import Story
from sdisup.ledger.writer import NO_ANSWER_S, Writer, is_going_down

FFPROBE = shutil.which("ffprobe") or "ffprobe"
FFMPEG = shutil.which("ffmpeg") or "ffmpeg"
PORT = 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "COUNT_RETRY_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    monkeypatch.setattr(module, "is_going_down", lambda: False)
    yield
    # What a test lets hang, as a disk would, is not left behind.
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
            os.waitpid(int(pid), 0)


class Bench:
    """A port's runner, as far as its ledger sees it, and the writer."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.run = directory / "ledger", directory / "run"
        self.directory.mkdir(exist_ok=True)
        self.run.mkdir(exist_ok=True)
        self.recordings = directory / "recordings"
        self.recordings.mkdir(exist_ok=True)
        self.spool = Spool(PORT, str(self.run))
        self.writer = self.new_writer()
        self.ffmpeg = FFMPEG
        self.boot = boot_id()
        self.now = monotonic() - 50
        """The runner's clock. It goes on with what is told, and so faster than time."""

    def new_writer(self) -> Writer:
        """A writer; the one before was killed, and its lock fell."""
        if hasattr(self, "writer"):
            os.close(self.writer.lock)
            os.close(self.writer._wake)
        self.writer = Writer(str(self.directory), str(self.run))
        return self.writer

    def tell(self, kind: str, **fields: Any) -> Bench:
        self.spool.tell(kind, self.now, **fields)
        self.now += 0.1
        return self

    def begin(self, **changed: Any) -> Bench:
        """A runner begins, whatever became of the one before."""
        self.spool._close()
        self.spool = Spool(PORT, str(self.run))
        fields: dict[str, Any] = {
            "is_restart": False, "records_at_boot": False, "take": None, "boot_at": self.now - 1,
            "stopped_at": None, "name": "CAM", "recordings": str(self.recordings), "container": "mp4",
            "ffmpeg": self.ffmpeg,
        }  # fmt: skip
        return self.tell(events.BEGAN, **{**fields, **changed})

    def record(self, path: str, *, is_retry: bool = False) -> Bench:
        self.tell(events.OPENED, path=path, take=None, codec="h264", rate=25.0, is_retry=is_retry)
        return self.tell(events.MEDIA, path=path, first_frame_at=self.now, ffmpeg_version="Lavf61")

    def close(self, path: str, verdict: str = "complete", cause: str = "stop", frames: int = 25) -> Bench:
        counts = {"frames": frames, "duplicated": 0, "dropped": 0, "missing": 0}
        size_bytes = os.path.getsize(path) if os.path.exists(path) else 1000
        last = self.now + frames / 25
        self.now = last + 0.2
        return self.tell(
            events.CLOSED, path=path, verdict=verdict, cause=cause, last_frame_at=last, size_bytes=size_bytes, **counts
        )

    def waits(self, cause: str) -> Bench:
        return self.tell(events.WAITS, cause=cause, take=None)

    def stop(self, by: str = "operator") -> Bench:
        return self.tell(events.STOPPED, by=by, take=None)

    def turn(self) -> Bench:
        self.writer.turn()
        return self

    def reboot(self, monkeypatch: pytest.MonkeyPatch) -> Bench:
        """The power goes: /run is empty, and nothing that lived lives on."""
        shutil.rmtree(self.run)
        self.run.mkdir()
        self.boot = f"{int(self.boot[:8], 16) + 1:08x}{self.boot[8:]}"
        for place in (module, events):
            monkeypatch.setattr(place, "boot_id", lambda: self.boot)
        self.new_writer()
        self.now = monotonic()
        return self

    def until(self, is_so: Callable[[], object], what: str) -> None:
        def look() -> object:
            self.turn()
            return is_so()

        wait_for(look, 10, what)

    def entries(self) -> list[Entry]:
        return [entry for entry in read_ledger(f"{self.directory}/{PORT}.jsonl") if isinstance(entry, dict)]

    def is_done(self) -> bool:
        """Whether all is entered that was told."""
        queue = self.open()["queue"]
        return not self.problem and not self.writer._ports[PORT].jobs() and not any("v" not in item for item in queue)

    def open(self) -> dict[str, Any]:
        """The open record, with all its parts empty while there is none."""
        path = self.directory / f"{PORT}.open.json"
        document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return {"file": None, "interval": None, "queue": [], **document}

    def wait_entries(self, count: int) -> list[Entry]:
        self.until(lambda: len(self.entries()) >= count, f"{count} entries")
        return self.entries()

    @property
    def problem(self) -> str:
        return self.problem_of(PORT)

    def problem_of(self, port: int) -> str:
        return str(json.loads((self.run / "ledger.json").read_text())["ports"].get(str(port), ""))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def kinds(entries: list[Entry]) -> list[tuple[object, object]]:
    names = {"gap": "cause", "stop": "by", "file": "ended"}
    return [(entry["kind"], entry.get(names.get(str(entry["kind"]), ""))) for entry in entries]


def numbers(entries: list[Entry]) -> list[object]:
    return [entry["number"] for entry in entries]


def test_a_recording_and_its_stop(bench: Bench) -> None:
    path = bench.recordings / "a.mp4"
    path.write_bytes(b"x" * 100)
    bench.begin().record(str(path)).turn()
    assert bench.open()["file"]["start"]
    bench.close(str(path)).stop().turn()
    assert kinds(bench.entries()) == [("gap", "start"), ("file", "complete")]
    assert (bench.entries()[1]["bytes"], bench.entries()[1]["frames"]) == (100, 25)
    assert (bench.open()["file"], bench.open()["interval"]["what"]) == (None, "operator")
    assert bench.problem == ""
    # All is safe: the next event takes the place of these.
    bench.begin().turn()
    assert len(read_spool(spool_path(PORT, str(bench.run)))[0]) == 1


def delete(bench: Bench, path: str = "/r/a.mp4") -> Spool:
    told = Spool(PORT, str(bench.run), teller=events.RETENTION)
    told.tell(events.DELETE, bench.now, path=path, inode=7, rule="max_age 30d")
    return told


def test_a_file_that_a_rule_removes_is_entered_once_and_changes_nothing_else(bench: Bench) -> None:
    bench.begin().record("/r/b.mp4").turn()
    told, before = delete(bench), bench.open()
    assert not told.is_safe()
    bench.turn().turn()
    assert told.is_safe()
    # Killed before it said so.
    os.unlink(events.entered_path(PORT, str(bench.run), events.RETENTION))
    bench.new_writer()
    bench.turn().turn()
    found = bench.entries()
    assert kinds(found) == [("gap", "start"), ("delete", None)]
    assert [found[1][name] for name in ("path", "inode", "rule", "seconds", "number")] == [
        "/r/a.mp4", 7, "max_age 30d", 0.0, 2
    ]  # fmt: skip
    after = bench.open()
    assert all(after[name] == before[name] for name in before if name not in ("others", "number", "queue"))
    assert told.is_safe()


def test_a_copy_is_entered_once_beside_what_retention_tells(bench: Bench) -> None:
    bench.begin().record("/r/b.mp4").turn()
    told = Spool(PORT, str(bench.run), teller=events.OFFLOAD)
    known: dict[str, Any] = {"path": "/r/a.mp4", "inode": 7, "recorded": "x", "target": "nas", "copy": "box/CAM3/a.mp4"}
    digest: dict[str, Any] = {"digest": "md5:00", "verified": "hash"}
    told.tell(events.COPY, bench.now, began_at=bench.now - 5, size_bytes=1000, **known, **digest)
    deleted = delete(bench)
    bench.turn().turn()
    assert told.is_safe() and deleted.is_safe()
    bench.new_writer()
    bench.turn()
    (entry,) = [entry for entry in bench.entries() if entry["kind"] == "copy"]
    assert {name: entry[name] for name in (*known, *digest)} == {**known, **digest}
    assert (entry["bytes"], entry["seconds"], entry["take"]) == (1000, 5.0, None)
    assert kinds(bench.entries()).count(("delete", None)) == 1


def test_a_file_is_removed_while_another_one_waits_for_its_count(bench: Bench) -> None:
    """The count may take minutes, and the disk may be full."""
    fake = bench.recordings / "bin"
    fake.mkdir()
    os.mkfifo(fake / "go")
    (fake / "ffprobe").write_text(f"#!/bin/sh\nexec timeout 60 cat {fake}/go\n")
    (fake / "ffprobe").chmod(0o755)
    bench.ffmpeg = str(fake / "ffmpeg")
    path = bench.recordings / "cut.mp4"
    path.write_bytes(b"no boxes")
    bench.begin().record(str(path)).close(str(path), "cut off: killed", "killed").turn()
    told = delete(bench)
    bench.turn()
    assert told.is_safe()
    assert ("delete", None) in kinds(bench.entries())
    assert ("file", "cut off: killed") not in kinds(bench.entries())
    (fake / "go").write_text("")
    bench.until(lambda: not bench.writer._ports[PORT].jobs(), "the count is over")


def test_what_is_told_at_once_is_entered_in_its_order(bench: Bench) -> None:
    bench.begin().record("/r/z.mp4").turn()
    paths = [f"/r/{number}.mp4" for number in range(5)]
    for path in paths:
        delete(bench, path)
    bench.waits("killed").turn()
    assert [entry["path"] for entry in bench.entries() if entry["kind"] == "delete"] == paths


def test_of_a_port_that_has_not_run_since_the_boot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its last runner left going on still goes on, and a stop that nobody told of is still found."""
    bench.begin().record("/r/b.mp4").turn().reboot(monkeypatch)
    before = bench.open()["files"]
    told = delete(bench)
    bench.turn()
    assert told.is_safe()
    assert (bench.open()["files"], bench.open()["interval"]) == (before, None)
    status = PortStatus(port_index=PORT, state="stopped", boot_id=bench.boot, state_since_monotonic=bench.now)
    write_status(status, str(bench.run))
    bench.turn()
    assert bench.open()["interval"]["what"] == "operator"
    assert kinds(bench.entries()).count(("delete", None)) == 1


def test_the_number_of_a_file_is_entered(bench: Bench, cut: tuple[str, int]) -> None:
    path = bench.recordings / "a.mp4"
    path.write_bytes(b"x" * 100)
    bench.begin().record(str(path)).turn()
    bench.tell(
        events.CLOSED, path=str(path), verdict="complete", cause="stop", last_frame_at=bench.now, size_bytes=100,
        frames=25, duplicated=0, dropped=0, missing=0, inode=path.stat().st_ino,
    )  # fmt: skip
    # Of one that was cut off its count tells it.
    bench.record(cut[0]).turn().begin()
    found = [entry for entry in bench.wait_entries(4) if entry["kind"] == "file"]
    assert [entry["inode"] for entry in found] == [path.stat().st_ino, os.stat(cut[0]).st_ino]


def test_each_event_is_entered_once_however_often_the_writer_looks(bench: Bench) -> None:
    bench.begin().record("a.mp4").close("a.mp4").waits("killed").turn().turn()
    bench.new_writer()
    bench.record("b.mp4").turn().turn()
    assert kinds(bench.entries()) == [("gap", "start"), ("file", "complete"), ("gap", "stop"), ("gap", "killed")]
    assert numbers(bench.entries()) == [1, 2, 3, 4]


@pytest.mark.parametrize(("by", "entered"), [("operator", "shutdown"), ("apply", "apply")])
def test_a_shutdown_is_told_from_a_stop(bench: Bench, monkeypatch: pytest.MonkeyPatch, by: str, entered: str) -> None:
    monkeypatch.setattr(module, "is_going_down", lambda: True)
    bench.begin().stop(by).turn()
    assert bench.open()["interval"]["what"] == entered


def test_a_shutdown_of_many_ports_is_asked_for_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemctl takes some 10 ms, and what enters the last events has two seconds for all ports."""
    asked: list[bool] = []

    def is_going_down() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr(module, "is_going_down", is_going_down)
    for port in range(64):
        Spool(port, str(bench.run)).tell(events.STOPPED, monotonic(), by="operator", take=None)
    bench.turn()
    assert len(asked) == 1


def test_an_old_stop_is_none_by_the_shutdown_now(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_going_down", lambda: True)
    bench.begin()
    bench.now -= 100
    bench.stop().turn()
    assert bench.open()["interval"]["what"] == "operator"


@pytest.mark.parametrize(
    ("answer", "code", "is_down"),
    [(b"running\n", 0, False), (b"degraded\n", 1, False), (b"starting\n", 1, False), (b"maintenance\n", 1, False),
     (b"stopping\n", 1, True), (b"unknown\n", 1, None), (b"", 1, None), (b"", 124, None)],
)  # fmt: skip
def test_what_systemd_says_when_it_goes_down(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int, is_down: bool | None
) -> None:
    """D-Bus is stopped with the first units: measured, systemctl says `unknown` then, as where it is away."""
    monkeypatch.undo()
    monkeypatch.setattr(module, "says", lambda _: (answer, code))
    assert is_going_down() is is_down


def test_a_stop_while_d_bus_is_away_is_an_operators(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool | None] = [None, None]
    monkeypatch.setattr(module, "is_going_down", lambda: answers.pop(0) if answers else None)
    bench.now = monotonic()
    bench.begin().waits("killed").stop().turn()
    assert bench.open()["interval"]["what"] == "killed"
    assert bench.writer._ports[PORT].next_s() < NO_ANSWER_S
    clock = SimpleNamespace(monotonic=lambda: monotonic() + NO_ANSWER_S + 1, time=time.time, sleep=lambda _: None)
    monkeypatch.setattr(module, "time", clock)
    bench.turn()
    assert (bench.open()["interval"]["kind"], bench.open()["interval"]["what"]) == ("stop", "operator")


@pytest.mark.parametrize(("answer", "by"), [(None, "shutdown"), (True, "shutdown"), (False, "operator")])
def test_what_enters_the_last_events_takes_silence_for_the_shutdown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: bool | None, by: str
) -> None:
    monkeypatch.setattr(module, "is_going_down", lambda: answer)
    bench.now = monotonic()
    bench.begin().stop()
    assert bench.writer.flush()
    assert bench.open()["interval"]["what"] == by


@pytest.mark.parametrize("was_recording", [True, False])
def test_a_take_that_the_power_cut_off_is_over_where_somebody_stops_the_port(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, was_recording: bool
) -> None:
    """Also after the next power cut, which takes the word of the status with it."""
    bench.begin(take="cup").record(str(bench.recordings / "a.mp4"))
    if not was_recording:
        bench.close(str(bench.recordings / "a.mp4"), cause="killed").waits("killed")
    bench.turn().reboot(monkeypatch)
    stopped = PortStatus(port_index=PORT, state="stopped", boot_id=bench.boot, state_since_monotonic=bench.now)
    write_status(stopped, str(bench.run))
    bench.until(lambda: (bench.open()["interval"] or {}).get("kind") == "stop", "the stop is in the open record")
    interval = bench.open()["interval"]
    assert (interval["what"], *interval["start"][1:]) == ("operator", pytest.approx(bench.now, abs=0.01), bench.boot)
    ended = [item for item in [*bench.entries(), *bench.open()["queue"]] if item.get("kind") == "gap"]
    assert ended[-1].get("cause", ended[-1].get("what")) == ("power" if was_recording else "killed, then power")


# ---- What an idle input costs ----


def test_tries_without_a_frame_cost_no_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin().waits("no signal").turn()
    writes: list[str] = []
    monkeypatch.setattr(module, "save_story", lambda path, _: writes.append(path))
    for number in range(20):
        path = str(bench.recordings / f"{number}.mp4")
        bench.tell(events.OPENED, path=path, take=None, codec="h264", rate=25.0, is_retry=True).turn()
        path_end = {"path": path, "verdict": "empty", "cause": "no signal", "size_bytes": 0}
        bench.tell(events.CLOSED, **path_end).waits("no signal").turn()
    assert writes == []
    # And the spool does not grow.
    assert len(read_spool(spool_path(PORT, str(bench.run)))[0]) <= 3


def test_a_try_that_becomes_a_recording_is_entered_with_its_first_frame(bench: Bench) -> None:
    bench.begin().waits("no signal").turn()
    bench.tell(events.OPENED, path="a.mp4", take=None, codec="h264", rate=25.0, is_retry=True).turn()
    assert bench.open()["file"] is None
    # The writer is killed and has only the spool to go by.
    bench.new_writer()
    bench.tell(events.MEDIA, path="a.mp4", first_frame_at=bench.now, ffmpeg_version="").turn()
    assert bench.open()["file"]["path"] == "a.mp4"


def test_a_try_that_was_open_when_the_record_was_written_is_not_lost_with_the_writer(bench: Bench) -> None:
    """The record is written for a step of the clock, and names the try's event as taken."""
    bench.begin().waits("no signal").turn()
    bench.tell(events.OPENED, path="a.mp4", take=None, codec="h264", rate=25.0, is_retry=True, attempt=1).turn()
    bench.tell(events.CLOCK, step_s=3.0).turn()
    bench.new_writer()
    bench.tell(events.MEDIA, path="a.mp4", first_frame_at=bench.now, ffmpeg_version="").turn()
    bench.close("a.mp4").waits("killed").turn()
    assert ("file", "complete") in kinds(bench.entries())


def test_a_try_that_is_over_does_not_stay_in_the_record(bench: Bench) -> None:
    bench.begin().waits("no signal").turn()
    bench.tell(events.OPENED, path="a.mp4", take=None, codec="h264", rate=25.0, is_retry=True, attempt=1).turn()
    bench.tell(events.CLOCK, step_s=3.0).turn()
    end = {"path": "a.mp4", "verdict": "empty", "cause": "no signal", "size_bytes": 0}
    bench.tell(events.CLOSED, **end).waits("no signal").turn()
    assert bench.open()["files"] == []


# ---- A disk that fails, hangs, or heals ----


def test_a_directory_that_is_missing_costs_nothing_but_time(bench: Bench) -> None:
    shutil.rmtree(bench.directory)
    bench.begin().record("a.mp4").close("a.mp4").waits("signal lost").turn()
    assert "No such file or directory" in bench.problem
    bench.directory.mkdir()
    bench.turn()
    assert bench.problem == ""
    assert kinds(bench.entries()) == [("gap", "start"), ("file", "complete"), ("gap", "stop")]
    assert bench.open()["interval"]["what"] == "signal lost"


def test_a_directory_that_stays_away_is_left_to_a_new_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's sandbox keeps the directory of its start: one that was put in its place is read-only there."""
    monkeypatch.setattr(module, "OUT_OF_PLACE_S", 0.2)
    bench.begin().record("a.mp4")
    directory = bench.directory.rename(bench.directory.with_name("away"))
    try:
        bench.writer.run()
    finally:
        directory.rename(bench.directory)
    assert kinds(bench.turn().entries()) == [("gap", "start")]


def test_what_a_killed_writer_left_unfinished_is_removed(bench: Bench) -> None:
    for name in (f"{PORT}.open.json.7.tmp", f"{PORT}.open.json.8.tmp", f"{PORT}1.open.json.7.tmp"):
        (bench.directory / name).write_text("{")
    bench.begin().turn()
    assert [path.name for path in bench.directory.glob("*.tmp")] == [f"{PORT}1.open.json.7.tmp"]


FAULTS = ("before", "half", "after")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(FAULTS)), min_size=1, max_size=6))
def test_a_writer_that_is_killed_at_any_write_enters_everything_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, str]]
) -> None:
    """Cut off before a write, in the middle of a line, or after it and before the next one."""

    class Killed(BaseException):
        pass

    planned, count = dict(cuts), 0

    def killing(write: Callable[..., None]) -> Callable[..., None]:
        def cut_off(path: str, content: Any) -> None:
            nonlocal count
            count += 1
            fault = planned.pop(count, "")
            if fault == "before":
                raise Killed
            if fault == "half" and write is append_entries:
                write(path, content[: len(content) // 2])
                with open(path, "ab") as file:
                    file.write(b'{"v":1,"kind":"fi')
                raise Killed
            write(path, content)
            if fault:
                raise Killed

        return cut_off

    bench = Bench(tmp_path_factory.mktemp("killed"))

    def turn() -> None:
        while True:
            try:
                bench.turn()
                return
            except Killed:
                bench.new_writer()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_going_down", lambda: False)
        patch.setattr(module, "append_entries", killing(append_entries))
        patch.setattr(module, "save_story", killing(save_story))
        bench.begin()
        for number in range(6):
            turn()
            bench.record(f"{number}.mp4")
            if number % 2:
                turn()
            bench.close(f"{number}.mp4").waits("killed")
            turn()
            bench.waits("no signal").stop("apply")
            turn()
            bench.begin()
        turn()
    found = bench.entries()
    assert numbers(found) == list(range(1, len(found) + 1))
    assert [entry["path"] for entry in found if entry["kind"] == "file"] == [f"{number}.mp4" for number in range(6)]
    assert kinds(found).count(("stop", "apply")) == 6
    shutil.rmtree(bench.run.parent)


def test_a_power_cut_between_record_and_ledger_costs_no_entry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is durable, its entries are not: /run is gone, and the next boot enters them from the record."""
    bench.begin().record("a.mp4").turn()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "append_entries", full)
    bench.close("a.mp4").waits("killed").turn()
    assert "No space left" in bench.problem
    monkeypatch.setattr(module, "append_entries", append_entries)
    bench.reboot(monkeypatch).begin().record(str(bench.recordings / "b.mp4"))
    assert kinds(bench.wait_entries(4))[:2] == [("gap", "start"), ("file", "complete")]
    assert numbers(bench.entries()) == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [None, "", "{", '{"v": 1, "port_index": 4}', '{"v": 7, "port_index": 3}'])
def test_time_whose_open_record_is_lost_is_missing(bench: Bench, content: str | None) -> None:
    """Somebody removed it, or a repair of the filesystem did: the ledger's last line says from when on."""
    bench.begin().record("a.mp4").close("a.mp4", frames=3).stop().turn()
    known = bench.entries()[-1]
    path = bench.directory / f"{PORT}.open.json"
    path.unlink() if content is None else path.write_text(content)
    bench.new_writer()
    bench.begin().record("b.mp4")
    found = bench.wait_entries(3)
    assert kinds(found)[2:] == [("gap", "open record lost")]
    assert (found[2]["start"], found[2]["start_monotonic"]) == (known["end"], known["end_monotonic"])


def test_what_an_earlier_versions_runner_kept_in_run_is_taken_up(bench: Bench) -> None:
    """It kept its record there while the ledger could not be written, with entries that have no number."""
    bench.begin().record("a.mp4").close("a.mp4").waits("signal lost")
    story, _ = load_story(PORT, str(bench.directory), str(bench.run))
    for event in read_spool(spool_path(PORT, str(bench.run)))[0]:
        story.take(event)
    former = {
        key: value for key, value in story.as_dict().items() if key not in ("boot", "sequence", "number", "ffmpeg")
    }
    entries = [{key: value for key, value in entry.items() if key != "number"} for entry in story.ready()]
    (bench.run / f"{PORT}.ledger.json").write_text(json.dumps({**former, "queue": entries, "serial": 1000}))
    shutil.rmtree(bench.run / "ports")
    bench.begin().record("b.mp4")
    found = bench.wait_entries(4)
    assert kinds(found) == [("gap", "start"), ("file", "complete"), ("gap", "stop"), ("gap", "signal lost")]
    assert not (bench.run / f"{PORT}.ledger.json").exists()


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "other"])
def test_a_ledger_that_is_none_is_left_alone_and_said(bench: Bench, what: str) -> None:
    path, target = bench.directory / f"{PORT}.jsonl", bench.directory / "target"
    target.write_text("mine")
    if what == "link":
        path.symlink_to(target)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.write_text("")
        os.chown(path, 65534, 65534)
    bench.begin().record("a.mp4").turn()
    assert "the ledger cannot be written" in bench.problem
    assert target.read_text() == "mine"
    shutil.rmtree(path) if what == "directory" else path.unlink()
    assert kinds(bench.wait_entries(1)) == [("gap", "start")]


def test_a_lock_that_somebody_keeps_on_the_ledger_is_no_matter(bench: Bench) -> None:
    import fcntl

    path = bench.directory / f"{PORT}.jsonl"
    path.write_text("")
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        bench.begin().record("a.mp4").turn()
        assert kinds(bench.entries()) == [("gap", "start")]


def test_a_fault_of_ours_is_told_and_the_ledger_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdisup.ledger.story.Story.clock_stepped", lambda *_: 1 / 0)
    bench.begin().tell(events.CLOCK, step_s=3.0).record("a.mp4").turn()
    assert kinds(bench.entries()) == [("gap", "start")]
    assert "ZeroDivisionError" in bench.problem


def test_a_fault_at_one_port_holds_up_no_other_and_costs_it_no_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Story.ready
    with monkeypatch.context() as patch:
        patch.setattr(Story, "ready", lambda story: 1 / 0 if story.port_index == PORT else ready(story))
        other = Spool(PORT + 1, str(bench.run))
        other.tell(events.BEGAN, bench.now, boot_at=bench.now - 1)
        other.tell(events.CLOCK, bench.now, step_s=3.0)
        bench.begin().record("a.mp4").close("a.mp4").turn()
        assert (bench.directory / f"{PORT + 1}.jsonl").exists()
        assert "ZeroDivisionError" in bench.problem
    assert kinds(bench.turn().entries()) == [("gap", "start"), ("file", "complete")]
    assert bench.problem == ""


def test_what_a_foreign_event_lacks_is_said_and_the_rest_is_entered(bench: Bench) -> None:
    bench.begin().tell(events.OPENED, path=7).record("a.mp4").turn()
    assert kinds(bench.entries()) == [("gap", "start")]
    assert "the event opened: path: not text" in bench.problem


def test_a_file_whose_making_was_lost_on_the_way_is_entered_with_its_first_frame(bench: Bench) -> None:
    """Somebody emptied the spool, or memory had no room: the files of the events behind are still recorded."""
    bench.begin().waits("killed")
    bench.tell(events.MEDIA, path="a.mp4", first_frame_at=bench.now, ffmpeg_version="").close("a.mp4").waits("crash")
    bench.record("b.mp4").turn()
    found = bench.entries()
    assert kinds(found)[1:] == [("gap", "killed"), ("file", "complete"), ("gap", "stop"), ("gap", "crash")]
    assert (found[2]["path"], found[2]["frames"], found[2]["seconds"]) == ("a.mp4", 25, pytest.approx(1.0, abs=0.2))


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "noise", "empty"])
def test_a_spool_that_is_none_is_said_and_stops_nothing(bench: Bench, what: str) -> None:
    bench.begin().record("a.mp4").turn()
    path = bench.run / "ports" / "4" / "spool"
    path.parent.mkdir()
    if what == "link":
        path.symlink_to(bench.run / "ports" / "3" / "spool")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.write_bytes(os.urandom(5000).replace(b"\0", b"x") + b"\n" if what == "noise" else b"")
    bench.close("a.mp4").waits("killed").record("b.mp4").turn()
    assert len(bench.entries()) == 4
    assert bool(bench.problem_of(4)) == (what != "empty")
    assert not (bench.directory / "4.jsonl").exists()


def test_events_of_a_newer_version_wait_for_a_writer_that_understands_them(bench: Bench) -> None:
    bench.begin().record("a.mp4").turn()
    path = Path(spool_path(PORT, str(bench.run)))
    newer = {"v": 2, "sequence": 1 << 50, "boot": boot_id(), "kind": "closed", "at": [1, 1]}
    known = path.read_bytes().partition(b"\0")[0]
    path.write_bytes(known + json.dumps(newer).encode() + b"\n")
    # A runner of this version comes after it, and its events wait behind.
    bench.begin().record("b.mp4").turn()
    assert "newer than this sdisup's 1" in bench.problem
    assert kinds(bench.entries()) == [("gap", "start")]
    assert b'"v": 2' in path.read_bytes()


# ---- The process ----


@pytest.fixture
def process(bench: Bench) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = ["python3", "-m", "sdisup", "ledger", *options, str(bench.run), str(bench.directory)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_the_process_is_woken_and_its_successor_waits_for_it(
    bench: Bench, process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    os.close(bench.writer.lock)
    first = process()
    wait_for(lambda: (bench.run / "ledger.json").exists(), 30, "the first one works")
    bench.begin().record("a.mp4")
    wait_for(lambda: len(bench.entries()) == 1, 30, "it is woken")
    second = process()
    wait_for(lambda: Path(f"/proc/{second.pid}/wchan").read_text() and second.poll() is None, 30, "the second waits")
    first.kill()
    bench.close("a.mp4")
    wait_for(lambda: len(bench.entries()) == 2, 30, "the second one goes on")
    assert numbers(bench.entries()) == [1, 2]
    assert ledger_problem(str(bench.run)) == ""
    second.terminate()
    assert second.wait(30) == 0
    assert "does not run" in ledger_problem(str(bench.run))


def test_flush_enters_what_waits_and_ends(bench: Bench, process: Callable[..., subprocess.Popen[bytes]]) -> None:
    os.close(bench.writer.lock)
    bench.begin().record("a.mp4").close("a.mp4").stop("apply")
    assert process("--flush").wait(30) == 0
    assert kinds(bench.entries()) == [("gap", "start"), ("file", "complete")]
    assert bench.open()["interval"]["what"] == "apply"


def test_flush_gives_up_beside_a_writer_that_hangs(
    bench: Bench, process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """The bench's own writer holds the lock and does nothing."""
    assert bench.writer._has_lock()
    bench.begin()
    assert process("--flush").wait(30) == 1
    assert bench.entries() == []


def test_without_a_run_directory_it_says_so(tmp_path: Path) -> None:
    command = ["python3", "-m", "sdisup", "ledger", str(tmp_path / "none"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "systemd-tmpfiles --create sdisup.conf" in done.stderr
    assert "Traceback" not in done.stderr


# ---- What an earlier runner left ----


def cut_off(tmp_path: Path, readable_part: float = 0.7) -> tuple[str, int]:
    """A recording as a kill leaves it, and how many of its frames can be read."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    source = "-f lavfi -i testsrc2=size=64x36:rate=25 -frames:v 250 -c:v libx264 -preset ultrafast -g 5"
    flags = "-movflags +frag_keyframe+empty_moov+default_base_moof"
    subprocess.run(["ffmpeg", "-v", "error", *f"{source} {flags}".split(), str(whole)], check=True)
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * readable_part)])
    options = "-v error -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0"
    shown = subprocess.run([FFPROBE, *options.split(), str(cut)], capture_output=True, text=True)
    return str(cut), int(shown.stdout.strip().strip(","))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    directory = tmp_path_factory.mktemp("cut")
    yield cut_off(directory)
    shutil.rmtree(directory)


def test_a_runner_that_was_killed(bench: Bench, cut: tuple[str, int]) -> None:
    path, readable = cut
    assert 0 < readable < 250
    bench.begin().record(path).turn().begin(is_restart=True)
    found = bench.wait_entries(2)
    assert kinds(found) == [("gap", "start"), ("file", "cut off: runner killed")]
    assert (found[1]["frames"], found[1]["bytes"]) == (readable, os.path.getsize(path))
    assert found[1]["path"] == path


def test_a_runner_that_could_say_how_its_file_ended(bench: Bench, cut: tuple[str, int]) -> None:
    path, readable = cut
    bench.begin().record(path).close(path, "cut off: FFmpeg was killed", "killed").waits("killed")
    bench.begin(is_restart=True).record("b.mp4")
    found = bench.wait_entries(3)
    assert kinds(found)[1:] == [("file", "cut off: FFmpeg was killed"), ("gap", "killed")]
    assert found[1]["frames"] == readable
    assert found[2]["start"] == found[1]["end"]


def test_a_file_that_is_not_there_waits_until_its_disk_must_be(bench: Bench, cut: tuple[str, int]) -> None:
    """After a power cut the disk may be mounted later than the runner begins: it is not lost until then."""
    disk = bench.recordings / "disk"
    bench.begin().record(str(disk / "a.mp4")).turn().begin()
    bench.until(lambda: "is not there yet" in bench.problem, "it waits")
    assert kinds(bench.entries()) == [("gap", "start")]
    disk.mkdir()
    shutil.copy(cut[0], disk / "a.mp4")
    bench.record(str(disk / "b.mp4"))
    found = bench.wait_entries(3)
    assert (found[1]["path"], found[1]["frames"]) == (str(disk / "a.mp4"), cut[1])


def test_a_file_that_is_gone_is_all_missing(bench: Bench) -> None:
    bench.begin().record(str(bench.recordings / "gone.mp4")).turn().begin().record("b.mp4")
    found = bench.wait_entries(2)
    assert kinds(found) == [("gap", "start"), ("gap", "runner killed")]
    assert found[1]["start"] == found[0]["end"]


def test_a_file_that_was_moved_is_counted_where_it_is(bench: Bench, cut: tuple[str, int]) -> None:
    path, (place, readable) = str(bench.recordings / "a.mp4"), cut
    bench.begin().record(path).tell(events.MOVED, path=path, place=place, is_hidden=False).turn()
    bench.begin(left_path=path, left_frames=99, left_bytes=999, is_restart=True)
    (_, found) = bench.wait_entries(2)
    assert (found["path"], found["frames"], found["bytes"]) == (path, readable, os.path.getsize(place))


@pytest.mark.parametrize("ended", ["runner killed", "killed"])
def test_a_file_that_no_path_leads_to_is_entered_as_it_was_told(bench: Bench, ended: str) -> None:
    """Below a mount, or on a disk that was unmounted lazily, it is as good as any other."""
    path = str(bench.recordings / "hidden.mp4")
    bench.begin().record(path).tell(events.MOVED, path=path, place="", is_hidden=True).turn()
    if ended == "killed":
        bench.close(path, "cut off: FFmpeg was killed", "killed", frames=50).waits("killed")
    bench.begin(left_path=path, left_frames=50, left_bytes=1000, is_restart=True).record("b.mp4")
    found = bench.wait_entries(3)
    assert (found[1]["frames"], found[1]["bytes"]) == (50, 1000)
    assert str(found[1]["ended"]).startswith("cut off")


@pytest.fixture
def unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes that do not tell: ffprobe has to read the file."""
    monkeypatch.setattr(module, "count_pictures", lambda *_, **__: None)


@pytest.mark.usefixtures("unclear")
def test_a_file_that_cannot_be_counted_waits_and_is_said(bench: Bench, cut: tuple[str, int]) -> None:
    fake = bench.recordings / "bin"
    fake.mkdir()
    (fake / "ffprobe").write_text("#!/bin/sh\nexit 127\n")
    (fake / "ffprobe").chmod(0o755)
    bench.ffmpeg = str(fake / "ffmpeg")
    bench.begin().record(cut[0]).turn().begin()
    bench.until(lambda: "cannot count its frames" in bench.problem, "it is said")
    assert kinds(bench.entries()) == [("gap", "start")]
    # The next runner has an ffprobe.
    bench.ffmpeg = FFMPEG
    bench.begin()
    found = bench.wait_entries(2)
    assert (found[1]["path"], found[1]["frames"]) == cut
    assert bench.problem == ""


@pytest.mark.usefixtures("unclear")
def test_a_count_that_takes_long_holds_up_neither_events_nor_other_ports(bench: Bench, cut: tuple[str, int]) -> None:
    fake = bench.recordings / "bin"
    fake.mkdir()
    os.mkfifo(fake / "go")
    (fake / "ffprobe").write_text(f'#!/bin/sh\ncat {fake}/go >/dev/null\nexec {FFPROBE} "$@"\n')
    (fake / "ffprobe").chmod(0o755)
    bench.ffmpeg = str(fake / "ffmpeg")
    bench.begin().record(cut[0]).turn().begin()
    bench.record("b.mp4").close("b.mp4").stop("apply")
    bench.until(lambda: len(bench.open()["queue"]) == 3, "all of it is in the open record")
    with open(fake / "go", "w"):
        pass
    found = bench.wait_entries(4)
    assert kinds(found)[1:4] == [
        ("file", "cut off: runner killed"),
        ("gap", "runner killed"),
        ("file", "complete"),
    ]


def test_a_recordings_disk_that_hangs_holds_up_nothing_for_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child process never answers; the runner's beginning is entered without."""
    monkeypatch.setattr(module, "look", lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(module, "LOOK_LIMIT_S", 0.2)
    bench.begin().record(str(bench.recordings / "a.mp4")).turn().begin().record("b.mp4")
    assert kinds(bench.wait_entries(2)) == [("gap", "start"), ("gap", "runner killed")]


def test_a_recordings_disk_that_hangs_keeps_one_child_a_port(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = bench.directory / "looks"

    def hang(*_: object, **__: object) -> None:
        with open(looks, "a") as file:
            file.write("x")
        time.sleep(60)

    monkeypatch.setattr(module, "look", hang)
    monkeypatch.setattr(module, "LOOK_LIMIT_S", 0.2)
    for number in range(4):
        bench.begin().record(f"{number}.mp4")
        bench.until(lambda: (bench.open()["file"] or {}).get("path") == f"{number}.mp4", "it goes on")  # noqa: B023
    assert looks.read_text() == "x"


# ---- What a power cut took with /run ----


def named(bench: Bench, cut: tuple[str, int], name: str, ago_s: float) -> str:
    """A file as a runner names one that it began so long ago, written to until a moment ago."""
    now = time.time()
    path = str(bench.recordings / f"{name}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now - ago_s))}.mp4")
    shutil.copy(cut[0], path)
    os.utime(path, (now - 1, now - 1))
    return path


def test_files_that_no_ledger_knows_are_entered_after_the_boot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """The ledger's disk hung while FFmpeg was killed, and then the power went: the file after it is on its disk."""
    first = named(bench, cut, "CAM", 30)
    bench.begin().record(first).turn()
    unknown, other = named(bench, cut, "CAM", 20), named(bench, cut, "OTHER", 20)
    (bench.recordings / "CAM_20260230T120000Z.mp4").write_bytes(b"no time")
    (bench.recordings / "notes.txt").write_text("no recording")
    bench.reboot(monkeypatch).begin()
    new = named(bench, cut, "CAM", 0)
    bench.record(new)
    bench.until(lambda: len([e for e in bench.entries() if e["kind"] == "file"]) >= 2, "both are entered")
    found = bench.entries()
    assert [entry["path"] for entry in found if entry["kind"] == "file"] == [first, unknown]
    assert ("gap", "account lost") in kinds(found)
    assert kinds(found)[-1] == ("gap", "power")
    assert other not in [entry.get("path") for entry in found]
    assert bench.open()["file"]["path"] == new


def stamped(bench: Bench, name: str, ago_s: float, cut: tuple[str, int], directory: str = "") -> str:
    """A recording that was made so long ago, and written to until a second ago."""
    now = time.time()
    place = bench.recordings / directory
    place.mkdir(exist_ok=True)
    path = str(place / f"{name}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now - ago_s))}.mp4")
    shutil.copy(cut[0], path)
    os.utime(path, (now - 1, now - 1))
    return path


def files_after_boot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the ledger has of files when the port records again after a power cut."""
    bench.reboot(monkeypatch).begin().record(str(bench.recordings / "new.mp4"))
    bench.until(lambda: (bench.open()["file"] or {}).get("path", "").endswith("new.mp4"), "it records again")
    bench.until(lambda: all("number" in item for item in bench.open()["queue"]), "all is counted")
    return [entry["path"] for entry in bench.entries() if entry["kind"] == "file"]


def test_a_file_that_was_moved_after_it_was_entered_is_not_entered_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """Into a directory below the recordings, as who sorts them does; a copy is none either."""
    path = stamped(bench, "CAM", 20, cut)
    bench.begin().record(path).close(path).stop().turn()
    (bench.recordings / "kept").mkdir()
    shutil.copy(path, bench.recordings / "kept")
    assert files_after_boot(bench, monkeypatch) == [path]


def test_a_file_of_a_name_that_only_the_open_record_knows_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """A take with a name of its own, whose first file was open when the ledger's disk began to hang."""
    first = stamped(bench, "show", 30, cut)
    bench.begin(name="show").record(first).turn()
    second = stamped(bench, "show", 20, cut)
    assert files_after_boot(bench, monkeypatch) == [first, second]


@pytest.mark.parametrize("where", ["4.jsonl", "4.open.json"])
def test_a_file_of_another_port_that_has_this_ones_former_name_stays_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int], where: str
) -> None:
    """Two ports share one directory, and were renamed: both names are in this port's ledger."""
    for name in ("B", "A"):
        path = stamped(bench, name, 40, cut)
        bench.begin(name=name).record(path).close(path).stop().turn()
    known = [entry["path"] for entry in bench.entries() if entry["kind"] == "file"]
    others = stamped(bench, "B", 20, cut)
    os.mkfifo(bench.directory / "5.jsonl")
    (bench.directory / "6.jsonl").mkdir()
    (bench.directory / where).write_text(json.dumps({"path": others}) + "\n")
    assert files_after_boot(bench, monkeypatch) == known


def made(bench: Bench, cut: tuple[str, int], path: str, ago_s: float = 1.0) -> str:
    """A file that was written to until so long ago."""
    whole = bench.recordings / path
    whole.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(cut[0], whole)
    os.utime(whole, (time.time() - ago_s, time.time() - ago_s))
    return str(whole)


@pytest.mark.parametrize("accounts_hold", ["nothing", "4.jsonl", "4.open.json"])
def test_a_file_of_another_name_is_found_by_the_ports_template(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int], accounts_hold: str
) -> None:
    """The same name is in each day's folder, so it is known by its path; how old it is, the disk tells."""
    bench.recordings = bench.recordings / "Küche"
    first = made(bench, cut, "2026-01-30/CAM_final_0001.mp4", 8000)
    bench.begin(file_name=(template := "{utc_date}/CAM_{take}_{counter}")).record(first).close(first).turn()
    for other in ("2026-01-31/OTHER_final_0001.mp4", "CAM_final_0001.mp4", "2026-01-31/sub/CAM_final_0001.mp4"):
        made(bench, cut, other)
    made(bench, cut, "2026-01-31/CAM_of-old_0001.mp4", 8000)
    unknown = made(bench, cut, "2026-01-31/CAM_final_0001.mp4")
    is_known = accounts_hold != "nothing"
    if is_known:
        text = json.dumps({"path": unknown}, ensure_ascii=accounts_hold.endswith("open.json"))
        (bench.directory / accounts_hold).write_text(text + "\n")
    bench.reboot(monkeypatch).begin(file_name=template).record(str(bench.recordings / "new.mp4"))
    bench.until(lambda: (bench.open()["file"] or {}).get("path", "").endswith("new.mp4"), "it records again")
    bench.until(lambda: all("number" in item for item in bench.open()["queue"]), "all is counted")
    found = [entry["path"] for entry in bench.entries() if entry["kind"] == "file"]
    assert found == [first, *([] if is_known else [unknown])]


def test_what_a_member_of_the_group_plants_among_the_recordings_is_in_no_ledger(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """He may write there, and knows how files are named; a link, a FIFO and a file of his own are no recordings."""
    bench.begin().record(named(bench, cut, "CAM", 30)).turn()
    link, pipe, other = (named(bench, cut, "CAM", ago_s) for ago_s in (20, 19, 18))
    for path in (link, pipe):
        os.unlink(path)
    os.symlink(cut[0], link)
    os.mkfifo(pipe)
    os.chown(other, 65534, 65534)
    bench.reboot(monkeypatch).begin().record(named(bench, cut, "CAM", 0))
    bench.until(lambda: kinds(bench.entries())[-1:] == [("gap", "power")], "the power cut is entered")
    assert len([entry for entry in bench.entries() if entry["kind"] == "file"]) == 1
    assert ("gap", "account lost") not in kinds(bench.entries())


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_what_stands_where_a_file_was_is_not_read(
    bench: Bench, tmp_path: Path, cut: tuple[str, int], what: str
) -> None:
    """A reader of a FIFO waits for ever, and a link leads to what was never recorded here."""
    path = bench.recordings / "a.mp4"
    if what == "link":
        path.symlink_to(cut[0])
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert module.count(FFPROBE, str(path)) == (False, None, 0.0, 0, "", 0)
    bench.begin().record(str(path)).turn().begin().record(str(bench.recordings / "b.mp4"))
    assert kinds(bench.wait_entries(2)) == [("gap", "start"), ("gap", "runner killed")]


def test_after_a_boot_a_beginning_waits_for_the_recordings_disk_but_not_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin().record(str(bench.recordings / "a.mp4")).turn()
    bench.reboot(monkeypatch).begin().turn().turn()
    assert bench.open()["file"]["path"] == str(bench.recordings / "a.mp4")
    monkeypatch.setattr(module, "DISK_LIMIT_S", 0.0)
    bench.until(lambda: bench.open()["file"] is None, "it is entered")


def test_a_beginning_waits_longer_for_a_disk_that_the_runner_waits_for_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """Mounted an hour later, it holds a file that no ledger knows."""
    monkeypatch.setattr(module, "DISK_LIMIT_S", 0.0)
    first, away = stamped(bench, "CAM", 30, cut), stamped(bench, "CAM", 20, cut, "away")
    bench.begin().record(first).turn()
    shutil.move(away, bench.directory)
    bench.reboot(monkeypatch).begin().waits("disk").turn().turn()
    shutil.move(bench.directory / os.path.basename(away), away)
    bench.record(str(bench.recordings / "new.mp4"))
    bench.until(lambda: len([e for e in bench.entries() if e["kind"] == "file"]) >= 2, "both are entered")
    assert [entry["path"] for entry in bench.entries() if entry["kind"] == "file"] == [first, away]


def test_an_idle_input_costs_the_ledgers_disk_nothing_while_nothing_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try a second without a signal, and a source that refuses each runner, go on for months."""
    synced: list[int] = []
    bench.begin().waits("no signal").turn()
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for number in range(10):
        path = str(bench.recordings / f"{number}.mp4")
        bench.tell(events.OPENED, path=path, take=None, codec="h264", rate=25.0, is_retry=True).turn()
        bench.tell(events.CLOSED, path=path, verdict="no frames", cause="no signal", size_bytes=0)
        bench.waits("no signal").turn()
    assert synced == []
    bench.waits("network").turn()
    changed = len(synced)
    for _ in range(10):
        bench.begin(is_restart=True).waits("network").turn()
    assert 0 < changed == len(synced)
    assert bench.open()["interval"]["what"] == "network"


@pytest.mark.parametrize("goes_on", [False, True])
def test_wherever_no_descriptor_or_process_is_left_the_account_is_whole_later(
    tmp_path: Path, cut: tuple[str, int], goes_on: bool
) -> None:
    """What is there and cannot be read just now is not lost, and nothing is entered twice."""
    expected: list[Entry] = []
    places = []
    for number in range(200):
        place = tmp_path / str(number)
        place.mkdir()
        bench = Bench(place)
        bench.begin().record(cut[0]).waits("killed").turn()
        bench.begin(is_restart=True).record("b.mp4").close("b.mp4").stop("apply")
        # Another writer, which has to read all that the first one wrote.
        bench.new_writer()
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.MonkeyPatch.context() as patched:
            made = Exhaustion(patched, number, goes_on=goes_on, makers={**MAKERS, "fork": (os, "fork")})
            for _ in range(3):
                bench.turn()
        bench.until(bench.is_done, "nothing is left to do")
        found = bench.entries()
        expected = expected or [{**entry, **NOT_COMPARED} for entry in found]
        assert [{**entry, **NOT_COMPARED} for entry in found] == expected, (number, made.failed)
        assert len(os.listdir("/proc/self/fd")) == descriptors, (number, made.failed)
        bench.spool._close()
        os.close(bench.writer.lock)
        os.close(bench.writer._wake)
        places.append(made.failed)
        if number and not made.failed:
            break
    assert {"open", "pipe2", "fork"} <= set(places)


NOT_COMPARED = dict.fromkeys(("start", "end", "start_monotonic", "end_monotonic", "boot_id", "seconds", "path"), "")
"""What differs from one place to the other."""


@pytest.mark.parametrize(("answer", "goes_down"), [((b"", 127), None), ((b"", 1), None), ((b"running\n", 0), False)])
def test_who_cannot_ask_does_not_know_of_a_shutdown(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[bytes, int], goes_down: bool | None
) -> None:
    """127 is systemctl that could not be run: no descriptor was left. Without a bus it ends with 1, without a word."""
    monkeypatch.setattr(module, "says", lambda *_: answer)
    assert is_going_down() is goes_down


def test_a_look_that_fails_is_tried_again_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = bench.directory / "looks"

    def fail(*_: object, **__: object) -> None:
        with open(looks, "a") as file:
            file.write("x")
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "look", fail)
    bench.begin().record(str(bench.recordings / "a.mp4")).turn().begin().record("b.mp4")
    bench.until(lambda: "cannot be looked at" in bench.problem, "it is said")
    assert kinds(bench.wait_entries(2)) == [("gap", "start"), ("gap", "runner killed")]
    assert len(looks.read_text()) == 1 + module.LOOKS


def test_a_ledger_that_cannot_be_written_for_long_leaves_a_record_that_can_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_LIMIT", 20)
    ledger = bench.directory / f"{PORT}.jsonl"
    ledger.mkdir()
    bench.begin()
    for number in range(60):
        bench.record(f"{number}.mp4").close(f"{number}.mp4").waits("killed").turn()
    assert "the ledger cannot be written" in bench.problem
    assert 20 < len(bench.open()["queue"]) < 30
    ledger.rmdir()
    bench.new_writer()
    bench.turn()
    assert bench.writer._ports[PORT].next_s() < 1
    bench.until(lambda: len([entry for entry in bench.entries() if entry["kind"] == "file"]) == 60, "all is entered")
    assert [entry["number"] for entry in bench.entries()] == list(range(1, len(bench.entries()) + 1))


def test_as_many_entries_as_may_wait_can_be_read_back() -> None:
    path = "/" + "a" * 4095
    entry = {"path": path, "cause": "x" * 500, **dict.fromkeys(map(str, range(20)), 1234567890.123)}
    assert len(json.dumps(entry)) * module.WAITING_LIMIT < LIMIT_BYTES


# ---- Counting ----


@pytest.mark.parametrize("readable_part", [0.3, 0.55, 0.9])
def test_a_picture_that_is_there_in_part_does_not_count(tmp_path: Path, readable_part: float) -> None:
    path, readable = cut_off(tmp_path, readable_part)
    assert count_frames(FFPROBE, path)[0] == readable


def test_frames_are_counted_by_reading_them(cut: tuple[str, int], tmp_path: Path) -> None:
    path, readable = cut
    assert count_frames(FFPROBE, path) == (readable, 25.0)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    assert count_frames(FFPROBE, str(empty)) == (0, 0.0)
    (tmp_path / "text.mp4").write_text("no picture")
    assert count_frames(FFPROBE, str(tmp_path / "text.mp4")) == (0, 0.0)
    # What waits for a writer, or never ends, has none.
    os.mkfifo(tmp_path / "pipe.mp4")
    assert count_frames(FFPROBE, str(tmp_path / "pipe.mp4")) == count_frames(FFPROBE, "/dev/zero") == (0, 0.0)


@pytest.mark.parametrize("planted", ["ffconcat version 1.0\nfile pipe.ts\n", "link", "link to a directory"])
@pytest.mark.parametrize("container", ["mkv", "mp4", "mov"])
def test_what_somebody_has_put_in_a_files_place_leads_nowhere(tmp_path: Path, planted: str, container: str) -> None:
    """FFmpeg reads a list of files under any name, and would wait for a FIFO that the list names."""
    os.mkfifo(tmp_path / "pipe.ts")
    file = tmp_path / f"planted.{container}"
    if planted.startswith("link"):
        file.symlink_to(tmp_path if "directory" in planted else tmp_path / "pipe.ts")
    else:
        file.write_text(planted)
    assert count_frames(FFPROBE, str(file)) == (0, 0.0)


def test_counting_gives_way_to_whatever_else_wants_the_disk(tmp_path: Path) -> None:
    """A day of 50 Mb/s is 500 GB of reading, on the disk that records."""
    probe = tmp_path / "ffprobe"
    probe.write_text("#!/bin/sh\nionice -p $$; nice\n")
    probe.chmod(0o755)
    shown, code = says([*COUNT_GENTLY, str(probe)])
    assert (shown, code) == (b"idle\n19\n", 0)


def test_whatever_looks_at_the_recordings_disk_is_as_gentle() -> None:
    job = module.Job(lambda: says(["sh", "-c", "ionice -p $$; nice"])[0].decode())
    wait_for(job.is_done, 10, "the child has answered")
    assert job.answer == "idle\n19\n"


def test_what_was_cut_off_is_counted_without_ffprobe(monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]) -> None:
    monkeypatch.setattr(module, "count_frames", lambda *_: 1 / 0)
    assert module.count(FFPROBE, cut[0]) == (
        True, cut[1], 25.0, os.path.getsize(cut[0]), "", os.stat(cut[0]).st_ino
    )  # fmt: skip


def test_what_was_cut_off_is_durable_before_it_is_counted(
    monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    """Its runner did not sync its end, or was killed: after a power cut the ledger would have more than the file."""
    steps: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(module, "count_pictures", lambda *_, **__: steps.append("counted"))
    monkeypatch.setattr(module, "count_frames", lambda *_: (1, 25.0))
    module.count(FFPROBE, cut[0])
    assert steps == [cut[0], "counted"]


def test_an_end_that_cannot_be_made_durable_is_counted_and_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = shutil.copy(cut[0], bench.recordings / "a.mp4")
    count = module.count

    def counts(*arguments: Any, **options: Any) -> object:
        monkeypatch.setattr(os, "fsync", fails)
        return count(*arguments, **options)

    monkeypatch.setattr(module, "count", counts)
    bench.begin().record(str(path)).turn().begin().turn()
    words = f"{path}: the end of what was recorded may not be durable: Input/output error"
    bench.until(lambda: bench.problem == words, "it is said")
    bench.until(lambda: cut[1] in [entry.get("frames") for entry in bench.entries()], "it is entered")


def test_what_cannot_be_counted_is_none(cut: tuple[str, int], tmp_path: Path) -> None:
    assert count_frames("/nonexistent/ffprobe", cut[0]) == (None, 0.0)
    assert count_frames(FFPROBE, str(tmp_path / "missing.mp4")) == (None, 0.0)


def test_says() -> None:
    assert says(["echo", "hello"]) == (b"hello\n", 0)
    assert says(["sh", "-c", "exit 3"]) == (b"", 3)
    assert says(["/nonexistent"]) == (b"", 127)
    assert says(["sh", "-c", "kill -9 $$"]) == (b"", -9)
    assert len(says(["head", "-c", "100000", "/dev/zero"])[0]) == 4096
    before = len(os.listdir("/proc/self/fd"))
    for command in (["true"], ["/nonexistent"]):
        says(command)
    assert len(os.listdir("/proc/self/fd")) == before


def test_up_seconds() -> None:
    with open("/proc/uptime") as file:
        assert 0 < up_seconds() <= float(file.read().split()[0]) + 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "cannot be read: it is no JSON"),
        ("[]", "not an object"),
        ('{"boot_id": "b", "writes_since": null, "ports": {}}', "pid: not there"),
        ('{"pid": 1, "boot_id": "b", "writes_since": "now", "ports": {}}', "writes_since: not a number"),
        ('{"pid": 1, "boot_id": "b", "writes_since": null, "ports": {"3": 4}}', "ports: 3: not text"),
    ],
)
def test_a_word_of_the_process_that_is_none_is_said(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "ledger.json").write_text(content)
    assert problem in ledger_problem(str(tmp_path))
    assert health_path(str(tmp_path)) in ledger_problem(str(tmp_path))
    assert all_problems(str(tmp_path)) == [ledger_problem(str(tmp_path))]
    assert port_problem(3, str(tmp_path)) == ""
