"""Which filesystem a directory is on, by a name that outlives reboots and renumbered disks.

`apply` remembers it and the runner compares: a disk that is not mounted leaves its mount point, on the
system's own disk, and what is written there is lost to sight and fills the wrong disk. The name comes
from the filesystem itself, since a sandbox may hide /dev/disk. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

LINKS = 40
"""How many links of one path are followed, as by the kernel (path_resolution(7))."""
MOUNTINFO = "/proc/self/mountinfo"

# _IOR(0x15, 0, struct fsuuid2), linux/fs.h; Linux 6.9 and later. One byte of length, sixteen of UUID.
FS_IOC_GETFSUUID = 0x80111500
# _IOR('X', 100, struct xfs_fsop_geom_v1), fs/xfs/libxfs/xfs_fs.h: the same UUID on every kernel, and for any user.
XFS_IOC_FSGEOMETRY_V1 = 0x80705864
XFS_GEOMETRY_BYTES, XFS_UUID = 112, slice(64, 80)
# Their statvfs f_fsid is made from their UUID (statfs(2) leaves it open; fs/ext4/super.c, fs/btrfs/super.c).
UUID_IN_FSID = frozenset({"ext2", "ext3", "ext4", "btrfs"})
POOLED = frozenset({"btrfs", "zfs"})
"""Of a pool there are several, each with an identity of its own."""
WITH_ROOT = " with /"
# Layers and memory have no name of their own that means anything after a reboot.
NAMELESS = frozenset({"overlay", "tmpfs", "ramfs"})


def open_directory(path: str) -> int:
    """Open a directory by an absolute path, along links that root or this user has made and no others.

    Whoever may write to a directory of the path could lead elsewhere by a link. Raises OSError, which names that link.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    at, names, links = _root(), path.split("/")[::-1], 0
    try:
        while names:
            name = names.pop()
            try:
                # As a directory, or a place where one is mounted when it is asked for would be entered unmounted.
                below = os.open(name or ".", flags | os.O_DIRECTORY, dir_fd=at)
            except NotADirectoryError:
                below = os.open(name, flags, dir_fd=at)
            found = os.fstat(below)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                target = os.readlink("", dir_fd=below)
                os.close(below)
                if found.st_uid not in (0, os.geteuid()) or links > LINKS:
                    raise OSError(errno.ELOOP, f"{name} in it is a link, which root has not made: move it away")
                names += target.split("/")[::-1]
                below = _root() if target.startswith("/") else os.dup(at)
            os.close(at)
            at = below
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)


def open_below(top: str, path: str) -> tuple[int, list[str]]:
    """Open the directory at `path`, at or below `top`, as far as it is there; returns which names are missing then.

    Below `top` no link is followed: whoever may write there may have put it there. Raises OSError, NotADirectoryError
    for a link or a file.
    """
    at, names = open_directory(top), [name for name in path.removeprefix(top).split("/") if name]
    reached = top
    try:
        while names:
            reached = f"{reached.rstrip('/')}/{names[0]}"
            below = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
            names.pop(0)
    except FileNotFoundError:
        return at, names
    except OSError as error:
        os.close(at)
        if isinstance(error, NotADirectoryError):
            text = f"{reached} is a link or a file, and recordings go into directories alone: move it away"
            raise NotADirectoryError(errno.ENOTDIR, text) from error
        raise
    return at, names


def _root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def filesystem_identity(path: str) -> str:
    """Such as `ext4:fsid-5d1c…`, `xfs:uuid-2f3c…`, `nfs4:server:/export`; `… with /` on the system's own disk.

    Raises OSError if the directory is not there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        kind, source = mount_of_open(descriptor)
        name = _name(descriptor, kind, source)
    finally:
        os.close(descriptor)
    identity = f"{kind}:{name}" if name else kind
    return f"{identity}{WITH_ROOT}" if device == os.stat("/").st_dev else identity


def is_beside_system(path: str) -> bool:
    """Whether what fills a directory's filesystem fills that of `/`. Raises OSError if the directory is not there."""
    found = []
    for place in (path, "/"):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found.append((os.fstat(descriptor).st_dev, mount_of_open(descriptor)))
        finally:
            os.close(descriptor)
    (device, own), (root_device, root) = found
    return device == root_device or shares_space(own, root)


