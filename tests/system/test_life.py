"""Who stops a port, and what it goes on with: signals, restarts and stops of a real systemd."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drive import SMALL, Machine, small_ports

pytestmark = pytest.mark.beside

AT_BOOT = f"[appliance]\nports = 1\n[defaults]\n{SMALL}\nrecord_at_boot = true\n"
DIES = """[Service]
ExecStart=
ExecStart=/bin/sh -c 'kill -SEGV $$$$'
"""


def causes(appliance: Machine) -> list[tuple[Any, Any]]:
    """Port 0's gaps and stops, oldest first."""
    names = {"gap": "cause", "stop": "by"}
    found = [(one["kind"], one[names[one["kind"]]]) for one in appliance.ledger(0) if one["kind"] in names]
    return [one for one in found if one[1] not in ("start", "stop")]


def ongoing(appliance: Machine) -> list[dict[str, Any]]:
    """Port 0's gaps that go on."""
    rows = json.loads(appliance.run("sdisup gaps 0 --json", check=False).stdout)["gaps"]
    return [row for row in rows if row["ongoing"]]


@pytest.mark.journal_allows(r"terminated from outside|cannot be read|cut off")
def test_only_systemd_stops_a_port_and_its_take_goes_on_through_all_else(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    # Made by a member of the group: no take is kept from its name.
    appliance.run("install -d /run/sdisup/requests/0.json/inside")
    appliance.sdisup("start 0 --take cup --codec prores")
    before = appliance.wait_recording(0)
    commands = (
        (f"kill -TERM {before['pid']}", "terminated from outside"),
        ("kill -INT $(systemctl show -P MainPID sdi-record@0)", "terminated from outside"),
        ("systemctl kill --kill-whom=main sdi-record@0", "terminated from outside"),
        ("systemctl restart sdi-record@0", "restart"),
        ("sdisup restart 0", "restart"),
    )
    for command, _ in commands:
        appliance.run(command)
        is_new = lambda: (found := appliance.wait_recording(0))["pid"] != before["pid"] and found  # noqa: B023, E731
        found = appliance.wait_for(is_new, 20, f"it records again after {command}")
        assert (found["take"], found["codec"]) == ("cup", "prores"), command
        before = found
    appliance.sdisup("stop 0")
    entries = appliance.ledger(0)
    expected = [("gap", cause) for _, cause in commands]
    assert causes(appliance) == expected
    assert {one["ended"] for one in entries if one["kind"] == "file"} == {"complete"}
    appliance.run("rm -r /run/sdisup/requests/0.json")
    appliance.sdisup("start 0")
    found = appliance.wait_recording(0)
    assert (found["take"], found["codec"]) == (None, "h264")
    assert causes(appliance) == [*expected, ("stop", "operator")]


@pytest.mark.slow
@pytest.mark.journal_allows(r"Failed|killed|status=")
def test_a_stop_in_a_runners_first_moments_is_a_stop(appliance: Machine) -> None:
    """Before Python has begun, while the runner loads, and while it makes its file."""
    appliance.configure(AT_BOOT)
    appliance.wait_recording(0)
    for milliseconds in (0, 5, 10, 20, 30, 50, 80, 120, 160, 200, 250, 300, 400):
        for begin in ("systemctl kill --kill-whom=main -s KILL", "systemctl restart --no-block"):
            appliance.run(
                f"{begin} sdi-record@0; sleep {milliseconds / 1000}; systemctl stop sdi-record@0", check=False
            )
            case = f"{begin}, {milliseconds} ms"
            assert appliance.active_state(0) == "inactive", case
            found = appliance.status(0)
            assert (found["state"], found["should_record"]) == ("stopped", False), case
            assert ongoing(appliance) == [], case
            appliance.sdisup("apply")
            assert appliance.active_state(0) == "inactive", case
            appliance.sdisup("start 0")
            appliance.wait_recording(0)


@pytest.mark.slow
@pytest.mark.journal_allows(r"Failed|killed|status=|ended unasked|waits|dumped|SEGV")
def test_a_runner_that_dies_by_a_signal_again_and_again_heals_in_its_take(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0 --take cup")
    before = appliance.wait_recording(0, frames=30)
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/90.conf", DIES)
    appliance.run("systemctl daemon-reload; systemctl kill --kill-whom=main -s KILL sdi-record@0")
    appliance.wait_for(lambda: appliance.active_state(0) == "failed", 20, "systemd has given it up")
    assert [row["cause"] for row in ongoing(appliance)] == ["runner killed"]
    appliance.run("rm /etc/systemd/system/sdi-record@0.service.d/90.conf; systemctl daemon-reload")
    appliance.wait_for(lambda: appliance.status_file(0)["pid"] != before["pid"], 15, "a runner has begun")
    found = appliance.wait_recording(0)
    assert found["take"] == "cup"
    appliance.sdisup("stop 0")
    appliance.sdisup("start 0")
    assert appliance.wait_recording(0)["take"] is None


@pytest.mark.slow
@pytest.mark.journal_allows(r"No space left|Connection|Error opening|cannot|Failed|network")
def test_a_full_run_costs_no_back_off_and_is_said(appliance: Machine) -> None:
    appliance.configure(
        small_ports(2, '[port.0]\nsource = { kind = "custom", input = ["-i", "tcp://127.0.0.1:9"], rate = 25 }\n')
    )
    appliance.sdisup("start 1")
    appliance.run("systemctl start --no-block sdi-record@0")
    appliance.wait_restarts(0, 1)
    total, used = (int(word) for word in appliance.run("df --output=size,used -k /run | tail -1").stdout.split())
    fill = "head -c 1M /dev/zero >> /run/fill"
    try:
        appliance.run(f"mount -o remount,size={used}k /run; {fill}", check=False)
        appliance.wait_for(lambda: "No space left on device" in appliance.status(0)["reason"], 30, "status says it")
        begun = appliance.status(0)
        started = int(appliance.run("systemctl show -P NRestarts sdi-record@0").stdout)
        appliance.wait_restarts(0, begun["restarts"] + 3, timeout_s=60)
        after = appliance.status(0)
        # The runner waits itself, each time longer, and says how it goes.
        assert (after["state"], after["pid"]) == ("backoff", begun["pid"])
        assert int(appliance.run("systemctl show -P NRestarts sdi-record@0").stdout) == started
        text = [str(entry["MESSAGE"]) for entry in appliance.journal("-u", "sdi-record@0")]
        # Once by each of the two runners that could not leave the next one anything.
        assert len([line for line in text if "/run/sdisup: No space left on device" in line]) in (1, 2), text
        # One that never had room for a status, which all know by its want.
        appliance.run(f"systemctl stop sdi-record@0; rm /run/sdisup/0.json; {fill}", check=False)
        appliance.run("systemctl start --no-block sdi-record@0")
        appliance.wait_for(lambda: "is full" in appliance.status(0)["reason"], 20, "status says it", poll_s=0.2)
        beside = appliance.wait_recording(1, frames=appliance.status(1)["frame_count"] + 50)
        assert beside["restarts"] == 0
    finally:
        appliance.run(f"rm -f /run/fill; mount -o remount,size={total}k /run")
        appliance.sdisup("stop --all")


@pytest.mark.slow
def test_isolate_leaves_the_ports_alone(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    before = appliance.wait_recording(0)
    appliance.run("systemctl isolate multi-user.target")
    after = appliance.wait_recording(0, frames=before["frame_count"] + 25)
    assert after["ffmpeg_pid"] == before["ffmpeg_pid"]


@pytest.mark.slow
@pytest.mark.journal_allows(r"dbus|D-Bus|Failed|logind|polkit")
def test_a_stop_while_d_bus_is_away_is_an_operators(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    own.configure(small_ports(1))
    own.sdisup("start 0")
    own.wait_recording(0)
    own.run("systemctl stop dbus.socket dbus.service")
    # root reaches systemd by its own socket.
    own.run("systemctl stop sdi-record@0")
    record = own.path("/var/lib/sdisup/ledger/0.open.json")

    def entered() -> Any:
        return (json.loads(record.read_text())["interval"] or {}).get("what") == "operator"

    own.wait_for(entered, 40, "the stop is entered", poll_s=0.2)
    own.run("systemctl start dbus.socket dbus.service")
