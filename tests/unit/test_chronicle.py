"""The ledger's threads: whatever its disk does, the runner never waits, and nothing that happened is lost."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance import wait_for

from sdisup.contract.files import up_seconds
from sdisup.contract.media import count_frames, says
from sdisup.contract.requests import leave_stop_note, noted_stopper
from sdisup.ledger.history import open_story
from sdisup.ledger.lines import Entry, append_entries, read_ledger
from sdisup.ledger.moments import FileEnd
from sdisup.ledger.present import waiting_entries
from sdisup.runner import chronicle
from sdisup.runner.chronicle import Chronicle, is_going_down

FFPROBE = shutil.which("ffprobe") or "ffprobe"
AT_ONCE_S = 0.1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "RETRY_S", 0.02)
    monkeypatch.setattr(chronicle, "is_going_down", lambda: False)


class Runner:
    """What a runner does with its chronicle: every call is timed, since none may wait."""

    def __init__(self, directory: Path, ffprobe: str = FFPROBE, run_directory: Path | None = None) -> None:
        self.directory = directory
        self.chronicle = Chronicle(3, str(directory), ffprobe, str(run_directory or directory))
        self.slowest_s = 0.0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            result = getattr(self.chronicle, name)(*arguments, **options)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            return result

        return call

    def begin_(self, last_end: FileEnd | None = None, cause: str = "", *, is_restart: bool = False) -> Runner:
        self.begin(last_end, cause, is_restart=is_restart, records_at_boot=False, take=None)
        return self

    def record(self, path: str, frames: int = 250) -> FileEnd:
        self.opened(path, None, "h264", 25.0)
        now = self.chronicle.now().plus(0.1)
        self.media(now, "Lavf61")
        return FileEnd(path, verdict="complete", cause="stop", frames=frames, last_frame=now.plus(frames / 25))

    def entries(self) -> list[Entry]:
        return [entry for entry in read_ledger(f"{self.directory}/3.jsonl") if isinstance(entry, dict)]

    def open(self) -> dict[str, Any]:
        """The open record, with all its parts empty while there is none."""
        path = self.directory / "3.open.json"
        document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return {"file": None, "interval": None, "queue": [], **document}

    def wait_entries(self, count: int) -> list[Entry]:
        return wait_for(lambda: self.entries() if len(self.entries()) >= count else None, 10, f"{count} entries")


def kinds(entries: list[Entry]) -> list[tuple[object, object]]:
    names = {"gap": "cause", "stop": "by", "file": "ended"}
    return [(entry["kind"], entry[names[str(entry["kind"])]]) for entry in entries]


def test_a_recording_and_its_stop(tmp_path: Path) -> None:
    recording = tmp_path / "a.mp4"
    recording.write_bytes(b"x" * 100)
    runner = Runner(tmp_path).begin_()
    end = runner.record(str(recording))
    wait_for(lambda: runner.open()["file"] and runner.open()["file"]["start"], 10, "the open record has the file")
    runner.closed(end)
    runner.stopped(None)
    assert runner.chronicle.finish(5)
    assert kinds(runner.entries()) == [("gap", "start"), ("file", "complete")]
    assert (runner.entries()[1]["bytes"], runner.entries()[1]["frames"]) == (100, 250)
    assert (runner.open()["file"], runner.open()["interval"]["what"]) == (None, "operator")
    assert runner.slowest_s < AT_ONCE_S


@pytest.mark.parametrize(("note", "by"), [("apply", "apply"), ("schedule", "schedule"), ("evil", "operator")])
def test_who_stopped_it_is_left_beside(tmp_path: Path, note: str, by: str) -> None:
    (tmp_path / "requests").mkdir()
    leave_stop_note(3, note, str(tmp_path))
    runner = Runner(tmp_path).begin_()
    runner.stopped(None)
    assert runner.chronicle.finish(5)
    assert runner.open()["interval"]["what"] == by
    assert not (tmp_path / "requests/3.stop.json").exists()


# The last ones are without a time, left for a stop that never came, and of the future.
@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        '{"by": 7}',
        "[" * 5000,
        '{"by": "apply"}',
        '{"by": "apply", "created_boottime_ns": 1}',
        '{"by": "apply", "created_boottime_ns": 9000000000000000000}',
    ],
)
def test_a_note_that_is_none_is_no_note(tmp_path: Path, note: str) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/3.stop.json").write_text(note)
    assert noted_stopper(3, str(tmp_path)) == ""
    assert noted_stopper(4, str(tmp_path)) == ""


def test_a_shutdown_is_told_from_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "is_going_down", lambda: True)
    runner = Runner(tmp_path).begin_()
    runner.stopped(None)
    assert runner.chronicle.finish(5)
    assert runner.open()["interval"]["what"] == "shutdown"


def test_a_stop_is_written_also_when_systemd_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(chronicle, "is_going_down", lambda: not answers.wait(20))
    runner = Runner(tmp_path).begin_()
    runner.stopped(None)
    assert not runner.chronicle.finish(0.3)
    assert (runner.open()["interval"]["kind"], runner.open()["interval"]["what"]) == ("stop", "operator")
    answers.set()


@pytest.mark.parametrize(
    ("answer", "is_down"),
    [(b"running\n", False), (b"degraded\n", False), (b"starting\n", False), (b"maintenance\n", False),
     (b"stopping\n", True), (b"unknown\n", True), (b"", True)],
)  # fmt: skip
def test_what_systemd_says_when_it_goes_down(monkeypatch: pytest.MonkeyPatch, answer: bytes, is_down: bool) -> None:
    """D-Bus is stopped with the first units: measured, systemctl says `unknown` then."""
    monkeypatch.undo()
    monkeypatch.setattr(chronicle, "says", lambda _: (answer, 1))
    assert is_going_down() is is_down


# ---- A disk that fails, hangs, or heals ----


def test_a_directory_that_is_missing_costs_nothing_but_time(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    runner = Runner(directory).begin_()
    runner.closed(runner.record(str(tmp_path / "a.mp4")))
    runner.waits("signal lost", None)
    wait_for(lambda: "2 entries wait in memory" in runner.chronicle.problem, 10, "the problem is said")
    assert "No such file or directory" in runner.chronicle.problem
    directory.mkdir()
    wait_for(lambda: not runner.chronicle.problem, 10, "it heals")
    assert kinds(runner.entries()) == [("gap", "start"), ("file", "complete")]
    assert runner.open()["interval"]["what"] == "signal lost"
    assert runner.chronicle.finish(5)
    assert runner.slowest_s < AT_ONCE_S


def test_what_cannot_be_written_outlives_its_runner(tmp_path: Path) -> None:
    """The ledger's disk is full while FFmpeg crashes: the next runner writes what this one could not."""
    directory, run_directory = tmp_path / "missing", tmp_path / "run"
    run_directory.mkdir()
    first = Runner(directory, run_directory=run_directory).begin_()
    end = first.record(str(tmp_path / "a.mp4"))
    first.waits("signal lost", None)
    first.closed(end)
    first.waits("crash", None)
    wait_for(lambda: "2 entries wait in memory" in first.chronicle.problem, 10, "the problem is said")
    assert not first.chronicle.finish(5)
    second = Runner(directory, run_directory=run_directory).begin_(None, "crash", is_restart=True)
    second.record(str(tmp_path / "b.mp4"))
    wait_for(lambda: "3 entries wait in memory" in second.chronicle.problem, 10, "it goes on waiting")
    # A query beside them finds what waits.
    story, problems = open_story(3, str(directory), str(run_directory))
    assert (kinds(waiting_entries(story)), problems) == (
        [("gap", "start"), ("file", "complete"), ("gap", "crash")],
        [],
    )
    directory.mkdir()
    assert kinds(second.wait_entries(3)) == [("gap", "start"), ("file", "complete"), ("gap", "crash")]
    wait_for(lambda: os.listdir(run_directory) == [], 10, "nothing waits any more")
    assert second.chronicle.problem == ""
    assert second.open()["file"]["path"] == str(tmp_path / "b.mp4")


