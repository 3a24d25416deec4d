"""A target that is a directory of this machine, such as a mounted share.

Raises FileProblem for what is wrong with one file alone, and TargetProblem for all else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from sdisup.contract.filesystem import filesystem_identity, is_same_filesystem, open_directory
from sdisup.offload.copying import Standing
from sdisup.offload.digests import Digest
from sdisup.offload.source import READ_BYTES, FileProblem, Source, TargetProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SYNC_BYTES = 16 << 20
"""So much waits to be written at most: with more, all who write wait for a slow disk, recordings too."""
OF_ONE_FILE = (errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


class Directory:
    """An existing directory; only what is below it is made."""

    digest = "sha256"

    def __init__(self, path: str, filesystem: str = "") -> None:
        """`filesystem` is the identity of what it has to be on; empty for any. Raises TargetProblem."""
        self._path = path
        try:
            self._top = open_directory(path)
        except OSError as error:
            raise TargetProblem(f"{path}: {error.strerror}") from error
        try:
            found = filesystem_identity(f"/proc/self/fd/{self._top}")
            if filesystem and not is_same_filesystem(filesystem, found):
                raise TargetProblem(f"{path} is on {found}, not on {filesystem}: is its disk mounted?")
        except OSError as error:
            os.close(self._top)
            raise TargetProblem(f"{path}: {error.strerror}") from error
        except BaseException:
            os.close(self._top)
            raise

    def close(self) -> None:
        os.close(self._top)

    def look(self, path: str) -> Standing | None:
        with self._explained(path):
            try:
                with self._folder(path, make=False) as (at, name):
                    found = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                return None
            return Standing(found.st_size if stat.S_ISREG(found.st_mode) else None)

    def write(self, path: str, source: Source, digest: Digest) -> None:
        with self._explained(path), self._folder(path) as (at, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(name, flags, 0o644, dir_fd=at)
            try:
                waiting = 0
                for data in source.chunks():
                    view = memoryview(digest.add(data))
                    while view:
                        view = view[os.write(file, view) :]
                    waiting += len(data)
                    if waiting >= SYNC_BYTES:
                        waiting = 0
                        os.fdatasync(file)
                        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                # When it was recorded, also for who sorts by that.
                with contextlib.suppress(PermissionError):
                    os.utime(file, ns=(source.mtime_ns, source.mtime_ns))
                os.fsync(file)
            finally:
                os.close(file)

    def own_digest(self, path: str, size_bytes: int) -> str:
        return ""

    def read(self, path: str, size_bytes: int) -> Iterator[bytes]:
        with self._explained(path), self._folder(path, make=False) as (at, name):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
            try:
                # All of it is on the disk, or at the server, by now: what is read afterwards comes from there.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                offset = 0
                while data := os.read(file, READ_BYTES):
                    yield data
                    os.posix_fadvise(file, offset, len(data), os.POSIX_FADV_DONTNEED)
                    offset += len(data)
            finally:
                os.close(file)

    def rename(self, path: str, name: str, size_bytes: int) -> bool:
        # Both are in one folder.
        final = name.rpartition("/")[2]
        with self._explained(name), self._folder(path, make=False) as (at, former):
            try:
                os.link(former, final, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError:
                # A filesystem without hard links gets an empty file of that name first, which the copy then replaces.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                try:
                    os.close(os.open(final, flags, 0o644, dir_fd=at))
                except FileExistsError:
                    return False
                os.rename(former, final, src_dir_fd=at, dst_dir_fd=at)
            else:
                os.unlink(former, dir_fd=at)
            os.fsync(at)
        return True

    def remove(self, path: str) -> None:
        with self._explained(path), contextlib.suppress(FileNotFoundError), self._folder(path, make=False) as found:
            os.unlink(found[1], dir_fd=found[0])

    @contextlib.contextmanager
    def _folder(self, path: str, *, make: bool = True) -> Iterator[tuple[int, str]]:
        """The open folder of a path, below which no link is followed, and the name in it."""
        *folders, name = path.split("/")
        at = os.dup(self._top)
        try:
            for folder in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, 0o755, dir_fd=at)
                        os.fsync(at)
                below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = below
            yield at, name
        finally:
            os.close(at)

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = f"{self._path}/{path}: {error.strerror}"
            raise (FileProblem if error.errno in OF_ONE_FILE else TargetProblem)(text) from error
