"""What happens where one file of a recording ends and the next one begins: whatever goes wrong there, each frame is in
one file, and each moment in the ledger."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import OPTIONS, FakeFFmpeg, FakeFile, World
from test_runner import Run, Told, records, stop
from test_segments import SEGMENTED, Clock, Files, clock, cuts, entered, own_descriptors, summary

from sdisup.contract import requests
from sdisup.contract.files import Unreadable
from sdisup.contract.requests import Cut, leave_cut
from sdisup.contract.status import read_status
from sdisup.ledger.accounts import Account, line_of, row_of
from sdisup.ledger.moments import Moment, TakenFile
from sdisup.ledger.present import CLOSING, Present, rows_of
from sdisup.ledger.story import Story
from sdisup.runner import ffmpeg
from sdisup.runner.disk import Closed, FirstMedia, Named, Sample

__all__ = ["clock", "own_descriptors"]


def frames_by_file(events: list[dict[str, Any]], counts: dict[str, int]) -> list[tuple[object, ...]]:
    """The files of the ledger, where those that have to be counted hold `counts`: name, frames, how they ended."""
    story = Story(3)
    for event in events:
        story.take(event)
    for item in [item for item in story.waiting() if isinstance(item, TakenFile)]:
        story.counted(item, counts[os.path.basename(item.path)], item.size_bytes)
    files = [entry for entry in story.ready() if entry["kind"] == "file"]
    return [(os.path.basename(str(file["path"])), file["frames"], file["ended"]) for file in files]


def test_a_word_of_ffmpegs_list_that_tears_a_line_of_its_log_is_heard(run: Run, told: Told) -> None:
    """FFmpeg writes a line of its log in several pieces, and 7.1 its list of files from another thread."""
    world = Files([*records(12)])

    def tear(w: World) -> None:
        w.ffmpeg.says("[h264 @ 0x55d] 900,0.000000,4.000000\n[error] concealing 3 errors\n")
        world.opens(1)

    world.at(4.04, tear).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1:] == [("file", 100, "complete")] * 3
    assert world.segments == [2, 3]


def test_a_file_of_whose_end_ffmpeg_did_not_tell_is_counted(run: Run, told: Told) -> None:
    world = Files([*records(12)])
    world.at(4.04, lambda _: world.opens(1)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED)
    counts = {"CAM3_1.mkv": 100, "CAM3_2.mkv": 100}
    assert frames_by_file(told(), counts) == [(f"CAM3_{number}.mkv", 100, "complete") for number in (1, 2, 3)]
    assert len([event for event in told() if event["kind"] == "closed"]) == 3


@pytest.mark.parametrize("is_last", [False, True])
def test_a_file_of_whose_opening_ffmpeg_did_not_tell_is_one_of_the_recording(
    is_last: bool, run: Run, told: Told
) -> None:
    """A library of FFmpeg's writes to its stderr too, and may tear the line."""
    world = Files([*records(8 if is_last else 12)])
    world.at(4.04, lambda _: world.closes(0, 0, 4))
    if is_last:

        def end(ffmpeg: FakeFFmpeg, _: str) -> None:
            world.closes(1, 4, 8)
            ffmpeg.reports("frame=200\nspeed=1x\nprogress=end\n")
            ffmpeg.exits(0)

        world.on_step = end
        world.at(8.1, stop)
    else:
        world.at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1:] == [("file", 100, "complete")] * (2 if is_last else 3)


def test_words_of_a_server_end_no_file(run: Run, told: Told) -> None:
    world = Files([*records(12)])
    world.at(2.0, lambda w: w.ffmpeg.says("[rtmp @ 0x55d] [error] Server said\n900,0.000000,1.000000\n"))
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED)
    assert summary(entered(told()))[1:] == [("file", 100, "complete")] * 3


