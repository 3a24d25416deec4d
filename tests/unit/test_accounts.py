"""What `sdisup gaps`, `recordings` and `verify` answer, from ledgers on paper."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdisup
from sdisup.cli import accounts as accounts_table
from sdisup.cli.words import LocalTexts, length_text, parse_time
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.files import unix_time, utc_text
from sdisup.contract.status import PortStatus
from sdisup.control.verify import Known, is_file, known_files, verify
from sdisup.errors import UsageError
from sdisup.ledger import present as present_module
from sdisup.ledger.accounts import _OWN_LINES, Account, Row, Window, account_of, line_of, scan
from sdisup.ledger.cut_off import open_path
from sdisup.ledger.lines import Entry, append_entries, encode_entry, ledger_path
from sdisup.ledger.moments import FileEnd, Moment, TakenFile, document
from sdisup.ledger.present import Present, rows_of
from sdisup.ledger.story import Story

T = 1.7e9
PACKAGE = Path(sdisup.__file__).resolve().parent


@pytest.fixture
def paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def entry(kind: str, start: float, end: float, what: str = "", **values: object) -> Entry:
    """An entry of a port; times are seconds after T."""
    known: Entry = {
        "v": 1, "kind": kind, "port_index": 3, "take": None, "boot_id": "b", "start": utc_text(T + start),
        "end": utc_text(T + end), "start_monotonic": float(start), "end_monotonic": float(end),
        "seconds": float(round(end - start, 3)),
    }  # fmt: skip
    if kind == "file":
        known.update(path=f"/r/{start}.mp4", frames=int((end - start) * 25), duplicated=0, dropped=0, bytes=1000)
        known.update(codec="h264", ended=what, ffmpeg_version="Lavf61.7.103")
    else:
        known[{"gap": "cause", "stop": "by"}.get(kind, "x")] = what
    return {**known, **values}


def account(entries: list[Entry], kind: str = "gap", window: Window | None = None, **more: Any) -> Account:
    rows = more.get("rows", [])
    waiting = [line_of(found) for found in more.get("waiting", [])]
    found, problems = account_of(kind, [[line_of(one) for one in entries]], waiting, rows, window or Window())
    assert problems == []
    return found


def sums(found: Account) -> tuple[float, float, float]:
    return round(found.recorded_s, 3), round(found.missing_s, 3), round(found.stopped_s, 3)


def brief(found: Account) -> list[tuple[str, float | None]]:
    return [(row.what, row.seconds) for row in found.rows]


NIGHT = [
    entry("gap", 0, 2, "start"),
    entry("file", 2, 102, "complete"),
    entry("gap", 2, 102, "cannot keep up", path="/r/2.mp4", seconds=4.0, frames_missing=100),
    entry("gap", 102, 103, "killed"),
    entry("gap", 103, 110, "no signal"),
    entry("clock", 110, 110, seconds=-3600.0),
    entry("file", 110, 200, "cut off: power"),
    entry("stop", 200, 300, "operator"),
    entry("gap", 300, 300.02, "start"),
    entry("file", 300.02, 400, "complete"),
]


def test_a_night() -> None:
    found = account(NIGHT)
    assert sums(found) == (289.98, 14.02, 100.0)
    assert brief(found) == [("start", 2.0), ("cannot keep up", 4.0), ("killed", 1.0), ("no signal", 7.0)]
    assert (found.gaps, found.short_gaps, found.files, found.unknown) == (4, 1, 3, 0)
    assert [row.frames for row in found.rows] == [None, 100, None, None]
    assert [row.path for row in account(NIGHT, "file").rows] == ["/r/2.mp4", "/r/110.mp4", "/r/300.02.mp4"]


def deletion(at: float, path: str, rule: str = "max_age 30d") -> Entry:
    known = entry("delete", at, at)
    del known["x"]
    return {**known, "rule": rule, "path": path, "inode": 7}


def test_a_file_that_was_deleted_was_recorded_all_the_same() -> None:
    gone = deletion(400, "/r/2.mp4")
    assert sums(account([*NIGHT, gone])) == sums(account(NIGHT))
    assert brief(account([*NIGHT, gone])) == brief(account(NIGHT))
    rows = account([*NIGHT, gone], "file").rows
    assert [(row.path, row.deleted) for row in rows if row.deleted] == [("/r/2.mp4", "max_age 30d")]
    # Also where the time that is asked for ends before.
    asked = account([*NIGHT, gone], "file", Window(T, T + 100)).rows
    assert [row.deleted_at for row in asked if row.path == "/r/2.mp4"] == [gone["start"]]


def test_another_file_that_gets_the_path_of_one_that_was_deleted() -> None:
    first, second = entry("file", 0, 10, "complete"), entry("file", 20, 30, "complete", path="/r/0.mp4")
    rows = account([first, deletion(15, "/r/0.mp4"), second], "file").rows
    assert [row.deleted for row in rows] == ["max_age 30d", ""]


def test_what_is_deleted_is_said_in_the_table_and_in_json(paris: None) -> None:
    entries = [entry("file", 0, 10, "complete"), deletion(15, "/r/0.mp4", "min_free 200G")]
    found = [(3, "CAM3", account(entries, "file"))]
    (line,) = list(accounts_table.file_lines(found))[1:]
    assert line.endswith("/r/0.mp4  complete; deleted 2023-11-14 23:13:35+01:00: min_free 200G")
    document = json.loads("\n".join(accounts_table.document_lines("recordings", found)))["recordings"][0]
    assert (document["deleted_at"], document["deleted_by"]) == (entries[1]["start"], "min_free 200G")


def copied(at: float, path: str, target: str = "nas", **more: object) -> Entry:
    known = entry("copy", at - 5, at)
    del known["x"]
    of_copy = {"target": target, "path": path, "inode": 7, "bytes": 1000, "recorded": "x", "copy": f"box/CAM3{path}"}
    return {**known, **of_copy, "digest": "md5:00", "verified": "hash", **more}


def test_copies_of_a_file_change_no_sum_and_are_said() -> None:
    entries = [*NIGHT, copied(420, "/r/2.mp4"), copied(425, "/r/2.mp4", "tape"), copied(430, "/r/110.mp4")]
    assert sums(account(entries)) == sums(account(NIGHT)) and brief(account(entries)) == brief(account(NIGHT))
    rows = account(entries, "file").rows
    assert [row.copies for row in rows] == [("nas", "tape"), ("nas",), ()]
    lines = list(accounts_table.file_lines([(3, "CAM3", account(entries, "file"))]))
    assert lines[1].endswith("/r/2.mp4       complete; copied to nas, tape")
    document = json.loads("\n".join(accounts_table.document_lines("recordings", [(3, "A", account(entries, "file"))])))
    assert [row["copies"] for row in document["recordings"]] == [["nas", "tape"], ["nas"], []]


def test_the_copy_of_another_file_that_had_the_path_before() -> None:
    first, second = entry("file", 0, 10, "complete"), entry("file", 50, 60, "complete", path="/r/0.mp4")
    rows = account([first, copied(40, "/r/0.mp4"), second], "file").rows
    assert [row.copies for row in rows] == [("nas",), ()]
    rows = account([first, copied(40, "/r/0.mp4"), second, copied(90, "/r/0.mp4", "tape")], "file").rows
    assert [row.copies for row in rows] == [("nas",), ("tape",)]


def test_each_part_of_a_file_has_its_copies() -> None:
    marks = [entry("mark", at, at, former_take="a", path="/r/0.mp4", frame=at * 25, take="a") for at in (4, 8)]
    entries = [*marks, entry("file", 0, 10, "complete", take="a"), copied(40, "/r/0.mp4")]
    rows = account(entries, "file", Window(take="a")).rows
    assert len(rows) == 3 and {row.copies for row in rows} == {("nas",)}


def test_lines_with_the_files_number_are_read_as_quickly(tmp_path: Path) -> None:
    entries = [entry("file", 0, 10, "complete", inode=7, number=1), {**deletion(15, "/r/0.mp4"), "number": 2}]
    entries.append(copied(20, "/r/0.mp4", number=3))
    path = ledger_path(3, str(tmp_path))
    append_entries(path, entries)
    (lines,) = scan(path)
    assert lines == [line_of(one) for one in entries]
    assert all(_OWN_LINES.match(encode_entry(one).decode()) for one in entries)


def test_a_gap_that_only_just_began_is_listed() -> None:
    def row(*, is_open: bool) -> Row:
        return Row("gap", "killed", start=utc_text(T + 400), end=utc_text(T + 400.01), seconds=0.01, is_open=is_open)

    assert account(NIGHT, rows=[row(is_open=True)]).rows[-1].what == "killed"
    assert account(NIGHT, rows=[row(is_open=False)]).rows[-1].what == "no signal"


def test_starts_of_a_moment_are_summed_and_not_listed() -> None:
    starts = [
        *(entry("gap", 0, 0.3, "start"), entry("file", 0.3, 10, "complete"), entry("stop", 10, 20, "operator")),
        *(entry("gap", 20, 21, "start"), entry("file", 21, 30, "cut off"), entry("gap", 30, 30.3, "killed")),
        *(entry("file", 30.3, 40, "complete"), entry("stop", 40, 50, "operator"), entry("gap", 50, 51.2, "start")),
    ]
    found = account(starts)
    assert brief(found) == [("killed", 0.3), ("start", 1.2)]
    assert (found.gaps, found.short_gaps, round(found.short_s, 3), round(found.missing_s, 3)) == (2, 2, 1.3, 2.8)
    everything = account(starts, window=Window(with_short=True))
    assert [what for what, _ in brief(everything)] == ["start", "start", "killed", "start"]
    assert (everything.gaps, everything.short_gaps, everything.missing_s) == (4, 0, found.missing_s)
    # One that goes on is news.
    row = Row("gap", "start", start=utc_text(T), end=utc_text(T + 0.3), seconds=0.3, is_open=True)
    assert brief(account([], rows=[row])) == [("start", 0.3)]


def test_that_a_port_cannot_work_is_said_once() -> None:
    """Until it records; each time where all is asked for, and to programs."""
    tries = [
        *(entry("gap", 0, 0.1, "start"), entry("gap", 0.1, 10, "cannot work"), entry("stop", 10, 20, "operator")),
        *(entry("gap", 20, 20.1, "start"), entry("gap", 20.1, 30, "cannot work"), entry("file", 30, 40, "complete")),
        *(entry("gap", 40, 50, "killed"), entry("gap", 50, 60, "cannot work")),
    ]
    goes_on = Row("gap", "cannot work", start=utc_text(T + 60), end=utc_text(T + 75), seconds=15.0, is_open=True)
    found = account(tries, rows=[goes_on])
    assert len(found.rows) == 5
    lines = list(accounts_table.gap_lines([(3, "CAM3", found)]))[1:]
    assert [line.split("  -  -     ")[1] for line in lines] == [
        "cannot work (2 times)",
        "killed",
        "cannot work (2 times)",
    ]
    assert ["19.8s" in lines[0], "10.0s" in lines[1], "ongoing" in lines[2] and "25.0s" in lines[2]] == [True] * 3
    assert len(list(accounts_table.gap_lines([(3, "CAM3", found)], each=True))) == 1 + 5
    assert len(json.loads("".join(accounts_table.document_lines("gaps", [(3, "CAM3", found)])))["gaps"]) == 5


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, (289.98, 14.02, 100.0)),
        (0, 400, (289.98, 14.02, 100.0)),
        (2, 102, (100.0, 4.0, 0.0)),
        (52, None, (239.98, 10.02, 100.0)),
        (102.5, 104, (0.0, 1.5, 0.0)),
        (150, 250, (50.0, 0.0, 50.0)),
        (None, 1, (0.0, 1.0, 0.0)),
        (400, None, (0.0, 0.0, 0.0)),
        (500, 600, (0.0, 0.0, 0.0)),
        (None, -5, (0.0, 0.0, 0.0)),
    ],
)
def test_intervals_are_cut_at_the_time_that_is_asked_for(
    since: float | None, until: float | None, expected: tuple[float, float, float]
) -> None:
    window = Window(None if since is None else T + since, None if until is None else T + until)
    assert sums(account(NIGHT, window=window)) == pytest.approx(expected)


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=5))
def test_the_parts_of_a_time_sum_up_to_it(cuts: list[float]) -> None:
    limits = [None, *(T + round(cut, 3) for cut in sorted(set(cuts))), None]
    parts = [account(NIGHT, window=Window(*pair)) for pair in pairwise(limits)]
    whole = account(NIGHT)
    for name in ("recorded_s", "missing_s", "stopped_s"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name), abs=0.02)


def test_a_row_that_is_cut_says_so_by_its_times() -> None:
    found = account(NIGHT, window=Window(T + 105, T + 108))
    assert [(row.start, row.end, row.seconds) for row in found.rows] == [(utc_text(T + 105), utc_text(T + 108), 3.0)]


def test_an_interval_whose_clock_was_put_back_counts_where_it_began() -> None:
    back = [entry("gap", 100, 40, "killed", seconds=7.0)]
    assert sums(account(back)) == (0, 7, 0)
    assert sums(account(back, window=Window(T + 99, T + 101))) == (0, 7, 0)
    assert sums(account(back, window=Window(T + 30, T + 99))) == (0, 0, 0)


# ---- Entered twice ----


@pytest.mark.parametrize("again", [1, 3, 8])
def test_what_was_entered_twice_counts_once(again: int) -> None:
    """A cut between the entries and the open record: the next runner enters the same again."""
    entries = [*NIGHT[:8], *NIGHT[8 - again : 8], *NIGHT[8:]]
    assert sums(account(entries)) == sums(account(NIGHT))
    assert brief(account(entries)) == brief(account(NIGHT))


def test_an_interval_that_went_on_counts_in_its_whole_length() -> None:
    entries = [entry("gap", 0, 5, "no signal"), entry("gap", 0, 9, "no signal", boot_id="c"), entry("file", 9, 20)]
    assert brief(account(entries)) == [("no signal", 9.0)]
    assert brief(account([entries[1], entries[0], entries[2]])) == [("no signal", 9.0)]


def test_a_file_that_is_entered_twice_keeps_its_first_verdict() -> None:
    entries = [entry("file", 0, 5, "complete"), entry("file", 0, 5, "cut off: power")]
    assert [row.what for row in account(entries, "file").rows] == ["complete"]


def test_what_begins_at_once_is_not_the_same() -> None:
    entries = [entry("file", 0, 5), entry("gap", 0, 5, "a", path="/r/0.mp4", seconds=1.0), entry("gap", 0, 3, "b")]
    assert sums(account(entries)) == (5, 4, 0)


def test_entries_that_wait_may_be_entered_already() -> None:
    waiting = [NIGHT[-1], entry("gap", 400, 405, "killed")]
    assert sums(account(NIGHT, waiting=waiting)) == (289.98, 19.02, 100.0)


# ---- What goes on ----


def moment(at: float, boot: str = "now") -> Moment:
    return Moment(T + at, at, boot)


def present(at: float, *, is_alive: bool = True, records_at_boot: bool = False, **status: Any) -> Present:
    known = PortStatus(port_index=3, **status) if status else None
    boot = moment(at - 50)
    return Present(moment(at), boot, is_alive=is_alive, records_at_boot=records_at_boot, status=known)


def story(**parts: Any) -> Story:
    found = Story(3)
    found.recall({"v": 1, "port_index": 3, "queue": [], **parts})
    return found


def recorded(start: float = 10, boot: str = "now", **values: Any) -> dict[str, Any]:
    file = TakenFile(f"/r/{start}.mp4", "final", "h264", 25.0, moment(start - 1, boot), start=moment(start, boot))
    return document(file.replaced(**values))


def gap(start: float, what: str = "no signal", kind: str = "gap", boot: str = "now") -> dict[str, Any]:
    return {"kind": kind, "what": what, "start": moment(start, boot).as_list(), "take": None, "end": None}


def shown(rows: list[Row]) -> list[tuple[object, ...]]:
    lengths = [None if row.seconds is None else round(row.seconds, 3) for row in rows]
    return [(row.kind, row.what, length, row.is_open, row.note) for row, length in zip(rows, lengths, strict=True)]


def test_a_file_that_is_being_recorded() -> None:
    now = present(40, current_file="/r/10.mp4", frame_count=745, bytes_written=7, dropped_frames=1)
    (row,) = rows_of(story(file=recorded()), now)
    assert shown([row]) == [("file", "", 30.0, True, "")]
    assert (row.path, row.frames, row.size_bytes, row.dropped, row.take) == ("/r/10.mp4", 745, 7, 1, "final")
    assert (row.start, row.end) == (utc_text(T + 10), utc_text(T + 40))


def test_a_file_of_which_the_status_does_not_know_yet() -> None:
    assert shown(rows_of(story(file=recorded()), present(40))) == [("file", "", 30.0, True, "")]


def test_a_gap_that_lasts_counts_until_now() -> None:
    assert shown(rows_of(story(interval=gap(10)), present(40))) == [("gap", "no signal", 30.0, True, "")]
    found = account(NIGHT, rows=rows_of(story(interval=gap(400)), present(460)), window=Window(T + 380, T + 430))
    assert sums(found) == (20.0, 30.0, 0.0)
    assert [(row.is_open, row.seconds) for row in found.rows] == [(True, 30.0)]


def test_a_file_without_a_frame_yet_is_still_the_gap() -> None:
    file = recorded()
    file["start"] = None
    assert shown(rows_of(story(file=file, interval=gap(5)), present(40))) == [("gap", "no signal", 35.0, True, "")]


def test_a_file_that_stalls_ends_at_its_last_frame() -> None:
    now = present(
        40, current_file="/r/10.mp4", state="stalled", last_frame_at=utc_text(T + 36), updated_at=utc_text(T + 39.8)
    )
    assert shown(rows_of(story(file=recorded()), now)) == [
        ("file", "", 26.2, True, ""),
        ("gap", "stalled", 3.8, True, ""),
    ]


def test_what_an_encoder_misses_now() -> None:
    file, missing = rows_of(
        story(file=recorded()), present(40, current_file="/r/10.mp4", missing_frames=50, short_frames=50)
    )
    assert (file.seconds, missing.seconds, missing.what, missing.frames) == (28.0, 2.0, "cannot keep up", 50)


@pytest.mark.parametrize("told", ["", "source loses frames", "cannot keep up"])
def test_what_a_source_loses_now(told: str) -> None:
    """Time that has some of its pictures is no missing time; a hole's is, and has an entry of its own."""
    taken = recorded(missed=25, filled=25, repeated_cause=told)
    file, lost = rows_of(story(file=taken), present(40, current_file="/r/10.mp4", missing_frames=75, frame_count=700))
    assert (file.seconds, lost.seconds, lost.what, lost.frames) == (29.0, 0.0, told or "source loses frames", 50)


