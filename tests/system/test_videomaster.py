"""A Deltacast card's inputs on a real systemd, played by the stand-in: no signal, a cable pulled, no board."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from drive import RECORDINGS, STANDIN_INSTALLED, Machine

# What FFmpeg logs of a lost signal; the port says it in the operator's words, as a warning.
SIGNAL_LOST = r"slot lock|data buffers|Error during demuxing|Output file is empty"
NO_SIGNAL = r"matches no streams|Failed to stop stream|Failed to set value|Error opening output files"


def ports(count: int) -> str:
    """A configuration of card inputs that record Matroska, whose files have a length only once they are closed."""
    return f'[appliance]\nports = {count}\nffmpeg = "{STANDIN_INSTALLED}"\n[defaults]\ncontainer = "mkv"\n'


@pytest.fixture
def card(appliance: Machine) -> Machine:
    """The appliance with a card whose inputs all have a signal."""
    appliance.install_standin()
    return appliance


def is_finished(appliance: Machine, path: str) -> bool:
    """Whether a Matroska file was closed properly: only then does it hold its length."""
    found = appliance.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path])
    return found.stdout.strip() not in ("", "N/A") and not found.stderr


def test_a_port_of_a_card_records_a_complete_file(card: Machine) -> None:
    card.configure(ports(2))
    card.sdisup("start 0,1")
    for port in (0, 1):
        card.wait_recording(port, frames=50)
    live = card.status(1)
    assert (live["state"], live["reason"], live["restarts"]) == ("recording", "", 0)
    assert 20 < live["fps"] < 30
    assert live["dropped_frames"] == 0
    card.sdisup("stop 0,1")
    assert card.ffmpegs() == []
    for port in (0, 1):
        path = card.recordings(f"port{port}")[0]
        assert card.count_frames(path) == card.status(port)["take_frames"] >= 50
        assert is_finished(card, path)


@pytest.mark.journal_allows(NO_SIGNAL)
def test_without_a_signal_it_waits_and_records_by_itself_when_it_comes(card: Machine) -> None:
    card.configure(ports(1))
    card.steer(0, "no-signal")
    untouched = card.path(RECORDINGS).stat().st_mtime_ns
    # The command ends when that is known, with one line.
    said = card.sdisup("start 0 --wait 240", code=3).stderr
    waiting = card.status(0)
    assert (waiting["state"], waiting["reason"]) == ("no-signal", "no signal on board 0 channel 0; waiting")
    assert said == f"port 0 is started and does not record yet: {waiting['reason']}\n"
    # The runner tries again each second, and does not log it.
    cursor = card.journal_cursor()
    first = card.status_file(0)["updated_monotonic"]
    card.wait_for(lambda: card.status_file(0)["updated_monotonic"] > first + 2.5, 5, "some tries have passed")
    assert card.journal("-u", "sdi-record@0", after_cursor=cursor) == []
    # No try has made a file: neither was one removed, which is a change of its directory too.
    assert card.recordings() == [] and card.path(RECORDINGS).stat().st_mtime_ns == untouched
    card.steer(0, "ok")
    back = card.wait_recording(0, frames=10, timeout_s=5)
    assert back["restarts"] == 0
    assert back["reason"] == ""
    assert len(card.recordings()) == 1


@pytest.mark.journal_allows(SIGNAL_LOST, NO_SIGNAL)
def test_a_signal_that_is_lost_and_comes_back(card: Machine) -> None:
    card.configure(ports(2))
    card.sdisup("start 0,1")
    before = card.wait_recording(0, frames=50)
    other = card.wait_recording(1)
    card.steer(0, "no-signal", lost_s=4)
    # The file keeps its last frames, and the port says that no frames come.
    stalled = card.wait_state(0, "stalled", timeout_s=5)
    assert stalled["is_recording"] is False
    lost = card.wait_state(0, "no-signal", timeout_s=8)
    assert "board 0 channel 0" in lost["reason"]
    assert is_finished(card, before["current_file"])
    assert card.count_frames(before["current_file"]) == card.status(0)["take_frames"]
    card.steer(0, "ok")
    after = card.wait_recording(0, frames=25, timeout_s=6)
    assert after["current_file"] != before["current_file"]
    assert after["restarts"] == 0
    # The other port records as before.
    beside = card.status(1)
    assert (beside["ffmpeg_pid"], beside["dropped_frames"], beside["restarts"]) == (other["ffmpeg_pid"], 0, 0)


@pytest.mark.slow
@pytest.mark.journal_allows(r"DELTACAST|integrity|Error opening input|Failed to start")
def test_a_missing_board_is_named_and_tried_again(card: Machine) -> None:
    card.configure(ports(1))
    card.steer(0, "board-missing")
    card.run("systemctl start sdi-record@0", check=False)
    missing = card.wait_state(0, "backoff", timeout_s=10)
    assert missing["reason"].startswith("board missing")
    assert "No DELTACAST boards detected" in missing["reason"]
    assert missing["restarts"] >= 1
    card.steer(0, "ok")
    card.wait_recording(0, frames=10, timeout_s=15)
    assert len(card.recordings()) == 1


@pytest.mark.slow
@pytest.mark.journal_allows(r"DELTACAST|integrity|Error opening input|Failed to (start|get)|Input/output error")
def test_a_card_that_is_unplugged_while_it_records(card: Machine) -> None:
    card.configure(ports(1))
    card.sdisup("start 0")
    first = card.wait_recording(0, frames=50)
    card.steer(0, "crash", messages=["No DELTACAST boards detected"], status=251)
    missing = card.wait_state(0, "backoff", timeout_s=10)
    assert missing["reason"].startswith("board missing")
    assert card.count_frames(first["current_file"]) >= 50 - 13
    card.steer(0, "ok")
    again = card.wait_recording(0, frames=10, timeout_s=20)
    assert again["current_file"] != first["current_file"]


@pytest.mark.slow
@pytest.mark.journal_allows(
    SIGNAL_LOST, r"DELTACAST|integrity|Error opening input|slot handle|board fault|board missing"
)
def test_a_board_that_fails_or_vanishes_is_no_lost_signal(card: Machine) -> None:
    card.configure(ports(2))
    card.sdisup("start 0,1")
    for port in (0, 1):
        card.wait_recording(port, frames=50)
    card.steer(0, "slot-fault")
    card.steer(1, "board-missing", lost_s=2)
    card.wait_for(lambda: "board fault" in card.status_file(0)["reason"], 20, "the fault is named", poll_s=0.05)
    card.steer(0, "ok")
    card.wait_for(lambda: "board missing" in card.status_file(1)["reason"], 20, "the board is missing", poll_s=0.1)
    card.steer(1, "ok")
    for port in (0, 1):
        card.wait_recording(port, frames=25, timeout_s=30)
    card.sdisup("stop 0,1")
    gaps = {port: [entry["cause"] for entry in card.ledger(port) if entry["kind"] == "gap"] for port in (0, 1)}
    assert set(gaps[0]) == {"start", "board fault"}
    assert set(gaps[1]) == {"start", "board missing"}


@pytest.mark.slow
@pytest.mark.journal_allows(r"shared libraries|library missing|Failed to start")
def test_a_library_that_is_missing_after_an_upgrade_is_named(card: Machine) -> None:
    card.configure(ports(1))
    card.run("touch /run/sdisup-standin/library-missing")
    card.run("systemctl start sdi-record@0", check=False)
    missing = card.wait_state(0, "backoff", timeout_s=10)
    assert re.match(r"library missing: .*libvideomasterhd", missing["reason"])
    card.run("rm /run/sdisup-standin/library-missing")
    card.wait_recording(0, timeout_s=15)


@pytest.mark.journal_allows(SIGNAL_LOST)
def test_a_stop_while_the_card_blocks_ends_with_a_complete_file(card: Machine) -> None:
    card.configure(ports(1))
    card.sdisup("start 0")
    before = card.wait_recording(0, frames=25)
    begun = time.monotonic()
    card.steer(0, "no-signal", lost_s=4)
    card.wait_for(lambda: card.status_file(0)["state"] == "stalled", 5, "the loss is seen")
    card.run("systemctl stop sdi-record@0")
    # FFmpeg waits for the card, here for 4 s (for 10 s: unit/test_replay.py); then it ends as `q` asked, and neither
    # SIGTERM nor SIGKILL did it.
    assert time.monotonic() - begun > 3.5
    stopped = card.status(0)
    assert (stopped["state"], stopped["restarts"]) == ("stopped", 0)
    assert is_finished(card, before["current_file"])
    assert card.count_frames(before["current_file"]) == stopped["take_frames"] >= 25
    assert card.ffmpegs() == []
    assert [path for path in card.recordings() if path.startswith(RECORDINGS)] == [before["current_file"]]


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST)
def test_locked_without_frames_is_no_signal_and_leaves_no_file(card: Machine) -> None:
    card.configure(ports(2) + '[port.1]\ncontainer = "mp4"\n')
    for port in (0, 1):
        card.steer(port, "no-frames", no_frames_s=1)
    cursor = card.journal_cursor()
    card.run("systemctl start sdi-record@0 sdi-record@1")
    for port in (0, 1):
        waiting = card.wait_state(port, "no-signal", timeout_s=8)
        assert f"board 0 channel {port}" in waiting["reason"]
        assert card.status_file(port)["restarts"] == 0
    first = card.status_file(1)["updated_monotonic"]
    card.wait_for(lambda: card.status_file(1)["updated_monotonic"] > first + 4, 6, "two more tries have passed")
    # FFmpeg 7.1 makes a valid mp4 of a file without a frame; the file is no recording and shows no signal.
    for port in (0, 1):
        said = [str(entry["MESSAGE"]) for entry in card.journal("-u", f"sdi-record@{port}", after_cursor=cursor)]
        assert not [text for text in said if "signal is back" in text]
    assert not [path for path in card.recordings() if card.path(path).stat().st_size > 0]
    for port in (0, 1):
        card.steer(port, "ok")
    for port in (0, 1):
        card.wait_recording(port, frames=10, timeout_s=8)
    assert len(card.recordings()) == 2


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST)
def test_locked_without_frames_for_as_long_as_the_card_waits_is_no_crash(card: Machine) -> None:
    """FFmpeg waits for the card for 20 s: a runner with a shorter limit would kill and restart FFmpeg."""
    card.configure(ports(1))
    card.steer(0, "no-frames", no_frames_s=20)
    cursor = card.journal_cursor()
    card.run("systemctl start sdi-record@0")
    words = "board 0 channel 0 has a signal, and no frame has come for "
    card.wait_for(lambda: card.status_file(0)["reason"].startswith(words), 15, "what is waited for is said", poll_s=0.1)
    waiting = card.wait_state(0, "no-signal", timeout_s=30)
    assert "board 0 channel 0" in waiting["reason"]
    assert card.status_file(0)["restarts"] == 0
    said = [str(entry["MESSAGE"]) for entry in card.journal("-u", "sdi-record@0", after_cursor=cursor)]
    assert not [text for text in said if "SIGTERM" in text or "SIGKILL" in text]
    assert not [path for path in card.recordings() if card.path(path).stat().st_size > 0]


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST, NO_SIGNAL)
def test_a_signal_that_comes_back_is_recorded_with_its_audio(card: Machine) -> None:
    card.configure(ports(1))
    card.steer(0, "no-audio")
    card.run("systemctl start sdi-record@0")
    card.wait_for(lambda: "without audio" in card.status_file(0)["reason"], 30, "it records without audio")
    card.steer(0, "no-signal", lost_s=2)
    card.wait_state(0, "no-signal")
    card.steer(0, "ok")
    found = card.wait_recording(0, frames=10)
    assert found["reason"] == ""
    card.sdisup("stop 0")
    options = "-v error -select_streams a -show_entries stream=codec_name -of csv=p=0"
    assert card.run(["ffprobe", *options.split(), found["current_file"]]).stdout.strip() == "aac"


@pytest.mark.journal_allows(SIGNAL_LOST)
def test_a_signal_without_audio_is_recorded_without_it(card: Machine) -> None:
    card.configure(ports(1))
    card.steer(0, "no-audio")
    card.run("systemctl start sdi-record@0")
    card.wait_for(lambda: len(card.recordings()) == 2, 15, "it has begun again")
    first, second = card.recordings()
    found = card.wait_recording(0, frames=10)
    assert found["current_file"] == second
    assert "audio" in found["reason"]
    assert found["restarts"] == 0
    # FFmpeg has written what it held in memory until then.
    assert is_finished(card, first)
    assert card.count_frames(first) > 50


@pytest.mark.slow
@pytest.mark.journal_allows(r"killed")
def test_audio_that_vanishes_from_the_signal_keeps_no_picture_from_the_file(card: Machine) -> None:
    card.configure(ports(1))
    card.run("systemctl start sdi-record@0")
    card.wait_recording(0, frames=50)
    card.steer(0, "no-audio")
    card.wait_for(lambda: "no sound for" in card.status_file(0)["reason"], 20, "the sound is missed")
    for _ in range(5):
        before = card.status_file(0)
        card.wait_for(lambda: card.status_file(0)["bytes_written"] > before["bytes_written"], 2, "it grows")  # noqa: B023
    killed = card.status_file(0)
    assert (killed["state"], killed["restarts"]) == ("recording", 0)
    card.run(["kill", "-9", str(killed["ffmpeg_pid"])])
    card.wait_for(lambda: card.status_file(0)["restarts"] >= 1, 20, "it is restarted")
    card.sdisup("stop 0")
    assert card.count_frames(killed["current_file"]) >= killed["frame_count"] - 25


# ---------------------------------------------------------------- a format that changes


def width(appliance: Machine, path: str) -> str:
    options = "-v error -select_streams v:0 -show_entries stream=width -of csv=p=0"
    return appliance.run(["ffprobe", *options.split(), path]).stdout.strip().strip(",")


def gaps(appliance: Machine, port: int) -> list[dict[str, Any]]:
    """The ledger's gaps, without the gap before the first frame."""
    return [line for line in appliance.ledger(port) if line["kind"] == "gap" and line["cause"] != "start"]