def test_a_file_whose_end_could_not_be_written_is_not_complete(run: Run, told: Told) -> None:
    """FFmpeg says that it closes the file all the same, and opens no other one."""
    world = Files([*records(6)])
    world.at(4.04, world.goes_on(0, 0, 4))

    def fail(w: World) -> None:
        w.ffmpeg.says("[segment @ 0x55] [error] Failure occurred when ending segment '/proc/1/fd/901'\n")
        world.closes(1, 4, 6)
        w.ffmpeg.says("[vost#0:0/ffv1 @ 0x55] [error] Error writing trailer: No space left on device\n")
        w.ffmpeg.reports("frame=150\nspeed=1x\nprogress=end\n")
        w.ffmpeg.exits(228)

    world.at(6.1, fail).at(20.0, stop)
    run(world, SEGMENTED)
    ends = [event["verdict"] for event in told() if event["kind"] == "closed"]
    assert ends[0] == "complete"
    assert "No space left on device" in ends[1]


def account(events: list[dict[str, Any]], counts: dict[str, int]) -> list[tuple[str, int, str]]:
    """What the ledger has from the first file on: kind, how long, and a gap's cause or a file's name. It leaves no time
    out, and none is in it twice."""
    story = Story(3)
    for event in events:
        story.take(event)
    for item in [item for item in story.waiting() if isinstance(item, TakenFile)]:
        story.counted(item, counts[os.path.basename(item.path)], item.size_bytes * bool(item.path))
    entries = [entry for entry in story.ready() if entry["kind"] in ("file", "gap")]
    times = [(entry["start_monotonic"], entry["end_monotonic"]) for entry in entries]
    for (_, end), (start, _) in pairwise(times):
        assert start == pytest.approx(end, abs=0.1), entries
    return [
        (
            str(entry["kind"]),
            round(float(str(entry["seconds"]))),
            os.path.basename(str(entry.get("path"))) + str(entry.get("cause", "")),
        )
        for entry in entries
    ][1:]


def test_a_file_that_was_deleted_in_its_last_moment_is_a_gap(run: Run, told: Told) -> None:
    world = Files([*records(12)])
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    close = world.on_finish

    def delete(file: FakeFile, is_empty: bool) -> None:
        if file is world.files[0]:
            file.events.append(Sample(100_000, 10**9, "8:1", True, True))
        close(file, is_empty)

    world.on_finish = delete
    run(world, SEGMENTED)
    assert account(told(), {"CAM3_1.mkv": 0}) == [
        ("gap", 4, "Nonefile deleted"),
        ("file", 4, "CAM3_2.mkv"),
        ("file", 4, "CAM3_3.mkv"),
    ]


