"""A port's history as its ledger tells it: tables of what happened, and any history with cuts at any moment.

The story is pure: time is a number here, events are told as a runner's spool holds them, and a writer that was cut off
goes on with what was last written down.
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
from sdisup.ledger.spool import (
    BEGAN,
    CLOCK,
    CLOSED,
    DUE,
    LOSING,
    MARK,
    MEDIA,
    MISSED,
    OPENED,
    SCHEDULE,
    SLEPT,
    STOPPED,
    WAITS,
    Event,
    after,
)
from sdisup.ledger.story import QUEUE_LIMIT, Found, Story

RATE = 25.0
EPOCH = 1.7e9


class CutOff(Exception):
    """The machine ended in the middle of a write."""


@dataclass
class Port:
    """A port with a ledger on paper. Time is true time in seconds; `tell` is what a living runner does."""

    at: float = 0.0
    records_at_boot: bool = True
    boot_at: float = 0.0
    clock_s: float = 0.0
    """By how much the wall clock is wrong."""
    asleep_s: float = 0.0
    """For how long the system was suspended in this boot."""
    boots: int = 1
    files: int = 0
    story: Story = field(default_factory=lambda: Story(3))
    entered: list[Entry] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)
    spool: list[Event] = field(default_factory=list)
    told: int = 0
    is_writer_there: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    """The readable frames of each file."""
    found: list[Found] = field(default_factory=list)
    """What is on disk after a boot and in no ledger."""
    writes: int = 0
    cuts: dict[int, str] = field(default_factory=dict)
    """Which writes are cut off: before them, or between the open record and all of its entries."""

    @property
    def now(self) -> Moment:
        # No two boots have the same moment by both clocks.
        up_s = self.at - self.boot_at + 5.0 + self.boots / 1000 - self.asleep_s
        return Moment(EPOCH + self.at + self.clock_s, up_s, f"boot-{self.boots}")

    @property
    def boot(self) -> Moment:
        return self.now.plus(self.boot_at - self.at)

    def tell(self, kind: str, at: Moment | None = None, **fields: object) -> Port:
        """What a runner leaves in its spool, and what the writer makes of it."""
        now = at or self.now
        moments = {name: value.as_list()[:2] if isinstance(value, Moment) else value for name, value in fields.items()}
        self.told += 1
        event = {"v": 1, "sequence": self.told, "boot": now.boot, "kind": kind, "at": now.as_list()[:2], **moments}
        self.spool.append(json.loads(json.dumps(event)))
        return self.write()

    def write(self) -> Port:
        """What the ledger's writer does after each event, and its successor after one that was killed."""
        while self.is_writer_there and not self._write():
            self.restart_writer()
        return self

    def _write(self) -> bool:
        self.writes += 1
        cut = self.cuts.get(self.writes, "")
        for event in after(self.spool, self.story.boot, self.story.sequence):
            left = self.story.file
            left_bytes = 1000 if left and self.counts.get(left.path) else 0
            self.story.take(event, left_bytes=left_bytes, found=self.found if event["kind"] == BEGAN else ())
            self.found = self.found if event["kind"] != BEGAN else []
        ready = self.story.ready()
        if not cut.endswith("before"):
            self.saved = json.loads(json.dumps(self.story.as_dict()))
            whole = ready[: len(ready) // 2] if cut else ready
            self.entered += [json.loads(json.dumps(entry)) for entry in whole]
        if cut.startswith("power"):
            raise CutOff(cut)
        if cut:
            return False
        self.story.entered(self.story.number)
        return True

    def restart_writer(self) -> None:
        """It goes on with what is written down."""
        self.story = Story(3)
        if self.saved:
            self.story.recall(self.saved)
        if self.entered:
            self.story.entered(self.entered[-1]["number"])  # type: ignore[arg-type]
            self.story.number = max(self.story.number, self.entered[-1]["number"])  # type: ignore[call-overload]

    def wait(self, seconds: float) -> Port:
        self.at += seconds
        return self

    # What a runner tells.

    def begin(self, take: str | None = None, stopped_at: Moment | None = None, *, is_restart: bool = False) -> Port:
        """A runner begins."""
        return self.tell(
            BEGAN, boot_at=self.boot, is_restart=is_restart, records_at_boot=self.records_at_boot, take=take,
            stopped_at=stopped_at, name="CAM", recordings="/r", container="mp4", ffmpeg="ffmpeg",
            asleep_s=round(self.asleep_s, 3),
        )  # fmt: skip

    def open(self, path: str, *, take: str | None = None, rate: float = RATE, is_retry: bool = False) -> Port:
        return self.tell(OPENED, path=path, take=take, codec="h264", rate=rate, is_retry=is_retry, attempt=self.told)

    def media(self, path: str, at: Moment | None = None) -> Port:
        return self.tell(MEDIA, path=path, first_frame_at=at or self.now, ffmpeg_version="Lavf61")

    def record(self, seconds: float, *, rate: float = RATE, lag_s: float = 0.2, take: str | None = None) -> Port:
        """A file is made; `lag_s` later comes its first frame, and then it goes on for so long."""
        self.files += 1
        path = f"/r/{self.files}.mp4"
        self.open(path, take=take, rate=rate).wait(lag_s).media(path).wait(seconds)
        self.counts[path] = round(seconds * RATE)
        return self

    @property
    def path(self) -> str:
        """The file that is being recorded, or was last."""
        return next(str(event["path"]) for event in reversed(self.opened) if "path" in event)

    @property
    def opened(self) -> list[Event]:
        return [event for event in self.spool if event["kind"] == OPENED]

    def is_recording(self) -> bool:
        kinds = [event["kind"] for event in self.spool if event["kind"] in (OPENED, CLOSED, BEGAN)]
        return kinds[-1:] == [OPENED]

    def end(self, cause: str, verdict: str = "complete", *, missing: int = 0, lost: int = 0) -> FileEnd:
        """How the file that is being recorded ended, as its runner saw it: `lost` frames never reached the disk."""
        frames = self.counts[self.path] - missing
        self.counts[self.path] = frames - lost
        return FileEnd(self.path, verdict, cause, self.now, frames=frames, missing=missing)

    def hole(self, seconds: float, *, is_filled: bool = True) -> Port:
        """No picture for so long, while the file goes on; FFmpeg may fill it with copies."""
        start, frames = self.now, round(seconds * RATE)
        self.wait(seconds)
        self.counts[self.path] += frames if is_filled else 0
        filled = frames if is_filled else 0
        return self.tell(
            MISSED, path=self.path, first_at=start, last_at=self.now, frames=frames, filled=filled, cause="signal lost"
        )

    def close(self, end: FileEnd, size_bytes: int = 1000) -> Port:
        fields = end.as_dict()
        return self.tell(CLOSED, last_frame_at=fields.pop("last_frame"), size_bytes=size_bytes, **fields)

    def fail(self, end: FileEnd) -> Port:
        """A runner tells that FFmpeg ended unasked; then it ends too, or tries again."""
        return self.close(end).waits(end.cause)

    def waits(self, cause: str, take: str | None = None) -> Port:
        return self.tell(WAITS, cause=cause, take=take)

    def stop(self, by: str = "operator", *, closing_s: float = 0.1) -> Port:
        end = self.end("stop") if self.is_recording() else None
        self.wait(closing_s)
        if end:
            self.close(end)
        return self.tell(STOPPED, by=by, take=None)

    def due(self, first: float, last: float, take: str | None = None) -> Port:
        """The schedule's service tells that the port should have recorded from the one true time to the other."""
        self.told += 1
        event = {
            "v": 1, "sequence": self.told, "boot": self.now.boot, "kind": DUE, "at": self.now.as_list()[:2],
            "boot_at": self.boot.as_list()[:2], "first": EPOCH + first, "last": EPOCH + last, "take": take,
        }  # fmt: skip
        self.story.take_from(SCHEDULE, json.loads(json.dumps(event)))
        return self.write()

    def step_clock(self, seconds: float) -> Port:
        self.clock_s += seconds
        return self.tell(CLOCK, step_s=seconds)

    def suspend(self, seconds: float, *, is_told: bool = True) -> Port:
        """The system sleeps: only CLOCK_MONOTONIC stands still. A runner that lives tells of it when it wakes up."""
        self.wait(seconds).asleep_s += seconds
        return self.tell(SLEPT, asleep_s=round(self.asleep_s, 3)) if is_told else self

    def count(self) -> Port:
        """The files that wait for it are counted, one after the other."""
        while file := self.story.to_count():
            readable = self.counts.get(file.path)
            file.rate = file.rate or RATE
            self.story.counted(file, readable, 1000 if readable else 0)
            self.write()
        return self

    # What happens to it.

    def reboot(self, down_s: float = 10.0) -> Port:
        """The machine goes down and comes up: what is in memory and in /run is gone."""
        self.wait(down_s)
        self.boots += 1
        self.asleep_s = 0.0
        self.boot_at = self.at
        self.spool = []
        self.restart_writer()
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
            entries += rest.ready()
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


def test_the_end_of_a_large_file_is_part_of_the_stop_that_was_asked_for() -> None:
    port = Port().begin().record(10)
    end, asked = port.end("stop"), port.now
    port.wait(40).close(end).tell(STOPPED, by="operator", take=None, asked_at=asked).wait(100).begin()
    assert port.rows("gap", "stop") == [("gap", "start", 0.2), ("stop", "operator", 140.0)]
    # The source was silent before it.
    port = Port().begin().record(10)
    end, asked = port.end("stop"), port.wait(4).now
    port.wait(40).close(end).tell(STOPPED, by="operator", take=None, asked_at=asked).wait(100).begin()
    assert port.rows("gap", "stop")[1:] == [("gap", "stop", 4.0), ("stop", "operator", 140.0)]


def test_ffmpeg_killed() -> None:
    port = Port().begin().record(10)
    end = port.end("killed", "cut off: FFmpeg was killed by signal 9", lost=5)
    port.fail(end).wait(0.3).begin().count().record(5).stop()
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
    port.open("/r/1.mp4")
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
    port.open("/r/1.mp4").wait(1).close(FileEnd("/r/1.mp4", "empty", "no signal"), 0)
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


def test_a_board_that_vanished_is_missing_from_the_start_of_the_gap() -> None:
    port = Port().begin().record(5)
    port.close(port.end("signal lost")).waits("signal lost").wait(10).waits("board missing").wait(20).record(5).stop()
    assert port.rows("gap")[1:] == [("gap", "board missing", 30.2)]


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


def test_what_a_copied_source_loses_is_its_loss() -> None:
    """FFmpeg fills nothing up: by the clock the file has fewer frames, and its last one came when it was seen."""
    port = Port().begin().record(100)
    port.story.files[0].codec = "copy"
    end = port.end("stop")
    port.close(end.replaced(frames=1500, missing=1000, repeated_cause="source loses frames")).wait(1)
    file, gap = port.entered[1:]
    assert (gap["cause"], gap["seconds"], gap["frames_missing"]) == ("source loses frames", 40.0, 1000)
    assert (file["seconds"], file["end"]) == (60.0, gap["end"])


@pytest.mark.parametrize("frames", [1200, 5000])
def test_a_copied_file_is_as_long_as_its_pictures_came_whatever_their_rate(frames: int) -> None:
    port = Port().begin().record(100)
    port.story.files[0].codec = "copy"
    end = port.end("stop")
    port.close(end.replaced(frames=frames)).wait(1)
    assert port.rows()[1:] == [("file", "complete", 100.0)]


@pytest.mark.parametrize("is_filled", [True, False])
def test_a_hole_is_a_gap_at_its_time_and_no_part_of_its_file(is_filled: bool) -> None:
    port = Port().begin().record(10).hole(3, is_filled=is_filled)
    # It is entered at once: a file may go on for months.
    assert port.rows()[1:] == [("gap", "signal lost", 3.0)]
    gap = port.entered[-1]
    assert (gap["frames_missing"], gap["path"], gap["end_monotonic"]) == (75, port.path, port.now.monotonic)
    port.wait(10)
    port.counts[port.path] += 250
    assert port.stop().rows()[1:3] == [("gap", "signal lost", 3.0), ("file", "complete", 20.0)]
    assert port.entered[2]["frames"] == (575 if is_filled else 500)
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


@pytest.mark.parametrize("is_filled", [True, False])
def test_a_hole_of_a_file_that_is_cut_off_is_counted_once(is_filled: bool) -> None:
    port = Port().begin().record(10).hole(3, is_filled=is_filled)
    port.fail(port.end("killed", "cut off", lost=5)).wait(0.3).begin().record(1).count().stop()
    assert port.rows("file")[0] == ("file", "cut off", 9.8)
    assert total(port.account()) == pytest.approx(port.at, abs=0.3)


@pytest.mark.parametrize("is_filled", [True, False])
def test_the_holes_of_a_file_that_is_lost_are_counted_once(is_filled: bool) -> None:
    port = Port().begin().record(10).hole(7, is_filled=is_filled).wait(90)
    port.counts[port.path] = 0
    end = FileEnd(port.path, "lost: deleted while it was recorded", "file deleted", port.now)
    port.fail(end).count().wait(0.3).begin().record(1).count().stop()
    assert total(port.account()) == pytest.approx(port.at, abs=0.3)


def test_pictures_that_are_lost_one_by_one_are_no_missing_time() -> None:
    port = Port().begin().record(100)
    port.close(port.end("stop").replaced(repeated=750, repeated_cause="source loses frames", duplicated=752)).wait(1)
    file, gap = port.entered[1:]
    assert (file["seconds"], file["frames"]) == (100.0, 2500)
    assert (gap["cause"], gap["seconds"], gap["frames_missing"], gap["path"]) == (
        "source loses frames", 0.0, 750, file["path"],
    )  # fmt: skip
    port = Port().begin().record(100)
    port.close(port.end("stop").replaced(repeated=2, repeated_cause="source loses frames")).wait(1)
    assert len(port.entered) == 2


def test_what_a_killed_runner_told_of_lost_pictures_is_in_the_account() -> None:
    port = Port().begin().record(100)
    port.tell(LOSING, path=port.path, missing=0, repeated=700, repeated_cause="source loses frames")
    port.wait(0.3).begin().record(1).count().stop()
    losses = [entry for entry in port.entered if entry.get("cause") == "source loses frames"]
    assert [(entry["frames_missing"], entry["seconds"], entry["path"]) for entry in losses] == [(700, 0.0, "/r/1.mp4")]


def test_a_rate_that_ffmpeg_found_is_the_files() -> None:
    port = Port().begin().open("/r/1.mp4", rate=0.0).wait(0.2)
    port.tell(MEDIA, path="/r/1.mp4", first_frame_at=port.now, ffmpeg_version="Lavf61", rate=50.0).wait(10)
    port.counts["/r/1.mp4"] = 500
    assert port.stop().rows("file") == [("file", "complete", 10.0)]


def test_frames_that_miss_at_the_end_are_of_what_came_then() -> None:
    """The last ten seconds of a slow encoder are judged by nobody; the time must not be lost."""
    port = Port().begin().record(100)
    end = port.end("stalled")
    port.close(end.replaced(frames=end.frames - 100)).wait(1).record(1).stop()
    assert port.rows()[1:3] == [("file", "complete", 96.0), ("gap", "stalled", 5.2)]


def test_a_source_that_is_faster_than_its_rate_does_not_fill_more_than_its_time() -> None:
    port = Port().begin().record(10)
    end = port.end("stop")
    port.close(end.replaced(frames=end.frames * 2))
    assert port.rows("file") == [("file", "complete", 10.0)]


def test_a_first_frame_is_never_before_its_file() -> None:
    port = Port().begin().wait(1)
    port.open("/r/1.mp4").media("/r/1.mp4", port.now.plus(-30))
    assert port.rows() == [("gap", "start", 1.0)]


def test_without_a_rate_the_times_count() -> None:
    port = Port().begin().record(10, rate=0.0).stop()
    assert port.rows("file") == [("file", "complete", 10.0)]


def test_without_a_rate_that_of_the_file_counts() -> None:
    port = Port().begin().record(10, rate=0.0).wait(0.4).begin()
    port.count().record(5).stop()
    assert port.rows("file")[0] == ("file", "cut off: runner killed", 10.0)
    assert port.rows("gap")[1] == ("gap", "runner killed", 0.6)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_clock(step_s: float) -> None:
    port = Port().begin().record(10).wait(0.5).step_clock(step_s).wait(9.5)
    port.counts["/r/1.mp4"] = 500
    port.stop()
    assert port.rows("clock", "file") == [("clock", None, step_s), ("file", "complete", 20.0)]


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_clock_does_not_change_how_long_a_power_cut_was(step_s: float) -> None:
    port = Port().begin().record(10)
    port.step_clock(step_s)
    port.reboot(30).begin().count().record(5).stop()
    assert port.rows("gap")[1:] == [("gap", "power", 30.2)]


def test_a_step_of_the_clock_in_a_gap_does_not_change_how_long_it_was() -> None:
    port = Port().begin().waits("no signal").wait(5)
    port.step_clock(3600)
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
    port.step_clock(6 * 3600).wait(20).stop()
    assert [what for _, what, _ in port.rows("gap")][:3] == ["start", "power", "power"]
    assert total(port.account()) == pytest.approx(port.at, abs=1)
    # The next step is one of the clock alone.
    port.step_clock(100)
    assert [what for _, what, _ in port.rows("gap")].count("power") == 2


def test_a_clock_that_was_moved_while_no_runner_lived_is_entered() -> None:
    port = Port().begin().record(10)
    port.clock_s += 3600
    port.wait(0.5).begin().count().record(5).stop()
    assert port.rows("clock") == [("clock", None, 3600.0)]
    assert total(port.account()) == pytest.approx(port.at, abs=1)


def walls(port: Port) -> list[tuple[object, float, float]]:
    """Each entry's cause or end, and its start and end in seconds of true time."""
    moments = [(unix_time(str(entry["start"])) - EPOCH, unix_time(str(entry["end"])) - EPOCH) for entry in port.entered]
    words = [entry.get("cause") or entry.get("by") or entry.get("ended") for entry in port.entered]
    return [(word, round(start, 1), round(end, 1)) for word, (start, end) in zip(words, moments, strict=True)]


def test_a_suspension_is_a_gap_in_the_file_that_goes_on() -> None:
    """Its own time, and no step of the clock; the file began when it did."""
    port = Port().begin().record(10).suspend(40).wait(10)
    port.counts["/r/1.mp4"] = 500
    port.stop()
    assert port.rows() == [("gap", "start", 0.2), ("gap", "suspended", 40.0), ("file", "complete", 20.0)]
    assert walls(port) == [("start", 0.0, 0.2), ("suspended", 10.2, 50.2), ("complete", 0.2, 60.2)]
    gap = port.entered[1]
    assert (gap["path"], gap["frames_missing"]) == ("/r/1.mp4", 1000)
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


def test_a_file_that_a_suspension_ends_has_its_last_frame_before_it() -> None:
    """The runner tells of it when it wakes up, by what the wall clock says then."""
    port = Port().begin().record(10)
    last = port.now
    end = port.end("network", "cut off: network")
    port.wait(0.2).suspend(40).wait(1)
    # By the clock of now: CLOCK_MONOTONIC alone is as it was.
    told = Moment(last.wall + 40, last.monotonic, last.boot)
    port.fail(end.replaced(last_frame=told)).count().record(5).stop()
    assert walls(port)[1:] == [
        ("suspended", 10.4, 50.4),
        ("cut off: network", 0.2, 10.2),
        ("network", 10.2, 51.6),
        ("complete", 51.6, 56.6),
    ]
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


def test_a_file_that_was_cut_off_after_a_suspension_ends_at_its_time() -> None:
    port = Port().begin().record(10).suspend(40).wait(10)
    port.counts["/r/1.mp4"] = 480
    port.wait(0.4).begin().count().record(5).stop()
    assert walls(port)[2] == ("cut off: runner killed", 0.2, 59.4)
    assert walls(port)[3] == ("runner killed", 59.4, 60.8)
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


def test_a_suspension_in_a_gap_is_one_of_its_own_and_in_a_stop_is_a_stop() -> None:
    port = Port().begin().waits("no signal").wait(5).suspend(40).wait(5).record(1).stop().suspend(30).wait(2).begin()
    assert port.rows() == [
        ("gap", "no signal", 5.0), ("gap", "suspended", 40.0), ("gap", "no signal", 5.2), ("file", "complete", 1.0),
        ("stop", "operator", 32.1),
    ]  # fmt: skip
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


@pytest.mark.parametrize("step_s", [0.0, 3600.0, -3600.0])
def test_a_suspension_while_no_runner_lived_is_no_step_of_the_clock(step_s: float) -> None:
    port = Port().begin().record(10)
    port.clock_s += step_s
    port.suspend(40, is_told=False).wait(0.5).begin().count().record(5).stop()
    assert port.rows("clock") == ([("clock", None, step_s)] if step_s else [])
    assert ("gap", "suspended", 40.0) in port.rows("gap")
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_has_just_begun_when_the_system_is_suspended(is_known: bool) -> None:
    """Its first frame is told later, but the runner knows of it, if FFmpeg had counted it."""
    port = Port().begin().wait(2)
    port.files += 1
    port.open("/r/1.mp4").wait(0.2)
    first, _ = port.now, port.wait(0.4 if is_known else 0.1).suspend(40, is_told=False)
    told = Moment(first.wall + 40, first.monotonic, first.boot)
    path = "/r/1.mp4" if is_known else ""
    port.tell(SLEPT, asleep_s=40.0, path=path, first_frame_at=told if is_known else None)
    port.media("/r/1.mp4", told).wait(10)
    port.counts["/r/1.mp4"] = 260
    port.stop()
    kinds = [("gap", "start"), ("gap", "suspended"), ("file", "complete")]
    assert [row[:2] for row in port.rows()] == kinds
    assert walls(port)[0] == ("start", 0.0, 2.2 if is_known else 2.3)
    assert ("path" in port.entered[1]) is is_known
    assert total(port.account()) == pytest.approx(port.at, abs=0.5)


def test_a_power_cut_after_a_suspension_does_not_count_it_again() -> None:
    """What the file held since the last sync is lost, and the file ends before the suspension."""
    port = Port().begin().record(10).suspend(40).wait(0.2)
    port.reboot(3).begin().count().record(5).stop()
    assert port.rows("gap") == [("gap", "start", 0.2), ("gap", "suspended", 40.0), ("gap", "power", 3.4)]
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


def test_a_suspension_of_the_boot_before_is_not_counted_again() -> None:
    port = Port().begin().record(10).suspend(40).wait(5)
    port.reboot(30).begin().count().record(5).stop()
    assert [what for _, what, _ in port.rows("gap")] == ["start", "suspended", "power"]


def test_a_runner_that_stood_still_until_it_was_killed_is_not_called_killed() -> None:
    port = Port().begin().record(10).wait(15)
    port.tell(BEGAN, boot_at=port.boot, is_restart=True, stood_still=True).count().record(5).stop()
    assert port.rows()[1:3] == [("file", "cut off: stood still", 10.0), ("gap", "stood still", 15.2)]


@pytest.mark.parametrize("readable", [0, 50])
def test_what_a_stop_closed_and_is_not_in_the_file_is_missing(readable: int) -> None:
    """FFmpeg said at the end that it could not write; its word that it had received all of that is no material."""
    port = Port().begin().record(100)
    port.counts[port.path] = readable
    end = FileEnd(port.path, "incomplete: disk error", "stop", port.now, frames=2500)
    port.wait(0.4).close(end).tell(STOPPED, by="operator", take=None).count()
    port.wait(30)
    port.begin().record(1).stop()
    assert port.rows("gap")[1][:2] == ("gap", "cut off")
    assert port.rows("gap")[1][2] == pytest.approx(100 - readable / RATE, abs=0.5)
    assert port.rows("stop")[0][2] == pytest.approx(30, abs=0.7)


def test_a_port_that_was_stopped_without_its_runner() -> None:
    """It had failed for good, and an operator stopped it: the next runner has the status's word for it."""
    port = Port(records_at_boot=False).begin().record(10)
    port.fail(port.end("cannot work"))
    stopped_at = port.wait(20).now
    port.wait(30).begin(stopped_at=stopped_at)
    port.record(5).stop()
    assert port.rows("gap", "stop")[1:3] == [("gap", "cannot work", 20.0), ("stop", "operator", 30.0)]


def test_a_take_that_the_power_cut_off_and_somebody_stopped_after_the_boot() -> None:
    port = Port(records_at_boot=False).begin().record(10)
    port.reboot(down_s=20).wait(5)
    stopped_at = port.now
    port.wait(30).begin(stopped_at=stopped_at).count()
    port.record(5).stop()
    assert port.rows("gap", "stop")[1:3] == [("gap", "power", 25.0), ("stop", "operator", 30.0)]
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


# What a schedule missed. Each begins with 10 s of recording and a stop; times are seconds from the beginning.


def scheduled_port() -> Port:
    return Port(records_at_boot=False).begin().record(9.8).stop("schedule", closing_s=0.0)


def test_a_start_that_the_machine_was_off_for_is_caught_up_and_the_rest_is_missed() -> None:
    port = scheduled_port().wait(5).reboot(60).wait(5).due(40, 100).begin(take="news").record(5).stop("schedule")
    assert port.rows("gap", "stop")[1:] == [("stop", "schedule", 30.0), ("gap", "schedule missed", 40.2)]
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_times_that_passed_while_the_machine_was_off_are_missed_and_nothing_between_them() -> None:
    port = scheduled_port().reboot(100).wait(5).due(20, 30).due(50, 60).due(90, 95).wait(5)
    # Told again, such as by an apply, they are the same.
    port.due(20, 30).due(50, 60).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [
        ("stop", "schedule", 10.0), ("gap", "schedule missed", 10.0), ("stop", "schedule", 20.0),
        ("gap", "schedule missed", 10.0), ("stop", "schedule", 30.0), ("gap", "schedule missed", 5.0),
        ("stop", "schedule", 25.0), ("gap", "start", 0.2),
    ]  # fmt: skip
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_a_shutdown_within_the_time_is_missed_from_then_on() -> None:
    port = (
        Port(records_at_boot=False)
        .begin()
        .record(9.8)
        .stop("shutdown", closing_s=0.0)
        .reboot(20)
        .wait(5)
        .due(5, 60)
        .begin()
    )
    port.record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("gap", "schedule missed", 25.2)]


