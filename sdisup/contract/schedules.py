"""/var/lib/sdisup/schedules.json: the ports' schedules as `sdisup apply` last read them.

What sdi-schedule@.service acts upon, so that a configuration that somebody is just editing, or has broken, changes no
recording.
"""

from __future__ import annotations

import os
import time

from sdisup.contract import lean
from sdisup.contract.applied import is_port_number
from sdisup.contract.files import STATE_DIRECTORY, Fields, Unreadable, read_fields, replace_file
from sdisup.contract.records import Record
from sdisup.contract.requests import is_take_name
from sdisup.errors import SdisupError

SCHEDULES_PATH = f"{STATE_DIRECTORY}/schedules.json"
SCHEMA = 1
LIMIT_BYTES = 16 << 20
PRE_ROLL_S = 5.0
"""What covers the start of an FFmpeg and its source, where no apply has said otherwise."""


class Entry(Record):
    """An entry of a schedule. `start` is the operator's expression, `expression` what systemd makes of it, without its
    time zone `zone`, which is empty for the machine's own."""

    start: str
    expression: str
    zone: str
    duration_s: float
    take: str


class Schedule(Record):
    """A port's schedule."""

    entries: tuple[Entry, ...] = ()
    pre_roll_s: float = PRE_ROLL_S
    post_roll_s: float = 0.0


def load_schedules(path: str = SCHEDULES_PATH) -> dict[int, Schedule]:
    """The schedules by port, of ports that have one or other pre-rolls than usual. Raises SdisupError."""
    try:
        listed = read_fields(path, LIMIT_BYTES).child("ports")
        return {_port(listed, key): _schedule(listed.child(key)) for key in listed.names()}
    except FileNotFoundError:
        return {}
    except Unreadable as error:
        raise SdisupError(str(error), "sdisup apply writes it anew") from error


def schedules_since(path: str = SCHEDULES_PATH) -> float:
    """Since when they are as they are (Unix time); what was before, another apply has answered for."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return time.time()


def _port(listed: Fields, key: str) -> int:
    return int(key) if is_port_number(key) else listed.fail(key[:80], "no port")


def _schedule(fields: Fields) -> Schedule:
    entries = [Fields(item, f"{fields.where}: entries").record(Entry) for item in fields.items("entries")]
    for entry in entries:
        if not 0 < entry.duration_s < 1e8 or not is_take_name(entry.take):
            fields.fail("entries", f"{entry.start[:80]!r} is none that apply writes")
    pre_roll_s, post_roll_s = (fields.number(name, least=0.0, most=1e5) for name in ("pre_roll_s", "post_roll_s"))
    return Schedule(tuple(entries), pre_roll_s, post_roll_s)


def encode_schedules(schedules: dict[int, Schedule]) -> bytes:
    """The file's content; ports whose schedule is as without one are left out."""
    ports = {
        str(index): {**schedule.as_dict(), "entries": [entry.as_dict() for entry in schedule.entries]}
        for index, schedule in sorted(schedules.items())
        if schedule != Schedule()
    }
    return lean.encode({"schema": SCHEMA, "ports": ports}).encode() + b"\n"


def save_schedules(schedules: dict[int, Schedule], path: str = SCHEDULES_PATH) -> bool:
    """Write them durably, if that differs from what is there; whether it did. Raises OSError."""
    content = encode_schedules(schedules)
    try:
        with open(path, "rb") as file:
            if file.read(LIMIT_BYTES) == content:
                return False
    except FileNotFoundError:
        if schedules_are_empty(content):
            return False
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    replace_file(path, content, durable=True)
    return True


def schedules_are_empty(content: bytes) -> bool:
    return content == encode_schedules({})
