"""The recordings' disks: which of the ledgers' files are there, and how one is removed. All that touches them.

A file is what the ledger has, or it is left alone: in its directory, reached along no link, a regular file with the
ledger's number and size, that nobody has open. A directory is listed once for all of its files: the list has each
file's number, and a look at 100,000 files takes a few hundred system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import stat

from sdisup.contract.filesystem import (
    POOLED,
    filesystem_identity,
    is_same_filesystem,
    mount_of_open,
    open_below,
    open_directory,
    pool_of,
)
from sdisup.contract.records import Record
from sdisup.retention.plan import IN_USE, Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sdisup.retention.plan import File

RENUMBERED = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3", "cifs", "smb3", "9p", "overlay"})
"""Filesystems whose files may have other numbers after the next mount (for FUSE its program decides): there a file is
known by its size and by when it was written to last."""
LEASES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "tmpfs", "vfat", "exfat"})
"""Filesystems of this machine alone, where a lease tells whether anybody has a file open. NFSv4 and SMB refuse one that
their server has not granted, just as if somebody had (fs/nfs/nfs4proc.c, nfs4_add_lease; fs/smb/client/cifsfs.c)."""
ANSWER_S = 5.0
"""A disk that takes longer to say how full it is hangs, and is left out: those that work are not to wait for it."""
WRITTEN_BEFORE_S, WRITTEN_AFTER_S = 60.0, 900.0
"""How long before its last frame's time, and after it, a file of an unknown number may have been written to last: what
encodes holds frames back, and a large file takes its time to be closed."""
SIDECARS = (".sha256", ".md5", ".xxh64", ".proxy.mp4")
"""Endings behind a recording's whole name of what sdisup makes of it, and what goes with it."""
GONE = "is gone"


class Recordings(Record):
    """A directory of recordings as it was applied: the `filesystem` that it has to be on, empty for any, and the ports
    that record there."""

    directory: str
    filesystem: str
    ports: frozenset[int]


class Top(Record):
    """A directory of recordings that is right: whether files are known by their numbers, and leases tell who has them
    open."""

    directory: str
    has_numbers: bool
    has_leases: bool