def test_a_stop_that_lasts() -> None:
    rows = rows_of(story(interval=gap(10, "operator", "stop")), present(40, is_alive=False))
    assert shown(rows) == [("stop", "operator", 30.0, True, "")]


def test_a_port_without_a_record_has_nothing_open() -> None:
    assert rows_of(Story(3), present(40)) == rows_of(Story(3), present(40, is_alive=False)) == []


def test_a_port_that_was_recording_when_the_power_went() -> None:
    rows = rows_of(story(file=recorded(boot="before")), present(100, is_alive=False))
    assert shown(rows) == [
        ("file", "", None, False, "recording when the power went; its end is not known until the port is started"),
        ("gap", "power", None, True, "since the end of /r/10.mp4, which is not known until the port is started"),
    ]
    assert (rows[0].start, rows[0].end, rows[1].start) == (utc_text(T + 10), None, None)
    found = account([entry("gap", 8, 10, "start")], rows=rows)
    assert (sums(found), found.unknown, found.gaps) == ((0, 2, 0), 2, 2)


def test_a_port_whose_runner_died() -> None:
    rows = rows_of(story(file=recorded()), present(100, is_alive=False))
    assert rows[0].note == "recording when its runner ended; its end is not known until the port is started"
    assert rows[1].what == "runner killed"


