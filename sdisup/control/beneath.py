"""What is wrong beneath recordings: filesystems that became read-only, arrays that lack disks, disks that are failing.

It reads what the kernel, smartd and udisks know already. It touches no recordings and wakes no disk: all of it is in
/proc, /sys, /run and /var/lib, and in udisks' own memory, which has a short time to answer. `sdisup status` runs it.
"""

from __future__ import annotations

import os

from sdisup.contract.mounts import Mount, mount_of, read_mounts
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UDISKS_TIMEOUT_S = 0.3
READ_ONLY_AFTER_ERROR = ("emergency_ro", "shutdown")
"""What ext4 says from Linux 6.15 on where it writes no more and is still mounted `rw` (fs/ext4/super.c)."""
SMARTD_WARNINGS = {
    1: "its SMART health check fails",
    2: "a SMART attribute fails",
    3: "a self-test failed",
    9: "it cannot be opened",
    10: "it has sectors that it cannot read",
    11: "it has sectors that it cannot correct",
}
"""The numbers of the warnings in smartd's state files (smartd.cpp, MailWarning) that a disk about to fail has;
others are of temperatures, and of logs."""
POOL_STATES = ("DEGRADED", "FAULTED", "SUSPENDED", "UNAVAIL")


class Sources(Record):
    """Where all of it is read."""

    sys: str = "/sys"
    proc: str = "/proc"
    udev: str = "/run/udev/data"
    smartd: str = "/var/lib/smartmontools"
    udisks: str = "/run/udisks2"


def troubles(
    directories: Iterable[str], mounts: Sequence[Mount] | None = None, sources: Sources | None = None
) -> dict[str, tuple[str, ...]]:
    """By directory of recordings, what is wrong beneath it, in the operator's words. Each begins with the place where
    what is wrong is mounted, so that all directories there get the same words."""
    mounts = read_mounts() if mounts is None else mounts
    sources = sources or Sources()
    found = {directory: mount_of(directory, mounts) for directory in directories}
    of_mounts: dict[Mount, tuple[str, ...]] = {}
    for mount in found.values():
        if mount is not None and mount not in of_mounts:
            of_mounts[mount] = tuple(_printable(f"{mount.place}: {text}") for text in _of_mount(mount, sources))
    return {directory: of_mounts[mount] if mount else () for directory, mount in found.items()}


def _of_mount(mount: Mount, sources: Sources) -> list[str]:
    names = devices(mount, sources.sys)
    texts = [
        read_only(mount) or _errors(mount, sources.sys),
        _pool(mount, sources),
        *(_array(name, sources.sys) for name in names),
    ]
    disks = [name for name in names if not _listed(f"{sources.sys}/class/block/{name}/slaves")]
    texts += [f"disk {name}: {text}; smartctl -x /dev/{name}" for name, text in _failing(disks, sources).items()]
    return [text for text in texts if text]


def _printable(text: str) -> str:
    """Names of mounts are bytes, which may be no text."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


# ---- Filesystems ----


def read_only(mount: Mount) -> str:
    """That nothing can be written to what is mounted; "" if it can."""
    what = f"{mount.kind} on {mount.source}"
    error = next((option for option in mount.options if option in READ_ONLY_AFTER_ERROR), "")
    remounts = "errors=remount-ro" in mount.options
    if error or (mount.is_filesystem_read_only and remounts):
        return (
            f"{what} is read-only ({error or 'errors=remount-ro'}), most likely since the kernel found an error in it: "
            "journalctl -k, then unmount and fsck it"
        )
    if mount.is_filesystem_read_only or mount.is_read_only:
        return f"{what} is mounted read-only; mount -o remount,rw {mount.place}"
    return ""


def _errors(mount: Mount, sys: str) -> str:
    """That a filesystem of the ext family has found errors in itself, and goes on (ext4(5), errors=continue)."""
    count = _text(f"{sys}/fs/ext4/{name}/errors_count") if (name := _block_device(mount, sys)) else ""
    if not count.isdecimal() or not int(count):
        return ""
    times = "an error" if count == "1" else f"{count} errors"
    return (
        f"{mount.kind} on {mount.source} has found {times} in itself since its last fsck: journalctl -k, then unmount "
        "and fsck it"
    )


def _pool(mount: Mount, sources: Sources) -> str:
    """That a pool of disks lacks some of them; "" if it does not, or there is none."""
    if mount.kind == "zfs":
        pool = mount.source.partition("/")[0]
        state = _text(f"{sources.proc}/spl/kstat/zfs/{pool}/state")
        return f"the pool {pool} is {state}; zpool status {pool}" if state in POOL_STATES else ""
    if mount.kind != "btrfs":
        return ""
    top = _btrfs(mount, sources.sys)
    numbers = _listed(f"{top}/devinfo") if top else []
    missing = [number for number in numbers if _text(f"{top}/devinfo/{number}/missing") == "1"]
    return f"the btrfs lacks {len(missing)} of its disks; btrfs device stats {mount.place}" if missing else ""


# ---- Block devices ----


def devices(mount: Mount, sys: str) -> list[str]:
    """The block devices beneath what is mounted, by the kernel's names: arrays and volumes with what they are made of,
    and disks in place of their partitions."""
    found: dict[str, None] = {}
    waiting = _first_devices(mount, sys)
    while waiting:
        name = waiting.pop(0)
        path = f"{sys}/class/block/{name}"
        if os.path.exists(f"{path}/partition"):
            name = os.path.basename(os.path.dirname(os.path.realpath(path)))
            path = f"{sys}/class/block/{name}"
        if name not in found and os.path.lexists(path):
            found[name] = None
            waiting += _listed(f"{path}/slaves")
    return list(found)


def _first_devices(mount: Mount, sys: str) -> list[str]:
    if not mount.device.startswith("0:"):
        name = _block_device(mount, sys)
        return [name] if name else []
    # A btrfs has a device number of its own, which is none of a block device.
    top = _btrfs(mount, sys) if mount.kind == "btrfs" else ""
    return _listed(f"{top}/devices") if top else []


def _block_device(mount: Mount, sys: str) -> str:
    """The kernel's name of what is mounted; "" where it is no block device."""
    try:
        return os.path.basename(os.readlink(f"{sys}/dev/block/{mount.device}"))
    except OSError:
        return ""


