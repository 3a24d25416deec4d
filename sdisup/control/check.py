"""What this machine has, for `sdisup check` and `sdisup init`. Nothing is started, no recording is disturbed.

A disk or a driver that hangs must not hang the command: files are looked at by child processes, which are
given up, not waited for, when they do not answer.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdisup.config import text as settings_docs
from sdisup.config.codecs import find_rate
from sdisup.config.settings import Port, Settings
from sdisup.config.table import MAX_PORTS, check_value, rows
from sdisup.contract.applied import load_applied
from sdisup.contract.status import is_locked
from sdisup.encode.command import missing_capabilities
from sdisup.encode.probe import Found, list_sources, probe_ffmpeg
from sdisup.errors import SdisupError, root_hint
from sdisup.runner.decide import ffprobe_beside
from sdisup.sources.custom import Input, parse_inputs

USER = "sdisup"
LOOK_TIMEOUT_S = 0.7
SOURCES_TIMEOUT_S = 12.0  # a frozen HDMI channel takes the probe 10 s (VIDEOMASTER.md)
FREE_MIN_BYTES = 1024**3
FFMPEGS = ("/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg", "/opt/ffmpeg/bin/ffmpeg")


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


@dataclass(frozen=True)
class Discovery:
    """The FFmpeg to record with, and the inputs that were found. `remarks` say what could not be asked."""

    ffmpeg: str
    videomaster: tuple[Found, ...] = ()
    decklink: tuple[Found, ...] = ()
    v4l2: tuple[Found, ...] = ()
    remarks: tuple[str, ...] = ()


def discover(ffmpegs: Sequence[str] = FFMPEGS, sys_root: str = "/sys") -> Discovery:
    """What can be recorded on this machine; takes some seconds, and at most 25 for each card's driver."""
    remarks: list[str] = []
    ffmpeg, inputs = _best_ffmpeg(ffmpegs, remarks)
    found: dict[str, tuple[Found, ...]] = {}
    for device in ("videomaster", "decklink"):
        if device not in inputs:
            continue
        if device == "videomaster" and anything_records():
            remarks.append("Deltacast cards were not looked for, since a port records: it could be disturbed")
            continue
        try:
            found[device] = list_sources(ffmpeg, device, SOURCES_TIMEOUT_S)
        except SdisupError as error:
            remarks.append(str(error))
    return Discovery(ffmpeg, v4l2=video_devices(sys_root), remarks=tuple(remarks), **found)


def _best_ffmpeg(candidates: Sequence[str], remarks: list[str]) -> tuple[str, frozenset[str]]:
    """The one that knows a card, else the first that works."""
    usual = shutil.which("ffmpeg")
    known: dict[str, frozenset[str]] = {}
    for path in dict.fromkeys([*candidates, *([usual] if usual else [])]):
        if os.path.exists(path):
            try:
                known[path] = probe_ffmpeg(path).inputs
            except SdisupError as error:
                remarks.append(str(error))
    if not known:
        remarks.append("there is no FFmpeg; install one, or name it as ffmpeg in [appliance]")
        return candidates[0], frozenset()
    best = next((path for path in known if known[path] & {"videomaster", "decklink"}), next(iter(known)))
    return best, known[best]


def video_devices(sys_root: str = "/sys") -> tuple[Found, ...]:
    """The Video4Linux devices that the kernel knows, by number; opening none of them.

    `index` is 0 for a device's picture; its other nodes, such as that of the metadata, count on from it.
    """
    found = []
    for directory in glob.glob(f"{sys_root}/class/video4linux/video*"):
        number = os.path.basename(directory).removeprefix("video")
        if number.isdigit() and _first_line(f"{directory}/index") in ("", "0"):
            found.append((int(number), _first_line(f"{directory}/name")))
    return tuple(Found(f"/dev/video{number}", name) for number, name in sorted(found))


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip()
    except OSError:
        return ""


class _Table(NamedTuple):
    """What a [port.N] would say: `device` is what no two ports can read."""

    device: str
    lines: tuple[str, ...]


def starter_toml(found: Discovery) -> str:
    """A commented configuration to start from, with a [port.N] for each input that was found."""
    names = [source.description for source in found.decklink]
    tables = [_videomaster_table(source) for source in found.videomaster]
    tables += [_decklink_table(source, names.count(source.description) == 1) for source in found.decklink]
    tables += [_v4l2_table(source) for source in found.v4l2]
    by_device = {table.device: table.lines for table in tables if table}
    ports = list(by_device.values())[:MAX_PORTS]
    active: dict[str, object] = {"ffmpeg": found.ffmpeg} if found.ffmpeg != FFMPEGS[0] else {}
    if ports:
        active["ports"] = len(ports)
    lines = [line for index, port in enumerate(ports) for line in ("", f"[port.{index}]", *port)]
    return settings_docs.starter_toml(active, lines[1:])


def _videomaster_table(source: Found) -> _Table | None:
    """`stream 0 on board 0`, `SDI video: 1920x1080i50.000 (interface: …`: an `i` counts fields."""
    place = re.fullmatch(r"stream ([0-9]{1,2}) on board ([0-9]{1,2})", source.name, re.ASCII)
    if not place:
        return None
    device = f"board = {int(place[2])}, channel = {int(place[1])}"
    signal = re.search(r"[0-9]+x[0-9]+([ip])([0-9]+(?:\.[0-9]+)?)", source.description)
    rate = find_rate(float(signal[2]) / (2 if signal[1] == "i" else 1)) if signal else None
    options = [f'kind = "videomaster", {device}', *([f'rate = "{rate}"'] if rate else [])]
    if signal and signal[1] == "i":
        options.append('scan = "tff"')
    return _Table(device, (f"# {_comment(source.description)}", f"source = {{ {', '.join(options)} }}"))


def _decklink_table(source: Found, is_unique: bool) -> _Table | None:
    """By its name, or by its handle where two cards have the same name; FFmpeg takes both."""
    name = source.description if is_unique else source.name
    try:
        check_value(rows("decklink")["device"], name)
    except ValueError:
        return None
    device = json.dumps(name, ensure_ascii=False)
    note = f"# {_comment(source.description)}; say the rate and the scan of its signal."
    return _Table(device, (note, f'source = {{ kind = "decklink", device = {device}, rate = 25 }}'))


def _v4l2_table(source: Found) -> _Table:
    line = f'source = {{ kind = "v4l2", device = "{source.name}" }}'
    return _Table(source.name, (f"# {_comment(source.description)}", line))


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:90]


def write_starter(text: str, path: str) -> None:
    """Write it where there is no file yet; whole or not at all. Raises SdisupError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A rename would replace a file that appeared meanwhile; a link does not.
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise SdisupError(f"{path} exists and is not overwritten", "sdisup init --output - only shows it") from None
    except OSError as error:
        raise SdisupError(f"{path}: {error.strerror}", root_hint(error) or "name another file") from error