@pytest.mark.parametrize(
    ("since", "until", "count"), [(0, 5, 0), (0, 11, 2), (50, 60, 2), (None, None, 2), (200, None, 1)]
)
def test_what_is_not_known_is_listed_where_it_may_be(since: float | None, until: float | None, count: int) -> None:
    rows = rows_of(story(file=recorded(boot="before")), present(100, is_alive=False))
    window = Window(since and T + since, until and T + until)
    assert account([], rows=rows, window=window).unknown == count


@pytest.mark.parametrize(
    ("interval", "records_at_boot", "expected"),
    [
        (gap(10, "shutdown", "stop", "before"), True, [("gap", "reboot", 90.0)]),
        (gap(10, "shutdown", "stop", "before"), False, [("stop", "shutdown", 90.0)]),
        (gap(10, "operator", "stop", "before"), True, [("stop", "operator", 40.0), ("gap", "reboot", 50.0)]),
        (gap(10, "operator", "stop", "before"), False, [("stop", "operator", 90.0)]),
        (gap(10, "no signal", "gap", "before"), False, [("gap", "no signal, then power", 90.0)]),
    ],
)
def test_a_port_that_was_not_started_since_the_boot(
    interval: dict[str, Any], records_at_boot: bool, expected: list[tuple[object, ...]]
) -> None:
    rows = rows_of(story(interval=interval), present(100, is_alive=False, records_at_boot=records_at_boot))
    assert [(row.kind, row.what, row.seconds) for row in rows] == expected


