"""A port's history as its ledger tells it: tables of what happened, and any history with cuts at any moment.

The story is pure: time is a number here, and a crash is to go on with what was last written down.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.contract.files import unix_time, utc_text
from sdisup.ledger.accounts import Account, Window, account_of, line_of
from sdisup.ledger.entries import extent
from sdisup.ledger.lines import Entry, wrong_entry
from sdisup.ledger.moments import (
    FileEnd,
    Interval,
    Moment,
    TakenFile,
    end_of,
    file_end_from,
    interval_from,
    moment_from,
    taken_file_from,
)
from sdisup.ledger.story import QUEUE_LIMIT, Story

RATE = 25.0
EPOCH = 1.7e9


class CutOff(Exception):
    """The runner, or the whole machine, ended in the middle of a write."""


@dataclass
class Port:
    """A port with a ledger on paper. Time is true time in seconds; `tell` is what a living runner does."""

    at: float = 0.0
    records_at_boot: bool = True
    boot_at: float = 0.0
    clock_s: float = 0.0
    """By how much the wall clock is wrong."""
    boots: int = 1
    files: int = 0
    story: Story = field(default_factory=lambda: Story(3))
    entered: list[Entry] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """The readable frames of each file."""
    writes: int = 0
    cuts: dict[int, str] = field(default_factory=dict)
    """Which writes are cut off: before them, or between the ledger and the open record."""

    @property
    def now(self) -> Moment:
        return Moment(EPOCH + self.at + self.clock_s, self.at - self.boot_at + 5.0, f"boot-{self.boots}")

    @property
    def boot(self) -> Moment:
        return self.now.plus(self.boot_at - self.at)

    def write(self) -> None:
        """What the ledger's thread does after each event."""
        self.writes += 1
        cut = self.cuts.get(self.writes, "")
        if cut.endswith("before"):
            raise CutOff(cut)
        self.entered += [json.loads(json.dumps(entry)) for entry in self.story.take_ready()]
        if cut:
            raise CutOff(cut)
        self.saved = json.loads(json.dumps(self.story.as_dict()))

    def wait(self, seconds: float) -> Port:
        self.at += seconds
        return self

    # What a runner tells.

    def begin(self, last_end: FileEnd | None = None, cause: str = "", take: str | None = None) -> Port:
        """A runner begins with what was saved; `is_restart` where one ended before it in this boot."""
        self.story = Story(3)
        self.story.recall(self.saved)
        left = self.story.file
        self.story.begin(
            self.now,
            self.boot,
            last_end=last_end,
            left_bytes=1000 if left and self.counts.get(left.path) else 0,
            cause=cause,
            is_restart=bool(cause),
            records_at_boot=self.records_at_boot,
            take=take,
        )
        self.write()
        return self

    def record(self, seconds: float, *, rate: float = RATE, lag_s: float = 0.2, take: str | None = None) -> Port:
        """A file is made; `lag_s` later comes its first frame, and then it goes on for so long."""
        self.files += 1
        file = TakenFile(f"/r/{self.files}.mp4", take, "h264", rate, self.now)
        self.story.opened(file)
        self.write()
        self.wait(lag_s)
        self.story.media(self.now, "Lavf61")
        self.write()
        self.wait(seconds)
        self.counts[file.path] = round(seconds * RATE)
        return self

    def end(self, cause: str, verdict: str = "complete", *, missing: int = 0, lost: int = 0) -> FileEnd:
        """How the file that is being recorded ended, as its runner saw it: `lost` frames never reached the disk."""
        assert self.story.file is not None
        path = self.story.file.path
        frames = self.counts[path] - missing
        self.counts[path] = frames - lost
        return FileEnd(path, verdict=verdict, cause=cause, frames=frames, missing=missing, last_frame=self.now)

    def close(self, end: FileEnd) -> Port:
        self.story.closed(end, 1000, self.now)
        self.write()
        return self

    def waits(self, cause: str) -> Port:
        self.story.waits(cause, self.now, None)
        self.write()
        return self

    def stop(self, by: str = "operator", *, closing_s: float = 0.1) -> Port:
        end = self.end("stop") if self.story.file else None
        self.wait(closing_s)
        if end:
            self.story.closed(end, 1000, self.now)
        self.story.stopped(by, self.now, None)
        self.write()
        return self

    def count(self) -> Port:
        """The files that wait for it are counted, one after the other."""
        while file := self.story.to_count():
            readable = self.counts.get(file.path)
            self.story.counted(file, readable, 1000 if readable else 0)
            self.write()
        return self

    # What happens to it.

    def reboot(self, down_s: float = 10.0) -> Port:
        self.wait(down_s)
        self.boots += 1
        self.boot_at = self.at
        return self

    # What comes of it.

    def account(self, *, open_too: bool = True) -> Account:
        """The sums of all that was entered, as `sdisup gaps` makes them; what goes on is ended now."""
        entries = list(self.entered)
        if open_too:
            rest = Story(3)
            rest.recall(json.loads(json.dumps(self.story.as_dict())))
            if rest.file is None:
                rest.stopped("test", self.now, None)
            entries += rest.take_ready()
        assert [wrong_entry(entry) for entry in entries if wrong_entry(entry)] == []
        found, problems = account_of("gap", [[line_of(entry) for entry in entries]], [], [], Window())
        assert problems == []
        return found

    def rows(self, *kinds: str) -> list[tuple[object, ...]]:
        """The entries as (kind, what, seconds)."""
        names = {"gap": "cause", "stop": "by", "file": "ended"}
        return [
            (entry["kind"], entry.get(names.get(str(entry["kind"]), "")), entry["seconds"])
            for entry in self.entered
            if not kinds or entry["kind"] in kinds
        ]


