"""The disk that a port's recordings are on where apply did not find it: who sees its mount first remembers it.

apply may come before the disk is mounted. The runner then records to whatever is there, the system's own disk too,
until a disk of its own is there; from then on that one alone is right. The notes are in /run, since the ledger's disk
may hang; the ledger's process keeps them beside the ledgers, and systemd-tmpfiles brings them back at a boot, before
any port starts. The next apply takes them up. Standard library only.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, STATE_DIRECTORY, Unreadable, read_fields, replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT_DIRECTORY = f"{STATE_DIRECTORY}/ledger/disks"


def disks_directory(run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/disks"


def disk_path(port_index: int, run_directory: str = RUN_DIRECTORY) -> str:
    return f"{disks_directory(run_directory)}/{port_index}"


def remember_disk(path: str, recordings: str, filesystem: str) -> None:
    """Note what `recordings` are on, by its identity (filesystem.py). Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    replace_file(path, lean.encode({"recordings": recordings, "filesystem": filesystem}).encode())


def remembered_disk(path: str, recordings: str) -> str:
    """What was noted of these recordings; empty where nothing was, or of others."""
    try:
        fields = read_fields(path)
        return fields.text("filesystem") if fields.text("recordings") == recordings else ""
    except (FileNotFoundError, Unreadable):
        return ""


def keep_disks(directory: str, kept_directory: str = KEPT_DIRECTORY) -> None:
    """Copy the notes to where they outlive the boot. Raises OSError."""
    for name in os.listdir(directory):
        path, kept = f"{directory}/{name}", f"{kept_directory}/{name}"
        if name.isdecimal() and _content(path) and _content(path) != _content(kept):
            os.makedirs(kept_directory, mode=0o755, exist_ok=True)
            replace_file(kept, _content(path), durable=True)


def _content(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        return file.read(8192)


def wanted_path(run_directory: str = RUN_DIRECTORY) -> str:
    """The file whose change starts retention at once (sdi-retention.path)."""
    return f"{run_directory}/retention.wanted"


def made_path(run_directory: str = RUN_DIRECTORY) -> str:
    """The file that retention writes to when it has made room: who waits for some looks at once."""
    return f"{run_directory}/retention.made"


def changed_ns(path: str) -> int:
    """When a file was written to last; 0 where there is none."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def say_in(path: str) -> None:
    """Change a file that somebody looks at. Nothing depends on it: who looks, looks every few minutes anyway."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError:
        return
    try:
        os.pwrite(descriptor, b"\n", 0)
    except OSError:
        return
    finally:
        os.close(descriptor)


def forget_disks(ports: Iterable[int]) -> None:
    """Remove all notes of these ports: `apply --accept-disks` has another disk for the right one. Raises OSError."""
    for path in (path for port in ports for path in (disk_path(port), f"{KEPT_DIRECTORY}/{port}")):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
