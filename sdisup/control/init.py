"""`sdisup init`: a configuration to start from, of what this machine has."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdisup.config import text as reference
from sdisup.config.codecs import find_rate
from sdisup.config.table import MAX_PORTS, check_value, rows
from sdisup.control.check import SOURCES_TIMEOUT_S, anything_records
from sdisup.encode.probe import Found, list_sources, probe_ffmpeg
from sdisup.errors import SdisupError, root_hint

FFMPEGS = ("/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg", "/opt/ffmpeg/bin/ffmpeg")


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
    return reference.starter_toml(active, lines[1:])


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