def test_what_an_operator_stopped_in_its_time_is_missed_from_the_next_boot_on() -> None:
    port = Port(records_at_boot=False).begin().record(9.8).stop(closing_s=0.0).wait(5).due(5, 60)
    assert port.rows("gap", "stop")[1:] == []
    port.reboot(20).wait(5).due(5, 60).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("stop", "operator", 25.0), ("gap", "schedule missed", 5.2)]


def test_a_recording_that_a_power_cut_ended_is_missing_until_its_time_is_over() -> None:
    port = Port(records_at_boot=False).begin(take="news").record(9.8, take="news").reboot(100).wait(5)
    port.due(0, 40, "news").count().due(50, 60, "sport").begin().record(5).stop()
    assert port.rows("file", "gap", "stop")[1:-1] == [
        ("file", "cut off: power", 9.8), ("gap", "power", 30.0), ("stop", "schedule", 10.0),
        ("gap", "schedule missed", 10.0), ("stop", "schedule", 55.0), ("gap", "start", 0.2),
    ]  # fmt: skip
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_a_power_cut_within_the_time_goes_on_as_one() -> None:
    port = Port(records_at_boot=False).begin(take="news").record(9.8, take="news").reboot(20).wait(5)
    port.due(0, 60, "news").begin(take="news").count().record(5, take="news").stop("schedule")
    assert port.rows("gap", "stop")[1:] == [("gap", "power", 25.2)]