def shares_space(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two mounts, each by type and source, are of one pool: subvolumes of a btrfs, datasets of ZFS."""
    return one[0] in POOLED and pool_of(*one) == pool_of(*other)


def pool_of(kind: str, source: str) -> str:
    """What a mount of a pool fills, a name within this boot. A btrfs is mounted from one source, whichever of its disks
    that names (btrfs_show_devname, fs/btrfs/super.c); a ZFS dataset's name begins with that of its pool."""
    return f"{kind} {source.partition('/')[0] if kind == 'zfs' else source}"


def is_same_filesystem(remembered: str, found: str) -> bool:
    """Whether two identities may be of one filesystem.

    One without a name is of any filesystem of its kind: a kernel may tell the name that another one did not,
    and a disk must not be refused for the kernel's sake.
    """
    if is_system_disk(remembered) != is_system_disk(found):
        return False
    (kind, _, name), (found_kind, _, found_name) = (
        identity.removesuffix(WITH_ROOT).partition(":") for identity in (remembered, found)
    )
    return kind == found_kind and (name == found_name or not name or not found_name)


def is_shut_off(path: str, mountinfo: list[str] | None = None) -> bool:
    """Whether only a mount above keeps a directory read-only, on a filesystem that takes writes.

    So it is for a directory that was made after a unit's start: for the sandbox (ProtectSystem=strict) systemd mounts
    each directory of ReadWritePaths= on itself, if it is there then.
    """
    real = os.path.realpath(path)
    lines = _lines(MOUNTINFO) if mountinfo is None else mountinfo
    found: tuple[str, str, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        words, of_filesystem = fields.split(" "), rest.split(" ")
        if len(words) < 6 or len(of_filesystem) < 3:
            continue
        place = unescaped(words[4])
        is_above = real == place or real.startswith(place.rstrip("/") + "/")
        # Of two mounts on one place the later one counts.
        if is_above and (found is None or len(place) >= len(found[0])):
            found = place, words[5], of_filesystem[2].strip()
    if found is None or found[0] == real:
        return False
    return "ro" in found[1].split(",") and "rw" in found[2].split(",")


def unescaped(text: str) -> str:
    """A path of mountinfo, where some characters stand as octal numbers (proc(5))."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def is_named(identity: str) -> bool:
    """Whether an identity tells its filesystem from others of its kind."""
    return ":" in identity


def is_system_disk(identity: str) -> bool:
    """Whether an identity is that of the filesystem of `/`."""
    return identity.endswith(WITH_ROOT)


def _name(descriptor: int, kind: str, source: str) -> str:
    if kind in NAMELESS:
        return ""
    # The same on every kernel first: an upgrade must not rename what was remembered.
    if kind in UUID_IN_FSID:
        return f"fsid-{os.fstatvfs(descriptor).f_fsid:x}"
    if ":" in source or source.startswith("//"):
        return source
    try:
        if kind == "xfs":
            uuid = fcntl.ioctl(descriptor, XFS_IOC_FSGEOMETRY_V1, bytes(XFS_GEOMETRY_BYTES))[XFS_UUID]
        else:
            answer = fcntl.ioctl(descriptor, FS_IOC_GETFSUUID, bytes(17))
            uuid = answer[1 : 1 + answer[0]]
    except OSError:
        return ""
    return f"uuid-{uuid.hex()}" if any(uuid) else ""


def mount_of_open(descriptor: int) -> tuple[str, str]:
    """Type and source of what an open directory is on."""
    device = os.fstat(descriptor).st_dev
    return mounted(f"{os.major(device)}:{os.minor(device)}", _lines(MOUNTINFO), _mount_id(descriptor))


def _mount_id(descriptor: int) -> str:
    """The number of the mount that an open directory is on (proc(5): fdinfo); empty if /proc does not say."""
    found = (line.partition(":") for line in _lines(f"/proc/self/fdinfo/{descriptor}"))
    return next((value.strip() for name, _, value in found if name == "mnt_id"), "")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:
        return []


def mounted(device: str, mountinfo: list[str], mount_id: str = "") -> tuple[str, str]:
    """Type and source of what is mounted, from mountinfo's lines (proc(5)): by the mount's number if it is there.

    Else from a device such as `8:1`: the directories of a btrfs subvolume have another one than their mount.

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    """
    by_device = "unknown", ""
    for line in reversed(mountinfo):
        fields, _, rest = line.partition(" - ")
        numbers, words = fields.split(" ")[:3], rest.split(" ")
        if len(words) < 2:
            continue
        if mount_id and numbers[0] == mount_id:
            return words[0], words[1]
        if numbers[2:] == [device]:
            by_device = words[0], words[1]
    return by_device
