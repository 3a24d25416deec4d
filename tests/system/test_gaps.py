"""`sdisup gaps`, `recordings` and `verify` on a real systemd: they say what the test did to a port."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from drive import Machine, small_ports

PORTS = '[port.0]\nname = "CAM0"\nrecord_at_boot = true\n[port.1]\n'
AGREE_S = 1.0


class Incident:
    """What the test does to port 0, when it did so, and when the port recorded again."""

    def __init__(self, appliance: Machine) -> None:
        self.appliance = appliance
        self.began = time.time()
        self.expected: list[tuple[str, float, float]] = []
        """The cause, the beginning and the length of each gap."""

    def kill(self, what: str, cause: str) -> None:
        before = self.appliance.wait_recording(0, frames=15)
        # A busy machine takes its time to let the command run.
        at = float(self.appliance.run(f"date +%s.%N; kill -9 {before[what]}").stdout)
        self.await_recording(cause, at, restarts=before["restarts"] + 1)

    def await_recording(self, cause: str, at: float, restarts: int = 0) -> None:
        """Wait until the port records again, which ends the gap that began at `at`."""

        def is_back() -> dict[str, Any] | None:
            found = self.appliance.status_file(0)
            is_new = found["restarts"] == restarts and found["updated_at"] > utc(at)
            return found if is_new and found["is_recording"] and found["frame_count"] else None

        self.appliance.wait_for(is_back, 20, f"port 0 records again after {cause}")
        self.expected.append((cause, at, time.time() - at))


def utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def unix(text: str) -> float:
    from sdisup.contract.files import unix_time

    return unix_time(text)


def asked(appliance: Machine, words: str, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(appliance.sdisup(f"{words} --json", code).stdout)
    return document


def test_an_incident_is_told_as_it_was(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    incident = Incident(own)
    own.configure(small_ports(2, PORTS))
    own.sdisup("start --all")
    incident.kill("ffmpeg_pid", "killed")
    incident.kill("pid", "runner killed")
    own.wait_recording(0, frames=15)
    own.sdisup("stop 0")
    stopped_at = time.time()
    while_stopped = asked(own, "gaps 0")
    stopped_s = time.time() - stopped_at
    own.sdisup("start 0")
    own.wait_recording(0, frames=15)
    at = time.time()
    own.power_cut()
    own.boot()
    incident.await_recording("power", at)

    check_what_lasts(own)
    assert while_stopped["sums"][0]["stopped_seconds"] == pytest.approx(stopped_s, abs=AGREE_S)
    check_gaps(incident)
    check_recordings(incident)
    check_tables(own)
    check_a_shutdown(own)
    check_verify(own)


def check_what_lasts(own: Machine) -> None:
    """Port 1 recorded when the power went, and nobody has started it since."""
    assert own.status(1)["reason"].startswith("the recording was cut off by a power cut; go on: sdisup start 1")
    own.sdisup("status 1", code=3)
    found = asked(own, "gaps 1", code=0)
    (lasting,) = [row for row in found["gaps"] if row["ongoing"]]
    assert (lasting["cause"], lasting["start"], lasting["seconds"]) == ("power", None, None)
    assert found["sums"][0]["unknown"] == 2
    assert "which is not known until the port is started" in lasting["note"]
    (file,) = [row for row in asked(own, "recordings 1")["recordings"] if row["end"] is None]
    assert file["note"] == "recording when the power went; its end is not known until the port is started"
    shown = own.sdisup("recordings 1").stdout
    assert "recording when the power went" in shown
    assert own.sdisup(f"verify {file['path']}").stdout.endswith(f": ended; {file['note']}\n")
    own.sdisup("start 1")
    own.wait_recording(1, frames=10)
    own.wait_for(lambda: not [row for row in asked(own, "gaps 1")["gaps"] if row["ongoing"]], 20, "its end is known")
    assert asked(own, "gaps 1")["sums"][0]["unknown"] == 0


def check_gaps(incident: Incident) -> None:
    own = incident.appliance
    found = own.wait_for(
        lambda: next((one for one in [asked(own, "gaps 0")] if not one["sums"][0]["unknown"]), None),
        20,
        "all is counted",
    )
    asked_at = time.time()
    # The gap at the start is as long as FFmpeg's own start, and may be too short for the list.
    gaps = [row for row in found["gaps"] if row["cause"] != "start"]
    assert [row["cause"] for row in gaps] == [cause for cause, _, _ in incident.expected]
    for row, (cause, at, seconds) in zip(gaps, incident.expected, strict=True):
        assert unix(row["start"]) == pytest.approx(at, abs=AGREE_S), cause
        assert row["seconds"] == pytest.approx(seconds, abs=AGREE_S), cause
        assert unix(row["end"]) - unix(row["start"]) == pytest.approx(row["seconds"], abs=0.1)
    (sums,) = found["sums"]
    total_s = sums["recorded_seconds"] + sums["missing_seconds"] + sums["stopped_seconds"]
    assert total_s == pytest.approx(asked_at - incident.began, abs=AGREE_S * (len(incident.expected) + 2))
    # With --since within the last gap only the rest of the gap is missing.
    cause, at, seconds = incident.expected[-1]
    since = unix(gaps[-1]["start"]) + gaps[-1]["seconds"] / 2
    cut = asked(own, f"gaps 0 --since {utc(since)}.{round(since % 1 * 1000):03}Z")
    assert cut["gaps"][0]["seconds"] == pytest.approx(gaps[-1]["seconds"] / 2, abs=0.05)
    own.sdisup("gaps 0 --fail-if-any", code=1)
    own.sdisup("gaps 0 --fail-if-any --since now", code=0)
    own.sdisup("gaps 0 --fail-if-any --until yesterday", code=0)


def check_recordings(incident: Incident) -> None:
    own = incident.appliance
    rows = asked(own, "recordings CAM0")["recordings"]
    assert [row["ongoing"] for row in rows] == [False, False, False, False, True]
    assert [row["ended"] for row in rows] == [
        "cut off: FFmpeg was killed by signal 9", "cut off: runner killed", "complete", "cut off: power", "",
    ]  # fmt: skip
    for row in rows[:-1]:
        assert row["frames"] == own.count_frames(row["path"]), row
        assert row["bytes"] == own.path(row["path"]).stat().st_size
        assert row["seconds"] == pytest.approx(row["frames"] / 25, abs=0.001)


def check_tables(own: Machine) -> None:
    shown = own.sdisup("gaps").stdout
    assert shown.startswith("PORT  NAME")
    assert "runner killed" in shown
    assert "RECORDED      MISSING      STOPPED" in shown
    assert re.search(r" start$", own.sdisup("gaps 0 --all").stdout, re.MULTILINE)
    shown = own.sdisup("recordings 0 --since -1h").stdout
    assert "is being recorded" in shown
    assert "--since" not in own.sdisup("gaps 0 --since -90min").stderr
    assert "is no time" in own.sdisup("gaps --since tomorrowish", code=2).stderr
    own.sdisup("gaps 7", code=4)


def check_a_shutdown(own: Machine) -> None:
    """Port 1 does not record at boot: a shutdown stops it, and the ledger tells that stop from an operator's."""
    own.wait_recording(1, frames=10)
    own.reboot()
    own.wait_recording(0, frames=10)
    last = asked(own, "gaps 0")["gaps"][-1]
    assert last["cause"] == "reboot"
    opened = json.loads(own.read("/var/lib/sdisup/ledger/1.open.json"))
    assert (opened["interval"]["kind"], opened["interval"]["what"]) == ("stop", "shutdown")
    assert not [row for row in asked(own, "gaps 1")["gaps"] if row["ongoing"]]


def check_verify(own: Machine) -> None:
    rows = asked(own, "recordings 0")["recordings"]
    intact = own.sdisup("verify")
    assert intact.stdout.count("as the ledger says") >= len(rows) - 1
    assert f"{rows[-1]['path']}: is being recorded now" in intact.stdout
    short, gone = rows[0]["path"], rows[1]["path"]
    own.run(["truncate", "-s", "-3000", short])
    own.run(["rm", gone])
    found = own.sdisup("verify", code=1).stdout
    assert f"{short}: differs: " in found
    assert "frames can be read, the ledger has" in found
    assert f"{gone}: differs: No such file or directory" in found
    assert found.count("differs") == 2
    own.sdisup(f"verify {gone}", code=1)
    own.sdisup(f"verify {rows[2]['path']}", code=0)
    own.sdisup("verify /etc/passwd", code=1)
    own.sdisup(f"verify --since -1d {gone}", code=2)
    # The account of a file stays when somebody removes the file.
    assert asked(own, "recordings 0")["recordings"][1]["path"] == gone