def test_an_operators_recording_that_a_power_cut_ended_is_no_schedules() -> None:
    port = Port(records_at_boot=False).begin(take="final").record(9.8, take="final").reboot(100).wait(5)
    port.due(20, 40, "news").begin().count().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("gap", "power", 105.2)]


def test_what_goes_on_is_not_missed() -> None:
    port = Port(records_at_boot=False).begin().record(9.8).due(2, 60).wait(0.0)
    assert port.is_recording() and port.rows("gap", "stop")[1:] == []
    port.fail(port.end("killed")).wait(5).due(2, 60).begin().record(5).stop()
    assert port.rows("gap", "stop")[1:] == [("gap", "killed", 5.2)]


def test_a_port_that_never_recorded_misses_what_it_missed_since_the_boot() -> None:
    port = Port(records_at_boot=False).wait(20).due(5, 10).due(15, 60).wait(5).begin().record(5).stop()
    assert port.rows("gap", "stop") == [("gap", "schedule missed", 5.0), ("gap", "schedule missed", 10.2)]


@pytest.mark.parametrize(("asked", "cause"), [(True, "restart"), (False, "terminated from outside")])
def test_what_systemd_ended_and_started_again_was_no_stop(asked: bool, cause: str) -> None:
    port = Port().begin().record(10)
    port.close(port.end("stop")).wait(0.1).tell(STOPPED, by="operator", take=None, is_restart=asked)
    port.restart_writer()
    port.wait(0.3).begin(is_restart=True).record(5).stop()
    assert port.rows() == [
        ("gap", "start", 0.2), ("file", "complete", 10.0), ("gap", cause, 0.6), ("file", "complete", 5.0),
    ]  # fmt: skip
    assert total(port.account()) == pytest.approx(port.at, abs=0.01)