def total(account: Account) -> float:
    return account.recorded_s + account.missing_s + account.stopped_s


# ---- Histories ----


def test_a_start_a_recording_and_a_stop() -> None:
    port = Port().begin().record(10).stop().wait(100).begin()
    assert port.rows() == [("gap", "start", 0.2), ("file", "complete", 10.0), ("stop", "operator", 100.1)]


def test_ending_ffmpeg_is_part_of_the_stop_unless_it_takes_long() -> None:
    port = Port().begin().record(10).stop(closing_s=4).wait(100).begin()
    assert port.rows("gap", "stop") == [("gap", "start", 0.2), ("gap", "stop", 4.0), ("stop", "operator", 100.0)]


def test_ffmpeg_killed() -> None:
    port = Port().begin().record(10)
    end = port.end("killed", "cut off: FFmpeg was killed by signal 9", lost=5)
    port.wait(0.3).begin(end, "killed").count().record(5).stop()
    assert port.rows() == [
        ("gap", "start", 0.2),
        ("file", "cut off: FFmpeg was killed by signal 9", 9.8),
        ("gap", "killed", 0.7),
        ("file", "complete", 5.0),
    ]


def test_the_runner_killed() -> None:
    port = Port().begin().record(10).wait(0.4).begin().count().record(5).stop()
    assert port.rows("gap")[1] == ("gap", "runner killed", 0.6)
    assert port.rows("file")[0] == ("file", "cut off: runner killed", 10.0)


def test_the_runner_killed_before_the_ledger_knew_of_a_frame() -> None:
    """The first frame is told with FFmpeg's first progress, which comes later: the file holds some already."""
    port = Port().begin().wait(0.5)
    port.story.opened(TakenFile("/r/1.mp4", None, "h264", RATE, port.now))
    port.write()
    port.counts["/r/1.mp4"] = 20
    port.wait(1.0).begin().count().record(5).stop()
    assert port.rows() == [
        ("gap", "start", 0.5),
        ("file", "cut off: runner killed", 0.8),
        ("gap", "runner killed", 0.4),
        ("file", "complete", 5.0),
    ]


def test_a_file_that_never_held_a_frame_leaves_no_trace() -> None:
    port = Port().begin()
    port.story.opened(TakenFile("/r/1.mp4", None, "h264", RATE, port.now))
    port.story.closed(FileEnd("/r/1.mp4", verdict="empty", cause="no signal"), 0, port.wait(1).now)
    port.waits("no signal").wait(20).record(5).stop()
    assert port.rows() == [("gap", "start", 1.0), ("gap", "no signal", 20.2), ("file", "complete", 5.0)]