def _btrfs(mount: Mount, sys: str) -> str:
    """The directory of a btrfs in /sys, by one of its disks; "" where there is none."""
    disk = os.path.basename(os.path.realpath(mount.source))
    tops = (f"{sys}/fs/btrfs/{name}" for name in _listed(f"{sys}/fs/btrfs"))
    return next((top for top in tops if os.path.lexists(f"{top}/devices/{disk}")), "")


def _array(name: str, sys: str) -> str:
    """That an md array lacks disks (Documentation/admin-guide/md.rst, "MD devices in sysfs"); "" if it does not."""
    md = f"{sys}/class/block/{name}/md"
    state = _text(f"{md}/array_state")
    missing = _text(f"{md}/degraded")
    if state == "broken":
        return f"the array {name} has failed; mdadm --detail /dev/{name}"
    if not missing.isdecimal() or not int(missing):
        return ""
    level, disks = _text(f"{md}/level"), _text(f"{md}/raid_disks").partition(" ")[0]
    rebuilt = " and is being rebuilt" if _text(f"{md}/sync_action") == "recover" else ""
    return (
        f"the array {name} ({level}) is degraded: it lacks {missing} of its {disks} disks{rebuilt}; "
        f"mdadm --detail /dev/{name}"
    )


# ---- SMART ----


def _failing(disks: Sequence[str], sources: Sources) -> dict[str, str]:
    """Why disks are about to fail, by what smartd and udisks have found; those of which nothing is known are fine."""
    files = [name for name in _listed(sources.smartd) if name.startswith("smartd.") and name.endswith(".state")]
    found = {}
    for disk in disks if files else ():
        serial = _serial(disk, sources)
        text = _text(f"{sources.smartd}/{_state_file(files, serial)}") if serial else ""
        warned = smartd_warnings(text)
        if warned:
            found[disk] = f"{', '.join(warned)}, says smartd"
    if disks and os.path.isdir(sources.udisks):
        found = {**_by_udisks(disks), **found}
    return found


def _serial(disk: str, sources: Sources) -> str:
    """A disk's serial number as udev has it."""
    number = _text(f"{sources.sys}/class/block/{disk}/dev")
    lines = _text(f"{sources.udev}/b{number}").split("\n")
    return next((line.partition("=")[2] for line in lines if line.startswith("E:ID_SERIAL_SHORT=")), "")


def _state_file(files: Iterable[str], serial: str) -> str:
    """smartd's file of a disk, `smartd.MODEL-SERIAL.ata.state`; what is neither letter nor digit is `_` in it."""
    wanted = "".join(character if character.isascii() and character.isalnum() else "_" for character in serial)
    return next((name for name in files if f"-{wanted}." in name or f"-{wanted}-" in name), "")


def smartd_warnings(text: str) -> list[str]:
    """What smartd has warned of and has not taken back, by its state file. Nothing where it warns nobody."""
    found = []
    for line in text.split("\n"):
        name, _, count = line.partition(" = ")
        words = name.split(".")
        if len(words) == 3 and (words[0], words[2]) == ("mail", "count") and words[1].isdecimal() and count != "0":
            found.append(SMARTD_WARNINGS.get(int(words[1]), ""))
    return [warning for warning in found if warning]


def _by_udisks(disks: Sequence[str]) -> dict[str, str]:
    """What udisks says of disks, if it runs; it looks at them now and then without waking them."""
    from sdisup.control.bus import Bus, SystemdError

    udisks = "org.freedesktop.UDisks2"
    try:
        with Bus(UDISKS_TIMEOUT_S) as bus:
            blocks = [f"/org/freedesktop/UDisks2/block_devices/{_escaped(disk)}" for disk in disks]
            answers = bus.properties(udisks, [(block, f"{udisks}.Block", "Drive") for block in blocks])
            drives = {
                disk: path
                for disk, path in zip(disks, answers, strict=True)
                if isinstance(path, str) and path.startswith("/org/")
            }
            ata = [(drive, f"{udisks}.Drive.Ata", "SmartFailing") for drive in drives.values()]
            nvme = [(drive, f"{udisks}.NVMe.Controller", "SmartCriticalWarning") for drive in drives.values()]
            said = bus.properties(udisks, [*ata, *nvme])
    except SystemdError:
        # It does not run, or does not answer in time: then nobody knows.
        return {}
    found = {}
    for disk, is_failing, warnings in zip(drives, said, said[len(drives) :], strict=False):
        if is_failing is True or is_failing == 1:
            found[disk] = "it is failing by SMART, says udisks"
        if isinstance(warnings, list) and warnings:
            found[disk] = f"SMART warns of {', '.join(map(str, warnings))}, says udisks"
    return found


def _escaped(name: str) -> str:
    """A name as a part of a D-Bus path: udisks writes what such a path cannot have as `_2d`."""
    return "".join(
        character if character.isascii() and character.isalnum() else f"_{ord(character):02x}" for character in name
    )


# ---- Files ----


def _text(path: str) -> str:
    """A file's text without its last line's end; "" where there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16).strip()
    except OSError:
        return ""


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