def test_a_restart_by_apply_is_its_stop() -> None:
    port = Port().begin().record(10)
    port.close(port.end("stop")).wait(0.1).tell(STOPPED, by="apply", take=None, is_restart=True)
    port.wait(0.3).begin(is_restart=True).record(5).stop()
    assert port.rows("stop") == [("stop", "apply", 0.4)]


def test_a_restart_that_became_a_stop_is_one() -> None:
    port = Port().begin().record(10)
    port.close(port.end("stop")).wait(0.1).tell(STOPPED, by="operator", take=None, is_restart=True)
    port.wait(30).begin().record(5).stop()
    assert port.rows("stop") == [("stop", "operator", 30.1)]


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
    port.close(port.end("stop", "cut off: FFmpeg was killed by signal 9", lost=10)).wait(0.1)
    port.tell(STOPPED, by="operator", take=None)
    port.wait(60).begin().count()
    assert port.rows()[1:] == [
        ("file", "cut off: FFmpeg was killed by signal 9", 9.6),
        ("stop", "operator", 60.5),
    ]


def test_a_file_that_cannot_be_counted_is_entered_as_ffmpeg_counted_it() -> None:
    port = Port().begin().record(10)
    port.fail(port.end("killed", "cut off")).wait(1).begin()
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
    port.waits("x", "take")
    again = Story(3)
    again.recall(json.loads(json.dumps(port.story.as_dict())))
    assert again.as_dict() == port.story.as_dict()