@pytest.mark.parametrize("records_at_boot", [True, False])
def test_a_power_cut(records_at_boot: bool) -> None:
    """Nobody stopped it: what is missing is missing until it records again, whoever starts it."""
    port = Port(records_at_boot=records_at_boot).begin().record(10).reboot(30).wait(2).begin().count().record(5).stop()
    assert port.rows()[1:3] == [("file", "cut off: power", 10.0), ("gap", "power", 32.2)]


def test_two_power_cuts_in_a_row() -> None:
    port = Port().begin().record(10).reboot(30).wait(2).begin().reboot(5).wait(1).begin().count().record(5).stop()
    assert port.rows("gap")[1:] == [("gap", "power", 38.2)]


def test_a_power_cut_during_a_gap() -> None:
    port = Port().begin().waits("no signal").wait(5).reboot(30).begin().record(5).stop()
    assert port.rows("gap") == [("gap", "no signal, then power", 35.2)]


def test_a_shutdown_of_a_port_that_records_at_boot() -> None:
    port = Port().begin().record(10).stop("shutdown").reboot(20).wait(3).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("gap", "reboot", 23.3)]


def test_a_shutdown_of_a_port_that_does_not() -> None:
    port = Port(records_at_boot=False).begin().record(10).stop("shutdown").reboot(20).wait(3).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("stop", "shutdown", 23.1), ("gap", "start", 0.2)]


def test_a_stop_by_hand_and_then_a_shutdown() -> None:
    """It holds until the next boot; from then on the port should have recorded."""
    port = Port().begin().record(10).stop().wait(60).reboot(20).wait(3).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("stop", "operator", 80.1), ("gap", "reboot", 3.2)]


def test_a_stop_by_hand_of_a_port_that_does_not_record_at_boot() -> None:
    port = Port(records_at_boot=False).begin().record(10).stop().reboot(20).wait(3).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("stop", "operator", 23.1), ("gap", "start", 0.2)]


def test_a_boot_that_cannot_be_later_than_it_is() -> None:
    """In a container, or with a clock that was put back, a boot may seem to lie before the stop."""
    port = Port().begin().record(10).stop().wait(5).reboot(1)
    port.boot_at -= 1000
    port.begin().record(5).stop()
    assert all(float(str(entry["seconds"])) >= 0 for entry in port.entered)
    assert total(port.account()) == pytest.approx(port.at, abs=0.5)


def test_the_signal_goes_and_comes_back() -> None:
    port = Port().begin().record(10)
    port.close(port.end("signal lost")).waits("signal lost").wait(60).record(5).stop()
    assert port.rows("gap")[1:] == [("gap", "signal lost", 60.2)]


def test_causes_of_one_gap_are_told_apart() -> None:
    port = Port().begin().record(10)
    port.close(port.end("signal lost")).wait(10).waits("no signal").wait(5).waits("board missing").wait(1).record(5)
    assert port.stop().rows("gap")[1:] == [
        ("gap", "signal lost", 10.0),
        ("gap", "no signal", 5.0),
        ("gap", "board missing", 1.2),
    ]


def test_an_encoder_that_is_too_slow() -> None:
    port = Port().begin().record(100)
    port.close(port.end("stop", missing=250)).wait(1)
    file, gap = port.entered[1:]
    assert (file["seconds"], file["frames"]) == (90.0, 2250)
    assert (gap["cause"], gap["seconds"], gap["frames_missing"], gap["path"]) == (
        "cannot keep up", 10.0, 250, file["path"],
    )  # fmt: skip
    assert (gap["start"], gap["end"]) == (file["start"], file["end"])


def test_frames_that_miss_at_the_end_are_of_what_came_then() -> None:
    """The last ten seconds of a slow encoder are judged by nobody; the time must not be lost."""
    port = Port().begin().record(100)
    end = port.end("stalled")
    end.frames -= 100
    port.close(end).wait(1).record(1).stop()
    assert port.rows()[1:3] == [("file", "complete", 96.0), ("gap", "stalled", 5.2)]


