"""A port's status: the runner writes it, everybody reads it. Standard library only.

Three files a port, in /run/sdisup: `3.json`, replaced atomically; `3.lock`, never replaced and held
by the living runner (a lock on a file that is replaced by rename is lost with the first rename);
`port-3/`, the unit's own run directory. Beside them /var/lib/sdisup/applied.json says what is configured.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct

from sdisup.contract.files import RUN_DIRECTORY, boot_id, read_json, replace_file

SCHEMA = 1
STALE_AFTER_S = 5.0

STATES = (
    "recording",
    "starting",
    "stalled",
    "no-signal",
    "backoff",
    "stopping",
    "stopped",
    "failed",
    "unknown",
)

FIELDS: dict[str, object] = {
    "schema": SCHEMA,
    "port_index": -1,
    "name": "",
    "unit": "",
    "state": "unknown",
    "is_recording": False,
    "reason": "",
    "current_file": None,
    "codec": "",
    "frame_count": 0,
    "fps": 0.0,
    "speed": None,
    "bitrate_mbps": 0.0,
    "bytes_written": 0,
    "dropped_frames": 0,
    "duplicated_frames": 0,
    "missing_frames": 0,
    "uptime_seconds": 0.0,
    "started_at": None,
    "last_frame_at": None,
    "updated_at": None,
    "updated_monotonic": 0.0,
    "state_since": None,
    "state_since_monotonic": 0.0,
    "boot_id": "",
    "take": None,
    "take_started_at": None,
    "take_frames": 0,
    "request_id": "",
    "restarts": 0,
    "pid": None,
    "ffmpeg_pid": None,
    "invocation_id": "",
    "runner_version": "",
    "revision": "",
    "config_pending": False,
    "recordings": "",
    "filesystem": "",
    "disk_free_bytes": None,
    "disk_remaining_seconds": None,
    "should_record": False,
}
"""Every field of the status, with what it is when nothing is known."""


class PortStatus:
    """One port's status; the fields are those of the status file and of `sdisup status --json`.

    Frame counts, bytes and uptime are of the running FFmpeg, 0 or None when there is none; `take_…`
    and `restarts` count since the start, through restarts. `fps` and `bitrate_mbps` (10^6 bit/s) are
    those of the last seconds. Times ending in `_at` are UTC, ISO 8601; `…_monotonic` is CLOCK_MONOTONIC
    in seconds. `disk_remaining_seconds` counts the bit rates of all ports on that filesystem.
    """

    schema: int
    port_index: int
    name: str
    unit: str
    state: str
    is_recording: bool
    reason: str
    current_file: str | None
    codec: str
    frame_count: int
    fps: float
    speed: float | None
    bitrate_mbps: float
    bytes_written: int
    dropped_frames: int
    duplicated_frames: int
    missing_frames: int
    uptime_seconds: float
    started_at: str | None
    last_frame_at: str | None
    updated_at: str | None
    updated_monotonic: float
    state_since: str | None
    state_since_monotonic: float
    boot_id: str
    take: str | None
    take_started_at: str | None
    take_frames: int
    request_id: str
    restarts: int
    pid: int | None
    ffmpeg_pid: int | None
    invocation_id: str
    runner_version: str
    revision: str
    config_pending: bool
    recordings: str
    filesystem: str
    disk_free_bytes: int | None
    disk_remaining_seconds: float | None
    should_record: bool

    def __init__(self, **values: object) -> None:
        self.__dict__.update(FIELDS)
        self.update(**values)

    def update(self, **values: object) -> None:
        """Set fields by name; an unknown name is a programming error (TypeError)."""
        unknown = values.keys() - FIELDS.keys()
        if unknown:
            raise TypeError(f"PortStatus has no field {', '.join(sorted(unknown))}")
        self.__dict__.update(values)

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON knows them, in the documented order."""
        return {name: self.__dict__[name] for name in FIELDS}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PortStatus) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PortStatus(port_index={self.port_index}, state={self.state!r}, reason={self.reason!r})"


def status_from(document: object) -> PortStatus | None:
    """The status a decoded JSON document holds; None if it is not one. Unknown fields are of a newer version."""
    if not isinstance(document, dict) or document.get("schema") is None:
        return None
    status = PortStatus()
    for name, default in FIELDS.items():
        value = document.get(name, default)
        if not _fits(name, value):
            return None
        status.__dict__[name] = value
    return status