@pytest.mark.parametrize(
    "document",
    [None, [], 7, {}, {"v": 1}, {"v": 2, "port_index": 3, "file": None}, {"v": 1, "port_index": 4, "file": None}],
)
def test_another_record_is_not_taken_up(document: object) -> None:
    story = Story(3)
    with pytest.raises(ValueError, match=r"^(the open record: |is )"):
        story.recall(document)
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
def test_a_damaged_record_is_refused_or_works(chance: st.DataObject) -> None:
    """Refused with the name of what is wrong; and then as if it had never been touched."""
    port = Port().begin().record(10).wait(0.4).begin().record(20).wait(0.4).begin().wait(1).record(3)
    story = Story(3)
    try:
        story.recall(damaged(port.saved, chance))
    except ValueError as error:
        assert str(error).startswith(("the open record: ", "is "))
        assert story.as_dict() == Story(3).as_dict()
        return
    port.story = story
    port.wait(1).begin().record(5).stop()
    while file := port.story.to_count():
        port.story.counted(file, 3, 10)
    assert [wrong_entry(entry) for entry in port.story.ready() if wrong_entry(entry)] == []


@given(json_values)
def test_what_is_no_part_of_a_record_is_refused(value: Any) -> None:
    moment = moment_from(value)
    assert moment is None or moment.as_list() == [pytest.approx(part, abs=0.001) for part in value[:2]] + value[2:]
    for read in (interval_from, file_end_from, taken_file_from):
        with pytest.raises(ValueError, match=r"(not|neither)"):
            read(value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_event_is_refused_or_taken(chance: st.DataObject) -> None:
    port = Port().begin().record(10).stop().begin().record(3)
    for event in port.spool:
        wrong = {
            name: chance.draw(json_values) if chance.draw(st.booleans()) else value for name, value in event.items()
        }
        wrong.update({name: event[name] for name in ("kind", "boot", "at", "sequence")})
        story = Story(3)
        try:
            story.take(wrong)
        except ValueError as error:
            assert f"the event {event['kind']}: " in str(error) or "end: " in str(error)


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
    end = FileEnd(file.path, "cut off", "x", frames=10)
    start, last = extent(file, end, 500)
    assert (start.as_list(), last.as_list()) == (file.opened and file.opened.as_list(), file.closed.as_list())


def test_an_interval_is_never_shorter_than_nothing() -> None:
    assert Interval("gap", "x", Moment(10, 10, "a"), None).seconds(Moment(5, 0, "b")) == 0


# ---- Any history ----

EVENTS = (
    "record", "record", "ffmpeg killed", "runner killed", "killed early", "signal lost", "stop and start", "shutdown",
    "power", "power at start", "clock", "count", "backoff", "hole", "filled hole",
    "suspend", "suspend unseen",
)  # fmt: skip
CUTS = ("power before", "power between", "writer before", "writer between")


def play(port: Port, event: str, seconds: float) -> float:
    """Let an event happen to a port that records; it records again then. Returns how far the sum may be off."""
    if event == "record":
        port.counts[f"/r/{port.files}.mp4"] += round(seconds * RATE)
        port.wait(seconds)
        return 0.0
    if event == "suspend":
        port.suspend(seconds)
        return 0.0
    if event == "suspend unseen":
        port.suspend(seconds, is_told=False).begin()
    if event.endswith("hole"):
        port.hole(seconds, is_filled=event.startswith("filled"))
        return 0.0
    if event == "ffmpeg killed":
        end = port.end("killed", "cut off", lost=min(5, port.counts[f"/r/{port.files}.mp4"]))
        port.fail(end).wait(0.3).begin()
    elif event == "runner killed":
        port.wait(0.3).begin()
    elif event == "killed early":
        port.close(port.end("crash")).wait(0.1)
        port.counts[f"/r/{port.files}b.mp4"] = 10
        port.open(f"/r/{port.files}b.mp4").wait(0.8).begin()
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
        port.step_clock(seconds - 20)
        return 0.0
    elif event == "count":
        port.count()
        return 0.0
    elif event == "backoff":
        port.fail(port.end("crash", "cut off")).wait(0.1).begin().wait(seconds).waits("board missing").begin()
    port.record(0.6)
    return 1.0


def play_on(port: Port, event: str, seconds: float) -> float:
    """Play an event; after a power cut the port is started again, however often that is cut off too."""
    allowed_s = 2.0
    try:
        return play(port, event, seconds)
    except CutOff:
        pass
    while True:
        # Of a step of the clock, or a suspension, that was not written down nobody knows.
        allowed_s += 1.0 + (abs(seconds - 20) if event == "clock" else 0)
        allowed_s += seconds if event.startswith("suspend") else 0
        try:
            port.reboot(3).begin().record(0.7)
            return allowed_s
        except CutOff:
            continue


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
    # Everything is entered once, wherever the writer was killed.
    assert [entry["number"] for entry in port.entered] == list(range(1, len(port.entered) + 1))


def is_hole(entry: Entry) -> bool:
    """A gap inside of a file."""
    return entry["kind"] == "gap" and "path" in entry


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
    spans = [entry for entry in port.entered if entry.get("cause") != "cannot keep up" and not is_hole(entry)]
    for one, next_one in pairwise(spans):
        assert abs(unix_time(str(one["end"])) - unix_time(str(next_one["start"]))) < 0.003, (one, next_one)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([e for e in EVENTS if "power" not in e and e != "shutdown"]), st.floats(0, 4000)),
        max_size=12,
    ),
)
def test_a_writer_that_was_not_there_enters_the_same(history: list[tuple[str, float]]) -> None:
    """Missing all the time and started at the end: the spool holds all that a writer needs."""
    entered = []
    for is_there in (True, False):
        port = Port(is_writer_there=is_there).begin().record(1)
        for event, seconds in history:
            if event != "count":
                play(port, event, round(seconds, 2))
        port.is_writer_there = True
        port.stop().count()
        entered.append(port.entered)
    assert entered[0] == entered[1]