@pytest.mark.parametrize("frames", [100, 50])
def test_a_file_that_is_counted_after_the_stop_has_its_time_and_no_other(frames: int, run: Run, told: Told) -> None:
    """What its disk has not taken is missing before the next file, and not before the stop."""
    world = Files([*records(12)])
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    close = world.on_finish

    def fail(file: FakeFile, is_empty: bool) -> None:
        if file is world.files[0]:
            file.events.append(Closed(1000, True, "disk error: it may not be durable"))
        else:
            close(file, is_empty)

    world.on_finish = fail
    run(world, SEGMENTED)
    assert account(told(), {"CAM3_1.mkv": frames}) == [
        ("file", frames // 25, "CAM3_1.mkv"),
        *([("gap", 2, "Nonecut off")] if frames < 100 else []),
        ("file", 4, "CAM3_2.mkv"),
        ("file", 4, "CAM3_3.mkv"),
    ]


def test_the_time_of_a_file_that_could_have_no_name_is_a_gap(run: Run, told: Told) -> None:
    """FFmpeg goes on with the next file before it has ended for it."""
    world = Files([*records(10)])
    name = world.on_begin

    def refuse(file: FakeFile) -> None:
        if file is world.files[1]:
            file.refusal = "Read-only file system"
        else:
            name(file)

    def end_late(ffmpeg: FakeFFmpeg, step: str) -> None:
        if step == "quit":
            world.at(8.05, world.goes_on(1, 4, 8)).at(10.0, lambda _: ffmpeg.exits(0))

    world.on_begin, world.on_step = refuse, end_late
    world.at(4.04, world.goes_on(0, 0, 4)).at(11.0, stop)
    run(world, SEGMENTED.replaced(stop_quit_s=10.0))
    assert account(told(), {"CAM3_3.mkv": 50})[:3] == [
        ("file", 4, "CAM3_1.mkv"),
        ("gap", 4, "Nonecut off"),
        ("file", 2, "CAM3_3.mkv"),
    ]


def test_a_hole_that_is_longer_than_a_file_counts_once(run: Run, told: Told) -> None:
    """FFmpeg fills it with copies when the source is back, in several files. Each has the pictures that it has."""
    world = Files([*records(3)])

    def fill(w: World) -> None:
        w.ffmpeg.counts(326, dup=250)
        for index in range(3):
            world.goes_on(index, 4 * index, 4 * index + 4)(w)

    def block(number: int) -> Callable[[World], None]:
        return lambda w: w.ffmpeg.counts(326 + int(number * 6.25), dup=250)

    world.at(13.0, fill)
    for number in range(1, 41):
        world.at(13.0 + number / 4, block(number))
        world.grows(3.0 + number / 4)
    run(world.at(23.1, stop), SEGMENTED.replaced(stall_timeout_s=60.0))
    entries = [entry for entry in entered(told()) if entry.get("cause") != "start"]
    seconds = {kind: sum(float(str(e["seconds"])) for e in entries if e["kind"] == kind) for kind in ("file", "gap")}
    assert seconds == {"file": pytest.approx(13, abs=0.5), "gap": pytest.approx(10, abs=0.5)}
    files = [entry for entry in entries if entry["kind"] == "file"]
    assert [(file["frames"], file["seconds"]) for file in files] == [
        (100, pytest.approx(3, abs=0.1)),
        (100, 0.0),
        (100, 0.0),
        (276, pytest.approx(10, abs=0.1)),
    ]
    assert len([entry for entry in entries if entry["kind"] == "gap"]) == 1


def test_files_are_told_in_their_order_whichever_has_its_name_first(run: Run, told: Told) -> None:
    """A source that comes back fills several at once, and their disk names them at the same moment."""
    world = Files([*records(14)])
    world.on_begin = lambda file: None

    def name(index: int) -> Callable[[World], None]:
        return lambda _: world.files[index].events.append(Named(world.path(world.files[index])))

    world.at(4.3, world.goes_on(0, 0, 4)).at(8.3, world.goes_on(1, 4, 8))
    run(world.at(8.4, name(2)).at(9.0, name(1)).at(14.1, stop), SEGMENTED)
    assert [event["path"] for event in told() if event["kind"] == "opened"] == [*map(world.path, world.files[:3])]
    assert account(told(), {}) == [("file", 4, "CAM3_1.mkv"), ("file", 4, "CAM3_2.mkv"), ("file", 6, "CAM3_3.mkv")]


def test_what_is_left_of_a_lost_files_time_is_in_the_ledger_however_short(run: Run, told: Told) -> None:
    """Its hole has an entry; the pictures beside it are gone."""
    world = Files([*records(12)])
    # Silent for most of the file, which FFmpeg fills with copies.
    world.script = type(world.script)(entry for entry in world.script if not 0.5 < entry[0] <= 3.75)
    world.at(3.75, lambda w: w.ffmpeg.counts(93, dup=78))
    close = world.on_finish

    def delete(file: FakeFile, is_empty: bool) -> None:
        if file is world.files[0]:
            file.events.append(Sample(100_000, 10**9, "8:1", True, True))
        close(file, is_empty)

    world.on_finish = delete
    world.at(4.04, world.goes_on(0, 0, 4)).at(12.1, stop)
    run(world, SEGMENTED)
    entries = [entry for entry in entered(told()) if entry["kind"] in ("file", "gap")]
    assert sum(float(str(entry["seconds"])) for entry in entries) == pytest.approx(12, abs=0.1)
    assert {entry.get("cause") for entry in entries} == {None, "start", "source silent", "file deleted"}


# ---- What is said meanwhile ----


def test_the_status_names_the_next_file_as_soon_as_it_has_a_name(tmp_path: Path, run: Run) -> None:
    world = Files([*records(6)])
    seen: list[tuple[str | None, int | None]] = []

    def look(_: World) -> None:
        status = read_status(3, str(tmp_path))
        assert status is not None
        seen.append((status.current_file, status.file_frame_count))

    # The status is due when FFmpeg has opened the file and its disk has not named it yet.
    world.on_begin = lambda file: None
    world.at(4.2, world.goes_on(0, 0, 4)).at(
        4.21, lambda _: world.files[1].events.append(Named(world.path(world.files[1])))
    )
    run(world.at(4.22, look).at(6.1, stop), SEGMENTED)
    assert seen == [(world.path(world.files[1]), 0)]


def test_a_file_that_is_being_closed_has_its_time(tmp_path: Path, run: Run, told: Told) -> None:
    """Its disk takes a while; then it is in no ledger yet, and the recording goes on."""
    world = Files([*records(6)])
    world.on_finish = lambda file, is_empty: None
    rows: list[tuple[object, ...]] = []

    def look(w: World) -> None:
        story = Story(3)
        for event in told():
            story.take(event)
        now = Moment(w.wall(), w.time_s, str(told()[0]["boot"]))
        present = Present(now, now, is_alive=True, status=read_status(3, str(tmp_path)))
        assert not present.is_behind(story)
        rows.extend((round(row.seconds or 0.0), row.note) for row in rows_of(story, present) if row.kind == "file")

    world.at(4.04, world.goes_on(0, 0, 4)).at(6.0, look).at(6.1, stop)
    run(world, SEGMENTED)
    assert rows == [(4, CLOSING), (2, "")]


@pytest.mark.parametrize("boot", ["same", "next"])
def test_a_runner_that_died_between_two_files_leaves_one_gap(boot: str, run: Run, told: Told) -> None:
    world = Files([*records(6)])
    world.on_finish = lambda file, is_empty: None
    seen: list[tuple[str, str | None, bool]] = []

    def look(w: World) -> None:
        story = Story(3)
        for event in told():
            story.take(event)
        now = Moment(w.wall() + 10, w.time_s + 10, str(told()[0]["boot"]) if boot == "same" else "another")
        rows = rows_of(story, Present(now, now, is_alive=False, is_going_on=True))
        seen.extend((row.kind, os.path.basename(row.path or ""), row.end is None) for row in rows[1:])

    world.at(4.04, world.goes_on(0, 0, 4)).at(6.0, look).at(6.1, stop)
    run(world, SEGMENTED)
    assert seen == [("file", "CAM3_1.mkv", False), ("file", "CAM3_2.mkv", True), ("gap", "", False)]


# ---- Descriptors ----


def test_no_other_file_has_the_number_of_one_that_ffmpeg_opens() -> None:
    """While a disk hangs that is to close files, a hundred descriptors are open, and FFmpeg would empty a recording."""
    own = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        ffmpeg.lend(own, 0)
        ffmpeg.lend(own, 1)
        ffmpeg.take_back(0)
        other = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, ffmpeg.FIRST)
        os.close(other)
        assert other > ffmpeg.descriptor_of(9)
        os.close(os.open(f"/proc/self/fd/{ffmpeg.descriptor_of(1)}", os.O_WRONLY | os.O_CLOEXEC))
        for index in (0, 2, 9):
            with pytest.raises(OSError, match="No such device or address"):
                os.open(f"/proc/self/fd/{ffmpeg.descriptor_of(index)}", os.O_WRONLY | os.O_CLOEXEC)
    finally:
        os.close(own)