# A port that was stopped where no runner lived to say so; the stop is at its status' last word.
LAST_WORD = {"state": "recording", "boot_id": "now", "updated_monotonic": 70.0}
MARKED = {"state": "stopped", "boot_id": "now", "state_since_monotonic": 70.0}


@pytest.mark.parametrize("status", [LAST_WORD, MARKED])
def test_a_port_that_was_stopped_unseen_misses_nothing_from_then_on(status: dict[str, Any]) -> None:
    dead = {"is_alive": False, **status}
    rows = rows_of(story(interval=gap(10, "killed")), present(100, **dead))
    assert shown(rows) == [("gap", "killed", 60.0, False, ""), ("stop", "operator", 30.0, True, "")]
    rows = rows_of(story(file=recorded()), present(100, **dead))
    assert [(row.kind, row.what, row.end, row.is_open) for row in rows[1:]] == [
        ("gap", "runner killed", utc_text(T + 70), False), ("stop", "operator", utc_text(T + 100), True),
    ]  # fmt: skip


@pytest.mark.parametrize("records_at_boot", [True, False])
def test_a_take_that_the_power_cut_off_is_over_once_somebody_stops_the_port(records_at_boot: bool) -> None:
    dead: dict[str, Any] = {"is_alive": False, "records_at_boot": records_at_boot, **MARKED}
    rows = rows_of(story(interval=gap(10, "no signal", boot="before")), present(100, **dead))
    assert shown(rows) == [
        ("gap", "no signal, then power", 60.0, False, ""), ("stop", "operator", 30.0, True, ""),
    ]  # fmt: skip
    rows = rows_of(story(file=recorded(boot="before")), present(100, **dead))
    assert [(row.kind, row.what, row.is_open) for row in rows[1:]] == [
        ("gap", "power", False),
        ("stop", "operator", True),
    ]


@pytest.mark.parametrize(
    ("status", "is_going_on"),
    [
        (LAST_WORD, True),
        ({**LAST_WORD, "state": "failed"}, False),
        ({**LAST_WORD, "boot_id": "before"}, False),
        ({}, False),
    ],
)
def test_a_port_that_nobody_stopped_goes_on_missing(status: dict[str, Any], is_going_on: bool) -> None:
    now = present(100, is_alive=False, **status)
    known = Present(now.now, now.boot, is_alive=False, is_going_on=is_going_on, status=PortStatus(**status))
    assert shown(rows_of(story(interval=gap(10, "killed")), known)) == [("gap", "killed", 90.0, True, "")]


def test_a_file_that_is_being_counted() -> None:
    seen = FileEnd("/r/10.mp4", "cut off: killed", "killed", moment(30), 500)
    known = recorded(end=seen, closed=moment(31))
    unknown = recorded(50, end=FileEnd("/r/50.mp4", "cut off: runner killed", "x"), closed=moment(80))
    first = {**gap(30, "killed"), "end": moment(50).as_list()}
    entries = rows_of(story(queue=[known, first, unknown], interval=gap(50, "runner killed")), present(90))
    assert shown(entries) == [
        ("file", "cut off: killed", 20.0, False, "its frames are not counted yet"),
        ("gap", "killed", 20.0, False, ""),
        ("file", "cut off: runner killed", None, False, "its frames are not counted yet"),
        ("gap", "runner killed", None, True, "since the end of /r/50.mp4; its frames are not counted yet"),
    ]


