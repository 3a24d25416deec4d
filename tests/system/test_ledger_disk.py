"""The ledger's process on a real systemd: its disk hangs, it is killed, upgraded or missing, and the power goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from drive import LEDGER, LEDGER_DISK, MIB, STANDIN_INSTALLED, Machine, small_ports

UNIT = "sdi-ledger.service"
SIGNAL_LOST = r"slot lock|data buffers|Error during demuxing|Output file is empty"
NO_SIGNAL = r"matches no streams|Failed to stop stream|Failed to set value|Error opening output files"
CARD = f'[appliance]\nports = 3\nffmpeg = "{STANDIN_INSTALLED}"\n[defaults]\ncontainer = "mkv"\n'


@pytest.fixture
def own(new_appliance: Callable[..., Machine]) -> Machine:
    """An appliance whose ledger and /var/tmp are on a disk of their own."""
    made = new_appliance(disks={"ledger": 64 * MIB})
    made.boot()
    made.mount_ledger_disk()
    return made


def entered(own: Machine, port: int) -> list[dict[str, Any]]:
    """A port's entries, each once, without a hole or a gap over a file."""
    entries = own.ledger(port)
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    timeline = [entry for entry in entries if entry["kind"] in ("file", "gap", "stop")]
    for before, after in pairwise(timeline):
        hole_s = after["start_monotonic"] - before["end_monotonic"]
        assert before["boot_id"] != after["boot_id"] or abs(hole_s) < 0.5, (before, after)
    return entries


def files_of(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["path"] for entry in entries if entry["kind"] == "file"]


def remarks(own: Machine) -> str:
    """What `sdisup status` says beside its table."""
    return own.run("sdisup status", check=False, timeout_s=10).stderr


def away(own: Machine, how: str = "stop") -> None:
    """End the writer, and let nothing start it: else each start of a port does."""
    own.write(f"/etc/systemd/system/{UNIT}.d/away.conf", "[Unit]\nConditionPathExists=/nonexistent\n")
    own.run(f"systemctl daemon-reload && systemctl {how} {UNIT}")


def back(own: Machine) -> None:
    own.run(f"rm /etc/systemd/system/{UNIT}.d/away.conf && systemctl daemon-reload && systemctl start {UNIT}")


def record_at_boot(own: Machine, count: int) -> None:
    """So many ports record, now and at each boot, and the first one's ledger has what was told of it."""
    own.configure(small_ports(count, "record_at_boot = true\n"))
    for port in range(count):
        own.wait_recording(port, frames=30)
    entered(own, 0)


def kill_ffmpeg(own: Machine, port: int) -> float:
    """Kill a port's FFmpeg; after how long it records again."""
    former = own.wait_recording(port, frames=5)
    began = time.monotonic()
    own.kill(former["ffmpeg_pid"])
    own.wait_for(
        lambda: (
            (now := own.status_file(port))["is_recording"] and now["ffmpeg_pid"] not in (None, former["ffmpeg_pid"])
        ),
        20,
        f"port {port} records again",
        poll_s=0.01,
    )
    return time.monotonic() - began


@pytest.mark.journal_allows(f"{SIGNAL_LOST}|{NO_SIGNAL}|SIGKILL|status=9|Failed with result|signal 9|was killed")
@pytest.mark.limit(240)
def test_a_ledgers_disk_that_hangs_costs_no_recording_a_moment(own: Machine) -> None:
    own.install_standin()
    own.configure(CARD)
    own.sdisup("start 0,1,2")
    plain_s = statistics.median(kill_ffmpeg(own, port) for port in (0, 1, 2))
    # A start anew: the second end in a row is not retried at once.
    own.sdisup("restart 0,1,2")
    with own.frozen(LEDGER_DISK):
        frozen_s = statistics.median(kill_ffmpeg(own, port) for port in (0, 1, 2))
        # The runner is killed, and its successor records; a port stops and starts.
        killed = own.wait_recording(1)
        own.kill(killed["pid"])
        own.run("systemctl stop sdi-record@0", timeout_s=10)
        own.run("systemctl start sdi-record@0", timeout_s=10)
        own.wait_for(
            lambda: own.status_file(1)["pid"] != killed["pid"] and own.status_file(1)["is_recording"], 10, "1 records"
        )
        own.wait_recording(0)
        # PID 1 answers, and so does everybody who asks what is recorded.
        assert own.run("systemctl is-active sdi-record@0", timeout_s=5).stdout.strip() == "active"
        asked = own.sdisup("gaps 0 --json", timeout_s=10)
        assert asked.stdout.count('"killed"') == 2, asked.stdout
        own.wait_for(lambda: "the ledger's disk does not answer" in remarks(own), 10, "it is said", poll_s=0.2)
    with own.frozen(LEDGER_DISK):
        own.steer(2, "no-signal", lost_s=1.0)
        own.wait_for(lambda: own.status_file(2)["state"] == "no-signal", 10, "the signal is away")
        own.steer(2, "ok")
        # The first frame is told when FFmpeg has written what it buffered.
        own.wait_recording(2, frames=60)
    print(f"recording again {plain_s:.2f} s after a kill, {frozen_s:.2f} s with the ledger's disk frozen")
    assert frozen_s < 2 * plain_s, (frozen_s, plain_s)
    found = {port: entered(own, port) for port in (0, 1, 2)}
    for port in (0, 1, 2):
        assert [entry["cause"] for entry in found[port] if entry["kind"] == "gap"].count("killed") == 2
    assert [entry["by"] for entry in found[0] if entry["kind"] == "stop"] == ["operator"]
    assert "restart" in [entry.get("cause") for entry in found[0]]
    assert "runner killed" in [entry.get("cause") for entry in found[1]]
    assert "signal lost" in [entry.get("cause") for entry in found[2]]
    own.sdisup("stop --all")
    for port in (0, 1, 2):
        assert files_of(entered(own, port)) == own.recordings(f"port{port}")
    assert remarks(own) == ""


