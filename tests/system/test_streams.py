"""Streams of a camera with a fault, on a real systemd: which pictures are recorded, and what the ledger says."""

from __future__ import annotations

import contextlib

import pytest
from camera import filming, see
from drive import Machine

FAULT_S, AFTER_S = 12, 20

# A camera's container and fault; how many pictures may be lost beside those that it leaves out; the ledger's cause.
FAULTS = {
    "jump": ("flv", "jump=120", 125, "timestamps jumped"),
    "back": ("flv", "jump=-8", 75, "timestamps jumped"),
    "reset": ("flv", "reset", 75, "timestamps jumped"),
    "drop": ("mpegts", "drop=3/10", 0, "source loses frames"),
    "well": ("mpegts", "drop=0/1", 0, ""),
}


def wait_take(appliance: Machine, port: int, seconds: float) -> None:
    def is_long_enough() -> bool:
        return bool(appliance.status_file(port)["take_frames"] > seconds * 25)

    appliance.wait_for(is_long_enough, 2 * seconds, f"port {port} has recorded for {seconds} s", poll_s=0.2)


@pytest.mark.slow
@pytest.mark.journal_allows("timestamps jumped|Error|DTS|Non-monotonic|invalid dropping")
def test_what_a_source_does_wrong_costs_little_and_is_in_the_ledger(appliance: Machine) -> None:
    ports = ['[defaults]\ncontainer = "mkv"\npreset = "ultrafast"\nbitrate_kbps = 400\n']
    with contextlib.ExitStack() as stack:
        for port, (container, fault, *_) in enumerate(FAULTS.values()):
            words = ("--number", str(port), "--fault", f"{FAULT_S}:{fault}", container, "tcp://127.0.0.1:0")
            camera = stack.enter_context(filming(*words))
            assert camera.stderr is not None
            address = f"tcp://127.0.0.1:{camera.stderr.readline().split()[-1]}"
            source = f'["-analyzeduration", "500000", "-f", "{container}", "-i", "{address}"]'
            ports.append(f'[port.{port}]\nsource = {{ kind = "custom", input = {source}, rate = 25, audio = false }}\n')
        appliance.configure(f"[appliance]\nports = {len(FAULTS)}\n" + "".join(ports))
        appliance.sdisup("start --all")
        for port in range(len(FAULTS)):
            wait_take(appliance, port, FAULT_S + AFTER_S)
        appliance.sdisup("stop --all")
    for port, (name, (_, fault, lost, cause)) in enumerate(FAULTS.items()):
        seen = see(*(appliance.path(path) for path in appliance.recordings(f"port{port}_")))
        assert seen.cameras == {port}
        assert (seen.backwards, seen.unreadable) == (0, 0), name
        missing = sum(count for _, count in seen.missing())
        entries = appliance.ledger(port)
        gaps = [entry for entry in entries if entry["kind"] == "gap" and entry["cause"] != "start"]
        assert cause in {gap["cause"] for gap in gaps} if cause else not gaps, (name, gaps)
        if fault.startswith("drop"):
            assert len(appliance.recordings(f"port{port}_")) == 1
            assert sum(gap["frames_missing"] for gap in gaps) == pytest.approx(missing, rel=0.05, abs=3)
        else:
            assert missing <= lost, f"{name}: {seen}"