def test_what_was_entered_meanwhile_is_not_open() -> None:
    entries = [entry("gap", 0, 10, "no signal"), entry("file", 10, 60)]
    assert sums(account(entries, rows=rows_of(story(interval=gap(0)), present(60)))) == (50, 10, 0)
    file = recorded()
    assert sums(account(entries, rows=rows_of(story(file=file), present(60)))) == (50, 10, 0)


# ---- Times ----


@pytest.mark.usefixtures("paris")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", T),
        ("-2h", T - 7200),
        ("-30min", T - 1800),
        ("-90s", T - 90),
        ("-1.5h", T - 5400),
        ("-1 d", T - 86400),
        ("today", unix_time("2023-11-13T23:00:00.000Z")),
        ("yesterday", unix_time("2023-11-12T23:00:00.000Z")),
        ("2026-01-31", unix_time("2026-01-30T23:00:00.000Z")),
        ("2026-01-31 20:15", unix_time("2026-01-31T19:15:00.000Z")),
        ("2026-07-31T20:15:30", unix_time("2026-07-31T18:15:30.000Z")),
        ("2026-01-31T20:15:00Z", unix_time("2026-01-31T20:15:00.000Z")),
        ("2026-01-31T20:15:00+05:30", unix_time("2026-01-31T14:45:00.000Z")),
        (" 2026-01-31T20:15:00.250-01:00 ", unix_time("2026-01-31T21:15:00.250Z")),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert parse_time(text, T) == expected


@pytest.mark.usefixtures("paris")
def test_midnight_on_the_day_after_the_clock_changed() -> None:
    sunday = unix_time("2026-03-29T12:00:00.000Z")
    assert parse_time("yesterday", sunday) == unix_time("2026-03-27T23:00:00.000Z")
    assert parse_time("today", sunday) == unix_time("2026-03-28T23:00:00.000Z")


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2h", "-2x", "-2 hours ago", "2026-13-01", "20:15", "2026-01-31 25:00", "0001-01-01", "- 2h", "-h",
     "2026-01-31\0", "-" + "9" * 400 + "d", "12/31/2026", "\N{FULLWIDTH DIGIT NINE}"],
)  # fmt: skip
def test_no_times(text: str) -> None:
    with pytest.raises(UsageError, match="is no time") as caught:
        parse_time(text, T)
    assert "yesterday" in caught.value.hint


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    try:
        assert isinstance(parse_time(text, T), float)
    except UsageError:
        return


@pytest.mark.usefixtures("paris")
def test_local_times_have_their_offset() -> None:
    local = LocalTexts().text
    assert local("2026-01-31T20:15:03.900Z") == "2026-01-31 21:15:03+01:00"
    assert local("2026-10-25T00:59:59.000Z") == "2026-10-25 02:59:59+02:00"
    assert local("2026-10-25T01:00:00.000Z") == "2026-10-25 02:00:00+01:00"
    assert local("garbage") == "garbage"


def test_local_times_where_offsets_are_no_whole_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert LocalTexts().text("2026-01-31T20:15:03.000Z") == "2026-02-01 02:00:03+05:45"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.26, "0.3s"), (59.94, "59.9s"), (59.96, "1m00s"), (185, "3m05s"), (3600, "1h00m00s"),
     (7650, "2h07m30s"), (86400 * 4 + 10807, "4d03h00m07s"), (86400 * 31, "31d00h00m00s")],
)  # fmt: skip
def test_lengths(seconds: float, text: str) -> None:
    assert length_text(seconds) == text


# ---- Tables ----


@pytest.mark.usefixtures("paris")
def test_the_table_of_gaps() -> None:
    lines = accounts_table.with_sums(
        accounts_table.gap_lines([(3, "CAM3", account(NIGHT))]), [(3, "CAM3", account(NIGHT))]
    )
    assert list(lines) == [
        "PORT  NAME  START                      END                             LENGTH     FRAMES  TAKE  CAUSE",
        "   3  CAM3  2023-11-14 23:13:20+01:00  2023-11-14 23:13:22+01:00         2.0s          -  -     start",
        "   3  CAM3  2023-11-14 23:13:22+01:00  2023-11-14 23:15:02+01:00         4.0s        100  -     cannot keep up",  # noqa: E501
        "   3  CAM3  2023-11-14 23:15:02+01:00  2023-11-14 23:15:03+01:00         1.0s          -  -     killed",
        "   3  CAM3  2023-11-14 23:15:03+01:00  2023-11-14 23:15:10+01:00         7.0s          -  -     no signal",
        "",
        "PORT  NAME     RECORDED      MISSING      STOPPED   FILES    GAPS",
        "   3  CAM3        4m50s        14.0s        1m40s       3       4  and 1 too short to list, 0.02s together",
    ]  # fmt: skip


def test_what_goes_on_is_marked() -> None:
    rows = rows_of(story(file=recorded(boot="before")), present(100, is_alive=False))
    unknown = account([], rows=rows)
    header, line, *_ = accounts_table.gap_lines([(3, "CAM3", unknown)])
    assert line[header.index("START") :].startswith("unknown ")
    assert "ongoing" in line
    assert line.endswith("power (since the end of /r/10.mp4, which is not known until the port is started)")
    assert list(accounts_table.sum_lines([(3, "CAM3", unknown)]))[1].endswith("without 2 of unknown length")
    live = account([], "file", rows=rows_of(story(file=recorded()), present(40)))
    header, line = accounts_table.file_lines([(3, "CAM3", live)])
    assert line.endswith("/r/10.mp4  is being recorded")
    assert header.index("FILE") == line.index("/r/10.mp4")


def test_the_table_does_not_play_with_the_terminal() -> None:
    evil = [entry("gap", 0, 5, "a\x1b[31m\nb", take="t\r"), entry("file", 5, 9, "x\x07", path="/r/\x1b.mp4")]
    for lines in (
        accounts_table.gap_lines([(3, "n", account(evil))]),
        accounts_table.file_lines([(3, "n", account(evil, "file"))]),
    ):
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["gaps", "recordings"])
def test_the_document_is_json_in_utc(name: str) -> None:
    for entries in ([], NIGHT[:1], NIGHT):
        found = account(entries, "gap" if name == "gaps" else "file")
        document = json.loads("\n".join(accounts_table.document_lines(name, [(3, "CAM3", found), (4, "b", found)])))
        assert list(document) == [name, *(["marks"] if name == "recordings" else []), "sums"]
        assert len(document[name]) == 2 * len(found.rows)
        assert all(row["start"].endswith("Z") and row["ongoing"] is False for row in document[name])
        assert document["sums"][0]["missing_seconds"] == round(found.missing_s, 3)