# ---- What a power cut took from the account ----


def found(port: Port, name: str, seconds: float) -> Found:
    """A file that was recorded for so long up to now, and of which no ledger knows."""
    port.counts[name] = round(seconds * RATE)
    return Found(name, 1000, Moment(port.now.wall, port.now.wall, ""))


def test_files_that_no_ledger_knows_are_entered_and_the_time_between_them_is_lost_account() -> None:
    port = Port().begin().record(10)
    # The writer hangs; FFmpeg is killed twice meanwhile, and then the power goes, and with it the spool.
    port.is_writer_there = False
    port.wait(0.5).files += 2
    one = found(port.wait(20), "/r/2.mp4", 20)
    other = found(port.wait(31), "/r/3.mp4", 30)
    port.is_writer_there = True
    port.found = [one, other]
    port.reboot(9).begin().count()
    port.record(5).stop()
    assert [(kind, what) for kind, what, _ in port.rows()] == [
        ("gap", "start"), ("file", "cut off: power"), ("gap", "account lost"), ("file", "cut off: power"),
        ("gap", "account lost"), ("file", "cut off: power"), ("gap", "power"), ("file", "complete"),
    ]  # fmt: skip
    assert port.rows("gap")[1:] == [("gap", "account lost", 0.5), ("gap", "account lost", 1.0), ("gap", "power", 9.2)]
    assert total(port.account()) == pytest.approx(port.at, abs=0.2)


