"""A filesystem's identity: from lines of mountinfo as kernels write them, and from the disks that are here."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdisup.contract import filesystem
from sdisup.contract.filesystem import (
    filesystem_identity,
    is_beside_system,
    is_same_filesystem,
    is_shut_off,
    mounted,
    open_directory,
    shares_space,
)

# proc(5), and lines of a Debian 12 and 13: a root, a bind of its /srv, an NFS, a path with a space, a btrfs
# subvolume, whose directories have another device than its mount says.
MOUNTINFO = """\
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
29 28 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=4014036k
60 28 8:1 /srv /mnt/bind rw,relatime shared:1 - ext4 /dev/sda1 rw
61 28 8:17 / /srv/recordings rw,noatime shared:30 - xfs /dev/sdb1 rw,attr2
62 28 0:52 / /srv/nas rw shared:31 - nfs4 server:/export rw,vers=4.2
63 28 0:53 / /srv/a\\040-\\040b rw - cifs //server/share rw
64 28 0:47 /@rec /srv/btrfs rw,relatime shared:33 master:1 - btrfs /dev/sdc1 rw,subvolid=256,subvol=/@rec
65 28 0:99 broken
""".splitlines()


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("8:1", ("ext4", "/dev/sda1")),
        ("8:17", ("xfs", "/dev/sdb1")),
        ("0:52", ("nfs4", "server:/export")),
        ("0:53", ("cifs", "//server/share")),
        ("8:18", ("unknown", "")),
        ("8:", ("unknown", "")),
        ("0:99", ("unknown", "")),
        ("", ("unknown", "")),
    ],
)
def test_what_is_mounted_from_a_device(device: str, expected: tuple[str, str]) -> None:
    assert mounted(device, MOUNTINFO) == expected


def test_a_mount_is_found_by_its_number_where_the_device_is_another() -> None:
    """A directory in a btrfs subvolume has a device of its own, which is nowhere in mountinfo."""
    assert mounted("0:48", MOUNTINFO, "64") == ("btrfs", "/dev/sdc1")


def test_the_device_counts_where_the_number_is_of_another_namespace() -> None:
    assert mounted("8:17", MOUNTINFO, "7") == ("xfs", "/dev/sdb1")


# What a runner in its sandbox sees (ProtectSystem=strict, ReadWritePaths=-/srv/recordings). /mnt is a read-only disk.
SANDBOX = """\
70 28 8:1 / / ro,relatime - ext4 /dev/sda1 rw,errors=remount-ro
71 70 8:1 /srv/recordings /srv/recordings rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro
72 70 8:33 / /mnt ro,relatime - ext4 /dev/sdc1 ro
73 70 8:49 / /srv/disk rw,relatime - ext4 /dev/sdd1 rw
74 70 8:1 / /srv/only\\040read ro,relatime - ext4 /dev/sde1 rw
75 70 0:99 broken
""".splitlines()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/recordings", False),
        ("/srv/recordings/cup", False),
        # Made after the unit's start: no mount of its own.
        ("/srv/later", True),
        ("/srv/recordings2", True),
        # The disk itself.
        ("/mnt/recordings", False),
        ("/srv/disk/day", False),
        ("/srv/only read", False),
        ("/srv/only read/below", True),
    ],
)
def test_a_directory_that_only_the_sandbox_keeps_read_only(path: str, expected: bool) -> None:
    assert is_shut_off(path, SANDBOX) is expected
    assert not is_shut_off(path, [])


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        (("btrfs", "/dev/sda2"), ("btrfs", "/dev/sda2"), True),
        (("btrfs", "/dev/sdb1"), ("btrfs", "/dev/sda2"), False),
        (("zfs", "rpool/rec"), ("zfs", "rpool/ROOT/debian"), True),
        (("zfs", "rpool2/rec"), ("zfs", "rpool/ROOT"), False),
        (("xfs", "/dev/sda2"), ("ext4", "/dev/sda2"), False),
        (("tmpfs", "tmpfs"), ("tmpfs", "tmpfs"), False),
        (("unknown", ""), ("unknown", ""), False),
    ],
)
def test_what_shares_the_space_of_a_pool(one: tuple[str, str], other: tuple[str, str], shares: bool) -> None:
    assert shares_space(one, other) is shares


def test_what_fills_the_system(tmp_path: Path) -> None:
    assert (is_beside_system("/"), is_beside_system("/proc")) == (True, False)
    with pytest.raises(FileNotFoundError):
        is_beside_system(str(tmp_path / "missing"))


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem_identity(str(tmp_path / "missing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        filesystem_identity(str(tmp_path / "file"))


def test_it_is_the_same_for_every_directory_of_a_disk(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.symlink("a", tmp_path / "b")
    found = {filesystem_identity(str(tmp_path / name)) for name in (".", "a", "b")}
    assert len(found) == 1


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    filesystem_identity(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        filesystem_identity(str(tmp_path / "missing"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_proc_it_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOUNTINFO", str(tmp_path / "missing"))
    assert filesystem_identity(str(tmp_path)).startswith("unknown")


@pytest.mark.parametrize(
    ("remembered", "found", "expected"),
    [
        ("xfs:uuid-2f3c", "xfs:uuid-2f3c", True),
        ("xfs:uuid-2f3c", "xfs:uuid-aaaa", False),
        # before and after an upgrade of the kernel, and back
        ("xfs", "xfs:uuid-2f3c", True),
        ("xfs:uuid-2f3c", "xfs", True),
        ("xfs", "xfs", True),
        ("tmpfs", "tmpfs", True),
        # the mount point of a disk that is not mounted
        ("xfs", "xfs:uuid-2f3c with /", False),
        ("xfs", "xfs with /", False),
        ("xfs:uuid-2f3c", "xfs:uuid-2f3c with /", False),
        ("xfs with /", "xfs:uuid-2f3c", False),
        ("xfs with /", "xfs:uuid-2f3c with /", True),
        ("xfs:uuid-2f3c with /", "xfs:uuid-aaaa with /", False),
        ("xfs", "ext4:fsid-5d1c", False),
        ("xfs", "ext4", False),
        ("ext4:fsid-5d1c", "ext3:fsid-5d1c", False),
        ("nfs", "nfs4:server:/export", False),
        ("nfs4:server:/export", "nfs4:server:/export", True),
        ("nfs4:server:/export", "nfs4:server:/other", False),
        ("fuseblk", "fuse", False),
    ],
)
def test_what_has_no_name_is_any_of_its_kind(remembered: str, found: str, expected: bool) -> None:
    assert is_same_filesystem(remembered, found) is expected


MAKE = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 4 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320 << 20),
}


@pytest.fixture(params=MAKE)
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """A filesystem in a file, mounted: the file and the mount point."""
    command, size_bytes = MAKE[request.param]
    image, point = tmp_path / "image", tmp_path / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([*command, str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    yield image, point
    subprocess.run(["umount", str(point)], check=False)


# What Linux 6.18 answered XFS_IOC_FSGEOMETRY_V1 on a disk of which blkid said
# UUID="2966a5e5-5e26-421e-a4c0-3a1d22282f27", and FS_IOC_GETFSUUID the same.
GEOMETRY = bytes.fromhex(
    "0010000001000000005000000400000000400000000200000002000019000000004001000000000000000000000000000000000000000000"
    "06000100000000002966a5e55e26421ea4c03a1d22282f27000000000000000000000000cacc770000020000001000000010000000000000"
)


def test_an_xfs_has_its_name_on_a_kernel_that_does_not_tell_uuids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12's, 6.1, does not: a name that came with its upgrade would be another disk's."""

    def old_kernel(_: int, code: int, argument: bytes) -> bytes:
        if (code, len(argument)) != (0x80705864, len(GEOMETRY)):
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        return GEOMETRY

    device = tmp_path.stat().st_dev
    (tmp_path / "mountinfo").write_text(f"61 28 {os.major(device)}:{os.minor(device)} / / rw - xfs /dev/sdb1 rw\n")
    monkeypatch.setattr(filesystem, "MOUNTINFO", str(tmp_path / "mountinfo"))
    monkeypatch.setattr(fcntl, "ioctl", old_kernel)
    assert filesystem_identity(str(tmp_path)).startswith("xfs:uuid-2966a5e55e26421ea4c03a1d22282f27")


