"""A recording as it is read for a copy: the file that the ledger means, and no other, gently."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from sdisup.contract.files import monotonic
from sdisup.contract.filesystem import open_below, open_directory
from sdisup.offload.plan import Recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES = 1 << 20
FORGET_BYTES = 8 << 20
"""So much of what was read may stay in the page cache, which the recordings' writes need."""
BEHIND_S = 1.0
COPIED, COMPARED = "copied", "compared"


class FileProblem(Exception):
    """This file cannot be copied just now; others may be. The text is for the operator."""


class Gone(FileProblem):
    """The file is not there, or is just going: somebody has removed it, or its disk is not mounted."""


class Refused(FileProblem):
    """The target has not taken this file. Where it takes none, it is the target that is in trouble."""


class TargetProblem(Exception):
    """Nothing can be copied to the target just now. The text is for the operator."""


class Pace:
    """So many bits a second at most, 0 for no limit; from its making on."""

    def __init__(self, bits_per_s: float) -> None:
        self._bits_per_s, self._began = bits_per_s, monotonic()

    def wait(self, done_bytes: int) -> None:
        """Wait until so many bytes may have been done."""
        if self._bits_per_s:
            ahead_s = self._began + done_bytes * 8 / self._bits_per_s - monotonic()
            # What a slow target could not take is not made up for.
            self._began += max(0.0, -ahead_s - BEHIND_S)
            time.sleep(max(0.0, ahead_s))


class Source:
    """An open recording. While it is open nobody gets a lease on it (fcntl(2)), and it is locked for where there are no
    leases (flock(2), shared): so retention sees that it is being read.

    `told` is called with what is done, COPIED or COMPARED, and with how many bytes so far.
    """

    def __init__(self, file: Recorded, directory: str, bits_per_s: float = 0.0) -> None:
        """`directory` is that of the recordings that the file is in, empty for none. Raises FileProblem."""
        self.file = file
        self.told: Callable[[str, int], None] = lambda _, __: None
        self._bits_per_s = bits_per_s
        try:
            self.descriptor = _open(file.path, directory)
        except FileNotFoundError as error:
            raise Gone(f"{file.path} is not there") from error
        except BlockingIOError as error:
            # Whoever deletes it has a lease on it (fcntl(2)).
            raise Gone(f"{file.path} is just being deleted") from error
        except OSError as error:
            raise FileProblem(f"{file.path} cannot be read: {error.strerror}") from error
        try:
            self._status = os.fstat(self.descriptor)
            problem = self._problem(self._status)
            if problem:
                raise FileProblem(problem)
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except BlockingIOError as error:
            os.close(self.descriptor)
            raise Gone(f"{file.path} is just being deleted") from error
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def mtime_ns(self) -> int:
        return self._status.st_mtime_ns

    def pace(self) -> Pace:
        """How fast anything may go on with it."""
        return Pace(self._bits_per_s)

    def _problem(self, status: os.stat_result) -> str:
        file = self.file
        if not stat.S_ISREG(status.st_mode):
            return f"{file.path} is no regular file"
        if file.inode and status.st_ino != file.inode:
            return f"{file.path} is another file than the one that was recorded"
        if status.st_size != file.size_bytes:
            return f"{file.path} has {status.st_size} bytes, the ledger {file.size_bytes}"
        return ""

    def chunks(self) -> Iterator[bytes]:
        """All of it, at most at the rate that is allowed. Raises FileProblem where it cannot be read to its end."""
        offset = forgotten = 0
        pace = self.pace()
        while offset < self.file.size_bytes:
            try:
                data = os.pread(self.descriptor, READ_BYTES, offset)
            except OSError as error:
                raise FileProblem(f"{self.file.path} cannot be read at byte {offset}: {error.strerror}") from error
            if not data:
                raise FileProblem(f"{self.file.path} became shorter while it was copied")
            yield data
            offset += len(data)
            self.told(COPIED, offset)
            if offset - forgotten >= FORGET_BYTES:
                os.posix_fadvise(self.descriptor, forgotten, offset - forgotten, os.POSIX_FADV_DONTNEED)
                forgotten = offset
            pace.wait(offset)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        now = os.fstat(self.descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise FileProblem(f"{self.file.path} was changed while it was copied")


def _open(path: str, directory: str) -> int:
    """Along no link that others than root and this user have made, and below the recordings along none."""
    folder, _, name = path.rpartition("/")
    if directory and f"{folder}/".startswith(f"{directory}/"):
        at, missing = open_below(directory, folder)
        if missing:
            os.close(at)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    else:
        at = open_directory(folder or "/")
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