def test_a_file_that_ended_unseen_does_not_hide_the_next_one() -> None:
    """What a full memory dropped may be the end of a file; the file is counted instead."""
    port = Port().begin().record(10).wait(1).record(5).stop().count()
    assert port.rows("file") == [("file", "cut off: runner killed", 10.0), ("file", "complete", 5.0)]


def test_an_attempt_may_have_files_side_by_side() -> None:
    """The port records from the first frame of the first one to the end of the last one."""
    port = Port().begin().wait(1)
    for path in ("/r/a.mp4", "/r/b.mp4"):
        port.tell(OPENED, path=path, take=None, codec="h264", rate=RATE, is_retry=False, attempt=7)
    port.media("/r/a.mp4").wait(1).media("/r/b.mp4").wait(9)
    assert [file.path for file in port.story.files] == ["/r/a.mp4", "/r/b.mp4"]
    assert port.story.file is port.story.files[-1]
    port.close(FileEnd("/r/a.mp4", "complete", "stop", port.now, frames=250))
    assert port.story.interval is None
    port.close(FileEnd("/r/b.mp4", "complete", "stop", port.now, frames=225)).tell(STOPPED, by="operator", take=None)
    assert port.rows() == [("gap", "start", 1.0), ("file", "complete", 10.0), ("file", "complete", 9.0)]
    again = Story(3)
    port.open("/r/c.mp4").open("/r/d.mp4")
    again.recall(json.loads(json.dumps(port.story.as_dict())))
    assert [file.path for file in again.files] == [file.path for file in port.story.files]
    # An earlier version's record knows one file.
    one = {name: value for name, value in port.story.as_dict().items() if name != "files"}
    again.recall(json.loads(json.dumps(one)))
    assert [file.path for file in again.files] == ["/r/d.mp4"]


