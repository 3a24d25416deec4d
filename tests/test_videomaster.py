"""A Deltacast card's inputs on a real systemd, played by the stand-in: no signal, a cable pulled, no board."""

from __future__ import annotations

import re
import time

import pytest
from appliance import Appliance, wait_for
from drive import (
    RECORDINGS,
    configure,
    count_frames,
    ffmpegs,
    recordings,
    sdisup,
    status,
    status_file,
    wait_recording,
    wait_state,
)
from standin_control import INSTALLED, install, steer

pytestmark = pytest.mark.system

# What FFmpeg says of a lost signal; the port itself says it in the operator's words, as a warning.
SIGNAL_LOST = r"slot lock|data buffers|Error during demuxing|Output file is empty"
NO_SIGNAL = r"matches no streams|Failed to stop stream|Failed to set value|Error opening output files"


def ports(count: int) -> str:
    """A configuration; a Matroska file has a length only once it was finished."""
    return f'[appliance]\nports = {count}\nffmpeg = "{INSTALLED}"\n[defaults]\ncontainer = "mkv"\n'


@pytest.fixture
def card(appliance: Appliance) -> Appliance:
    """The appliance with a card, all of whose inputs are ok."""
    install(appliance)
    return appliance


def is_finished(appliance: Appliance, path: str) -> bool:
    """Whether a Matroska file was closed properly: only then it knows its length."""
    found = appliance.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path])
    return found.stdout.strip() not in ("", "N/A") and not found.stderr


def test_a_port_of_a_card_records_a_complete_file(card: Appliance) -> None:
    configure(card, ports(2))
    sdisup(card, "start 0,1")
    for port in (0, 1):
        wait_recording(card, port, frames=50)
    live = status(card, 1)
    assert (live["state"], live["reason"], live["restarts"]) == ("recording", "", 0)
    assert 20 < live["fps"] < 30
    assert live["dropped_frames"] == 0
    sdisup(card, "stop 0,1")
    assert ffmpegs(card) == []
    for port in (0, 1):
        path = recordings(card, f"port{port}")[0]
        assert count_frames(card, path) == status(card, port)["take_frames"] >= 50
        assert is_finished(card, path)


@pytest.mark.journal_allows(NO_SIGNAL)
def test_without_a_signal_it_waits_and_records_by_itself_when_it_comes(card: Appliance) -> None:
    configure(card, ports(1))
    steer(card, 0, "no-signal")
    card.run("systemctl start sdi-record@0")
    waiting = wait_state(card, 0, "no-signal")
    assert re.search("no signal on board 0 channel 0", waiting["reason"])
    # It tries again each second, and says so no more.
    cursor = card.journal_cursor()
    first = status_file(card, 0)["updated_monotonic"]
    wait_for(lambda: status_file(card, 0)["updated_monotonic"] > first + 2.5, 5, "some tries have passed")
    assert card.journal("-u", "sdi-record@0", after_cursor=cursor) == []
    # Each try makes a file and takes it away again; between two there is none.
    wait_for(lambda: recordings(card) == [], 3, "nothing is left of a try")
    steer(card, 0, "ok")
    back = wait_recording(card, 0, frames=10, timeout_s=5)
    assert back["restarts"] == 0
    assert back["reason"] == ""
    assert len(recordings(card)) == 1


@pytest.mark.journal_allows(SIGNAL_LOST, NO_SIGNAL)
def test_a_signal_that_is_lost_and_comes_back(card: Appliance) -> None:
    configure(card, ports(2))
    sdisup(card, "start 0,1")
    before = wait_recording(card, 0, frames=50)
    other = wait_recording(card, 1)
    steer(card, 0, "no-signal", lost_s=4)
    # What the file got last stays with it, and the port says that nothing comes.
    stalled = wait_state(card, 0, "stalled", timeout_s=5)
    assert stalled["is_recording"] is False
    lost = wait_state(card, 0, "no-signal", timeout_s=8)
    assert "board 0 channel 0" in lost["reason"]
    assert is_finished(card, before["current_file"])
    assert count_frames(card, before["current_file"]) == status(card, 0)["take_frames"]
    steer(card, 0, "ok")
    after = wait_recording(card, 0, frames=25, timeout_s=6)
    assert after["current_file"] != before["current_file"]
    assert after["restarts"] == 0
    # The other input has not noticed.
    beside = status(card, 1)
    assert (beside["ffmpeg_pid"], beside["dropped_frames"], beside["restarts"]) == (other["ffmpeg_pid"], 0, 0)


@pytest.mark.journal_allows(r"DELTACAST|integrity|Error opening input|Failed to start")
def test_a_missing_board_is_named_and_tried_again(card: Appliance) -> None:
    configure(card, ports(1))
    steer(card, 0, "board-missing")
    card.run("systemctl start sdi-record@0", check=False)
    missing = wait_state(card, 0, "backoff", timeout_s=10)
    assert missing["reason"].startswith("board missing")
    assert "No DELTACAST boards detected" in missing["reason"]
    assert missing["restarts"] >= 1
    steer(card, 0, "ok")
    wait_recording(card, 0, frames=10, timeout_s=15)
    assert len(recordings(card)) == 1