def test_a_source_that_is_faster_than_its_rate_does_not_fill_more_than_its_time() -> None:
    port = Port().begin().record(10)
    end = port.end("stop")
    end.frames *= 2
    port.close(end)
    assert port.rows("file") == [("file", "complete", 10.0)]


def test_a_first_frame_is_never_before_its_file() -> None:
    port = Port().begin().wait(1)
    port.story.opened(TakenFile("/r/1.mp4", None, "h264", RATE, port.now))
    port.story.media(port.now.plus(-30), "")
    port.write()
    assert port.rows() == [("gap", "start", 1.0)]


def test_without_a_rate_the_times_count() -> None:
    port = Port().begin().record(10, rate=0.0).stop()
    assert port.rows("file") == [("file", "complete", 10.0)]


def test_without_a_rate_that_of_the_file_counts() -> None:
    port = Port().begin().record(10, rate=0.0).wait(0.4).begin()
    file = port.story.to_count()
    assert file is not None
    file.rate = 25.0
    port.count().record(5).stop()
    assert port.rows("file")[0] == ("file", "cut off: runner killed", 10.0)
    assert port.rows("gap")[1] == ("gap", "runner killed", 0.6)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_clock(step_s: float) -> None:
    port = Port().begin().record(10)
    before = port.now
    port.clock_s += step_s
    port.wait(0.5).story.clock_stepped(before, port.now)
    port.wait(9.5)
    port.counts["/r/1.mp4"] = 500
    port.stop()
    assert port.rows("clock", "file") == [("clock", None, step_s), ("file", "complete", 20.0)]


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_clock_does_not_change_how_long_a_power_cut_was(step_s: float) -> None:
    port = Port().begin().record(10)
    before = port.now
    port.clock_s += step_s
    port.story.clock_stepped(before, port.now)
    port.write()
    port.reboot(30).begin().count().record(5).stop()
    assert port.rows("gap")[1:] == [("gap", "power", 30.2)]


def test_a_step_of_the_clock_in_a_gap_does_not_change_how_long_it_was() -> None:
    port = Port().begin().waits("no signal").wait(5)
    before = port.now
    port.clock_s += 3600
    port.story.clock_stepped(before, port.now)
    port.write()
    port.reboot(30).begin().record(5).stop()
    assert port.rows("gap") == [("gap", "no signal, then power", 35.2)]


def test_a_clock_that_was_put_back_over_a_reboot_makes_no_negative_gap() -> None:
    port = Port().begin().record(10)
    port.clock_s -= 1e6
    port.reboot(30).begin().count().record(5).stop()
    assert port.rows()[1:] == [("file", "cut off: power", 10.0), ("gap", "power", 0.0), ("file", "complete", 5.0)]
    # Its length is in no sum, and said to be unknown.
    account = port.account()
    assert account.missing_s == pytest.approx(0.2)
    assert account.unknown == 1
    assert [row.seconds for row in account.rows if row.what == "power"] == [None]


def test_a_clock_that_is_put_right_after_a_power_cut_tells_how_long_it_was() -> None:
    """No battery, or the time that was saved last: the system comes up as if only a moment had passed."""
    port = Port().begin().record(10)
    port.clock_s -= 6 * 3600
    port.reboot(6 * 3600 + 2).begin().count().record(5)
    before = port.now
    port.clock_s += 6 * 3600
    port.story.clock_stepped(before, port.now)
    port.wait(20).stop()
    assert [what for _, what, _ in port.rows("gap")][:3] == ["start", "power", "power"]
    assert total(port.account()) == pytest.approx(port.at, abs=1)
    # The next step is one of the clock alone.
    before = port.now
    port.clock_s += 100
    port.story.clock_stepped(before, port.now)
    port.write()
    assert [what for _, what, _ in port.rows("gap")].count("power") == 2


def test_a_clock_that_was_moved_while_no_runner_lived_is_entered() -> None:
    port = Port().begin().record(10)
    port.clock_s += 3600
    port.wait(0.5).begin().count().record(5).stop()
    assert port.rows("clock") == [("clock", None, 3600.0)]
    assert total(port.account()) == pytest.approx(port.at, abs=1)


