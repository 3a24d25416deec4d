"""Files and clocks as all parts use them: durable writing, reading JSON, moments as text. Standard library only."""

from __future__ import annotations

import _thread
import functools
import json
import os
import stat
import time

RUN_DIRECTORY = "/run/sdisup"
STATE_DIRECTORY = "/var/lib/sdisup"
SIZE_LIMIT_BYTES = 1 << 20


def utc_text(seconds: float) -> str:
    """A Unix time as UTC, ISO 8601 with milliseconds: 2026-01-31T12:00:00.000Z."""
    milliseconds = round(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03}Z"


@functools.cache
def boot_id() -> str:
    """The kernel's name for this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


def stage_file(path: str, content: bytes, *, mode: int = 0o644, durable: bool = True) -> str:
    """Write `content` beside `path`, to be renamed to it; returns the temporary file's path.

    `durable` makes the content survive a power cut. Raises OSError, and then leaves nothing behind.
    """
    # Of this thread's own: two threads that replace one file must not write into one temporary.
    temporary = f"{path}.{_thread.get_native_id()}.tmp"
    descriptor = _create(temporary, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def replace_file(path: str, content: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Put `content` at `path` so that a reader sees the old or the new, never a part.

    `durable` adds the fsync of file and directory; /run needs none. Raises OSError.
    """
    temporary = stage_file(path, content, mode=mode, durable=durable)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def _create(path: str, mode: int) -> int:
    """A new file. What a crash, or somebody, left there is removed first and never written to."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def sync_directory(path: str) -> None:
    """Make the directory's entries durable (fsync(2): the file's own fsync does not)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> object:
    """The decoded file; OSError if it cannot be read, ValueError if it is no JSON, no regular file, or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    # open() of a directory's descriptor would raise and leave it open; a FIFO's would read as None.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file")
    with open(descriptor, "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"{path} is larger than {limit_bytes} bytes")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def monotonic() -> float:
    """CLOCK_MONOTONIC in seconds; the one clock for durations and liveness."""
    return time.monotonic()


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: goes on during suspend, and no clock step moves it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def up_seconds() -> float:
    """For how long this system is up: since its PID 1 began (proc(5), `starttime`), also in a container."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open("/proc/1/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return now_s
    return now_s - ticks / os.sysconf("SC_CLK_TCK")


def unix_time(text: str) -> float:
    """What utc_text was given. Raises ValueError for a text that it does not write."""
    year, month, day, hour, minute = (int(text[at : at + width]) for at, width in _TIME_FIELDS)
    seconds = float(text[17:].removesuffix("Z"))
    # Months counted from March on, a leap day is a year's last (the Gregorian calendar's usual reckoning).
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    days = year * 365 + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469
    return days * 86400 + hour * 3600 + minute * 60 + seconds


_TIME_FIELDS = ((0, 4), (5, 2), (8, 2), (11, 2), (14, 2))
"""Where year, month, day, hour and minute stand in such a text, and how wide."""