def test_text_that_cannot_be_printed_is_replaced_in_json_too() -> None:
    found = account([entry("gap", 0, 5, "a\ud800", take="\udfff")])
    text = "\n".join(accounts_table.document_lines("gaps", [(3, "n", found)]))
    assert json.loads(text.encode())["gaps"][0]["cause"] == "a?"


# ---- From files ----


def port(index: int = 3) -> AppliedPort:
    return AppliedPort(index, f"CAM{index}", "h264", "/r", False, "r")


def test_ports_that_are_no_longer_configured_have_their_history(tmp_path: Path) -> None:
    for name in ("3.jsonl", "12.jsonl", "x.jsonl", "07.jsonl", "5.open.json", "9.jsonl.bak"):
        (tmp_path / name).write_text("")
    found = present_module.with_ledgers(Applied({3: port()}, []), str(tmp_path))
    assert [(index, known.name) for index, known in found.ports.items()] == [(3, "CAM3"), (12, "port12")]
    assert list(present_module.with_ledgers(Applied({}, []), str(tmp_path / "missing")).ports) == []


def test_problems_are_told_and_the_rest_is_answered(tmp_path: Path) -> None:
    append_entries(ledger_path(3, str(tmp_path)), NIGHT)
    with open(ledger_path(3, str(tmp_path)), "ab") as file:
        file.write(b'foreign\n{"v":9}\n{"v":1,"ki')
    Path(open_path(3, str(tmp_path))).write_text("{")
    (tmp_path / "4.jsonl").symlink_to("3.jsonl")
    found, remarks = present_module.accounts("gap", [port(3), port(4)], Window(), str(tmp_path), str(tmp_path))
    assert sums(found[0][2]) == (289.98, 14.02, 100.0)
    assert sums(found[1][2]) == (0, 0, 0)
    reasons = [remark.partition(".json")[2] for remark in remarks]
    assert [reason.partition(": ")[2].partition(";")[0].partition(",")[0] for reason in reasons] == [
        "it is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "is no JSON",
        "is of version 9",
        "is no JSON",
        "is a symbolic link",
    ]


# ---- Speed ----

FRESH = """
import json, sys, time
sys.path.insert(0, {root!r})
from sdisup.cli import main as cli
from sdisup.ledger import present as present_module
directory, accounts, with_ledgers = {directory!r}, present_module.accounts, present_module.with_ledgers
present_module.accounts = lambda kind, ports, window: accounts(kind, ports, window, directory, directory)
present_module.with_ledgers = lambda applied: with_ledgers(applied, directory)
code = cli.main({arguments!r})
seconds = time.process_time()
# Not ru_maxrss: that of a process that was just forked is its parent's.
peak_kib = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in
                ("pydbus", "gi", "tomllib", "dataclasses", "jinja2", "subprocess"))
# The yardstick: to parse each line of the ledger, here and now.
with open(directory + "/3.jsonl", "rb") as lines:
    began = time.process_time()
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            continue
parsing_s = time.process_time() - began
print(json.dumps([code, seconds / max(parsing_s, 1e-6), peak_kib / 1024, loaded]), file=sys.stderr)
"""


def fresh(directory: Path, *arguments: str) -> tuple[str, int, float, float, list[str]]:
    """Run the command in a Python of its own: its output, exit code, CPU time, peak MB, and costly modules.

    The CPU time, with that of Python's start, is in parts of what it takes to parse each line of the ledger.
    """
    program = FRESH.format(root=str(PACKAGE.parent), directory=str(directory), arguments=list(arguments))
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"})
    code, parts, megabytes, loaded = json.loads(done.stderr.splitlines()[-1])
    return done.stdout, code, parts, megabytes, loaded


