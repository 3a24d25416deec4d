"""A port's status: the runner writes it, everybody reads it. Standard library only.

Three files a port, in /run/sdisup: `3.json`, replaced atomically; `3.lock`, never replaced, which keeps two runners
of one port apart (a lock on a file that is replaced by rename is lost with the first rename); `port-3/`, the unit's own
run directory. Beside them /var/lib/sdisup/applied.json says what is configured. Whether a runner lives is not asked of
its lock, which nobody else may open, but of the process that its status names.
"""

from __future__ import annotations

import errno
import fcntl
import os

from sdisup.contract import lean
from sdisup.contract.files import (
    RUN_DIRECTORY,
    STATE_DIRECTORY,
    Unreadable,
    boot_id,
    open_lock,
    read_fields,
    replace_file,
)
from sdisup.contract.records import Record

SCHEMA = 1
STALE_AFTER_S = 5.0
FORMER_LIMIT = 0.01

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


class PortStatus(Record, frozen=False):
    """One port's status; the fields are those of the status file and of `sdisup status --json`.

    `files` are those that are being recorded, of which `current_file` is the newest.
    Frame counts and uptime are of the running FFmpeg, 0 or None when there is none; `file_…` are the part of them in
    `current_file`, None where that is all of them, and `bytes_written` is its size. `take_…` and `restarts` count since
    the start, through restarts. `fps` and `bitrate_mbps` (10^6 bit/s) are those of the last seconds. Times ending in
    `_at` are UTC, ISO 8601; `…_monotonic` is CLOCK_MONOTONIC in seconds. `disk_remaining_seconds` counts the bit rates
    of all ports that fill that filesystem, or the pool it is of. `warnings` are of what may end a recording later.
    """

    schema: int = SCHEMA
    port_index: int = -1
    name: str = ""
    unit: str = ""
    state: str = "unknown"
    is_recording: bool = False
    reason: str = ""
    current_file: str | None = None
    files: tuple[str, ...] = ()
    codec: str = ""
    frame_count: int = 0
    fps: float = 0.0
    speed: float | None = None
    bitrate_mbps: float = 0.0
    bytes_written: int = 0
    dropped_frames: int = 0
    duplicated_frames: int = 0
    missing_frames: int = 0
    short_frames: int = 0
    file_frame_count: int | None = None
    file_dropped_frames: int | None = None
    file_duplicated_frames: int | None = None
    file_missing_frames: int | None = None
    file_short_frames: int | None = None
    is_losing: bool = False
    uptime_seconds: float = 0.0
    started_at: str | None = None
    last_frame_at: str | None = None
    updated_at: str | None = None
    updated_monotonic: float = 0.0
    state_since: str | None = None
    state_since_monotonic: float = 0.0
    boot_id: str = ""
    take: str | None = None
    take_started_at: str | None = None
    take_first_file: str | None = None
    take_first_frame: int = 0
    take_frames: int = 0
    stopped_by: str = ""
    starts_at: str | None = None
    ends_at: str | None = None
    request_id: str = ""
    restarts: int = 0
    pid: int | None = None
    ffmpeg_pid: int | None = None
    invocation_id: str = ""
    runner_version: str = ""
    revision: str = ""
    config_pending: bool = False
    recordings: str = ""
    filesystem: str = ""
    disk_free_bytes: int | None = None
    disk_remaining_seconds: float | None = None
    disk_remaining_with_retention_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    should_record: bool = False
    is_locked: bool = False

    def update(self, **values: object) -> None:
        """Set fields by name; an unknown name is a programming error (TypeError), and sets none."""
        if not values.keys() <= FIELDS.keys():
            raise TypeError(f"PortStatus has no field {', '.join(sorted(values.keys() - FIELDS.keys()))}")
        for name, value in values.items():
            setattr(self, name, value)


ORDERS_DIRECTORY = f"{STATE_DIRECTORY}/orders"
"""Where starts with a time and holds are, contract/orders.py."""
START, HOLD = ".start", ".hold"
SCHEDULED, ORDERED = "schedule:", "start:"
"""How the request ids of takes begin that a schedule, or a start with a time, has begun."""

FIELDS = PortStatus.defaults()
"""Every field of the status, with what it is when nothing is known."""


def is_timed(request_id: str) -> bool:
    """Whether a schedule or a start with a time has begun it."""
    return request_id.startswith((SCHEDULED, ORDERED))


def listed(directory: str = ORDERS_DIRECTORY) -> dict[int, set[str]]:
    """The ports for which something is there: START, HOLD or both. Nothing for those who may not look."""
    found: dict[int, set[str]] = {}
    try:
        names = os.listdir(directory)
    except OSError:
        return found
    for name in names:
        number, dot, kind = name.partition(".")
        if number.isascii() and number.isdigit() and dot + kind in (START, HOLD):
            found.setdefault(int(number), set()).add(dot + kind)
    return found


def status_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/{port_index}.json"


def lock_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/{port_index}.lock"


