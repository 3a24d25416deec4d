"""Time in which nothing runs: a suspended system, a runner and FFmpeg that are stopped; and a journal that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from drive import STANDIN_INSTALLED, Machine

CARD = f"""\
[appliance]
ports = 1
ffmpeg = "{STANDIN_INSTALLED}"
[defaults]
container = "mkv"
source = {{ kind = "videomaster", channel = 0, rate = 25 }}
"""


@pytest.fixture
def card(new_appliance: Callable[..., Machine]) -> Machine:
    """A port that records from a card."""
    made = new_appliance()
    made.boot()
    made.install_standin()
    made.install_clock()
    made.configure(CARD)
    made.sdisup("start 0")
    made.wait_recording(0, frames=100)
    return made


def entered(own: Machine, kind: str, what: str) -> list[dict[str, Any]]:
    name = {"gap": "cause", "file": "ended"}[kind]
    return [entry for entry in own.ledger(0) if entry["kind"] == kind and entry[name] == what]


@pytest.mark.slow
@pytest.mark.journal_allows(r"was suspended")
def test_a_suspension_is_a_gap_of_its_length_and_moves_no_file(card: Machine) -> None:
    card.suspend(40.0)
    card.wait_recording(0, frames=card.status_file(0)["frame_count"] + 50)
    card.sdisup("stop 0")
    (gap,), (file,) = entered(card, "gap", "suspended"), entered(card, "file", "complete")
    assert gap["seconds"] == pytest.approx(40, abs=0.3)
    assert gap["path"] == file["path"]
    assert [entry for entry in card.ledger(0) if entry["kind"] == "clock"] == []
    # The file's name has the second in which it was made.
    assert file["path"].endswith(f"_{file['start'][:19].replace('-', '').replace(':', '')}Z.mkv")
    assert "suspended" in card.sdisup("gaps 0").stdout


@pytest.mark.slow
@pytest.mark.journal_allows(
    r"stood still|stalled|Watchdog|watchdog|SIGKILL|status=9|Failed with result|signal 9|killed"
)
@pytest.mark.parametrize("seconds", [5.0, 15.0])
def test_a_runner_and_an_ffmpeg_that_are_stopped_stood_still(card: Machine, seconds: float) -> None:
    """For 15 s the watchdog of systemd does not wait; for 5 s the file goes on."""
    before = card.wait_recording(0)
    pids = [before["pid"], before["ffmpeg_pid"]]
    card.run(["kill", "-STOP", *map(str, pids)])
    time.sleep(seconds)
    card.run(["kill", "-CONT", *map(str, pids)], check=False)
    card.wait_for(lambda: (now := card.status_file(0))["is_recording"] and now["pid"] is not None, 20, "it records")
    card.wait_recording(0, frames=150)
    after = card.status_file(0)
    assert (after["ffmpeg_pid"] == before["ffmpeg_pid"]) is (seconds < 10)
    card.sdisup("stop 0")
    (gap,) = entered(card, "gap", "stood still")
    assert ("path" in gap) is (seconds < 10)
    assert gap["seconds"] == pytest.approx(min(seconds, 10.0), abs=2.0)


@pytest.mark.slow
@pytest.mark.journal_allows(r".")
def test_a_runner_is_heard_again_after_journald_was_away(card: Machine) -> None:
    units = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service"
    card.run(f"systemctl stop {units}; systemctl start {units}")
    card.kill(card.wait_recording(0)["ffmpeg_pid"])
    card.wait_recording(0, frames=5)
    said = "journalctl --sync; journalctl -u sdi-record@0 -o cat"
    card.wait_for(lambda: "FFmpeg was killed" in card.run(said).stdout, 20, "the journal has it", poll_s=0.3)
    # Systemd's own lines, and the runner's, are the unit's.
    assert card.run("journalctl -u sdi-record@0 -t sdi-record@0 -o cat").stdout.count("FFmpeg was killed") >= 1
