"""Retention under a real systemd: its unit, its timer, a disk that is full, a clock that jumps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drive import MIB, RECORDINGS, SMALL, Machine, small_ports

UNITS = ("sdi-retention.timer", "sdi-retention.path")


def files(appliance: Machine, port: int) -> list[dict[str, Any]]:
    """The port's files as `sdisup recordings` has them, but for the one that is being recorded."""
    rows = json.loads(appliance.sdisup(f"recordings {port} --json").stdout)["recordings"]
    return [row for row in rows if not row["ongoing"]]


def sums(appliance: Machine, port: int) -> object:
    """What the port has recorded and what is missing; the time since its stop goes on."""
    (found,) = json.loads(appliance.sdisup(f"gaps {port} --json").stdout)["sums"]
    return {name: value for name, value in found.items() if name != "stopped_seconds"}


@pytest.mark.beside
def test_the_oldest_files_go_by_a_unit_and_the_ledger_knows_why(appliance: Machine) -> None:
    appliance.configure(small_ports(1, "[retention]\nmax_files = 1\n"))
    assert all(appliance.run(["systemctl", "is-active", unit]).stdout == "active\n" for unit in UNITS)
    for take in ("final", "semi", "news"):
        appliance.sdisup(f"start 0 --take {take}")
        appliance.wait_recording(0)
        if take == "final":
            appliance.sdisup("protect --take final --reason 'claim 4711'")
        appliance.sdisup("stop 0")
    appliance.ledger(0)
    before = sums(appliance, 0)
    assert "deleted " in appliance.sdisup("retention").stdout
    rows = files(appliance, 0)
    # What is protected counts for no limit, and the youngest is the one that is kept.
    assert [row["deleted_by"] for row in rows] == [None, "max_files 1", None]
    assert [row["protected"] for row in rows] == ["claim 4711", None, None]
    assert [appliance.path(row["path"]).exists() for row in rows] == [True, False, True]
    lines = appliance.ledger(0)
    inodes = [one["inode"] for one in lines if one["kind"] == "file"]
    assert [one["inode"] for one in lines if one["kind"] == "delete"] == [inodes[1]]
    assert sums(appliance, 0) == before
    journal = appliance.run("journalctl -o cat -u sdi-retention.service").stdout
    assert f"deleted {rows[1]['path']} (" in journal
    appliance.configure(small_ports(1))
    assert not any(appliance.path(f"/etc/systemd/system/{unit}").exists() for unit in UNITS)
    assert appliance.run("systemctl is-active sdi-retention.timer", check=False).stdout.strip() == "inactive"
    assert "there is no rule" in appliance.sdisup("retention").stderr


@pytest.fixture
def disk_appliance(new_appliance: Callable[..., Machine]) -> Iterator[Machine]:
    own = new_appliance(disks={"disk": 256 * MIB})
    assert own.boot() == "running"
    own.mount_disk()
    yield own


def deletions(appliance: Machine, port: int) -> list[dict[str, Any]]:
    return [one for one in appliance.ledger(port) if one["kind"] == "delete"]


def gap_ends(appliance: Machine, port: int) -> list[float]:
    """When the port's gaps between files ended, by CLOCK_MONOTONIC."""
    return [one["end_monotonic"] for one in appliance.ledger(port) if one["kind"] == "gap" and "path" not in one]


# Uncompressed, so that a few seconds are a file worth deleting.
LARGE = f"[appliance]\nports = 3\n[defaults]\n{SMALL}\ncodec = 'v210'\nsegment_s = 2\n"


@pytest.mark.slow
@pytest.mark.journal_allows(
    r"No space left on device|[Dd]isk full|Error|Conversion failed|Task finished|muxing|ending segment|Terminating",
    r"is free once all|are free once all|being recorded|cut off",
)
def test_a_full_disk_makes_room_and_every_port_records_again(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.configure(f"{LARGE}[retention]\nmin_free = '64M'\n")
    own.sdisup("start --all")
    for port in range(3):
        own.wait_recording(port, frames=200)
    kept = files(own, 0)[0]["path"]
    own.sdisup(f"protect {kept}")
    own.run(f"fallocate -l $(( $(stat -f -c '%a*%S' {RECORDINGS}) )) {RECORDINGS}/ballast", check=False)
    own.wait_for(lambda: any(deletions(own, port) for port in range(3)), 60, "files go")
    for port in range(3):
        own.wait_recording(port, frames=50, timeout_s=60)
    deleted = [one for port in range(3) for one in deletions(own, port)]
    first = min(one["end_monotonic"] for one in deleted)
    again = [max((end - first for end in gap_ends(own, port)), default=0.0) for port in range(3)]
    print("s from the first deletion to recording again:", again)
    assert max(again) < 10
    assert own.path(kept).exists()
    assert not any(own.path(str(one["path"])).exists() for one in deleted)
    # It goes on for as long as there is something to delete, and no port stops.
    restarts = [own.status(port)["restarts"] for port in range(3)]
    for port in range(3):
        own.wait_recording(port, frames=own.status(port)["take_frames"] + 250, timeout_s=60)
    assert [own.status(port)["restarts"] for port in range(3)] == restarts
    # Only what is protected is left: it is said, and the file stays.
    own.sdisup("protect 0-2 --since 2000-01-01")
    own.wait_for(lambda: "what is left is" in own.run("sdisup status", check=False).stderr, 60, "the status says so")
    assert own.path(kept).exists()
    own.run(f"rm {RECORDINGS}/ballast")
    own.sdisup("stop --all")


@pytest.mark.slow
@pytest.mark.journal_allows(r"the clock", r"nothing goes for its age")
def test_a_clock_that_jumps_deletes_nothing_until_it_is_confirmed(new_appliance: Callable[..., Machine]) -> None:
    own = new_appliance()
    assert own.boot() == "running"
    own.install_clock()
    own.configure(small_ports(1, "[retention]\nmax_age = '30d'\n"))
    own.sdisup("start 0")
    own.wait_recording(0, frames=5)
    own.sdisup("stop 0")
    own.ledger(0)
    (path,) = own.recordings("port0")
    own.sdisup("retention --confirm-clock")
    own.move_clocks(365 * 86400, 0)
    assert "the clock was moved 365.0 days ahead" in own.sdisup("retention", code=1).stderr
    assert own.path(path).exists()
    # Of this boot it is as old as the monotonic clock says.
    own.sdisup("retention --confirm-clock")
    assert own.path(path).exists()
    own.power_cut()
    own.boot()
    # No port has recorded since the boot, so that none has started the ledger's process.
    assert own.sdisup("retention --confirm-clock").stdout.endswith("deleted 0 files, 0B\n")
    own.move_clocks(40 * 86400, 0)
    own.sdisup("retention --confirm-clock")
    assert not own.path(path).exists()
