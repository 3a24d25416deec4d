"""The ledger: one line of JSON for every finished file, gap and stop of a port, append-only and durable.

One process writes (writer.py): a line by one write() to a file opened with O_APPEND, durable when it returns. A cut in
the middle of a line costs that line alone: the next writer begins on a new one, and a reader skips and reports what
it cannot understand, and never changes it. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat

from sdisup.contract import lean
from sdisup.contract.files import EXHAUSTED, STATE_DIRECTORY, sync_directory
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LEDGER_DIRECTORY = f"{STATE_DIRECTORY}/ledger"
VERSION = 1
KINDS = ("file", "gap", "stop", "clock", "mark", "observation", "delete", "copy")
LINE_LIMIT_BYTES = 1 << 16
READ_BYTES = 1 << 17

TIME = r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\.[0-9]{3}Z"
"""As accounts.py looks for it in a whole ledger; `_is_time` says the same of one text."""
_DIGITS = str.maketrans("123456789", "000000000")

Entry = dict[str, object]


class Problem(Record):
    """A line that is no entry: where it stands and why; it is kept as it is."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}; skipped"


def ledger_path(port_index: int, directory: str = LEDGER_DIRECTORY) -> str:
    return f"{directory}/{port_index}.jsonl"


def encode_entry(entry: Entry) -> bytes:
    """An entry as its line. Text that no UTF-8 can hold is replaced: a ledger is read by everybody."""
    text = lean.encode(entry, ensure_ascii=False, separators=(",", ":"))
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
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if is_torn else b"") + b"".join(encode_entry(entry) for entry in entries)
        if os.write(descriptor, data) < len(data):
            # What is there of it would look like entries that the next attempt writes again.
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        try:
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync_directory(os.path.dirname(path))


def last_entry(path: str) -> Entry | None:
    """The last line that is an entry, looked for in the ledger's last LINE_LIMIT_BYTES; None if there is none.

    Raises OSError where there may be one and no descriptor is left to read it with.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size = os.fstat(descriptor).st_size
            data = os.pread(descriptor, LINE_LIMIT_BYTES, max(0, size - LINE_LIMIT_BYTES))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    found = (decode_line(path, 0, line) for line in reversed(data.split(b"\n")))
    return next((entry for entry in found if not isinstance(entry, Problem)), None)


def read_ledger(path: str) -> Iterator[Entry | Problem]:
    """The entries of a ledger in the order of its lines, and a Problem for each line that is none.

    Memory is that of a few hundred lines.
    """
    for found in read_chunks(path):
        if isinstance(found, Problem):
            yield found
        else:
            number, _, chunk = found
            yield from decode_chunk(path, number, chunk)


def read_chunks(path: str) -> Iterator[tuple[int, int, bytes] | Problem]:
    """The first one's number, how many they are, and some hundred whole lines. Only the last one may lack its end.

    Nothing for a missing file. A link, what is no file, and what is not of the directory's owner (nor of
    root, who may write anything) is one Problem. Of a line that is too long there is only the beginning.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Problem(path, 0, "is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror))
        return
    try:
        problem = _wrong_file(path, os.fstat(descriptor))
        if problem:
            yield Problem(path, 0, problem)
            return
        number = 1
        for chunk in _chunks(descriptor):
            count = chunk.count(b"\n")
            yield number, count, chunk
            number += count
    except OSError as error:
        yield Problem(path, 0, f"cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _wrong_file(path: str, status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if status.st_uid not in (0, os.stat(os.path.dirname(path) or ".").st_uid):
        return f"belongs to the user {status.st_uid}, who does not record"
    return ""


def _chunks(descriptor: int) -> Iterator[bytes]:
    rest = b""
    while data := os.read(descriptor, READ_BYTES):
        whole = data.rfind(b"\n") + 1
        if whole:
            yield rest + data[:whole]
            rest = data[whole:]
        else:
            # One byte more than a line may have is enough to know it by.
            rest = (rest + data)[: LINE_LIMIT_BYTES + 1]
    if rest:
        yield rest


def decode_chunk(path: str, number: int, chunk: bytes) -> Iterator[Entry | Problem]:
    """The entries of some lines, of which the first one is the file's `number`th; empty lines are nothing."""
    for index, line in enumerate(chunk.split(b"\n")):
        if line:
            yield decode_line(path, number + index, line)


def decode_line(path: str, number: int, line: bytes) -> Entry | Problem:
    """A line's entry. One without its end is taken too if it is whole: a reader may come before the newline."""
    if len(line) > LINE_LIMIT_BYTES:
        return Problem(path, number, "is too long")
    try:
        entry = lean.decode(line)
    except (ValueError, RecursionError):
        return Problem(path, number, "is no JSON; it may have been cut off")
    problem = wrong_entry(entry)
    return Problem(path, number, problem) if problem else entry


def wrong_entry(entry: object) -> str:
    """Why a decoded line is no entry; empty if it is one."""
    if not isinstance(entry, dict) or type(entry.get("v")) is not int:
        return "is no entry of a ledger"
    if entry["v"] > VERSION:
        return f"is of version {entry['v']}, newer than this sdisup's {VERSION}"
    if entry.get("kind") not in KINDS:
        return "has a wrong kind"
    for name in ("start", "end"):
        if not _is_time(entry.get(name)):
            return f"has a wrong {name}"
    seconds = entry.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not -1e12 < seconds < 1e12:
        return "has wrong seconds"
    return ""


def _is_time(value: object) -> bool:
    """Whether it looks as files.utc_text writes it, 2026-01-31T12:00:00.000Z: such texts sort as the times do."""
    if not isinstance(value, str) or zeroed(value) != "0000-00-00T00:00:00.000Z":
        return False
    is_day, is_hour = value[5] <= "1" and value[8] <= "3", value[11] <= "2"
    return is_day and is_hour and value[14] <= "5" and value[17] <= "6"


def zeroed(text: str) -> str:
    """How a text looks, with 0 for each digit."""
    return text.translate(_DIGITS)