def change(card: Machine, mode: str, frames: int = 50, **signal: Any) -> dict[str, Any]:
    """Change the signal of a port that records; returns the port's status before the change."""
    card.configure(ports(1))
    card.sdisup("start 0")
    before = card.wait_recording(0, frames=frames)
    card.steer(0, "format-change", mode=mode, **signal)
    return before


def wait_new_file(card: Machine, before: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Wait until the port records to another file than before."""

    def is_new() -> dict[str, Any] | None:
        found = card.wait_recording(0, frames=10, timeout_s=timeout_s)
        return found if found["current_file"] != before["current_file"] else None

    return card.wait_for(is_new, timeout_s, "a new file is begun", poll_s=0.05)


@pytest.mark.journal_allows(r"Invalid buffer size|Invalid data|Error|format changed|Task finished|Terminating")
def test_a_signal_that_becomes_a_smaller_one_begins_a_new_file(card: Machine) -> None:
    """VIDEOMASTER.md 9: FFmpeg logs an error for each frame."""
    before = change(card, "smaller", size="160x90")
    after = wait_new_file(card, before, 10)
    assert after["restarts"] == 1
    card.sdisup("stop 0")
    first, second = card.recordings()
    assert (width(card, first), width(card, second)) == ("320", "160")
    assert is_finished(card, first)
    # Nothing from before the change is lost, and almost nothing of the new signal.
    assert card.count_frames(first) >= before["frame_count"]
    (gap,) = gaps(card, 0)
    assert gap["cause"].startswith("format changed")
    assert gap["seconds"] < 2


@pytest.mark.slow
def test_a_signal_that_becomes_a_larger_one_is_not_seen_until_the_next_start(card: Machine) -> None:
    """VIDEOMASTER.md 9: neither log nor frame count shows the change; so the port says that it records."""
    before = change(card, "larger", size="640x360")
    later = card.wait_recording(0, frames=before["frame_count"] + 150)
    assert (later["current_file"], later["restarts"], later["reason"]) == (before["current_file"], 0, "")
    card.sdisup("restart 0")
    card.wait_recording(0, frames=10)
    card.sdisup("stop 0")
    assert [width(card, path) for path in card.recordings()] == ["320", "640"]
    assert all(is_finished(card, path) for path in card.recordings())


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST, NO_SIGNAL)
def test_a_signal_that_stops_to_become_another_begins_a_new_file(card: Machine) -> None:
    """VIDEOMASTER.md 9: no frames, as after a pulled cable: FFmpeg closes the file 10 s later."""
    before = change(card, "stop", size="640x360")
    card.wait_state(0, "stalled", timeout_s=5)
    after = wait_new_file(card, before, 25)
    assert after["restarts"] == 0
    card.sdisup("stop 0")
    first, second = card.recordings()
    assert (width(card, first), width(card, second)) == ("320", "640")
    assert is_finished(card, first)
    assert card.count_frames(first) >= before["frame_count"]
    found = gaps(card, 0)
    assert {gap["cause"] for gap in found} <= {"signal lost", "no signal"}
    # The 10 s for which FFmpeg waited for the card belong to no file.
    assert 9 < sum(gap["seconds"] for gap in found) < 15


@pytest.mark.slow
def test_a_signal_that_becomes_one_of_twice_the_rate_is_said_and_ends_nothing(card: Machine) -> None:
    """VIDEOMASTER.md 9: FFmpeg drops half of the frames, as it would in a new file."""
    before = change(card, "double-rate", frames=300, rate=50)
    card.wait_for(lambda: "25 are recorded" in card.status(0)["reason"], 30, "it is said", poll_s=0.2)
    later = card.wait_recording(0, frames=before["frame_count"] + 400)
    assert (later["current_file"], later["restarts"]) == (before["current_file"], 0)
    assert later["dropped_frames"] > 100
    card.sdisup("stop 0")
    assert all(is_finished(card, path) for path in card.recordings())
    assert gaps(card, 0) == []


# ---------------------------------------------------------------- a cable that is out for a while


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST)
def test_a_cable_that_is_out_costs_what_it_was_out_and_no_file(card: Machine) -> None:
    """VIDEOMASTER.md 12 and 13: FFmpeg goes on, and has copies in the place of what was lost."""
    pulls = {0: [2.0], 1: [9.0], 2: [1.7, 1.7, 1.7]}
    every_s = 8
    card.configure(ports(3))
    card.sdisup("start 0-2")
    before = {port: card.wait_recording(port, frames=12 * 25) for port in pulls}
    plan = [
        (number * every_s + later_s, port, behaviour)
        for port, times in pulls.items()
        for number, out_s in enumerate(times)
        for later_s, behaviour in ((0, "no-signal"), (out_s, "ok"))
    ]
    pulled: dict[int, list[float]] = {port: [] for port in pulls}
    begun = time.monotonic()
    for at_s, port, behaviour in sorted(plan):
        time.sleep(max(0, begun + at_s - time.monotonic()))
        card.steer(port, behaviour)
        pulled[port].append(time.monotonic())
    for port in pulls:
        frames = card.status_file(port)["frame_count"]
        found = card.wait_recording(port, frames=frames + 125)
        assert (found["current_file"], found["restarts"]) == (before[port]["current_file"], 0)
    card.sdisup("stop 0-2")
    for port, times in pulled.items():
        # Copies that are no hole's have an entry of no time.
        holes = [gap for gap in gaps(card, port) if gap["seconds"]]
        assert {hole["cause"] for hole in holes} == {"signal lost"}, holes
        outs = list(zip(times[::2], times[1::2], strict=True))
        assert len(holes) == len(outs), (outs, holes)
        for hole, (out, back) in zip(holes, outs, strict=True):
            assert hole["start_monotonic"] == pytest.approx(out, abs=0.5)
            assert hole["end_monotonic"] == pytest.approx(back, abs=0.5)
            assert hole["path"] == before[port]["current_file"]
