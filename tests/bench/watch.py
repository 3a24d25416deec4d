"""Sees FFmpegs and their first frames from outside, the same way whoever supervises them. Runs in the appliance.

An FFmpeg is a process of that name. Its recording is the regular file that it writes, read through /proc/PID/fd:
so a file that has no name yet is seen like any other.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable

from sdisup.contract.media import holds_media

POLL_S = 0.002
"""How often the watcher looks: the resolution of all first frames."""
YOUNG_S = 3.0
"""For so long a process may still become an FFmpeg: a shell or a supervisor's child before its exec."""
RECORDINGS = "/srv/recordings"


class Recording:
    """The file that an FFmpeg writes; times are CLOCK_MONOTONIC, 0 as long as it has not come to that."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.first_frame_at = self.named_at = 0.0
        self._file = -1

    def look(self) -> None:
        """See how far the recording is."""
        if self._file < 0:
            self._file = open_output(self.pid)
        if self._file < 0:
            return
        status = os.fstat(self._file)
        if not self.first_frame_at and holds_media("mkv", status.st_size, self._read):
            self.first_frame_at = time.monotonic()
        if self.first_frame_at and status.st_nlink:
            self.named_at = time.monotonic()

    def _read(self, count: int, offset: int) -> bytes:
        return os.pread(self._file, count, offset)

    def size_bytes(self) -> int:
        """How large the file is, also after its FFmpeg has ended."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def open_output(pid: int) -> int:
    """A descriptor of the regular file that an FFmpeg writes, -1 if there is none (yet).

    The mode of the link in /proc tells what a file is open for (proc_pid_fd(5)): the libraries that a starting FFmpeg
    loads are regular files too.
    """
    directory = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            if int(name) > 2 and os.lstat(path).st_mode & stat.S_IWUSR and stat.S_ISREG(os.stat(path).st_mode):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # The process, or this file of it, is gone: an FFmpeg that failed.
        pass
    return -1


class FFmpegs:
    """The processes called ffmpeg. Looks only at processes that are new or young."""

    def __init__(self, name: str = "ffmpeg") -> None:
        self._name = name
        self._others: dict[int, float] = {}
        self._ffmpegs: set[int] = set()

    def find(self) -> set[int]:
        """The PIDs of all FFmpegs that live now; one that is dead and waits for its parent is none."""
        now = time.monotonic()
        alive = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        self._ffmpegs &= alive
        self._others = {pid: since for pid, since in self._others.items() if pid in alive}
        for pid in alive - self._ffmpegs:
            since = self._others.setdefault(pid, now)
            if now - since < YOUNG_S and is_ffmpeg(pid, self._name):
                del self._others[pid]
                self._ffmpegs.add(pid)
        return set(self._ffmpegs)


def is_ffmpeg(pid: int, name: str = "ffmpeg") -> bool:
    """Whether a process is an FFmpeg that lives."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return False
    return f"({name})".encode() in text and text.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


class NothingCame(Exception):
    """What was waited for did not happen in its time."""


def wait_frames(ffmpegs: FFmpegs, count: int, known: Iterable[int], timeout_s: float) -> list[Recording]:
    """Wait until so many FFmpegs that are not `known` have their first frame in a file that has a name.

    The caller closes them. Raises NothingCame.
    """
    before = set(known)
    seen: dict[int, Recording] = {}
    deadline = time.monotonic() + timeout_s
    while True:
        for pid in ffmpegs.find() - before - seen.keys():
            seen[pid] = Recording(pid)
        for recording in seen.values():
            if not recording.named_at:
                recording.look()
        there = [recording for recording in seen.values() if recording.named_at]
        if len(there) >= count or time.monotonic() > deadline:
            for recording in seen.values():
                if recording not in there:
                    recording.close()
            if len(there) < count:
                for recording in there:
                    recording.close()
                raise NothingCame(f"{len(there)} of {count} first frames within {timeout_s:g} s")
            return there
        time.sleep(POLL_S)


def wait_gone(pids: Iterable[int], timeout_s: float = 20.0, name: str = "ffmpeg") -> float:
    """Wait until none of these FFmpegs lives; when that was, by CLOCK_MONOTONIC. Raises NothingCame."""
    deadline = time.monotonic() + timeout_s
    left = list(pids)
    while left:
        left = [pid for pid in left if is_ffmpeg(pid, name)]
        if left and time.monotonic() > deadline:
            raise NothingCame(f"the end of FFmpeg within {timeout_s:g} s")
        if left:
            time.sleep(POLL_S)
    return time.monotonic()
