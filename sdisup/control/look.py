"""Looks at files and directories from child processes, as the user sdisup sees them.

A disk or a driver that hangs must not hang a command: it does not wait for a child that does not answer in time.
Whatever a command asks of a recordings' directory goes through here.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Iterable

from sdisup.contract.files import Fields
from sdisup.contract.programs import Program
from sdisup.contract.records import Record

USER = "sdisup"
LOOK_TIMEOUT_S = 0.7
PATIENT_TIMEOUT_S = 2.0
"""For a command that need not be quick: a disk may have to wake up."""
OWN_DIRECTORIES = ("/tmp", "/var/tmp")
"""What each unit has of its own (units/sdi-record@.service.j2): what is there outside is not there for a port."""
FREE_MIN_BYTES = 1024**3
LIBRARY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where the child finds this package."""
NO_ANSWER = "does not answer; is its disk or its network mount still there?"


class Look(Record):
    """What is at a path. `error` is the system's message where nobody can tell.

    `real_path` is without links; `filesystem` is the identity of a directory's filesystem (contract/filesystem.py),
    empty where it cannot be told, and `is_beside_system` whether it shares the space of `/`. `group` may read and
    write what is there; empty if none but root's may.
    """

    error: str = ""
    kind: str = ""
    is_readable: bool = True
    is_writable: bool = True
    free_bytes: int = 0
    size_bytes: int = 0
    real_path: str = ""
    filesystem: str = ""
    is_beside_system: bool = False
    group: str = ""


# A filesystem's name is asked for as root, and what a user may do as that user.
_LOOKER = """
import grp, json, os, stat, sys
library, path, *who = sys.argv[1:]
sys.path.insert(0, library)
from sdisup.contract.filesystem import filesystem_identity, is_beside_system
found = {"real_path": os.path.realpath(path)}
try:
    found["filesystem"] = filesystem_identity(path)
    found["is_beside_system"] = is_beside_system(path)
except OSError:
    pass
if who:
    user, group, *groups = map(int, who)
    os.setgroups(groups)
    os.setgid(group)
    os.setuid(user)
try:
    status, space = os.stat(path), os.statvfs(path)
except OSError as error:
    found["error"] = error.strerror
else:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device"}
    mode = status.st_mode
    needed = os.W_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)
    if mode & 0o060 == 0o060 and status.st_gid:
        try:
            found["group"] = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            pass
    found.update({
        "kind": kinds.get(stat.S_IFMT(mode), "other"),
        "is_readable": os.access(path, os.R_OK),
        "is_writable": os.access(path, needed),
        "free_bytes": space.f_bavail * space.f_frsize,
        "size_bytes": space.f_blocks * space.f_frsize,
    })
print(json.dumps(found))
"""


def look_at(paths: Iterable[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, Look]:
    """Look at all `paths` at the same time, as the user sdisup where this process is root."""
    identity = _recorders_identity()
    looker = [sys.executable, "-I", "-S", "-c", _LOOKER, LIBRARY]
    children = {path: Program([*looker, path, *map(str, identity)]) for path in dict.fromkeys(paths)}
    looks: dict[str, Look] = {}
    for path, child in children.items():
        # Where the first child cannot be killed, since its disk hangs, the others are not waited for.
        end_timeout_s = 0.0 if any(look.error == NO_ANSWER for look in looks.values()) else 0.2
        looks[path] = _take_look(child, timeout_s, end_timeout_s, bool(identity))
    return looks


def _recorders_identity() -> list[int]:
    """The ids with which a child becomes the user sdisup: user, group, other groups; empty where it cannot."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return []
    return [user.pw_uid, user.pw_gid, *os.getgrouplist(USER, user.pw_gid)] if os.geteuid() == 0 else []


def _take_look(child: Program, timeout_s: float, end_timeout_s: float, is_recorder: bool) -> Look:
    answer = child.answer(1 << 16, timeout_s, end_timeout_s)
    if answer is None:
        return Look(error=NO_ANSWER)
    try:
        look = Fields(json.loads(answer[0]), "the look").record(Look)
    except ValueError:
        return Look(error="could not be looked at")
    return look if is_recorder else look.replaced(is_readable=True, is_writable=True)


def device_problem(path: str, look: Look, group: str) -> str:
    """Why no port can open a device node, which should belong to `group`; "" if one can. A port's unit has the group
    that may open the node."""
    if look.error:
        return f"{path}: {look.error}; is the card there, and its driver?"
    if look.kind != "device":
        return f"{path} is not a device"
    if not (look.is_readable and look.is_writable) and not look.group:
        return f"{path} may not be opened by the user {USER}: chgrp {group} {path} && chmod 660 {path}, as udev does"
    return ""


# ---- Directories of recordings ----


def directory_problem(path: str, look: Look) -> str:
    """Why nothing can be recorded to a directory, with the next step; "" if something can."""
    make = f"install -d -o {USER} -g {USER} -m 2775"
    for own in OWN_DIRECTORIES:
        if f"{look.real_path or path}/".startswith(f"{own}/"):
            return f"{path} is below {own}, of which each port's unit has one of its own; name another directory"
    if look.error == "No such file or directory":
        return f"{path} does not exist; mount it or make it: {make} {path}"
    if look.error:
        return f"{path}: {look.error}"
    if look.kind != "directory":
        return f"{path} is not a directory; recordings need one: {make} {path}"
    if not look.is_writable:
        return f"{path} is not writable by the user {USER}: chown {USER}:{USER} {path}, or mount it rw"
    if look.free_bytes < FREE_MIN_BYTES:
        return f"{path} has only {look.free_bytes // 1024**2} MiB left; make room"
    return ""


def directory_doubt(path: str, look: Look) -> str:
    """What is doubtful about a directory to which something can be recorded; "" if nothing is."""
    if look.is_beside_system:
        return (
            f"{path} is on the system's own disk, the filesystem of /, which recordings can fill up; if a disk of "
            "their own belongs there, mount it, then run: sdisup apply"
        )
    return ""
