"""Files, clocks and children as all parts use them: durable writing, reading JSON, moments as text.

Standard library only.
"""

from __future__ import annotations

import _thread
import errno
import os
import stat
import time

from sdisup.contract import lean
from sdisup.contract.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, NoReturn, Self, TypeVar

    from sdisup.contract.records import Record

    AnyRecord = TypeVar("AnyRecord", bound=Record)

CONFIGURATION_PATH = "/etc/sdisup/sdisup.toml"
RUN_DIRECTORY = "/run/sdisup"
STATE_DIRECTORY = "/var/lib/sdisup"
SIZE_LIMIT_BYTES = 1 << 20


def utc_text(seconds: float) -> str:
    """A Unix time as UTC, ISO 8601 with milliseconds: 2026-01-31T12:00:00.000Z."""
    milliseconds = round(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03}Z"


def boot_id() -> str:
    """The kernel's name for this boot (random(4)), which is read once."""
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            _boot_id.append(file.read().strip())
    return _boot_id[0]


_boot_id: list[str] = []


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


def open_lock(path: str) -> int:
    """The descriptor of a file that is there to be locked. Raises OSError.

    Who may open a file, if only for reading, may lock it too (flock(2), fcntl_locking(2)), and keep everybody else out.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if os.fstat(descriptor).st_uid == os.geteuid():
        # Earlier versions made it readable.
        os.fchmod(descriptor, 0o600)
    return descriptor


def sync_directory(path: str) -> None:
    """Make the directory's entries durable (fsync(2): the file's own fsync does not)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Unreadable(ValueError):
    """What another program left cannot be used. The text names the file, the field, and what is wrong with it;
    `problem` is without the file."""

    def __init__(self, text: str, problem: str = "") -> None:
        super().__init__(text)
        self.problem = problem or text


class Exhausted(Unreadable):
    """This process has no descriptor or memory left to read it with: it is there, and can be read later."""


EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What open(2), pipe(2) and fork(2) say where no descriptors, processes or threads are left."""


def read_json(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> object:
    """What a file of JSON holds. Raises FileNotFoundError, and Unreadable for all else that keeps from reading it."""
    return read_owned_json(path, limit_bytes)[0]


def read_owned_json(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> tuple[object, int]:
    """What a file of JSON holds, and the user id of its owner; raises as read_json does."""
    try:
        content, owner = _read_regular(path, limit_bytes)
        return lean.decode(content), owner
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = str(error.strerror)
        if error.errno in EXHAUSTED:
            raise Exhausted(f"{path} cannot be read: {problem}", problem) from error
    except RecursionError:
        problem = "it is no JSON that can be meant: nested too deeply"
    except ValueError as error:
        problem = f"it is no JSON: {error}"
    raise Unreadable(f"{path} cannot be read: {problem}", problem)


def _read_regular(path: str, limit_bytes: int) -> tuple[bytes, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no regular file")
        # One that grows meanwhile is not replaced as it should be, and is torn for its reader.
        content = os.read(descriptor, min(status.st_size, limit_bytes) + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise OSError(0, f"it is larger than {limit_bytes} bytes")
    return content, status.st_uid


class Fields:
    """The fields of an object that JSON held, each of the type that is asked for; Unreadable names a wrong one.

    `where` is the object: a file, and the fields that lead to it. A field that is not there has its default, where the
    call has one.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise Unreadable(f"{where}: not an object")
        self._values = value
        self.where = where

    def text(self, name: str, default: object = ...) -> str:
        """A text. It may hold bytes that are no character, as names of files do (PEP 383)."""
        value = self.value(name, default)
        return value if isinstance(value, str) else self.fail(name, "not text")

    def text_or_none(self, name: str) -> str | None:
        return None if self._values.get(name) is None else self.text(name)

    def flag(self, name: str, default: object = ...) -> bool:
        value = self.value(name, default)
        return value if isinstance(value, bool) else self.fail(name, "not true or false")

    def whole(self, name: str, default: object = ..., *, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """A whole number, which JSON has of any length and systems have not."""
        value = self.value(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(name, "not a whole number")
        return value if least <= value <= most else self.fail(name, f"not from {least} to {most}")

    def number(self, name: str, default: object = ..., *, least: float = -1e300, most: float = 1e300) -> float:
        """A number with a value: JSON as Python reads it has Infinity and NaN too."""
        value = self.value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.fail(name, "not a number")
        return float(value) if least <= value <= most else self.fail(name, f"not from {least:g} to {most:g}")

    def items(self, name: str, default: object = ...) -> list[object]:
        value = self.value(name, default)
        return list(value) if isinstance(value, list | tuple) else self.fail(name, "not a list")

    def texts(self, name: str, default: object = ...) -> list[str]:
        found = [item for item in self.items(name, default) if isinstance(item, str)]
        return found if len(found) == len(self.items(name, default)) else self.fail(name, "not a list of texts")

    def wholes(self, name: str, default: object = ...) -> list[int]:
        found = [item for item in self.items(name, default) if type(item) is int]
        return found if len(found) == len(self.items(name, default)) else self.fail(name, "not a list of whole numbers")

    def child(self, name: str, default: object = ...) -> Self:
        """The fields of an object inside this one."""
        return type(self)(self.value(name, default), f"{self.where}: {name}")

    def names(self) -> list[str]:
        return list(self._values)

    def record(self, kind: type[AnyRecord], **given: object) -> AnyRecord:
        """A record of these fields, each read by its annotation. What is `given` is not read; a field that is not there
        has the record's own default."""
        values = {
            name: given[name] if name in given else self._annotated(name, kind.__annotations__[name], default)
            for name, default in kind.defaults().items()
        }
        return kind(**values)

    def _annotated(self, name: str, annotation: str, default: object) -> object:
        kind = annotation.removesuffix(" | None")
        if kind != annotation and self.value(name, None) is None:
            return None
        return default if name not in self._values and default is not ... else self.readers[kind](self, name)

    def value(self, name: str, default: object = ...) -> object:
        """Whatever there is."""
        value = self._values.get(name, default)
        return self.fail(name, "not there") if value is ... else value

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise Unreadable, which names the field."""
        raise Unreadable(f"{self.where}: {name}: {problem}", f"{name}: {problem}")

    readers: ClassVar[dict[str, Callable[[Any, str], object]]] = {
        "str": text, "bool": flag, "int": whole, "float": number, "list[str]": texts,
        "tuple[str, ...]": lambda fields, name: tuple(fields.texts(name)),
        "tuple[int, ...]": lambda fields, name: tuple(fields.wholes(name)),
    }  # fmt: skip
    """What reads a field, by its annotation in a record."""


def read_fields(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> Fields:
    """The fields of the object in a file of JSON. Raises FileNotFoundError and Unreadable."""
    return Fields(read_json(path, limit_bytes), path)


def pidfd_of(pid: int) -> int:
    """A descriptor of a child that was just started. Raises OSError, and then there is no child: nobody would see it
    end, nor read what it writes."""
    try:
        return os.pidfd_open(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


monotonic = time.monotonic
"""CLOCK_MONOTONIC in seconds; the one clock for durations and liveness."""


def monotonic_raw() -> float:
    """CLOCK_MONOTONIC_RAW in seconds: for what is counted against a rate, since no NTP slews it (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: goes on during suspend, and no clock step moves it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def asleep_seconds() -> float:
    """For how long the system was suspended since its boot: CLOCK_MONOTONIC stood still then (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


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