# ---- Cuts ----


def takes(events: list[dict[str, Any]]) -> Sequence[tuple[object, ...]]:
    """The takes that the ledger has, each with how many frames."""
    entries = entered(events)
    account = Account("file")
    found: list[tuple[str | None, int]] = []
    for entry in entries:
        if entry["kind"] == "mark":
            account.cut(str(entry["path"]), int(str(entry["frame"])), str(entry["take"]))
    for entry in [entry for entry in entries if entry["kind"] == "file"]:
        for part in account.parts(row_of(line_of(entry), "", "", None)):
            if found and found[-1][0] == part.take:
                found.append((part.take, found.pop()[1] + (part.frames or 0)))
            elif part.frames:
                found.append((part.take, part.frames))
    return found


@pytest.mark.parametrize("cut_at", [3.02, 3.7, 3.98, 4.02, 4.05, 4.3, 5.0])
def test_a_cut_beside_a_boundary_is_at_its_frame(
    cut_at: float, tmp_path: Path, run: Run, told: Told, clock: Clock
) -> None:
    """Whichever the runner hears of first. A file that begins with the next take has its name."""
    world = Files([*records(12)])
    clock(world)
    world.at(cut_at, cuts(tmp_path, "NEXT"))
    world.at(4.04, world.goes_on(0, 0, 4)).at(8.05, world.goes_on(1, 4, 8)).at(12.1, stop)
    run(world, SEGMENTED.replaced(file_name="{take}_{utc}"))
    assert takes(told()) == [
        (None, pytest.approx(cut_at * 25, abs=2)),
        ("NEXT", pytest.approx(300 - cut_at * 25, abs=2)),
    ]
    assert world.begun == ["NEXT_{utc}" if cut_at < 4.04 else "untitled_{utc}", "NEXT_{utc}"]


