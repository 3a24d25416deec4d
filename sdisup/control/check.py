"""What this machine lacks, for `sdisup check`. Nothing is started, no recording is disturbed.

A disk or a driver that hangs must not hang the command: files are looked at by child processes, which are
given up, not waited for, when they do not answer.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sdisup.config.settings import Port, Settings
from sdisup.config.table import MAX_PORTS
from sdisup.contract.applied import load_applied
from sdisup.contract.media import ffprobe_beside
from sdisup.contract.status import is_locked
from sdisup.encode.command import missing_capabilities
from sdisup.encode.probe import list_sources, probe_ffmpeg
from sdisup.errors import SdisupError
from sdisup.sources.custom import Input, parse_inputs

USER = "sdisup"
LOOK_TIMEOUT_S = 0.7
SOURCES_TIMEOUT_S = 12.0  # a frozen HDMI channel takes the probe 10 s (VIDEOMASTER.md)
FREE_MIN_BYTES = 1024**3


# ---- check: what is missing ----


def problems(settings: Settings, quick: bool = False) -> list[str]:
    """What the machine lacks for this configuration, each with the next step; empty if nothing.

    `quick` leaves out all that runs FFmpeg or asks systemd, and takes less than a second. Run as another user
    than root, it cannot tell what the user sdisup may write, and leaves that out.
    """
    found = _user_problems()
    paths = [*_directories(settings), *_devices(settings), *(entry.path for _, entry in _files(settings))]
    looks = look_at(paths)
    found += _directory_problems(settings, looks)
    found += _device_problems(settings, looks)
    found += _file_problems(settings, looks)
    return found + (_executable_problems(settings) if quick else _ffmpeg_problems(settings))


def pending(settings: Settings, quick: bool = False) -> str:
    """Why systemd's units are not what the configuration says; "" when they are.

    That is no fault: a configuration is checked before it is applied.
    """
    applied = load_applied()
    if not applied.ports:
        return "nothing was applied yet: sdisup apply"
    names = ("name", "codec", "recordings", "record_at_boot")
    now = {index: [getattr(port, name) for name in names] for index, port in settings.ports.items()}
    then = {index: [getattr(port, name) for name in names] for index, port in applied.ports.items()}
    is_changed = now != then or not all(os.path.exists(file) for file in applied.files)
    if not is_changed and not quick:
        from sdisup.control.apply import dry_run

        is_changed = bool(dry_run(settings, restart=False)[0])
    return "the units are not what the configuration says: sdisup apply (--dry-run shows it)" if is_changed else ""


def _user_problems() -> list[str]:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return [f"there is no user {USER}, which records: run install.sh, or systemd-sysusers sdisup.conf"]
    return []


def _directories(settings: Settings) -> list[str]:
    return list(dict.fromkeys(port.recordings for port in settings.ports.values()))


def _devices(settings: Settings) -> dict[str, Port]:
    """The device nodes that ports name themselves."""
    ports = settings.ports.values()
    return {port.source.options["device"]: port for port in ports if port.source.kind == "v4l2"}


def _files(settings: Settings) -> list[tuple[Port, Input]]:
    """The local files and FIFOs of custom inputs."""
    custom = [port for port in settings.ports.values() if port.source.kind == "custom"]
    return [(port, entry) for port in custom for entry in parse_inputs(port.source.options["input"]) if entry.path]


def _directory_problems(settings: Settings, looks: Mapping[str, Look]) -> list[str]:
    make = f"install -d -o {USER} -g {USER} -m 2775"
    found = []
    for path in _directories(settings):
        look = looks[path]
        if look.error == "No such file or directory":
            found.append(f"{path} does not exist; mount it or make it: {make} {path}")
        elif look.error:
            found.append(f"{path}: {look.error}")
        elif look.kind != "directory":
            found.append(f"{path} is not a directory; recordings need one: {make} {path}")
        elif not look.is_writable:
            found.append(f"{path} is not writable by the user {USER}: chown {USER}:{USER} {path}, or mount it rw")
        elif look.free_bytes < FREE_MIN_BYTES:
            found.append(f"{path} has only {look.free_bytes // 1024**2} MiB left; make room")
    return found


def _device_problems(settings: Settings, looks: Mapping[str, Look]) -> list[str]:
    found = []
    for path, port in _devices(settings).items():
        look = looks[path]
        if look.error:
            found.append(f"{port.label}: {path}: {look.error}; is it plugged in? ls /dev/v4l/by-id")
        elif look.kind != "device":
            found.append(f"{port.label}: {path} is not a device; ls /dev/v4l/by-id")
        elif not (look.is_readable and look.is_writable):
            found.append(f"{port.label}: {path} may not be opened by the user {USER}: its group should be video")
    if any(port.source.kind == "decklink" for port in settings.ports.values()) and not glob.glob("/dev/blackmagic/*"):
        found.append("there is no DeckLink card in /dev/blackmagic: is Blackmagic's Desktop Video driver loaded?")
    return found


def _file_problems(settings: Settings, looks: Mapping[str, Look]) -> list[str]:
    found = []
    for port, entry in _files(settings):
        look = looks[entry.path]
        if "%" in entry.path and look.error:
            continue  # a pattern of image2, not a file
        if look.error:
            found.append(f"{port.label}: {entry.path}: {look.error}")
        elif not look.is_readable:
            found.append(f"{port.label}: {entry.path} may not be read by the user {USER}")
        elif look.kind == "file" and not entry.options & {"re", "readrate"}:
            text = "is a file and would be read as fast as the disk allows: put -re before its -i"
            found.append(f"{port.label}: {entry.path} {text}")
    return found


def _executable_problems(settings: Settings) -> list[str]:
    if os.path.isfile(settings.ffmpeg) and os.access(settings.ffmpeg, os.X_OK):
        return _ffprobe_problems(settings)
    return [f"{settings.ffmpeg} is missing or cannot be executed: install it, or name another in [appliance]"]


def _ffprobe_problems(settings: Settings) -> list[str]:
    if shutil.which(ffprobe_beside(settings.ffmpeg)):
        return []
    return [f"there is no ffprobe beside {settings.ffmpeg} nor on PATH: nobody can count the frames of a file that was "
            "cut off; install it: apt-get install ffmpeg"]  # fmt: skip


def _ffmpeg_problems(settings: Settings) -> list[str]:
    try:
        capabilities = probe_ffmpeg(settings.ffmpeg)
    except SdisupError as error:
        return [str(error)]
    ports = settings.ports.values()
    found = missing_capabilities(ports, settings.ffmpeg, capabilities) + _ffprobe_problems(settings)
    kinds = {port.source.kind for port in ports} & capabilities.inputs
    if "decklink" in kinds:
        found += _decklink_problems(settings)
    if "videomaster" in kinds and not anything_records():
        try:
            list_sources(settings.ffmpeg, "videomaster", SOURCES_TIMEOUT_S)
        except SdisupError as error:
            found.append(str(error))
    return found


def _decklink_problems(settings: Settings) -> list[str]:
    try:
        sources = list_sources(settings.ffmpeg, "decklink")
    except SdisupError as error:
        return [str(error)]
    known = {word for source in sources for word in source}
    names = ", ".join(source.description for source in sources) or "none"
    ports = [port for port in settings.ports.values() if port.source.kind == "decklink"]
    missing = [port for port in ports if port.source.options["device"] not in known]
    return [f"{port.label}: there is no DeckLink input '{port.source}' (there are: {names})" for port in missing]


def anything_records() -> bool:
    """Whether a runner lives. Which board it has open, its unit knows and not this configuration."""
    return any(is_locked(index) for index in range(MAX_PORTS))


# ---- Files, seen as the user who records ----


@dataclass(frozen=True)
class Look:
    """What there is at a path. `error` is the system's word for why it cannot be told."""

    error: str = ""
    kind: str = ""
    is_readable: bool = True
    is_writable: bool = True
    free_bytes: int = 0


