"""The spool: what a runner tells its ledger waits in /run, in order, whatever happens to it there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sdisup.contract.files import boot_id
from sdisup.ledger import spool
from sdisup.ledger.spool import (
    BEGAN,
    CLOSED,
    MEDIA,
    OPENED,
    ROOM_BYTES,
    STOPPED,
    WAITS,
    Spool,
    acknowledge,
    after,
    entered_path,
    read_spool,
    spool_path,
    summed,
    wake_path,
)


def events_of(run: Path) -> list[dict[str, Any]]:
    return read_spool(spool_path(3, str(run)))[0]


def problems_of(run: Path) -> list[str]:
    return [problem.reason for problem in read_spool(spool_path(3, str(run)))[1]]


def append(run: Path, data: bytes) -> None:
    """What somebody else, or a cut in the middle of a line, leaves behind the events."""
    path = Path(spool_path(3, str(run)))
    content = path.read_bytes().rstrip(b"\0") + data
    path.write_bytes(content + bytes(max(0, ROOM_BYTES - len(content))))


def enter(run: Path, sequence: int) -> None:
    acknowledge(entered_path(3, str(run)), boot_id(), sequence)


def test_an_event_says_when_by_both_clocks(tmp_path: Path) -> None:
    told = Spool(3, str(tmp_path), wall=lambda: 1000.0, monotonic=lambda: 100.0)
    told.tell(CLOSED, 99.5, path="/srv/a.mp4", frames=3, last_frame_at=99.25, stopped_at=None)
    (event,) = events_of(tmp_path)
    assert event.pop("sequence") > 0
    assert event == {
        "v": 1,
        "boot": boot_id(),
        "kind": "closed",
        "at": [999.5, 99.5],
        "path": "/srv/a.mp4",
        "frames": 3,
        "last_frame_at": [999.25, 99.25],
        "stopped_at": None,
    }
    assert told.problem == ""


def test_sequences_rise_through_runners_and_through_a_removed_spool(tmp_path: Path) -> None:
    Spool(3, str(tmp_path)).tell(BEGAN, 1.0)
    again = Spool(3, str(tmp_path))
    for _ in range(20):
        again.tell(WAITS, 1.0, cause="disk")
    sequences = [event["sequence"] for event in events_of(tmp_path)]
    assert sequences == sorted(set(sequences)) and len(sequences) == 21
    os.unlink(spool_path(3, str(tmp_path)))
    again.tell(STOPPED, 2.0)
    assert events_of(tmp_path)[-1]["sequence"] > sequences[-1]


def test_what_is_entered_makes_room_for_the_next_event(tmp_path: Path) -> None:
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    told.tell(WAITS, 1.0, cause="disk")
    first, second = (event["sequence"] for event in events_of(tmp_path))
    enter(tmp_path, first)
    told.tell(WAITS, 1.0, cause="disk full")
    assert [event["kind"] for event in events_of(tmp_path)] == ["began", "waits", "waits"]
    enter(tmp_path, second + 1_000_000)
    told.tell(STOPPED, 2.0)
    assert [event["kind"] for event in events_of(tmp_path)] == ["stopped"]


def test_a_torn_tail_costs_its_own_line(tmp_path: Path) -> None:
    Spool(3, str(tmp_path)).tell(BEGAN, 1.0)
    append(tmp_path, b'{"v":1,"sequence":12,"bo')
    Spool(3, str(tmp_path)).tell(STOPPED, 2.0)
    assert [event["kind"] for event in events_of(tmp_path)] == ["began", "stopped"]
    assert problems_of(tmp_path) == ["is no JSON; it may have been cut off"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"kind": "began"}, "is no event of a runner"),
        ({"v": 1, "sequence": -1}, "has a wrong sequence"),
        ({"v": 1, "sequence": 1, "kind": "sang"}, "has a wrong kind"),
        ({"v": 1, "sequence": 1, "kind": "began", "at": [1, "2"], "boot": "b"}, "has no moment"),
        ({"v": 1, "sequence": 1, "kind": "began", "at": [1, 2], "boot": 3}, "has no moment"),
        ([], "is no event of a runner"),
    ],
)
def test_foreign_lines_are_told_and_skipped(tmp_path: Path, line: object, problem: str) -> None:
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    append(tmp_path, json.dumps(line).encode() + b"\n")
    told = Spool(3, str(tmp_path))
    told.tell(STOPPED, 2.0)
    assert [event["kind"] for event in events_of(tmp_path)] == ["began", "stopped"]
    assert problems_of(tmp_path) == [problem]


@pytest.mark.parametrize(("bytes_left", "kept"), [(0, []), (150, ["began"])])
def test_what_is_told_after_somebody_cut_the_spool_off_is_read(
    tmp_path: Path, bytes_left: int, kept: list[str]
) -> None:
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    told.tell(WAITS, 2.0, cause="disk")
    os.truncate(spool_path(3, str(tmp_path)), bytes_left)
    told.tell(OPENED, 3.0, path="/srv/a.mp4")
    told.tell(CLOSED, 4.0, path="/srv/a.mp4")
    assert [event["kind"] for event in events_of(tmp_path)] == [*kept, OPENED, CLOSED]


@pytest.mark.parametrize("sequence", [-1, (1 << 63) - 1, 1 << 99, "7", None])
def test_a_wrong_word_of_what_is_entered_makes_no_event_old(tmp_path: Path, sequence: object) -> None:
    path = Path(entered_path(3, str(tmp_path)))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"boot": boot_id(), "sequence": sequence}))
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    told.tell(WAITS, 2.0, cause="disk")
    assert [event["kind"] for event in events_of(tmp_path)] == [BEGAN, WAITS]


def test_a_spool_that_is_no_file_is_told(tmp_path: Path) -> None:
    os.makedirs(os.path.dirname(spool_path(3, str(tmp_path))))
    os.symlink("/etc/passwd", spool_path(3, str(tmp_path)))
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    assert told.problem.startswith("1 events for the ledger wait in memory")
    assert problems_of(tmp_path) == ["Too many levels of symbolic links"]


def test_a_full_run_keeps_events_in_memory_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)

    def fails(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", fails)
        told.tell(OPENED, 2.0, path="/srv/a.mp4")
        assert "No space left on device" in told.problem
    with monkeypatch.context() as short:
        short.setattr(os, "pwrite", lambda *_arguments: 3)
        told.tell(MEDIA, 3.0, path="/srv/a.mp4")
        assert told.problem.startswith("2 events")
    told.retry()
    assert [event["kind"] for event in events_of(tmp_path)] == ["began", "opened", "media"]
    assert told.problem == ""


def test_without_a_run_directory_nothing_is_raised(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("")
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0)
    (tmp_path / "ports").unlink()
    told.retry()
    assert [event["kind"] for event in events_of(tmp_path)] == ["began"]


def test_a_full_spool_sums_up_and_loses_neither_file_nor_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "ROOM_BYTES", 4096)
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 20)
    told = Spool(3, str(tmp_path))
    told.tell(BEGAN, 1.0, is_restart=False)
    told.tell(OPENED, 1.0, path="/srv/a.mp4")
    told.tell(CLOSED, 1.0, path="/srv/a.mp4", frames=25, size_bytes=1000)
    for number in range(200):
        told.tell(OPENED, 2.0, path=f"/srv/b{number}.mp4", is_retry=True)
        told.tell(CLOSED, 2.0, path=f"/srv/b{number}.mp4", frames=0, size_bytes=0)
        told.tell(WAITS, 2.0, cause="no signal", take=None)
    told.tell(STOPPED, 3.0, by="operator")
    told_kinds = [event["kind"] for event in summed(events_of(tmp_path))]
    assert told_kinds == ["began", "opened", "closed", "waits", "stopped"]
    assert told.problem == ""
    # One that cannot be summed up waits in memory, and is written once the ledger's process made room.
    for number in range(30):
        told.tell(CLOSED, 4.0, path=f"/srv/c{number}.mp4", frames=1, size_bytes=1)
    assert "is full" in told.problem
    enter(tmp_path, events_of(tmp_path)[-1]["sequence"])
    told.retry()
    enter(tmp_path, events_of(tmp_path)[-1]["sequence"])
    told.retry()
    enter(tmp_path, events_of(tmp_path)[-1]["sequence"])
    told.retry()
    assert told.problem == ""
    assert events_of(tmp_path)[-1]["path"] == "/srv/c29.mp4"


def test_what_memory_cannot_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 5)
    (tmp_path / "ports").write_text("")
    told = Spool(3, str(tmp_path))
    for number in range(8):
        told.tell(CLOSED, 4.0, path=f"/srv/c{number}.mp4", frames=1, size_bytes=1)
    assert "5 events" in told.problem and "3 are lost" in told.problem


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [
        ("began waits:a waits:a", "began waits:a"),
        ("waits:a waits:b waits:a", "waits:a waits:b waits:a"),
        ("waits:a opened closed waits:a", "waits:a"),
        ("waits:a opened media closed waits:a", "waits:a opened media closed waits:a"),
        ("waits:a opened closed+ waits:a", "waits:a opened closed+ waits:a"),
        ("waits:a began waits:a began", "waits:a"),
        ("waits:a stopped began waits:a", "waits:a stopped began waits:a"),
        ("opened began", "opened began"),
    ],
)
def test_summing_up(kinds: str, kept: str) -> None:
    def event(number: int, word: str) -> dict[str, Any]:
        kind, _, cause = word.rstrip("+").partition(":")
        fields = {"v": 1, "sequence": number, "boot": "b", "kind": kind, "at": [2.0, 1.0], "word": word}
        return {**fields, "path": "/srv/a", "cause": cause, "size_bytes": int("+" in word), "is_restart": True}

    events = [event(number, word) for number, word in enumerate(kinds.split())]
    assert " ".join(str(event["word"]) for event in summed(events)) == kept


def test_events_after_one(tmp_path: Path) -> None:
    events = [{"boot": boot, "sequence": number} for boot, number in (("a", 7), ("a", 9), ("b", 3), ("b", 5))]
    assert after(events, "b", 4) == events[3:]
    assert after(events, "c", 4) == events
    assert after(events, "b", 5) == []


def test_the_ledgers_process_is_woken(tmp_path: Path) -> None:
    told = Spool(3, str(tmp_path))
    os.mkfifo(wake_path(str(tmp_path)), 0o600)
    told.tell(BEGAN, 1.0)  # Nobody listens.
    wake = os.open(wake_path(str(tmp_path)), os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert os.read(wake, 10) == b""
        told.tell(STOPPED, 1.0)
        assert os.read(wake, 10) == b"\0"
        for _ in range((1 << 16) + 10):
            told._wake()
        assert told.problem == ""
    finally:
        os.close(wake)


def test_its_room_is_there_from_the_start(tmp_path: Path) -> None:
    Spool(3, str(tmp_path))
    status = os.stat(spool_path(3, str(tmp_path)))
    assert status.st_size == ROOM_BYTES and status.st_blocks * 512 >= ROOM_BYTES
    assert status.st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_the_group_may_change_nothing_of_it(tmp_path: Path) -> None:
    """A unit has UMask=0002, so that recordings are the group's too; events are not."""
    former = os.umask(0o002)
    try:
        Spool(3, str(tmp_path)).tell(BEGAN, 1.0)
    finally:
        os.umask(former)
    made = [path for path in tmp_path.rglob("*") if "ports" in str(path)]
    assert len(made) == 3
    assert [path for path in made if path.stat().st_mode & 0o022] == []