def test_a_port_that_waits_records_the_next_take_after_a_cut(
    tmp_path: Path, run: Run, told: Told, clock: Clock
) -> None:
    """Its FFmpeg waits for the source, and has a file already, which may be one for hours."""
    world = World(records(6, since=4.0))
    clock(world)
    run(world.at(3.0, cuts(tmp_path, "NEXT")).at(10.1, stop), OPTIONS.replaced(file_name="{take}_{utc}"))
    assert takes(told()) == [("NEXT", 150)]
    assert world.file.named_by == "NEXT_{utc}"


def test_a_take_does_not_begin_before_the_one_before_it(tmp_path: Path, run: Run, told: Told, clock: Clock) -> None:
    """Two programs cut at once, and the one that asked first is slower."""
    world = World(records(6))
    clock(world)

    def cut_late(w: World) -> None:
        leave_cut(3, Cut("SECOND", "c2", 2.0), str(tmp_path))

    world.at(3.0, cuts(tmp_path, "FIRST")).at(5.0, cut_late).at(6.1, stop)
    run(world, OPTIONS)
    assert takes(told()) == [(None, pytest.approx(75, abs=2)), ("SECOND", pytest.approx(75, abs=2))]


def test_a_cut_that_waits_for_the_first_moment_is_made_when_ffmpeg_ends(
    tmp_path: Path, run: Run, told: Told, clock: Clock
) -> None:
    """FFmpeg writes what it buffered faster than the clock, so that the first frame's moment is not told yet."""
    burst = [(0.25 * number, lambda w, n=number: w.ffmpeg.counts(20 * n)) for number in range(1, 9)]
    world = World([(0.25, lambda w: w.file.events.append(FirstMedia())), *burst])
    clock(world)
    world.at(1.0, cuts(tmp_path, "NEXT")).at(2.1, lambda w: w.ffmpeg.exits(-9))
    run(world, OPTIONS)
    assert [event["take"] for event in told() if event["kind"] == "mark"] == ["NEXT"]
    run(World(records(4)).at(4.1, stop), OPTIONS)
    assert [event["take"] for event in told() if event["kind"] == "opened"] == [None, "NEXT"]


def test_a_flood_of_cuts_keeps_no_runner_from_its_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of the group may leave any number of files there; the next looks go on."""
    times = itertools.count()
    monkeypatch.setattr(requests, "monotonic", lambda: next(times) / 100)
    (tmp_path / "requests").mkdir()
    for number in range(20):
        (tmp_path / "requests" / f"3.{number:02d}.cut").write_text("{}")
    left = [20]
    while left[-1]:
        with pytest.raises(Unreadable):
            requests.claim_cut(3, str(tmp_path))
        left.append(len(os.listdir(tmp_path / "requests")))
    assert len(left) > 2 and all(0 < before - after < 10 for before, after in pairwise(left))


def test_a_cut_that_was_asked_for_before_the_start_is_not_made(
    tmp_path: Path, run: Run, told: Told, said: list[str], clock: Clock
) -> None:
    """The recording that was to be cut had been stopped meanwhile."""
    world = World(records(6))
    clock(world)
    (tmp_path / "requests").mkdir()
    leave_cut(3, Cut("NEXT", "c1", -3.0), str(tmp_path))
    run(world.at(6.1, stop), OPTIONS)
    assert takes(told()) == [(None, 150)]
    assert any("before the port was started" in line for line in said)
