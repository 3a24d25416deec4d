"""What is wrong beneath recordings, by what the kernel, smartd and udisks say: their words, as they write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakebus import FakeBus
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.settings import Settings
from sdisup.contract.applied import AppliedPort
from sdisup.contract.mounts import Mount, parse_mounts
from sdisup.contract.status import PortStatus
from sdisup.control import beneath, check, observe
from sdisup.control.beneath import Sources, devices, read_only, smartd_warnings, troubles
from sdisup.control.look import Look


def mount(line: str) -> Mount:
    (found,) = parse_mounts([line])
    return found


# ---- Filesystems ----

EXT4 = "61 28 8:17 / /srv/recordings {own},noatime shared:30 - ext4 /dev/sdb1 {options}"
BY_ERROR = (
    "ext4 on /dev/sdb1 is read-only ({}), most likely since the kernel found an error in it: journalctl -k, then "
    "unmount and fsck it"
)
BY_HAND = "ext4 on /dev/sdb1 is mounted read-only; mount -o remount,rw /srv/recordings"


@pytest.mark.parametrize(
    ("own", "options", "expected"),
    [
        ("rw", "rw", ""),
        ("rw", "rw,errors=remount-ro", ""),
        # After an error the filesystem is read-only and its mount is not: so Linux writes it until 6.14 ...
        ("rw", "ro,errors=remount-ro", BY_ERROR.format("errors=remount-ro")),
        # ... and from 6.15 on, where neither says `ro`.
        ("rw", "rw,errors=remount-ro,emergency_ro", BY_ERROR.format("emergency_ro")),
        ("rw", "rw,shutdown", BY_ERROR.format("shutdown")),
        ("ro", "ro", BY_HAND),
        ("ro", "rw", BY_HAND),
        ("rw", "ro,stripe=512", BY_HAND),
        # An option that only has the letters.
        ("rw", "rw,errors=continue,prjquota", ""),
    ],
)
def test_a_filesystem_that_takes_no_writes(own: str, options: str, expected: str) -> None:
    assert read_only(mount(EXT4.format(own=own, options=options))) == expected


# ---- Disks and arrays: a /sys as Linux has it ----


class Sys:
    """A /sys of block devices, which is written as the kernel lays it out."""

    def __init__(self, directory: Path) -> None:
        self.top = directory / "sys"
        self.sources = Sources(str(self.top), str(directory / "proc"), str(directory / "udev"),
                               str(directory / "smartd"), str(directory / "udisks"))  # fmt: skip
        for name in ("class/block", "dev/block"):
            (self.top / name).mkdir(parents=True)

    def disk(self, name: str, number: str, *partitions: str, slaves: tuple[str, ...] = (), **md: str) -> None:
        self._add(self.top / "devices/pci0000:00/0000:00:02.0/block" / name, number)
        major, minor = map(int, number.split(":"))
        for at, partition in enumerate(partitions, 1):
            place = self.top / "devices/pci0000:00/0000:00:02.0/block" / name / partition
            self._add(place, f"{major}:{minor + at}")
            (place / "partition").write_text(f"{at}\n")
        place = self.top / "class/block" / name
        (place / "slaves").mkdir()
        for slave in slaves:
            (place / "slaves" / slave).symlink_to(f"../../{slave}")
        for key, value in md.items():
            (place / "md").mkdir(exist_ok=True)
            (place / "md" / key).write_text(f"{value}\n")

    def _add(self, place: Path, number: str) -> None:
        place.mkdir(parents=True)
        (place / "dev").write_text(f"{number}\n")
        for link in (self.top / "class/block" / place.name, self.top / "dev/block" / number):
            link.symlink_to(os.path.relpath(place, link.parent))

    def write(self, path: str, text: str) -> None:
        place = self.top.parent / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def said(self, line: str) -> tuple[str, ...]:
        return troubles(["/srv/rec"], [mount(line)], self.sources)["/srv/rec"]


@pytest.fixture
def sys(tmp_path: Path) -> Sys:
    return Sys(tmp_path)


ON_SDA1 = "61 28 8:1 / /srv/rec rw - ext4 /dev/sda1 rw"
ON_MD0 = "61 28 9:0 / /srv/rec rw - xfs /dev/md0 rw"
ON_LV = "61 28 253:1 / /srv/rec rw - xfs /dev/mapper/vg-rec rw"
ON_BTRFS = "61 28 0:47 /@rec /srv/rec rw - btrfs /dev/sda1 rw,subvolid=256,subvol=/@rec"
RAID5 = {"degraded": "0", "array_state": "clean", "level": "raid5", "raid_disks": "4", "sync_action": "idle"}


def test_arrays_and_volumes_with_what_they_are_made_of(sys: Sys) -> None:
    sys.disk("sda", "8:0", "sda1", "sda2")
    sys.disk("sdb", "8:16", "sdb1")
    sys.disk("nvme0n1", "259:0", "nvme0n1p1")
    sys.disk("md0", "9:0", slaves=("sda1", "sdb1"), **RAID5)
    sys.disk("dm-0", "253:0", slaves=("md0",))
    sys.disk("dm-1", "253:1", slaves=("dm-0", "nvme0n1p1"))
    assert devices(mount(ON_SDA1), sys.sources.sys) == ["sda"]
    assert devices(mount(ON_MD0), sys.sources.sys) == ["md0", "sda", "sdb"]
    assert devices(mount(ON_LV), sys.sources.sys) == ["dm-1", "dm-0", "nvme0n1", "md0", "sda", "sdb"]
    assert devices(mount(ON_SDA1.replace("8:1", "0:52")), sys.sources.sys) == []
    assert devices(mount(ON_SDA1.replace("8:1", "8:99")), sys.sources.sys) == []
    assert devices(mount(ON_LV), "/nowhere") == []
    # A disk that has gone is still named by its array.
    os.unlink(sys.top / "class/block/sdb1")
    assert devices(mount(ON_MD0), sys.sources.sys) == ["md0", "sda"]


def test_errors_that_a_filesystem_has_found_in_itself(sys: Sys) -> None:
    sys.disk("sda", "8:0", "sda1")
    assert sys.said(ON_SDA1) == ()
    for count, words in (("0", ""), ("1", "an error"), ("12", "12 errors")):
        sys.write("sys/fs/ext4/sda1/errors_count", f"{count}\n")
        text = f"/srv/rec: ext4 on /dev/sda1 has found {words} in itself since its last fsck: journalctl -k, then " \
               "unmount and fsck it"  # fmt: skip
        assert sys.said(ON_SDA1) == ((text,) if words else ())
    # Once it is read-only that says enough.
    (text,) = sys.said(f"{ON_SDA1},emergency_ro")
    assert "is read-only (emergency_ro)" in text


def test_a_circle_ends(sys: Sys) -> None:
    sys.disk("dm-0", "253:0", slaves=("dm-1",))
    sys.disk("dm-1", "253:1", slaves=("dm-0",))
    assert devices(mount(ON_LV), sys.sources.sys) == ["dm-1", "dm-0"]


DEGRADED = "/srv/rec: the array md0 (raid5) is degraded: it lacks 1 of its 4 disks{}; mdadm --detail /dev/md0"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ()),
        ({"degraded": "1"}, (DEGRADED.format(""),)),
        ({"degraded": "1", "sync_action": "recover"}, (DEGRADED.format(" and is being rebuilt"),)),
        ({"degraded": "1", "sync_action": "check"}, (DEGRADED.format(""),)),
        # raid_disks while an array is being reshaped.
        ({"degraded": "1", "raid_disks": "4 (3)"}, (DEGRADED.format(""),)),
        ({"array_state": "broken"}, ("/srv/rec: the array md0 has failed; mdadm --detail /dev/md0",)),
        ({"degraded": "nonsense"}, ()),
    ],
)
def test_an_md_array(sys: Sys, said: dict[str, str], expected: tuple[str, ...]) -> None:
    sys.disk("sda", "8:0", "sda1")
    sys.disk("md0", "9:0", slaves=("sda1",), **RAID5 | said)
    assert sys.said(ON_MD0) == expected


def test_an_array_without_redundancy_says_nothing(sys: Sys) -> None:
    sys.disk("md0", "9:0", array_state="clean", level="raid0", raid_disks="2")
    assert sys.said(ON_MD0) == ()


def test_pools_of_disks(sys: Sys) -> None:
    sys.disk("sda", "8:0", "sda1")
    sys.disk("sdb", "8:16")
    top = "sys/fs/btrfs/2966a5e5-5e26-421e-a4c0-3a1d22282f27"
    for name, missing in (("1", "0"), ("2", "0")):
        sys.write(f"{top}/devinfo/{name}/missing", f"{missing}\n")
    for name in ("sda1", "sdb"):
        sys.write(f"{top}/devices/{name}/dev", "")
    assert devices(mount(ON_BTRFS), sys.sources.sys) == ["sda", "sdb"]
    assert sys.said(ON_BTRFS) == ()
    sys.write(f"{top}/devinfo/2/missing", "1\n")
    assert sys.said(ON_BTRFS) == ("/srv/rec: the btrfs lacks 1 of its disks; btrfs device stats /srv/rec",)
    on_zfs = "61 60 0:62 / /srv/rec rw - zfs tank/rec rw,xattr,posixacl"
    for state, expected in (
        ("ONLINE", ()),
        ("DEGRADED", ("/srv/rec: the pool tank is DEGRADED; zpool status tank",)),
        ("SUSPENDED", ("/srv/rec: the pool tank is SUSPENDED; zpool status tank",)),
    ):
        sys.write("proc/spl/kstat/zfs/tank/state", f"{state}\n")
        assert sys.said(on_zfs) == expected


# ---- SMART ----

STATE = """\
# smartd state file
temperature-min = 24
temperature-max = 51
self-test-errors = 1
self-test-last-err-hour = 31205
scheduled-test-next-check = 1795000000
mail.3.count = 2
mail.3.first-sent-time = 1794000000
mail.3.last-sent-time = 1794090000
mail.4.count = 1
mail.10.count = 1
mail.10.first-sent-time = 1794000000
mail.12.count = 7
ata-error-count = 12
ata-smart-attribute.0.id = 1
ata-smart-attribute.0.val = 100
"""
UDEV = """\
S:disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0XXXXXX
E:ID_MODEL=WDC_WD40EFRX-68N32N0
E:ID_SERIAL=WDC_WD40EFRX-68N32N0_WD-WCC7K0XXXXXX
E:ID_SERIAL_SHORT=WD-WCC7K0XXXXXX
"""


def test_what_smartd_has_warned_of() -> None:
    assert smartd_warnings(STATE) == ["a self-test failed", "it has sectors that it cannot read"]
    assert smartd_warnings("# smartd state file\nmail.1.count = 1\n") == ["its SMART health check fails"]
    assert smartd_warnings("# smartd state file\ntemperature-min = 24\n") == [] == smartd_warnings("")


@given(st.text(alphabet="mail.count=0129 \n-", max_size=200))
def test_no_text_is_too_strange_for_a_state_file(text: str) -> None:
    smartd_warnings(text)


@pytest.mark.parametrize("name", [
    "smartd.WDC_WD40EFRX_68N32N0-WD_WCC7K0XXXXXX.ata.state", "smartd.WDC-WD_WCC7K0XXXXXX-n1.nvme.state",
])  # fmt: skip
def test_a_disk_of_which_smartd_warns(sys: Sys, name: str) -> None:
    sys.disk("sda", "8:0", "sda1")
    sys.write(f"smartd/{name}", STATE)
    assert sys.said(ON_SDA1) == (), "nobody knows which disk it is"
    sys.write("udev/b8:0", UDEV)
    text = (
        "/srv/rec: disk sda: a self-test failed, it has sectors that it cannot read, says smartd; smartctl -x /dev/sda"
    )
    assert sys.said(ON_SDA1) == (text,)
    sys.write("udev/b8:0", UDEV.replace("XXX", "YYY"))
    assert sys.said(ON_SDA1) == (), "it is another one"


OBJECTS = "/org/freedesktop/UDisks2"


@pytest.fixture
def bus(sys: Sys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    (tmp_path / "udisks").mkdir()
    bus = FakeBus(tmp_path / "bus", {})
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    sys.disk("sda", "8:0", "sda1")
    sys.disk("nvme0n1", "259:0")
    sys.disk("dm-1", "253:1", slaves=("sda1", "nvme0n1"))
    bus.properties = {
        (f"{OBJECTS}/block_devices/sda", "Drive"): f"{OBJECTS}/drives/WDC_1",
        (f"{OBJECTS}/block_devices/nvme0n1", "Drive"): f"{OBJECTS}/drives/Samsung_2",
        (f"{OBJECTS}/drives/WDC_1", "SmartFailing"): False,
        (f"{OBJECTS}/drives/Samsung_2", "SmartCriticalWarning"): [],
    }
    return bus


def test_disks_that_are_failing_by_udisks(sys: Sys, bus: FakeBus) -> None:
    assert bus.properties is not None
    assert sys.said(ON_LV) == ()
    # Two questions, of all disks each, whatever there is.
    assert (bus.calls, bus.writes) == (["Get"] * 6, 2)
    bus.properties[f"{OBJECTS}/drives/WDC_1", "SmartFailing"] = True
    bus.properties[f"{OBJECTS}/drives/Samsung_2", "SmartCriticalWarning"] = ["spare", "read_only"]
    assert sorted(sys.said(ON_LV)) == [
        "/srv/rec: disk nvme0n1: SMART warns of spare, read_only, says udisks; smartctl -x /dev/nvme0n1",
        "/srv/rec: disk sda: it is failing by SMART, says udisks; smartctl -x /dev/sda",
    ]
    # A disk in no drive, such as a virtual one.
    bus.properties[f"{OBJECTS}/block_devices/sda", "Drive"] = "/"
    assert [text.split()[2] for text in sys.said(ON_LV)] == ["nvme0n1:"]
    bus.properties.clear()
    assert sys.said(ON_LV) == ()


@pytest.mark.parametrize("mood", ["silent", "closes", "refuses", "garbage", "denies"])
def test_nobody_waits_for_udisks(sys: Sys, bus: FakeBus, mood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "UDISKS_TIMEOUT_S", 0.05)
    bus.mood = mood
    assert sys.said(ON_LV) == ()


def test_without_udisks_no_bus_is_asked(sys: Sys, bus: FakeBus, tmp_path: Path) -> None:
    (tmp_path / "udisks").rmdir()
    assert sys.said(ON_LV) == () and bus.calls == []


def test_its_limit_is_short() -> None:
    assert beneath.UDISKS_TIMEOUT_S <= 0.5


# ---- The status ----


def test_each_place_is_looked_at_once_and_said_of_all_who_record_there(sys: Sys) -> None:
    mounts = [mount("28 1 8:1 / / rw - ext4 /dev/sda1 rw"), mount("61 28 8:17 / /srv/rec rw - ext4 /dev/sdb1 ro")]
    found = troubles(["/srv/rec", "/srv/rec/day", "/srv/other", "/srv"], mounts, sys.sources)
    text = "/srv/rec: ext4 on /dev/sdb1 is mounted read-only; mount -o remount,rw /srv/rec"
    assert found == {"/srv/rec": (text,), "/srv/rec/day": (text,), "/srv/other": (), "/srv": ()}
    assert troubles(["/srv/rec"], [], sys.sources) == {"/srv/rec": ()}


def test_names_that_are_no_text_can_be_printed(sys: Sys) -> None:
    line = b"61 28 8:17 / /srv/rec\xff rw - ext4 /dev/\x1bsdb1 ro".decode("utf-8", "surrogateescape")
    found = troubles([b"/srv/rec\xff/day".decode("utf-8", "surrogateescape")], [mount(line)], sys.sources)
    ((text,),) = found.values()
    assert text.startswith("/srv/rec\N{REPLACEMENT CHARACTER}: ext4 on /dev/\N{REPLACEMENT CHARACTER}sdb1 is mounted")
    assert text.encode()


def test_the_status_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [AppliedPort(index, f"port{index}", "h264", f"/r{index}", True, "r") for index in range(2)]
    found = [PortStatus(port_index=0, warnings=("full soon",)), PortStatus(port_index=1)]
    monkeypatch.setattr(observe, "statuses", lambda *_: found)
    monkeypatch.setattr(beneath, "troubles", lambda places: {place: (f"{place}: broken",) for place in places})
    assert [status.warnings for status in observe.full_statuses(ports)] == [
        ("full soon", "/r0: broken"), ("/r1: broken",),
    ]  # fmt: skip


def test_a_check_warns_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however many directories are there, and it is no problem that keeps anybody from an apply."""
    (tmp_path / "sdisup.toml").write_text('[defaults]\nsource = { kind = "test" }\n[port.1]\nrecordings = "/srv/b"\n')
    settings = Settings.load(str(tmp_path / "sdisup.toml"))
    monkeypatch.setattr(check, "look_at", lambda paths: {path: Look(free_bytes=1 << 40) for path in paths})
    monkeypatch.setattr(check, "_user_problems", list)
    monkeypatch.setattr(check, "_executable_problems", lambda _: [])
    monkeypatch.setattr(check, "space_warnings", lambda _: ["/srv: full in 10 minutes"])
    monkeypatch.setattr(check, "troubles", lambda places: dict.fromkeys(places, ("/srv: the array md0 is degraded",)))
    found, doubts = check.report(settings, quick=True)
    assert not [text for text in found if "md0" in text or "full" in text]
    assert doubts == ["/srv: full in 10 minutes", "/srv: the array md0 is degraded"]


def test_of_this_machine() -> None:
    """Whatever is here: it is told, and is text."""
    assert all(isinstance(text, str) for texts in troubles(["/", "/dev/shm"]).values() for text in texts)