_LOOKER = """
import json, os, stat, sys
path = sys.argv[1]
try:
    mode, space = os.stat(path).st_mode, os.statvfs(path)
except OSError as error:
    print(json.dumps({"error": error.strerror}))
else:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device"}
    needed = os.W_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)
    print(json.dumps({
        "kind": kinds.get(stat.S_IFMT(mode), "other"),
        "is_readable": os.access(path, os.R_OK),
        "is_writable": os.access(path, needed),
        "free_bytes": space.f_bavail * space.f_frsize,
    }))
"""


def look_at(paths: Iterable[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, Look]:
    """All of `paths`, at the same time, as the user sdisup where this process may become it."""
    identity = _recorders_identity()
    children = {path: _start_looker(path, identity) for path in dict.fromkeys(paths)}
    deadline = time.monotonic() + timeout_s
    return {path: _take_look(child, deadline, bool(identity)) for path, child in children.items()}


def _recorders_identity() -> dict[str, Any]:
    """What makes a child process the user sdisup; {} where that is not possible."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return {}
    if os.geteuid() != 0:
        return {}
    groups = os.getgrouplist(USER, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}


def _start_looker(path: str, identity: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LOOKER, path],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **identity,
    )


def _take_look(child: subprocess.Popen[bytes], deadline: float, is_recorder: bool) -> Look:
    try:
        answer, _ = child.communicate(timeout=max(0.0, deadline - time.monotonic()))
        values = json.loads(answer)
    except subprocess.TimeoutExpired:
        child.kill()  # and not waited for: one that hangs in the kernel does not even die
        return Look(error="does not answer; is its disk or its network mount still there?")
    except ValueError:
        return Look(error="could not be looked at")
    if not is_recorder and "error" not in values:
        values |= {"is_readable": True, "is_writable": True}
    return Look(**values)


# ---- init: what is there ----