@pytest.mark.journal_allows(r"DELTACAST|integrity|Error opening input|Failed to (start|get)|Input/output error")
def test_a_card_that_is_unplugged_while_it_records(card: Appliance) -> None:
    configure(card, ports(1))
    sdisup(card, "start 0")
    first = wait_recording(card, 0, frames=50)
    steer(card, 0, "crash", messages=["No DELTACAST boards detected"], status=251)
    missing = wait_state(card, 0, "backoff", timeout_s=10)
    assert missing["reason"].startswith("board missing")
    assert count_frames(card, first["current_file"]) >= 50 - 13
    steer(card, 0, "ok")
    again = wait_recording(card, 0, frames=10, timeout_s=20)
    assert again["current_file"] != first["current_file"]


@pytest.mark.journal_allows(SIGNAL_LOST)
def test_a_stop_while_the_card_blocks_ends_with_a_complete_file(card: Appliance) -> None:
    configure(card, ports(1))
    sdisup(card, "start 0")
    before = wait_recording(card, 0, frames=25)
    steer(card, 0, "no-signal")
    wait_for(lambda: status_file(card, 0)["state"] == "stalled", 5, "the loss is seen")
    begun = time.monotonic()
    card.run("systemctl stop sdi-record@0")
    # The ten seconds of the card, of which two are over; then FFmpeg finishes what `q` asked for.
    assert 6 < time.monotonic() - begun < 12
    stopped = status(card, 0)
    assert (stopped["state"], stopped["restarts"]) == ("stopped", 0)
    assert is_finished(card, before["current_file"])
    assert count_frames(card, before["current_file"]) == stopped["take_frames"] >= 25
    assert ffmpegs(card) == []
    assert [path for path in recordings(card) if path.startswith(RECORDINGS)] == [before["current_file"]]


@pytest.mark.journal_allows(SIGNAL_LOST)
def test_locked_without_frames_is_no_signal_and_leaves_no_file(card: Appliance) -> None:
    configure(card, ports(2) + '[port.1]\ncontainer = "mp4"\n')
    for port in (0, 1):
        steer(card, port, "no-frames", no_frames_s=1)
    cursor = card.journal_cursor()
    card.run("systemctl start sdi-record@0 sdi-record@1")
    for port in (0, 1):
        waiting = wait_state(card, port, "no-signal", timeout_s=8)
        assert f"board 0 channel {port}" in waiting["reason"]
        assert status_file(card, port)["restarts"] == 0
    first = status_file(card, 1)["updated_monotonic"]
    wait_for(lambda: status_file(card, 1)["updated_monotonic"] > first + 4, 6, "two more tries have passed")
    # A file without a frame, of which FFmpeg 7.1 makes a valid mp4, is no recording and no signal.
    for port in (0, 1):
        said = [str(entry["MESSAGE"]) for entry in card.journal("-u", f"sdi-record@{port}", after_cursor=cursor)]
        assert not [text for text in said if "signal is back" in text]
    assert not [path for path in recordings(card) if card.path(path).stat().st_size > 0]
    for port in (0, 1):
        steer(card, port, "ok")
    for port in (0, 1):
        wait_recording(card, port, frames=10, timeout_s=8)
    assert len(recordings(card)) == 2


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST)
def test_locked_without_frames_for_as_long_as_the_card_waits_is_no_crash(card: Appliance) -> None:
    """The card is waited for twenty seconds: a runner that lost its patience earlier would kill and restart."""
    configure(card, ports(1))
    steer(card, 0, "no-frames", no_frames_s=20)
    cursor = card.journal_cursor()
    card.run("systemctl start sdi-record@0")
    waiting = wait_state(card, 0, "no-signal", timeout_s=30)
    assert "board 0 channel 0" in waiting["reason"]
    assert status_file(card, 0)["restarts"] == 0
    said = [str(entry["MESSAGE"]) for entry in card.journal("-u", "sdi-record@0", after_cursor=cursor)]
    assert not [text for text in said if "SIGTERM" in text or "SIGKILL" in text]
    assert not [path for path in recordings(card) if card.path(path).stat().st_size > 0]


@pytest.mark.slow
@pytest.mark.journal_allows(SIGNAL_LOST, NO_SIGNAL)
def test_a_signal_that_comes_back_is_recorded_with_its_audio(card: Appliance) -> None:
    configure(card, ports(1))
    steer(card, 0, "no-audio")
    card.run("systemctl start sdi-record@0")
    wait_for(lambda: "without audio" in status_file(card, 0)["reason"], 30, "it records without audio")
    steer(card, 0, "no-signal", lost_s=2)
    wait_state(card, 0, "no-signal")
    steer(card, 0, "ok")
    found = wait_recording(card, 0, frames=10)
    assert found["reason"] == ""
    sdisup(card, "stop 0")
    options = "-v error -select_streams a -show_entries stream=codec_name -of csv=p=0"
    assert card.run(["ffprobe", *options.split(), found["current_file"]]).stdout.strip() == "aac"


@pytest.mark.journal_allows(SIGNAL_LOST)
def test_a_signal_without_audio_is_recorded_without_it(card: Appliance) -> None:
    configure(card, ports(1))
    steer(card, 0, "no-audio")
    card.run("systemctl start sdi-record@0")
    wait_for(lambda: len(recordings(card)) == 2, 15, "it has begun again")
    first, second = recordings(card)
    found = wait_recording(card, 0, frames=10)
    assert found["current_file"] == second
    assert "audio" in found["reason"]
    assert found["restarts"] == 0
    # What FFmpeg had held in memory until then was written out.
    assert is_finished(card, first)
    assert count_frames(card, first) > 50