def test_of_two_records_the_newer_one_counts(tmp_path: Path) -> None:
    """A cut between the open record and the removal of what waited: that is of before, and must not count."""
    first = Runner(tmp_path).begin_()
    wait_for(lambda: (tmp_path / "3.open.json").exists(), 10, "the record is there")
    former = (tmp_path / "3.open.json").read_bytes()
    first.record(str(tmp_path / "a.mp4"))
    wait_for(lambda: first.open()["file"] and first.open()["file"]["start"], 10, "the open record has the file")
    (tmp_path / "3.ledger.json").write_bytes(former)
    story, problems = open_story(3, str(tmp_path), str(tmp_path))
    assert (story.file is not None, problems) == (True, [])
    second = Runner(tmp_path).begin_()
    second.record(str(tmp_path / "b.mp4"))
    assert kinds(second.wait_entries(2)) == [("gap", "start"), ("gap", "runner killed")]


def test_a_record_of_what_waited_is_written_once(tmp_path: Path) -> None:
    """A cut between the ledger's line and the removal: the next runner enters it again, which readers see."""
    first = Runner(tmp_path).begin_()
    wait_for(lambda: (tmp_path / "3.open.json").exists(), 10, "the record is there")
    kept = json.loads((tmp_path / "3.open.json").read_text())
    first.record(str(tmp_path / "a.mp4"))
    first.wait_entries(1)
    (tmp_path / "3.ledger.json").write_text(json.dumps({**kept, "serial": 1000}))
    second = Runner(tmp_path).begin_()
    second.record(str(tmp_path / "b.mp4"))
    found = second.wait_entries(2)
    assert [entry["start"] for entry in found] == [found[0]["start"]] * 2
    assert not (tmp_path / "3.ledger.json").exists()