def parts_again(directory: Path, *arguments: str) -> float:
    """What the command takes, measured thrice more: the median, since a busy machine disturbs one of the two times."""
    return statistics.median(fresh(directory, *arguments)[2] for _ in range(3))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 lines: ten-minute files with a gap after each, 347 days of them."""
    directory = tmp_path_factory.mktemp("year")
    entries = []
    for number in range(50_000):
        at = number * 600
        path = f"/srv/recordings/CAM3_20260131T120000Z_{number}.mp4"
        entries.append(entry("file", at, at + 598, "complete", boot_id="0" * 36, path=path))
        entries.append(entry("gap", at + 598, at + 600, "killed", boot_id="0" * 36))
    append_entries(ledger_path(3, str(directory)), entries)
    return directory


@pytest.mark.alone
@pytest.mark.parametrize("command", ["gaps", "recordings"])
@pytest.mark.parametrize("days", [1, 30])
def test_a_ledger_of_100_000_lines(year: Path, command: str, days: int) -> None:
    since, until = utc_text(T + 100 * 86400), utc_text(T + (100 + days) * 86400)
    output, code, parts, megabytes, loaded = fresh(year, command, "--since", since, "--until", until)
    assert code == 0
    # A header, a row each ten minutes, and the sums; one row may be cut by the limit.
    assert len(output.splitlines()) - 4 == pytest.approx(144 * days, abs=1)
    assert parts < 1.2 or parts_again(year, command, "--since", since, "--until", until) < 1.2
    assert megabytes < 50
    assert loaded == []


@pytest.mark.alone
def test_all_of_100_000_lines_listed(year: Path) -> None:
    output, code, parts, megabytes, _ = fresh(year, "recordings", "--json")
    document = json.loads(output)
    assert (code, len(document["recordings"])) == (0, 50_000)
    assert document["sums"][0]["recorded_seconds"] == 50_000 * 598
    assert megabytes < 50
    # 2.5 at most, before a row had what became of its file since: its copies, its protection, its deletion.
    assert parts < 2.7 or parts_again(year, "recordings", "--json") < 2.7


def test_the_commands_exit_codes(tmp_path: Path) -> None:
    append_entries(ledger_path(3, str(tmp_path)), NIGHT)
    Path(open_path(3, str(tmp_path))).write_text(json.dumps(Story(3).as_dict()))
    assert fresh(tmp_path, "gaps", "--fail-if-any", "--since", utc_text(T))[1] == 1
    assert fresh(tmp_path, "gaps", "--fail-if-any", "--until", utc_text(T))[1] == 0
    assert fresh(tmp_path, "gaps", "--since", "-2x")[1] == 2
    assert fresh(tmp_path, "gaps", "--since", "-2h", "--until", "-3h")[1] == 2
    assert fresh(tmp_path, "gaps", "9")[1] == 4
    assert fresh(tmp_path, "gaps", "3", "--since", "-2h")[1] == 0


def test_what_cannot_be_read_is_no_proof_that_nothing_is_missing(tmp_path: Path) -> None:
    append_entries(ledger_path(3, str(tmp_path)), NIGHT)
    arguments = ("gaps", "--fail-if-any", "--until", utc_text(T))
    assert fresh(tmp_path, *arguments)[1] == 1
    Path(open_path(3, str(tmp_path))).write_text(json.dumps(Story(3).as_dict()))
    assert fresh(tmp_path, *arguments)[1] == 0
    with open(ledger_path(3, str(tmp_path)), "ab") as file:
        file.write(b"foreign\n")
    assert fresh(tmp_path, *arguments)[1] == 1


@pytest.mark.parametrize(
    "odd",
    [
        {**entry("gap", 5, 9, "x"), "end": "2026-02-31T12:00:00.000Z"},
        {**entry("gap", 5, 9, "x"), "end": "2026-01-31T25:00:00.000Z"},
        {**entry("gap", 5, 9, "x"), "start": "0000-00-00T00:00:00.000Z"},
        entry("file", 5, 9, "\udcff", path="/r/\udcff\n.mp4", bytes=10**400, frames=-(10**400)),
    ],
)
def test_hostile_lines_are_answered_without_a_traceback(tmp_path: Path, odd: Entry) -> None:
    Path(ledger_path(3, str(tmp_path))).write_text(json.dumps(odd) + "\n")
    for command in ("gaps", "recordings"):
        for more in ((), ("--json",), ("--since", utc_text(T + 6)), ("--since", utc_text(T + 6), "--json")):
            assert fresh(tmp_path, command, *more)[1] == 0


def test_an_open_record_with_any_name_is_answered(tmp_path: Path) -> None:
    record = {**Story(3).as_dict(), "file": {**recorded(), "path": "/r/\udcff\0.mp4"}}
    Path(open_path(3, str(tmp_path))).write_text(json.dumps(record))
    (tmp_path / "3.jsonl").write_text("")
    assert fresh(tmp_path, "recordings", "--json")[1] == 0
    assert fresh(tmp_path, "recordings")[1] == 0


@pytest.mark.parametrize("step_s", [0, -3600, 3600])
@pytest.mark.parametrize("count", [3, 500])
def test_a_batch_that_was_entered_twice_counts_once(step_s: float, count: int) -> None:
    """A crash between the ledger and the open record: in whatever order its lines begin."""
    batch = [entry("clock", 100, 100 + step_s), entry("gap", -5, 10, "x")]
    batch += [entry("file" if number % 2 else "gap", number, number + 1, "y") for number in range(count, 0, -1)]
    once, twice = account(batch), account(batch + batch)
    assert (sums(twice), twice.gaps, twice.files) == (sums(once), once.gaps, once.files)


MISSING = "is missing, and with it what went on since the ledger's last entry; skipped"

# ---- Verifying ----


@pytest.fixture
def probe(tmp_path: Path) -> str:
    """An ffprobe that counts a file's bytes as frames; for a file named torn it fails."""
    script = tmp_path / "ffprobe"
    script.write_text(
        "#!/bin/sh\nfor file; do :; done\ncase $(readlink $file) in *torn*) exit 1;; esac\n"
        'printf "25/1,%s\\n" $(wc -c <"$file")\n'
    )
    script.chmod(0o755)
    return str(script)


def recorded_files(tmp_path: Path) -> dict[str, Row]:
    rows = {}
    for name in ("good", "short", "torn", "gone", "gone too"):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(b"x" * 100)
        rows[str(path)] = Row("file", "complete", start="", end="", seconds=0, path=str(path), frames=100)
        rows[str(path)].size_bytes = 100
    os.truncate(tmp_path / "short.mp4", 60)
    os.unlink(tmp_path / "gone.mp4")
    os.unlink(tmp_path / "gone too.mp4")
    return rows


def test_verdicts(tmp_path: Path, probe: str) -> None:
    known = Known()
    known.files = recorded_files(tmp_path)
    known.deleted = {str(tmp_path / "gone too.mp4")}
    verdicts = list(verify(known, [], probe))
    texts = [str(verdict).removeprefix(f"{tmp_path}/") for verdict in verdicts]
    assert texts == [
        "good.mp4: as the ledger says: 100 frames, 100 bytes, complete",
        "short.mp4: differs: 60 frames can be read, the ledger has 100; it has 60 bytes, the ledger 100",
        "torn.mp4: differs: 0 frames can be read, the ledger has 100",
        "gone.mp4: differs: No such file or directory; the ledger has 100 frames",
        "gone too.mp4: was deleted by sdisup",
    ]
    assert [verdict.is_good for verdict in verdicts] == [True, False, False, False, True]


def test_files_by_another_name(tmp_path: Path, probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    known.files = recorded_files(tmp_path)
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    words = ["good.mp4", "link/good.mp4", "./link/../good.mp4", "/etc/passwd"]
    assert [verdict.is_good for verdict in verify(known, words, probe)] == [True, True, True, False]
    (verdict,) = verify(known, ["/nonexistent/x.mp4"], probe)
    assert str(verdict) == "/nonexistent/x.mp4: does not exist, and is in no ledger"


def test_a_word_is_a_file_or_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "4").touch()
    words = {"3": False, "0-3": False, "CAM3": False, "4": True, "CAM3.mp4": True, "./3": True, "gone.mkv": True}
    assert {word: is_file(word) for word in words} == words