def test_a_disk_has_the_same_identity_wherever_it_is_mounted(disk: tuple[Path, Path], tmp_path: Path) -> None:
    image, point = disk
    first = filesystem_identity(str(point))
    assert first.startswith(("ext4:fsid-", "xfs:uuid-"))
    assert not first.endswith(" with /")
    subprocess.run(["umount", str(point)], check=True)
    missing = filesystem_identity(str(point))
    assert not is_same_filesystem(first, missing), "the mount point of a disk that is missing is on another one"
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    assert filesystem_identity(str(point)) == first
    (point / "deep").mkdir()
    assert filesystem_identity(str(point / "deep")) == first


def test_memory_has_no_name(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        assert filesystem_identity(str(tmp_path)) == "tmpfs"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---- Along whose links ----


def test_a_directory_is_opened_along_links_of_root_and_of_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "disk" / "recordings").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "disk")
    (tmp_path / "relative").symlink_to("./disk/../disk/")
    (tmp_path / "disk" / "up").symlink_to("../absolute/recordings")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("disk/recordings", "absolute/recordings", "relative//recordings/", "disk/up", "relative/up/."):
        descriptor = open_directory(f"{tmp_path}/{path}")
        assert os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "disk" / "recordings")
        os.listdir(descriptor)
        os.close(descriptor)
    os.chown(tmp_path / "absolute", 65534, 65534, follow_symlinks=False)
    for path in ("absolute/recordings", "disk/up", "absolute"):
        with pytest.raises(OSError, match="absolute in it is a link, which root has not made"):
            open_directory(f"{tmp_path}/{path}")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path, kind in (("loop", OSError), ("none/x", FileNotFoundError), ("file", NotADirectoryError),
                       ("file/x", NotADirectoryError)):  # fmt: skip
        with pytest.raises(kind):
            open_directory(f"{tmp_path}/{path}")
    assert len(os.listdir("/proc/self/fd")) == before