@pytest.mark.parametrize("readable", [0, 50])
def test_what_a_stop_closed_and_is_not_in_the_file_is_missing(readable: int) -> None:
    """FFmpeg said at the end that it could not write; its word that it had received all of that is no material."""
    port = Port().begin().record(100)
    path = port.story.file.path if port.story.file else ""
    port.counts[path] = readable
    last = port.now
    port.wait(0.4)
    port.story.closed(
        FileEnd(path, verdict="incomplete: disk error", cause="stop", frames=2500, last_frame=last), 1000, port.now
    )
    port.story.stopped("operator", port.now, None)
    port.count().write()
    port.wait(30)
    port.begin().record(1).stop()
    assert port.rows("gap")[1][:2] == ("gap", "cut off")
    assert port.rows("gap")[1][2] == pytest.approx(100 - readable / RATE, abs=0.5)
    assert port.rows("stop")[0][2] == pytest.approx(30, abs=0.7)


def test_a_port_that_was_stopped_without_its_runner() -> None:
    """It had failed for good, and an operator stopped it: the next runner has the status's word for it."""
    port = Port().begin().record(10)
    port.story.closed(
        FileEnd("/r/1.mp4", verdict="complete", cause="cannot work", frames=250, last_frame=port.now), 9, port.now
    )
    port.story.waits("cannot work", port.now, None)
    stopped_at = port.wait(20).now
    port.wait(30)
    port.story.stopped_unseen(stopped_at)
    port.story.begin(
        port.now,
        port.now.plus(-100),
        last_end=None,
        left_bytes=0,
        cause="",
        is_restart=False,
        records_at_boot=False,
        take=None,
    )
    port.record(5).stop()
    assert port.rows("gap", "stop")[1:3] == [("gap", "cannot work", 20.0), ("stop", "operator", 30.0)]


def test_what_is_counted_later_waits_for_it_and_the_next_file_already_records() -> None:
    port = Port().begin().record(10)
    port.wait(0.4).begin().record(30)
    assert port.rows() == [("gap", "start", 0.2)]
    port.count()
    assert port.rows()[1:] == [("file", "cut off: runner killed", 10.0), ("gap", "runner killed", 0.6)]
    port.stop()
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_two_files_wait_for_their_count() -> None:
    port = Port().begin().record(10).wait(0.4).begin().record(20).wait(0.4).begin().record(5).stop()
    assert port.rows() == [("gap", "start", 0.2)]
    port.count()
    assert [row[0] for row in port.rows()] == ["gap", "file", "gap", "file", "gap", "file"]
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_a_file_that_was_cut_off_at_a_stop_is_counted_at_the_next_start() -> None:
    port = Port().begin().record(10)
    port.story.closed(port.end("stop", "cut off: FFmpeg was killed by signal 9", lost=10), 1000, port.wait(0.1).now)
    port.story.stopped("operator", port.now, None)
    port.write()
    port.wait(60).begin().count()
    assert port.rows()[1:] == [
        ("file", "cut off: FFmpeg was killed by signal 9", 9.6),
        ("stop", "operator", 60.5),
    ]


def test_a_file_that_cannot_be_counted_is_entered_as_ffmpeg_counted_it() -> None:
    port = Port().begin().record(10)
    end = port.end("killed", "cut off")
    port.wait(1).begin(end, "killed")
    file = port.story.to_count()
    assert file is not None
    port.story.counted(file, None, 0)
    port.write()
    assert port.entered[-1]["frames"] == 250


def test_a_count_that_never_ends_does_not_hold_up_the_ledger_for_ever() -> None:
    port = Port().begin().record(10).wait(0.4).begin()
    file = port.story.to_count()
    assert file is not None
    for number in range(QUEUE_LIMIT + 10):
        port.wait(1).waits(f"cause {number}")
    assert len(port.story.waiting()) < QUEUE_LIMIT
    assert len(json.dumps(port.saved)) < 1 << 20
    port.story.counted(file, 7, 7)
    port.write()
    assert total(port.account()) == pytest.approx(port.at, abs=0.5)


def test_a_take_is_told_with_its_files_and_gaps() -> None:
    port = Port().begin(take="final").record(10, take="final").stop()
    assert [entry["take"] for entry in port.entered] == ["final", "final"]


# ---- What is written down ----


