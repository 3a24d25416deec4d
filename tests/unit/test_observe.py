"""What `sdisup status` says of a port whose files do not settle its state: systemd's word."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakebus import FakeBus

from sdisup.contract.applied import AppliedPort
from sdisup.control.bus import UnitState, explain
from sdisup.control.observe import UNSTARTED, statuses, unstarted_reason

PORT = AppliedPort(97, "CAM", "h264", "/r", True, "rev")


class FakeSystemd:
    def __init__(self, active: str, exit_status: int) -> None:
        self.active, self.status = active, exit_status

    def units(self, _: str) -> dict[str, UnitState]:
        sub = "auto-restart" if self.active == "activating" else ""
        return {PORT.unit: UnitState("loaded", self.active, sub, "/path")}

    def exit_statuses(self, units: list[UnitState]) -> list[int]:
        assert all(unit.path == "/path" for unit in units)
        if self.status < 0:
            raise explain("", "The connection is closed", "systemd")
        return [self.status] * len(units)


@pytest.mark.parametrize(
    ("active", "exit_status", "state", "reason"),
    [
        ("failed", 226, "failed", "systemd cannot start the unit: its sandbox cannot be set up (226/NAMESPACE); "
                                  "sdisup logs 97 says more"),
        ("activating", 226, "backoff", "systemd cannot start the unit: its sandbox cannot be set up (226/NAMESPACE); "
                                       "sdisup logs 97 says more"),
        ("failed", 243, "failed", "systemd cannot start the unit: its process cannot be started (exit status 243); "
                                  "sdisup logs 97 says more"),
        ("failed", 1, "failed", "the unit failed before its runner could say why; see sdisup logs"),
        ("inactive", 226, "stopped", ""),
        ("failed", -1, "unknown", "systemd cannot be reached: there is no D-Bus system bus here (sdisup needs a system "
                                  "booted with systemd, and its dbus.service)"),
    ],
)  # fmt: skip
def test_what_systemd_could_not_start_is_named(active: str, exit_status: int, state: str, reason: str) -> None:
    (status,) = statuses([PORT], FakeSystemd(active, exit_status))  # type: ignore[arg-type]
    assert (status.state, status.reason) == (state, reason)


def test_every_exit_status_of_systemds_own_has_words() -> None:
    assert [unstarted_reason(status, 1) for status in (0, 1, 78, 137, 199, 255)] == [""] * 6
    assert all(str(status) in unstarted_reason(status, 1) for status in range(200, 255))
    assert all(f"({status}/" in text for status, text in UNSTARTED.items())


@pytest.mark.parametrize("count", [2, 8, 64])
def test_systemd_is_asked_once_however_many_ports_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """And once more, for all of them together, where units have failed."""
    ports = [PORT.replaced(index=index) for index in range(500, 500 + count)]
    bus = FakeBus(tmp_path / "bus", {port.unit: ("loaded", "inactive", "dead") for port in ports})
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    try:
        assert {status.state for status in statuses(ports)} == {"stopped"}
        assert (bus.calls, bus.writes) == (["ListUnitsByPatterns"], 1)
        bus.units.update({port.unit: ("loaded", "failed", "failed") for port in ports[1:]})
        assert [status.state for status in statuses(ports)] == ["stopped", *["failed"] * (count - 1)]
        assert bus.writes == 3
    finally:
        bus.close()
