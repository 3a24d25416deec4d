"""The ledger: one line of JSON for every finished file, gap and stop of a port, append-only and durable.

A line is written by one write() to a file opened with O_APPEND, under the file's own lock, and made
durable. A cut in the middle of a line costs that line alone: the next writer begins on a new one, and a
reader skips and reports what it cannot understand, and never changes it. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator

from sdisup.status import STATE_DIRECTORY, sync_directory

LEDGER_DIRECTORY = f"{STATE_DIRECTORY}/ledger"
VERSION = 1
KINDS = ("file", "gap", "stop", "clock", "observation", "delete")
LINE_LIMIT_BYTES = 1 << 16

Entry = dict[str, object]


class Problem:
    """A line that is no entry: where it stands and why; it is kept as it is."""

    __slots__ = ("line", "path", "reason")

    def __init__(self, path: str, line: int, reason: str) -> None:
        self.path = path
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}; skipped"


def ledger_path(port_index: int, directory: str = LEDGER_DIRECTORY) -> str:
    return f"{directory}/{port_index}.jsonl"


def encode_entry(entry: Entry) -> bytes:
    """An entry as its line. Text that no UTF-8 can hold is replaced: a ledger is read by everybody."""
    text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def append_entries(path: str, entries: list[Entry]) -> None:
    """Append entries, all durable when this returns.

    Raises OSError: no space, a symbolic link, a file of somebody else's. Then none of them is counted as
    written; one may stand there torn, and the next attempt begins on a new line.
    """
    is_new = not os.path.lexists(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "is not a file of the recording's own user", path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if is_torn else b"") + b"".join(encode_entry(entry) for entry in entries)
        if os.write(descriptor, data) < len(data):
            # What is there of it would look like entries that the next attempt writes again.
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_directory(os.path.dirname(path))


def read_ledger(path: str) -> Iterator[Entry | Problem]:
    """The entries of a ledger in the order of its lines, and a Problem for each line that is none.

    Nothing for a missing file. A link, or what is no file, is one Problem. Memory is that of a line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Problem(path, 0, "is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror))
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield Problem(path, 0, "is no regular file")
        return
    with open(descriptor, "rb") as file:
        number = 0
        while line := file.readline(LINE_LIMIT_BYTES):
            number += 1
            if line != b"\n":
                yield _decode(path, number, line)


def _decode(path: str, number: int, line: bytes) -> Entry | Problem:
    if not line.endswith(b"\n"):
        return Problem(path, number, "is cut off" if len(line) < LINE_LIMIT_BYTES else "is too long")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return Problem(path, number, "is no JSON")
    if not isinstance(entry, dict) or not isinstance(entry.get("v"), int):
        return Problem(path, number, "is no entry of a ledger")
    if entry["v"] > VERSION:
        return Problem(path, number, f"is of version {entry['v']}, newer than this sdisup's {VERSION}")
    wrong = _wrong_field(entry)
    return Problem(path, number, f"has a wrong {wrong}") if wrong else entry


def _wrong_field(entry: Entry) -> str:
    if entry.get("kind") not in KINDS:
        return "kind"
    for name in ("start", "end"):
        if not isinstance(entry.get(name), str):
            return name
    seconds = entry.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not -1e12 < seconds < 1e12:
        return "seconds"
    return ""
