"""Where the recording's file is by now: under the name that it was given, under another one, or where no path leads.

Whoever may write to the recordings moves files and directories, and root mounts other disks over them. FFmpeg has the
file itself and writes on. All of this touches the recordings' disk: the threads of disk.py alone call it.
"""

from __future__ import annotations

import os
import stat

from sdisup.contract.filesystem import filesystem_identity, is_same_filesystem, is_shut_off, open_below
from sdisup.contract.records import Record

END_BYTES = 1 << 12


class Found(Record):
    """`moved`: the file's path leads to another file or to none. `place` is then where it is, empty where no path leads
    to it. `misplaced`: its directory's path leads to another directory, and a new file would be made there."""

    moved: bool = False
    place: str = ""
    misplaced: bool = False


HERE = Found()
"""Where it was made."""


class Whereabouts:
    """Looks for a file that is open, `descriptor`, in the directory that is open, `above`.

    `directory` is the path where a new file would be made, at or below `recordings`, on `filesystem`; on any
    where that is empty.
    """

    def __init__(
        self, path: str, descriptor: int, above: int, *, directory: str, recordings: str, filesystem: str
    ) -> None:
        self._path, self._descriptor, self._above = path, descriptor, above
        self._directory, self._recordings, self._filesystem = directory, recordings, filesystem
        self._former_bytes = 0
        """The file's size at the last look."""
        self._other_bytes: int | None = None
        """The size then of what had its name, another number, and the same end."""
        self.has_numbers = True
        """Whether the filesystem gives the file the same number at each look; mergerfs and CIFS may not."""

    def look(self) -> Found:
        """Where the file is now. Raises OSError where that cannot be told."""
        ours = os.fstat(self._descriptor)
        is_here = self._is_at(self._path, ours)
        self._former_bytes = ours.st_size
        if is_here:
            return HERE
        # The kernel follows what is renamed (proc(5)); where no path leads to the file any more this is its former one.
        place = os.readlink(f"/proc/self/fd/{self._descriptor}")
        return Found(moved=True, place=place if self._is_at(place, ours) else "", misplaced=self.is_misplaced())

    def _is_at(self, path: str, ours: os.stat_result) -> bool:
        try:
            named = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if is_same(named, ours) or not self.has_numbers:
            return True
        if not stat.S_ISREG(named.st_mode):
            return False
        if not ours.st_size and not os.fstat(self._descriptor).st_size:
            # There is nothing in the file yet by which it could be known.
            return not named.st_size
        if not self._ends_alike(path, min(named.st_size, ours.st_size)):
            self._other_bytes = None
            return False
        # It may be a copy, which does not grow.
        self.has_numbers = self._other_bytes is None or named.st_size <= self._other_bytes
        self._other_bytes = named.st_size
        return True

    def _ends_alike(self, path: str, size_bytes: int) -> bool:
        """Whether what a path leads to holds all that the file held at the last look, and has the same end there."""
        if not size_bytes or size_bytes < self._former_bytes:
            return False
        count = min(size_bytes, END_BYTES)
        other = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(other, count, size_bytes - count) == os.pread(self._descriptor, count, size_bytes - count)
        finally:
            os.close(other)

    def look_for_directory(self) -> Found:
        """Whether the file, which has no name yet, would get it in another directory than a new file."""
        try:
            is_here = is_same(os.stat(self._directory), os.fstat(self._above))
        except (FileNotFoundError, NotADirectoryError):
            is_here = False
        return Found(misplaced=not is_here and self.is_misplaced())

    def is_misplaced(self) -> bool:
        """Whether a new file would be made in another directory: this one was renamed, or is hidden by a mount.

        Where none could be made there, this directory is better than none.
        """
        try:
            # A take's own directory is made anew where it is gone.
            descriptor, _ = open_below(self._recordings, self._directory)
        except OSError:
            # As a new file would find it too.
            return False
        try:
            now = os.fstat(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        # What came after the unit's sandbox was made is read-only in there, and not in the next one.
        may_write = os.access(path, os.W_OK | os.X_OK) or (is_shut_off(path) and has_right(now))
        if is_same(now, os.fstat(self._above)) or not may_write:
            return False
        return not self._filesystem or is_same_filesystem(self._filesystem, filesystem_identity(self._recordings))


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks are at one file, by its number."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def is_same_at_rest(one: os.stat_result, other: os.stat_result) -> bool:
    """The same of a file that nobody writes to, also where numbers mean nothing: its times are in nanoseconds."""
    is_alike = (one.st_size, one.st_mtime_ns, one.st_uid) == (other.st_size, other.st_mtime_ns, other.st_uid)
    return is_same(one, other) or (is_alike and stat.S_ISREG(one.st_mode) and one.st_dev == other.st_dev)


def has_right(directory: os.stat_result) -> bool:
    """Whether this user may make files in a directory, by its mode."""
    mode = directory.st_mode
    if os.geteuid() == directory.st_uid:
        needed = 0o300
    else:
        needed = 0o030 if directory.st_gid in (os.getegid(), *os.getgroups()) else 0o003
    return os.geteuid() == 0 or mode & needed == needed