def test_files_that_are_recorded_or_counted_now(tmp_path: Path, probe: str) -> None:
    known = Known()
    rows = rows_of(story(file=recorded(), queue=[recorded(5, end=FileEnd("/r/5.mp4", "cut off", "x"))]), present(40))
    known.open = {str(row.path): row for row in rows}
    assert [str(verdict) for verdict in verify(known, [], probe)] == [
        "/r/5.mp4: ended; its frames are not counted yet",
        "/r/10.mp4: is being recorded now",
    ]


def test_files_of_a_time(tmp_path: Path) -> None:
    append_entries(ledger_path(3, str(tmp_path)), NIGHT)
    known = known_files([port()], Window(T + 150, T + 250), str(tmp_path))
    assert list(known.files) == ["/r/110.mp4"]
    assert [str(problem).partition(": ")[2] for problem in known.problems] == [MISSING]


def test_what_belongs_to_a_take(tmp_path: Path) -> None:
    """In the ledger, and what goes on, for all three commands."""
    entries = [{**entry, "take": "final" if str(entry["start"]) > utc_text(T + 105) else None} for entry in NIGHT]
    append_entries(ledger_path(3, str(tmp_path)), entries)
    for take, files in (("final", ["/r/110.mp4", "/r/300.02.mp4"]), ("cup", [])):
        window = Window(take=take)
        assert list(known_files([port()], window, str(tmp_path)).files) == files
        (found,) = [account for _, _, account in present_module.accounts("file", [port()], window, str(tmp_path))[0]]
        assert [row.path for row in found.rows] == files
    going_on = rows_of(story(file=recorded()), present(40))
    assert account([], "file", rows=going_on, window=Window(take="final")).files == 1
    assert account([], "file", rows=going_on, window=Window(take="cup")).files == 0


def mark(at: float, path: str, frame: int, former: str | None, take: str | None) -> Entry:
    found = entry("mark", at, at, path=path, frame=frame, take=take, former_take=former)
    del found["x"]
    return found


CUTS = [
    entry("file", 0, 40, "complete", take="one"),
    mark(44, "/r/40.mp4", 100, "one", "two"),
    mark(60, "/r/40.mp4", 500, "two", "three"),
    entry("file", 40, 80, "cut off: power", take="one"),
    entry("gap", 80, 82, "power", take="three"),
    entry("file", 82, 92, "complete", take="three"),
]
"""A take of a file and a tenth of the next, a second of 16 s in the middle of that, and a third."""


@pytest.mark.parametrize(
    ("take", "files", "marks", "recorded_s"),
    [
        ("one", [("/r/0.mp4", 0, 1000, False), ("/r/40.mp4", 0, 100, True)], [100], 44),
        ("two", [("/r/40.mp4", 100, 400, True)], [100, 500], 16),
        ("three", [("/r/40.mp4", 500, 500, True), ("/r/82.mp4", 0, 250, False)], [500], 30),
        (None, [("/r/0.mp4", 0, 1000, False), ("/r/40.mp4", 0, 1000, False), ("/r/82.mp4", 0, 250, False)],
         [100, 500], 90),
        ("four", [], [], 0),
    ],
)  # fmt: skip
def test_a_take_has_the_files_and_parts_of_files_between_its_marks(
    take: str | None, files: list[Any], marks: list[int], recorded_s: float
) -> None:
    for entries, waiting in ((CUTS, []), (CUTS[:1], CUTS[1:])):
        found = account(entries, "file", window=Window(take=take), waiting=waiting)
        assert [(row.path, row.first_frame, row.frames, row.is_part) for row in found.rows] == files
        assert [row.frames for row in found.marks] == marks
        assert found.recorded_s == pytest.approx(recorded_s)
    assert account(CUTS, window=Window(take=take)).marks == []


def test_a_file_is_verified_for_each_take_that_it_holds(tmp_path: Path) -> None:
    append_entries(ledger_path(3, str(tmp_path)), CUTS)
    for take, files in (("one", ["/r/0.mp4", "/r/40.mp4"]), ("two", ["/r/40.mp4"]), ("four", [])):
        assert list(known_files([port()], Window(take=take), str(tmp_path)).files) == files


def test_a_part_of_a_file_has_its_own_time() -> None:
    (row,) = account(CUTS, "file", window=Window(take="two")).rows
    assert (row.start, row.end, row.seconds) == (utc_text(T + 44), utc_text(T + 60), 16.0)
    (late,) = account(CUTS, "file", window=Window(T + 50, take="two")).rows
    assert (late.start, late.end, late.seconds) == (utc_text(T + 50), utc_text(T + 60), 10.0)


def test_a_file_that_goes_on_belongs_to_the_takes_of_its_marks() -> None:
    going_on = rows_of(story(file=recorded()), present(40))
    path = going_on[0].path
    assert path is not None
    marks = [mark(20, path, 10, None, "cup")]
    found = account(marks, "file", rows=going_on, window=Window(take="cup"))
    assert [(row.path, row.first_frame, row.is_open) for row in found.rows] == [(path, 10, True)]
    # What is before a mark is over, whatever the status says so far.
    ended = mark(39, path, 5000, None, "cup")
    entries, rows = [{**ended, "former_take": "first"}], [going_on[0].replaced(take="first")]
    (former,) = account(entries, "file", rows=rows, window=Window(take="first")).rows
    assert (former.frames, former.is_open, former.has_more, former.size_bytes) == (5000, False, True, None)


def test_marks_are_listed(paris: None) -> None:
    found = [(3, "CAM3", account(CUTS, "file", window=Window(take="two")))]
    lines = list(accounts_table.file_lines(found))
    assert [line[line.index("/r/40") :] for line in lines[1:]] == [
        "/r/40.mp4  cut off: power (frames from 100 on)",
        "/r/40.mp4  mark: the take begins with this frame",
        "/r/40.mp4  mark: the take begins with this frame",
    ]
    document = json.loads("".join(accounts_table.document_lines("recordings", found)))
    assert [row["first_frame"] for row in document["recordings"]] == [100]
    assert [(row["frame"], row["former_take"], row["take"]) for row in document["marks"]] == [
        (100, "one", "two"), (500, "two", "three"),
    ]  # fmt: skip


def test_a_missing_ffprobe_is_an_error(tmp_path: Path) -> None:
    known = Known()
    known.files = recorded_files(tmp_path)
    with pytest.raises(sdisup.SdisupError, match="cannot be run"):
        list(verify(known, [], "/nonexistent/ffprobe"))