def write_status(status: PortStatus, directory: str = RUN_DIRECTORY) -> None:
    """Replace the port's status file. Raises OSError."""
    content = lean.encode(status.as_dict(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    path = status_path(status.port_index, directory)
    try:
        replace_file(path, content)
    except OSError as error:
        if error.errno != errno.ENOSPC or not _overwrite(path, content):
            raise


def _overwrite(path: str, content: bytes) -> bool:
    """Write into the room that a file has already; whether there was enough.

    A reader in between sees the old or the new, as good as always: it is one page (write(2) on tmpfs).
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if len(content) > found.st_blocks * 512:
            return False
        # Spaces at the end of a JSON text are nothing.
        return os.pwrite(descriptor, content.ljust(found.st_size), 0) >= len(content)
    finally:
        os.close(descriptor)


def is_full(directory: str = RUN_DIRECTORY) -> bool:
    """Whether there is no room for a status."""
    found = os.statvfs(directory)
    return found.f_blocks > 0 and found.f_bavail == 0


def read_status(port_index: int, directory: str = RUN_DIRECTORY) -> PortStatus | None:
    """The port's status file as its runner left it; None if there is none.

    Raises Unreadable with the operator's words for a file that is torn, foreign or unreadable. What it has beside the
    fields is of a newer version.
    """
    try:
        fields = read_fields(status_path(port_index, directory))
    except FileNotFoundError:
        return None
    # A document without it is nothing of ours, and all other fields may be missing.
    fields.whole("schema", least=1)
    status = fields.record(PortStatus)
    if status.port_index != port_index:
        fields.fail("port_index", f"{status.port_index}, not {port_index}")
    for name, value in status.as_dict().items():
        # `\ud800` is JSON too, but nothing that can be printed.
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not _is_unicode(text) for text in texts):
            fields.fail(name, "no text that can be printed")
    if "is_losing" not in fields.names():
        # A runner of an earlier version: it counted only what the file lacks, and said nothing of now.
        frames = status.frame_count + status.missing_frames
        status.update(short_frames=status.missing_frames, is_losing=status.missing_frames > FORMER_LIMIT * frames)
    return status


def _is_unicode(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "ignore").decode() == text


def find_status(port_index: int, directory: str = RUN_DIRECTORY) -> PortStatus | None:
    """read_status() for those to whom a file that cannot be understood is as good as none."""
    try:
        return read_status(port_index, directory)
    except Unreadable:
        return None


def run_directory_of(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    """The unit's own: systemd keeps it through restarts and removes it at a stop (RuntimeDirectoryPreserve=restart)."""
    return f"{directory}/port-{port_index}"


def again_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    """The mark of sdi-record-retry@.service, which names it too: systemd gave the unit up, and nobody stopped it."""
    return f"{directory}/{port_index}.again"


def is_going_on(port_index: int, directory: str = RUN_DIRECTORY) -> bool:
    """Whether a port whose runner has ended was not stopped."""
    paths = (run_directory_of(port_index, directory), again_path(port_index, directory))
    return any(os.path.lexists(path) for path in paths)


def stopped_at(status: PortStatus | None, this_boot: str) -> float | None:
    """When a port that is going on no more was stopped (CLOCK_MONOTONIC, seconds), by its last status of this boot.

    None where nobody stopped it: it failed for good, or has not run since boot. A runner that had no time to say that
    it was stopped had said something else just before.
    """
    if status is None or status.boot_id != this_boot or status.state == "failed":
        return None
    return status.state_since_monotonic if status.state == "stopped" else status.updated_monotonic


def take_lock(port_index: int, directory: str = RUN_DIRECTORY) -> int:
    """Hold the port's lock for as long as this process lives; returns the descriptor.

    Raises BlockingIOError when another process holds it. A POSIX lock falls with the first
    close() of the file by its process, so nobody in the runner may open the file again.
    """
    descriptor = open_lock(lock_path(port_index, directory))
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # POSIX lets fcntl answer EACCES for a held lock.
        os.close(descriptor)
        raise BlockingIOError(*error.args) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


PROC = "/proc"


def is_alive(status: PortStatus | None) -> bool:
    """Whether the runner that wrote this status lives: its process is the unit's (proc_pid_cgroup(5), for all to read).

    Not whether the unit has processes: FFmpeg outlives its runner for moments.
    """
    if status is None or status.pid is None or status.boot_id != boot_id():
        return False
    try:
        with open(f"{PROC}/{status.pid}/cgroup", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    return any(line.endswith(f"/{status.unit}".encode()) for line in lines)


AUTO_RESTART = "auto-restart"


def settle(
    status: PortStatus | None, *, alive: bool, unit_state: str | None, now_monotonic: float, this_boot: str
) -> tuple[str, str] | None:
    """The port's state and reason by DESIGN's order, "first that holds"; None if only systemd can say.

    `status` is a runner's word, `alive` whether that runner lives; the unit is then neither failed nor inactive.
    `unit_state` is systemd's ActiveState, or AUTO_RESTART while systemd starts the next runner (None when not asked).
    """
    if status is not None and status.boot_id != this_boot:
        status = None
    if not alive:
        if unit_state is None:
            return None
        reason = status.reason if status else ""
        if unit_state == "failed":
            return "failed", reason or "the unit failed before its runner could say why; see sdisup logs"
        if unit_state == "inactive":
            return "stopped", ""
        if unit_state == "deactivating":
            return "stopping", ""
        if unit_state == AUTO_RESTART or (status and status.state == "backoff"):
            return "backoff", reason or "the runner is not running; systemd starts it again"
        # A runner that has not written its first word.
        return "starting", ""
    if status is None or status.state == "stopped":
        return "starting", ""
    if now_monotonic - status.updated_monotonic > STALE_AFTER_S:
        return "unknown", f"no word from the runner for {now_monotonic - status.updated_monotonic:.0f} s"
    return status.state, status.reason