@pytest.mark.journal_allows(r"SIGKILL|status=9|Failed with result|signal 9|was killed|timed out")
def test_a_writer_that_is_killed_or_away_enters_everything_once(own: Machine) -> None:
    ports = range(4)
    own.configure(small_ports(len(ports)))
    own.sdisup("start --all")
    # Each port's FFmpeg is killed twice: a third time in a row would be waited for.
    for port in ports:
        own.wait_recording(port, frames=5)
        own.run(f"systemctl kill --signal=KILL {UNIT}")
        kill_ffmpeg(own, port)
        if port % 2:
            own.run(f"systemctl kill --signal=KILL {UNIT}")
    # Away altogether: the ports notice nothing, and whoever asks gets all of it.
    away(own)
    for port in ports:
        kill_ffmpeg(own, port)
    for port in ports:
        own.wait_recording(port, frames=5)
    own.sdisup("stop 1")
    assert "the ledger's process does not run" in remarks(own)
    assert own.sdisup("gaps --json").stdout.count('"killed"') == 2 * len(ports)
    back(own)
    for port in ports:
        found = entered(own, port)
        assert [entry["cause"] for entry in found if entry["kind"] == "gap"].count("killed") == 2
    # A port's start brings it back too.
    own.run(f"systemctl stop {UNIT}")
    own.sdisup("start 1")
    assert own.run(f"systemctl is-active {UNIT}").stdout.strip() == "active"
    own.sdisup("stop --all")
    for port in ports:
        assert files_of(entered(own, port)) == own.recordings(f"port{port}")


@pytest.mark.parametrize("order", [pytest.param("before the ports", marks=pytest.mark.slow), "after the ports"])
@pytest.mark.journal_allows(r".")
def test_a_power_cut(own: Machine, order: str) -> None:
    """The writer comes back before the ports or long after them; the account is whole either way."""
    record_at_boot(own, 2)
    if order == "after the ports":
        away(own)
    own.power_cut()
    own.boot()
    for port in (0, 1):
        own.wait_recording(port, frames=10)
    kill_ffmpeg(own, 0)
    if order == "after the ports":
        assert "the ledger's process" in remarks(own)
        back(own)
    own.sdisup("stop --all")
    for port in (0, 1):
        entries = entered(own, port)
        assert files_of(entries) == own.recordings(f"port{port}")
        assert "power" in [entry.get("cause") for entry in entries]


@pytest.mark.journal_allows(r".")
def test_a_shutdown_enters_what_was_told_last(own: Machine) -> None:
    """Also where the writer itself is away: what enters it then is sdi-ledger-flush.service."""
    record_at_boot(own, 1)
    away(own)
    own.shutdown()
    own.boot()
    own.wait_recording(0, frames=10)
    assert '"ended":"complete"' in own.read(f"{LEDGER}/0.jsonl")
    back(own)
    own.sdisup("stop 0")
    entries = entered(own, 0)
    assert files_of(entries) == own.recordings("port0")
    assert next(entry["ended"] for entry in entries if entry["kind"] == "file") == "complete"
    assert "reboot" in [entry.get("cause") for entry in entries]


@pytest.mark.slow
@pytest.mark.journal_allows(r".")
def test_a_power_cut_while_the_ledgers_disk_hangs_costs_words_and_no_file(own: Machine) -> None:
    """What happened since it hung was in /run alone: the files are found on their disk, and the gap says so."""
    record_at_boot(own, 1)
    with own.frozen(LEDGER_DISK):
        for _ in range(2):
            time.sleep(1.1)
            kill_ffmpeg(own, 0)
        own.wait_recording(0, frames=50)
        # It dies with its write unfinished, and none comes after it.
        away(own, "kill --signal=KILL")
    own.power_cut()
    own.boot()
    back(own)
    own.wait_recording(0, frames=10)
    own.sdisup("stop 0")
    entries = entered(own, 0)
    assert files_of(entries) == own.recordings("port0")
    assert "account lost" in [entry.get("cause") for entry in entries]