def test_a_record_is_read_back_as_it_was() -> None:
    port = Port().begin().record(10).wait(0.4).begin().record(5)
    port.story.waits("x", port.now, "take")
    again = Story(3)
    assert again.recall(json.loads(json.dumps(port.story.as_dict())))
    assert again.as_dict() == port.story.as_dict()


@pytest.mark.parametrize(
    "document",
    [None, [], 7, {}, {"v": 1}, {"v": 2, "port_index": 3, "file": None}, {"v": 1, "port_index": 4, "file": None}],
)
def test_another_record_is_not_taken_up(document: object) -> None:
    story = Story(3)
    assert not story.recall(document)
    assert story.as_dict() == Story(3).as_dict()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def damaged(document: object, chance: st.DataObject) -> object:
    """The document with some of its values replaced."""
    if chance.draw(st.integers(0, 9)) == 0:
        return chance.draw(json_values)
    if isinstance(document, dict):
        return {key: damaged(value, chance) for key, value in document.items()}
    return [damaged(value, chance) for value in document] if isinstance(document, list) else document


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_record_breaks_a_runner(chance: st.DataObject) -> None:
    port = Port().begin().record(10).wait(0.4).begin().record(20).wait(0.4).begin().wait(1).record(3)
    port.saved = damaged(port.saved, chance)  # type: ignore[assignment]
    port.wait(1).begin().record(5).stop()
    while file := port.story.to_count():
        port.story.counted(file, 3, 10)
    port.write()
    assert [wrong_entry(entry) for entry in port.story.take_ready() if "path" not in entry] == []


@given(json_values)
def test_what_is_no_record_is_none(value: object) -> None:
    for read in (moment_from, interval_from, file_end_from, taken_file_from):
        assert read(value) is None or isinstance(value, dict | list)


def test_moments_are_whole_milliseconds_so_that_a_second_reckoning_gives_the_same() -> None:
    moment = Moment(1.23456, 2.34567, "b")
    assert moment.as_list() == [1.235, 2.346, "b"]
    again = moment_from(json.loads(json.dumps(moment.as_list())))
    assert again is not None
    assert again.plus(0.0004).as_list() == moment.plus(0.0004).as_list()


def test_the_time_of_a_file_is_within_its_making_and_its_closing() -> None:
    port = Port()
    file = TakenFile("/r/1.mp4", None, "h264", RATE, port.now)
    file.closed = port.wait(2).now
    end = FileEnd(file.path, verdict="cut off", cause="x", frames=10)
    start, last = extent(file, end, 500)
    assert (start.as_list(), last.as_list()) == (file.opened and file.opened.as_list(), file.closed.as_list())


def test_an_interval_is_never_shorter_than_nothing() -> None:
    assert Interval("gap", "x", Moment(10, 10, "a"), None).seconds(Moment(5, 0, "b")) == 0


# ---- Any history ----

EVENTS = (
    "record", "record", "ffmpeg killed", "runner killed", "killed early", "signal lost", "stop and start", "shutdown",
    "power", "power at start", "clock", "count", "backoff",
)  # fmt: skip
CUTS = ("power before", "power between", "runner before", "runner between")


def play(port: Port, event: str, seconds: float) -> float:
    """Let an event happen to a port that records; it records again then. Returns how far the sum may be off."""
    if event == "record":
        port.counts[f"/r/{port.files}.mp4"] += round(seconds * RATE)
        port.wait(seconds)
        return 0.0
    if event == "ffmpeg killed":
        end = port.end("killed", "cut off", lost=min(5, port.counts[f"/r/{port.files}.mp4"]))
        port.wait(0.3).begin(end, "killed")
    elif event == "runner killed":
        port.wait(0.3).begin()
    elif event == "killed early":
        port.close(port.end("crash")).wait(0.1)
        port.story.opened(TakenFile(f"/r/{port.files}b.mp4", None, "h264", RATE, port.now))
        port.counts[f"/r/{port.files}b.mp4"] = 10
        port.write()
        port.wait(0.8).begin()
    elif event == "signal lost":
        port.close(port.end("signal lost")).waits("signal lost").wait(seconds)
    elif event == "stop and start":
        port.stop().wait(seconds).begin()
    elif event == "shutdown":
        port.stop("shutdown").reboot(seconds).wait(1).begin()
    elif event == "power":
        port.reboot(seconds).wait(1).begin()
    elif event == "power at start":
        port.reboot(seconds).wait(1).begin().reboot(seconds).begin()
    elif event == "clock":
        before = port.now
        port.clock_s += seconds - 20
        port.story.clock_stepped(before, port.now)
        port.write()
        return 0.0
    elif event == "count":
        port.count()
        return 0.0
    elif event == "backoff":
        end = port.end("crash", "cut off")
        port.wait(0.1).begin(end, "crash").wait(seconds).begin(None, "board missing")
    port.record(0.6)
    return 1.0