def test_a_left_file_that_turns_out_to_be_empty_leaves_no_trace() -> None:
    """The recordings' disk did not answer when the runner began, so that its size was not known."""
    port = Port().begin().wait(1).open("/r/1.mp4").wait(1)
    port.counts["/r/1.mp4"] = 1
    port.begin()
    port.counts["/r/1.mp4"] = 0
    port.count().record(5).stop()
    assert port.rows() == [("gap", "runner killed", 2.2), ("file", "complete", 5.0)]


@given(st.floats(0, 7e9), st.floats(0, 1e8))
def test_when_an_entry_ended_can_be_read_back(wall: float, monotonic: float) -> None:
    at = Moment(wall, monotonic, "boot")
    found = end_of({"end": utc_text(at.wall), "end_monotonic": at.monotonic, "boot_id": "boot"})
    assert found is not None
    assert (found.wall, found.monotonic, found.boot) == (at.wall, at.monotonic, "boot")


@pytest.mark.parametrize("entry", [{}, {"end": 7}, {"end": "soon"}, {"end": "2026-01-31T12:00:00.000Z"}])
def test_an_entry_without_a_usable_end(entry: Entry) -> None:
    assert end_of(entry) is None


def test_a_mark_is_entered_and_what_comes_after_it_belongs_to_the_new_take() -> None:
    """A cut (`sdisup cut`): the file goes on, and holds the end of one take and the beginning of the next."""
    port = Port().begin(take="first").record(10.0, take="first")
    port.tell(MARK, path=port.path, frame=250, take="second").wait(4.0)
    port.hole(2.0)
    port.tell(MARK, path=port.path, frame=350, take=None).wait(4.0)
    port.counts[port.path] = 450
    port.restart_writer()
    port.fail(port.end("killed"))
    marks = [entry for entry in port.entered if entry["kind"] == "mark"]
    assert [(mark["path"], mark["frame"], mark["former_take"], mark["take"]) for mark in marks] == [
        ("/r/1.mp4", 250, "first", "second"), ("/r/1.mp4", 350, "second", None),
    ]  # fmt: skip
    assert all(wrong_entry(mark) == "" for mark in marks)
    assert [entry["take"] for entry in port.entered if entry["kind"] == "gap" and "path" in entry] == ["second"]
    assert port.story.interval is not None
    assert (port.story.interval.kind, port.story.interval.take) == ("gap", None)


def test_a_mark_in_a_file_that_nobody_knows_is_entered_all_the_same() -> None:
    port = Port().begin().record(10.0).tell(MARK, path="/r/other.mp4", frame=3, take="cup")
    assert [entry["former_take"] for entry in port.entered if entry["kind"] == "mark"] == [None]


@pytest.mark.parametrize("wrong", [{"frame": -1}, {"frame": "3"}, {"path": None}, {"take": 4}])
def test_a_mark_that_is_none_is_told(wrong: dict[str, Any]) -> None:
    port = Port().begin().record(10.0)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        port.tell(MARK, **{"path": port.path, "frame": 3, "take": "cup", **wrong})