_TYPES = {
    name: kind.strip()
    for name, kind in PortStatus.__annotations__.items()
}  # fmt: skip


def _fits(name: str, value: object) -> bool:
    """Whether a value read from outside has the field's type; an int serves as a float, a bool never as an int."""
    kinds = _TYPES[name].split(" | ")
    if value is None:
        return "None" in kinds
    if isinstance(value, bool):
        return "bool" in kinds
    if isinstance(value, int | float) and "float" in kinds:
        # JSON holds NaN, Infinity and numbers of any length; clocks and tables cannot.
        return -1e300 < value < 1e300
    if isinstance(value, str):
        # `\ud800` is JSON too, but nothing that can be printed.
        return "str" in kinds and value.encode("utf-8", "ignore").decode("utf-8") == value
    return type(value).__name__ in kinds


def status_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/{port_index}.json"


def lock_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/{port_index}.lock"


def write_status(status: PortStatus, directory: str = RUN_DIRECTORY) -> None:
    """Replace the port's status file. Raises OSError."""
    content = json.dumps(status.as_dict(), ensure_ascii=False).encode("utf-8", "replace")
    replace_file(status_path(status.port_index, directory), content + b"\n")


def read_status(port_index: int, directory: str = RUN_DIRECTORY) -> PortStatus | None:
    """The port's status file as its runner left it; None if there is none.

    Raises ValueError with the operator's words for a file that is torn, foreign or unreadable.
    """
    path = status_path(port_index, directory)
    try:
        status = status_from(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if status is None or status.port_index != port_index:
        raise ValueError(f"{path} is not a status of port {port_index}")
    return status


# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (fcntl(2)).
_FLOCK = struct.Struct("hhqqi4x")


def find_status(port_index: int, directory: str = RUN_DIRECTORY) -> PortStatus | None:
    """read_status() for those to whom a file that cannot be understood is as good as none."""
    try:
        return read_status(port_index, directory)
    except ValueError:
        return None


def stopped_at(status: PortStatus | None) -> float | None:
    """When a port was stopped (CLOCK_MONOTONIC, seconds), by a status of this boot that says so."""
    is_stopped = status is not None and status.state == "stopped" and status.boot_id == boot_id()
    return status.state_since_monotonic if status is not None and is_stopped else None


def take_lock(port_index: int, directory: str = RUN_DIRECTORY) -> int:
    """Hold the port's lock for as long as this process lives; returns the descriptor.

    Raises BlockingIOError when another process holds it. A POSIX lock falls with the first
    close() of the file by its process, so nobody in the runner may open the file again.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(lock_path(port_index, directory), flags, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # POSIX lets fcntl answer EACCES for a held lock.
        os.close(descriptor)
        raise BlockingIOError(*error.args) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_holder(port_index: int, directory: str = RUN_DIRECTORY) -> int | None:
    """The process id of the runner that holds the port's lock; None if none does.

    Only asks (F_GETLK): asking never takes it.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(lock_path(port_index, directory), flags)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return pid if kind != fcntl.F_UNLCK else None


def is_locked(port_index: int, directory: str = RUN_DIRECTORY) -> bool:
    """Whether a runner holds the port's lock."""
    return lock_holder(port_index, directory) is not None


def settle(
    status: PortStatus | None, *, held: bool, unit_state: str | None, now_monotonic: float, this_boot: str
) -> tuple[str, str] | None:
    """The port's state and reason by DESIGN's order, "first that holds"; None if only systemd can say.

    `status` is the runner's word, `held` whether its lock is held, `unit_state` systemd's ActiveState
    (None when not asked). A held lock is a living runner, whose unit is then neither failed nor inactive.
    """
    if status is not None and status.boot_id != this_boot:
        status = None
    if not held:
        if unit_state is None:
            return None
        reason = status.reason if status else ""
        if unit_state == "failed":
            return "failed", reason or "the unit failed before its runner could say why; see sdisup logs"
        if unit_state == "inactive":
            return "stopped", ""
        if unit_state == "deactivating":
            return "stopping", ""
        return "backoff", reason or "the runner is not running; systemd starts it again"
    if status is None or status.state == "stopped":
        return "starting", ""
    if now_monotonic - status.updated_monotonic > STALE_AFTER_S:
        return "unknown", f"no word from the runner for {now_monotonic - status.updated_monotonic:.0f} s"
    return status.state, status.reason