class Disks:
    """What is there now. `problems` are directories of which nothing is deleted, with the reason."""

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.problems: dict[str, str] = {}
        self.sidecars: dict[str, list[str]] = {}
        self._tops: list[Top] = []
        self._pools: set[str] = set()

    def open(self, recordings: Iterable[Recordings]) -> None:
        """Look at the directories; one that is missing, or on another disk, is a problem."""
        for place in recordings:
            if not answers(place.directory):
                text = f"{place.directory} does not answer; is its disk or its network mount still there?"
                self.problems[place.directory] = f"{text} Nothing is deleted there"
                continue
            try:
                self._open(place)
            except OSError as error:
                self.problems[place.directory] = f"{place.directory}: {error.strerror}; nothing is deleted there"

    def _open(self, place: Recordings) -> None:
        found = filesystem_identity(place.directory)
        if place.filesystem and not is_same_filesystem(place.filesystem, found):
            text = f"{place.directory} is on {found}, not on {place.filesystem}"
            self.problems[place.directory] = f"{text}: is its disk mounted? Nothing is deleted there"
            return
        kind = found.partition(":")[0].partition(" ")[0]
        has_numbers = kind not in RENUMBERED and not kind.startswith("fuse")
        self._tops.append(Top(place.directory, has_numbers, kind in LEASES))
        self._tops.sort(key=lambda top: len(top.directory), reverse=True)
        descriptor = open_directory(place.directory)
        try:
            name = space_of(descriptor)
            self._pools |= {name} if kind in POOLED else set()
            known = self.spaces.get(name)
            ports = place.ports | (known.ports if known else frozenset())
            self.spaces[name] = _space(descriptor, place.directory, ports)
        finally:
            os.close(descriptor)

    def look_again(self) -> None:
        """How much is free by now."""
        for name, space in self.spaces.items():
            with contextlib.suppress(OSError):
                found = os.statvfs(space.directory)
                self.spaces[name] = space.replaced(free_bytes=found.f_bavail * found.f_frsize)

    def settle(self) -> None:
        """Let pools count what was removed as free: btrfs does so with its next transaction, up to 30 s later, and
        until then a port that asks for room would have more removed."""
        for space in (space for name, space in self.spaces.items() if name in self._pools):
            with contextlib.suppress(OSError):
                descriptor = os.open(space.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                ctypes.CDLL(None).syncfs(descriptor)
                os.close(descriptor)

    def top_of(self, directory: str) -> Top | None:
        """The directory of recordings that a directory is in; None where nothing is deleted."""
        if any(_is_below(directory, wrong) for wrong in self.problems) or os.path.normpath(directory) != directory:
            return None
        return next((top for top in self._tops if _is_below(directory, top.directory)), None)

    def look(self, files: Mapping[str, File]) -> None:
        """Give each file that is there its space, and note the sidecars."""
        for directory in sorted({path.rpartition("/")[0] for path in files}):
            top = self.top_of(directory)
            if top is None:
                continue
            try:
                descriptor, missing = open_below(top.directory, directory)
            except OSError as error:
                self.problems[directory] = f"{error.strerror}; nothing is deleted there"
                continue
            try:
                if not missing:
                    self._list(directory, descriptor, files, has_numbers=top.has_numbers)
            except OSError as error:
                self.problems[directory] = f"{directory} cannot be listed: {error.strerror}"
            finally:
                os.close(descriptor)

    def _list(self, directory: str, descriptor: int, files: Mapping[str, File], *, has_numbers: bool) -> None:
        space = space_of(descriptor)
        if space not in self.spaces:
            # Another disk is mounted below.
            self.spaces[space] = _space(descriptor, directory, frozenset())
        with os.scandir(descriptor) as entries:
            for entry in entries:
                file = files.get(f"{directory}/{entry.name}")
                if file is None:
                    self._note_sidecar(directory, entry.name, files)
                elif entry.is_file(follow_symlinks=False):
                    is_it = not has_numbers or not file.inode or entry.inode() == file.inode
                    file.space = space if is_it else ""

    def _note_sidecar(self, directory: str, name: str, files: Mapping[str, File]) -> None:
        for ending in SIDECARS:
            if name.endswith(ending) and (path := f"{directory}/{name.removesuffix(ending)}") in files:
                self.sidecars.setdefault(path, []).append(name)


def answers(directory: str) -> bool:
    """Whether a directory's disk says how full it is, or that it is not there, within ANSWER_S. A child process asks:
    one that waits for a dead disk cannot be ended."""
    answer, asked = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
        if child == 0:
            try:
                os.statvfs(directory)
            finally:
                os._exit(0)
        os.close(asked)
        asked = -1
        if not select.select([answer], [], [], ANSWER_S)[0]:
            return False
        os.waitpid(child, 0)
        return True
    finally:
        for descriptor in {answer, asked} - {-1}:
            os.close(descriptor)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def space_of(descriptor: int) -> str:
    """What fills when the filesystem of an open directory does: its device, as 8:1, or the pool that it is of."""
    kind, source = mount_of_open(descriptor)
    device = os.fstat(descriptor).st_dev
    return pool_of(kind, source) if kind in POOLED else f"{os.major(device)}:{os.minor(device)}"


def _space(descriptor: int, directory: str, ports: frozenset[int]) -> Space:
    space = os.fstatvfs(descriptor)
    return Space(space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize, directory, ports)


class Remover:
    """Removes files, relative to their directories, each of which is opened once for the files that follow upon each
    other in it."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._directory, self._descriptor, self._top = "", -1, Top("", True, True)

    def problem(self, file: File) -> str:
        """Why a file is not removed: "" if it could be now."""
        return self._try(file, is_removed=False)

    def remove(self, file: File) -> str:
        """Remove a file and its sidecars; why not, if so."""
        problem = self._try(file, is_removed=True)
        for name in self._disks.sidecars.get(file.path, ()) if problem in ("", GONE) else ():
            self._remove_sidecar(name)
        return problem

    def free_bytes(self) -> int:
        """How much is free where the last file was."""
        space = os.fstatvfs(self._descriptor)
        return space.f_bavail * space.f_frsize

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._directory, self._descriptor = "", -1

    def _try(self, file: File, *, is_removed: bool) -> str:
        directory, _, name = file.path.rpartition("/")
        try:
            self._go_to(directory)
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._descriptor
            )
        except OSError as error:
            return _reason(error)
        try:
            found = os.fstat(descriptor)
            problem = self._difference(file, found) or in_use(descriptor, has_leases=self._top.has_leases)
            if is_removed and not problem:
                os.unlink(name, dir_fd=self._descriptor)
        except OSError as error:
            problem = _reason(error)
        finally:
            os.close(descriptor)
        return problem

    def _go_to(self, directory: str) -> None:
        if directory == self._directory:
            return
        self.close()
        top = self._disks.top_of(directory)
        if top is None:
            raise FileNotFoundError(errno.ENOENT, "is in no directory of recordings that is right")
        descriptor, missing = open_below(top.directory, directory)
        self._directory, self._descriptor, self._top = directory, descriptor, top
        if missing:
            self.close()
            raise FileNotFoundError(errno.ENOENT, GONE)

    def _difference(self, file: File, found: os.stat_result) -> str:
        """What makes a file another one than the ledger has; "" if it is that."""
        if not stat.S_ISREG(found.st_mode):
            return "is a directory now" if stat.S_ISDIR(found.st_mode) else "is no file any more"
        if found.st_size != file.size_bytes:
            return f"has {found.st_size} bytes, and the ledger {file.size_bytes}"
        if self._top.has_numbers and file.inode:
            return "" if found.st_ino == file.inode else "is another file than the ledger has"
        is_its_time = -WRITTEN_BEFORE_S <= found.st_mtime - file.end <= WRITTEN_AFTER_S
        return "" if is_its_time else "was written to at another time than the ledger has"

    def _remove_sidecar(self, name: str) -> None:
        try:
            found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            # What somebody else has put there is theirs.
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return GONE
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return "is a link or no file any more"
    return str(error.strerror)


CANNOT_TELL = (errno.EINVAL, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EPERM)


def in_use(descriptor: int, *, has_leases: bool = True) -> str:
    """Whether anybody else has an open file open, in words; "" if nobody has. It is kept for this process until it is
    closed: who opens it meanwhile waits (fcntl(2), leases).

    Where a filesystem has no leases, who reads a recording for sdisup has a lock on it (control/join.py).
    """
    try:
        if has_leases:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return ""
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return IN_USE
        if error.errno not in CANNOT_TELL:
            raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return IN_USE
    except OSError as error:
        if error.errno not in CANNOT_TELL:
            raise
    return ""
