"""Files without a name: a recording's file gets its name with its first frame.

Without a signal there is a try after the other for hours, and no file is to come and go with each. FFmpeg writes to the
descriptor that it is given, whatever its name (ffmpeg.py). All of this touches the recordings' disk: the threads of
disk.py alone call it.
"""

from __future__ import annotations

import errno
import os

from sdisup.contract.lean import deque
from sdisup.contract.names import FileName
from sdisup.runner.whereabouts import is_same


class Spare:
    """An empty file without a name, which a try leaves to the next one of its runner.

    A try whose disk hangs may still put its file when the next one takes one: each step is one of the deque's.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[int, int]] = deque()
        """Files, each with the directory that it is made in, as descriptors."""
        self.numbered: tuple[FileName | None, int] = (None, 0)
        """The name that was settled last, and its number: to find one, the whole directory is read."""

    def put(self, descriptor: int, directory: int) -> None:
        """Keep an empty file and the directory that it is made in; both are open, and Spare's from here on."""
        self._kept.append((descriptor, directory))

    def take(self, directory: int) -> int:
        """A file that is made in this open directory, and still empty; -1 if there is none. All others are gone."""
        found = -1
        while self._kept:
            descriptor, made_in = self._kept.popleft()
            is_here = is_same(os.fstat(directory), os.fstat(made_in)) and not os.fstat(descriptor).st_size
            os.close(made_in)
            if is_here and found < 0:
                found = descriptor
            else:
                os.close(descriptor)
        return found


HIDDEN_TRIES = 100


class Hidden:
    """A name for a file that has none yet, on a filesystem without such files: nobody takes it for a recording.

    `directory` is open, and Hidden's from here on; the file is `port`'s.
    """

    def __init__(self, directory: int, port: int) -> None:
        self._directory = directory
        self._port = port
        self._name = ""

    def make(self) -> int:
        """Make the file; its descriptor. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            for number in range(HIDDEN_TRIES):
                self._name = f".sdisup-next-{self._port}-{os.getpid()}-{number}"
                try:
                    return os.open(self._name, flags, 0o664, dir_fd=self._directory)
                except FileExistsError:
                    continue
            raise FileExistsError(errno.EEXIST, "there are too many files named .sdisup-next-…")
        except OSError:
            os.close(self._directory)
            raise

    def rename(self, directory: int, name: str) -> bool:
        """Give the file a name in an open directory of its filesystem; False if something has that name.

        A filesystem without hard links gets an empty file of that name first, which the file then replaces.
        """
        try:
            os.link(self._name, name, src_dir_fd=self._directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError:
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664, dir_fd=directory))
            except FileExistsError:
                return False
            os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=directory)
            os.close(self._directory)
        else:
            self.remove()
        return True

    def remove(self) -> None:
        """Remove the name."""
        try:
            os.unlink(self._name, dir_fd=self._directory)
        finally:
            os.close(self._directory)


def make_unnamed(directory: int) -> int:
    """A new file without a name in an open directory; -1 where none can be made.

    Some filesystems have none, such as NFS and FAT (open(2), O_TMPFILE). Whatever else is wrong, who makes a file with
    a name is told.
    """
    try:
        return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o664, dir_fd=directory)
    except OSError:
        return -1


def give_name(descriptor: int, directory: int, name: str) -> bool:
    """Give an unnamed file a name in an open directory; False if something has that name. Raises OSError.

    By its descriptor's name, which needs no capability (open(2), O_TMPFILE).
    """
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        return False
    _open_by_name(descriptor, directory, name)
    return True


def _open_by_name(descriptor: int, directory: int, name: str) -> None:
    """Make the descriptor one that was opened by name: of any other the kernel does not tell where the file is by now
    (proc(5), fd)."""
    try:
        by_name = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            # Somebody may have put something else there.
            if is_same(os.fstat(by_name), os.fstat(descriptor)):
                os.dup2(by_name, descriptor, inheritable=False)
        finally:
            os.close(by_name)
    except OSError:
        # It is recorded all the same.
        return