@pytest.mark.parametrize("content", [None, "", "{", '{"v": 1, "port_index": 4}'])
def test_time_whose_open_record_is_lost_is_missing(tmp_path: Path, content: str | None) -> None:
    """Somebody removed it, or a repair of the filesystem did: the ledger's last line says from when on."""
    first = Runner(tmp_path).begin_()
    first.closed(first.record(str(tmp_path / "a.mp4"), frames=3))
    assert first.chronicle.finish(5)
    known = first.entries()[-1]
    if content is None:
        (tmp_path / "3.open.json").unlink()
    else:
        (tmp_path / "3.open.json").write_text(content)
    second = Runner(tmp_path).begin_()
    second.record(str(tmp_path / "b.mp4"))
    found = second.wait_entries(3)
    assert kinds(found)[2:] == [("gap", "open record lost")]
    assert (found[2]["start"], found[2]["start_monotonic"]) == (known["end"], known["end_monotonic"])


def test_a_disk_that_hangs_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens meanwhile is said, and left to the next runner, however many there are before the disk answers."""
    answers = threading.Event()
    true_append = append_entries
    monkeypatch.setattr(chronicle, "append_entries", lambda *given: (answers.wait(60), true_append(*given)))
    monkeypatch.setattr(chronicle, "DISK_PATIENCE_S", 0.3)
    # The recordings are on a disk that answers.
    run_directory = tmp_path / "run"
    run_directory.mkdir()
    path = ""
    for number in range(3):
        runner = Runner(tmp_path, run_directory=run_directory).begin_(is_restart=number > 0)
        for part in range(100):
            path = str(tmp_path / f"{number}.{part}.mp4")
            runner.closed(runner.record(path, frames=1))
            runner.waits("signal lost", None)
        wait_for(lambda: "does not answer" in runner.chronicle.problem, 10, "it is said")  # noqa: B023
        began = time.monotonic()
        if number < 2:
            runner.hand_over()
        else:
            runner.stopped(None)
            assert not runner.chronicle.finish(0.2)
        assert time.monotonic() - began < 1
        assert runner.slowest_s < AT_ONCE_S
        assert runner.entries() == []
    answers.set()
    last = Runner(tmp_path, run_directory=run_directory).begin_()
    # What the first writes of the others held comes now too, and is there twice.
    wait_for(lambda: len({e.get("path") for e in last.entries()} - {None}) == 300, 10, "all files are entered")
    assert path in [entry.get("path") for entry in last.entries()]


def test_a_runner_that_ends_before_it_began_leaves_what_was_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "3.ledger.json").write_text(json.dumps({"v": 1, "port_index": 3, "serial": 9, "queue": []}))
    runner = Runner(tmp_path)
    runner.waits("crash", None)
    runner.hand_over()
    assert json.loads((tmp_path / "3.ledger.json").read_text())["serial"] == 9


def test_a_ledger_that_somebody_keeps_locked_is_said(tmp_path: Path) -> None:
    (tmp_path / "3.jsonl").write_text("")
    with open(tmp_path / "3.jsonl", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        runner = Runner(tmp_path).begin_()
        runner.closed(runner.record(str(tmp_path / "a.mp4")))
        wait_for(lambda: "somebody else keeps it locked" in runner.chronicle.problem, 10, "it is said")
    assert kinds(runner.wait_entries(2)) == [("gap", "start"), ("file", "complete")]


def test_a_file_that_cannot_be_counted_waits_and_is_said(tmp_path: Path, cut: tuple[str, int]) -> None:
    leave_open(tmp_path, cut[0])
    runner = Runner(tmp_path, "/nonexistent/ffprobe").begin_()
    runner.record(str(tmp_path / "b.mp4"))
    wait_for(lambda: "cannot count the frames" in runner.chronicle.problem, 10, "it is said")
    assert kinds(runner.entries()) == [("gap", "start")]
    # The next runner has an ffprobe.
    runner.hand_over()
    found = Runner(tmp_path).begin_().wait_entries(2)
    assert (found[1]["path"], found[1]["frames"]) == cut


def test_what_cannot_be_written_at_the_end_is_said(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "missing").begin_()
    runner.stopped(None)
    assert not runner.chronicle.finish(5)
    assert "cannot be written" in runner.chronicle.problem


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "other"])
def test_a_ledger_that_is_none_is_left_alone_and_said(tmp_path: Path, what: str) -> None:
    path, target = tmp_path / "3.jsonl", tmp_path / "target"
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
    runner = Runner(tmp_path).begin_()
    runner.record(str(tmp_path / "a.mp4"))
    wait_for(lambda: "1 entries wait in memory" in runner.chronicle.problem, 10, "the problem is said")
    assert target.read_text() == "mine"
    shutil.rmtree(path) if what == "directory" else path.unlink()
    assert kinds(runner.wait_entries(1)) == [("gap", "start")]


def test_a_fault_of_ours_is_told_and_the_ledger_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chronicle, "_do_clock_stepped", lambda *_: 1 / 0)
    runner = Runner(tmp_path).begin_()
    runner.clock_stepped(runner.chronicle.now())
    runner.record(str(tmp_path / "a.mp4"))
    assert kinds(runner.wait_entries(1)) == [("gap", "start")]
    wait_for(lambda: "ZeroDivisionError" in runner.chronicle.problem, 10, "it is said")


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


def leave_open(directory: Path, path: str) -> None:
    """A runner that was killed while it recorded."""
    runner = Runner(directory).begin_()
    runner.record(path)
    wait_for(lambda: runner.open()["file"] and runner.open()["file"]["start"], 10, "the open record has the file")


def test_a_runner_that_was_killed(tmp_path: Path, cut: tuple[str, int]) -> None:
    path, readable = cut
    assert 0 < readable < 250
    leave_open(tmp_path, path)
    runner = Runner(tmp_path).begin_()
    found = runner.wait_entries(2)
    assert kinds(found) == [("gap", "start"), ("file", "cut off: runner killed")]
    assert (found[1]["frames"], found[1]["bytes"]) == (readable, os.path.getsize(path))
    assert found[1]["path"] == path


def test_a_runner_that_could_say_how_its_file_ended(tmp_path: Path, cut: tuple[str, int]) -> None:
    path, readable = cut
    leave_open(tmp_path, path)
    last = Runner(tmp_path).chronicle.now()
    end = FileEnd(path, verdict="cut off: FFmpeg was killed", cause="killed", frames=250, duplicated=2, last_frame=last)
    runner = Runner(tmp_path).begin_(end, "killed", is_restart=True)
    runner.record(str(tmp_path / "b.mp4"))
    found = runner.wait_entries(3)
    assert kinds(found)[1:] == [("file", "cut off: FFmpeg was killed"), ("gap", "killed")]
    assert (found[1]["frames"], found[1]["duplicated"]) == (readable, 2)
    assert found[2]["start"] == found[1]["end"]


def test_the_last_words_of_another_file_are_not_this_ones(tmp_path: Path, cut: tuple[str, int]) -> None:
    leave_open(tmp_path, cut[0])
    end = FileEnd("/somewhere/else.mp4", verdict="complete", cause="x", frames=7)
    assert kinds(Runner(tmp_path).begin_(end).wait_entries(2))[1] == ("file", "cut off: runner killed")


def test_a_file_that_is_not_there_waits_until_its_disk_must_be(tmp_path: Path, cut: tuple[str, int]) -> None:
    """After a power cut the disk may be mounted later than the runner begins: it is not lost until then."""
    disk = tmp_path / "disk"
    leave_open(tmp_path, str(disk / "a.mp4"))
    runner = Runner(tmp_path).begin_()
    wait_for(lambda: runner.open()["queue"], 10, "it waits")
    assert kinds(runner.entries()) == [("gap", "start")]
    disk.mkdir()
    shutil.copy(cut[0], disk / "a.mp4")
    runner.record(str(disk / "b.mp4"))
    found = runner.wait_entries(3)
    assert (found[1]["path"], found[1]["frames"]) == (str(disk / "a.mp4"), cut[1])


def test_a_file_that_is_gone_is_all_missing(tmp_path: Path) -> None:
    leave_open(tmp_path, str(tmp_path / "gone.mp4"))
    runner = Runner(tmp_path).begin_()
    runner.record(str(tmp_path / "b.mp4"))
    found = runner.wait_entries(2)
    assert kinds(found) == [("gap", "start"), ("gap", "runner killed")]
    assert found[1]["start"] == found[0]["end"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"v": 2}', "[" * 100_000])
def test_an_open_record_that_is_none_does_not_stop_a_recording(tmp_path: Path, content: str) -> None:
    (tmp_path / "3.open.json").write_text(content)
    runner = Runner(tmp_path).begin_()
    runner.record(str(tmp_path / "a.mp4"))
    assert kinds(runner.wait_entries(1)) == [("gap", "start")]
    assert runner.chronicle.problem == ""


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


def test_what_cannot_be_counted_is_none(cut: tuple[str, int], tmp_path: Path) -> None:
    assert count_frames("/nonexistent/ffprobe", cut[0]) == (None, 0.0)
    assert count_frames(FFPROBE, str(tmp_path / "missing.mp4")) == (None, 0.0)


def test_a_count_that_takes_long_holds_up_neither_the_runner_nor_a_stop(tmp_path: Path, cut: tuple[str, int]) -> None:
    os.mkfifo(tmp_path / "go")
    slow = tmp_path / "ffprobe"
    slow.write_text(f'#!/bin/sh\ncat {tmp_path}/go >/dev/null\nexec {FFPROBE} "$@"\n')
    slow.chmod(0o755)
    leave_open(tmp_path, cut[0])
    runner = Runner(tmp_path, str(slow)).begin_()
    runner.closed(runner.record(str(tmp_path / "b.mp4")))
    runner.stopped(None)
    began = time.monotonic()
    assert runner.chronicle.finish(5)
    assert time.monotonic() - began < 2
    assert runner.slowest_s < AT_ONCE_S
    # It is all in the open record, and the next start counts again.
    assert len(runner.open()["queue"]) == 3
    with open(tmp_path / "go", "w"):
        pass
    found = Runner(tmp_path).begin_().wait_entries(4)
    assert kinds(found)[1:4] == [
        ("file", "cut off: runner killed"),
        ("gap", "runner killed"),
        ("file", "complete"),
    ]


def test_a_count_that_is_quick_is_entered_before_the_end(tmp_path: Path, cut: tuple[str, int]) -> None:
    runner = Runner(tmp_path).begin_()
    end = runner.record(cut[0])
    end.verdict = "incomplete: disk full"
    runner.closed(end)
    runner.stopped(None)
    assert runner.chronicle.finish(2)
    assert kinds(runner.entries())[:2] == [("gap", "start"), ("file", "incomplete: disk full")]
    assert runner.entries()[1]["frames"] == cut[1]
    assert runner.open()["queue"] == []


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