def play_on(port: Port, event: str, seconds: float) -> float:
    """Play an event; where it is cut off, the port is started again, however often that is cut off too."""
    allowed_s = 2.0
    try:
        return play(port, event, seconds)
    except CutOff as error:
        cut = str(error)
    while True:
        # Of a step of the clock that was not written down nobody knows.
        allowed_s += 1.0 + (abs(seconds - 20) if event == "clock" else 0)
        try:
            port.reboot(3) if cut.startswith("power") else port.wait(0.3)
            port.begin().record(0.7)
            return allowed_s
        except CutOff as error:
            cut = str(error)


def late_s(entered: list[Entry]) -> float:
    """What was added to reboots by steps of the clock: here the clock was right before, and nothing was missing."""
    late = {
        (after["start"], float(str(after["seconds"])))
        for before, after in pairwise(entered)
        if before["kind"] == "clock" and (after["start"], after["end"]) == (before["start"], before["end"])
    }
    return sum(seconds for _, seconds in late)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 40)), max_size=12),
    st.dictionaries(st.integers(6, 60), st.sampled_from(CUTS), max_size=5),
    st.booleans(),
)
def test_the_sum_is_the_time(history: list[tuple[str, float]], cuts: dict[int, str], records_at_boot: bool) -> None:
    """Files + gaps + stops = time, within a second an interruption, wherever the ledger's writing was cut off."""
    port = Port(records_at_boot=records_at_boot, cuts=cuts).begin().record(1)
    allowed_s = 0.5 + sum(play_on(port, event, round(seconds, 2)) for event, seconds in history)
    port.cuts = {}
    port.stop().count()
    account = port.account()
    # A step back that was cut off before it was written down, by the power: then nobody knows.
    assert account.unknown <= (sum(event == "clock" for event, _ in history) if cuts else 0)
    assert total(account) - late_s(port.entered) == pytest.approx(port.at, abs=allowed_s)
    assert all(float(str(entry["seconds"])) >= 0 for entry in port.entered if entry["kind"] != "clock")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([e for e in EVENTS if e != "clock"]), st.floats(0, 40)), max_size=12),
    st.booleans(),
)
def test_without_cuts_the_intervals_touch(history: list[tuple[str, float]], records_at_boot: bool) -> None:
    """Each begins where the one before ended: no time is in two of them, and none in none."""
    port = Port(records_at_boot=records_at_boot).begin().record(1)
    for event, seconds in history:
        play(port, event, round(seconds, 2))
    port.stop().count()
    spans = [entry for entry in port.entered if entry.get("cause") != "cannot keep up"]
    for one, next_one in pairwise(spans):
        assert abs(unix_time(str(one["end"])) - unix_time(str(next_one["start"]))) < 0.003, (one, next_one)


@given(st.floats(0, 7e9), st.floats(0, 1e8))
def test_when_an_entry_ended_can_be_read_back(wall: float, monotonic: float) -> None:
    at = Moment(wall, monotonic, "boot")
    found = end_of({"end": utc_text(at.wall), "end_monotonic": at.monotonic, "boot_id": "boot"})
    assert found is not None
    assert (found.wall, found.monotonic, found.boot) == (at.wall, at.monotonic, "boot")


@pytest.mark.parametrize("entry", [{}, {"end": 7}, {"end": "soon"}, {"end": "2026-01-31T12:00:00.000Z"}])
def test_an_entry_without_a_usable_end(entry: Entry) -> None:
    assert end_of(entry) is None
