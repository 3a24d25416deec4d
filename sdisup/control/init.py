"""`sdisup init`: a configuration to start from, with the inputs that this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from sdisup.config import text as reference
from sdisup.config.table import MAX_PORTS, SOURCE_KINDS
from sdisup.contract.records import Record
from sdisup.control.check import SOURCES_TIMEOUT_S, anything_records
from sdisup.encode.probe import list_sources, probe_ffmpeg
from sdisup.errors import SdisupError, root_hint
from sdisup.sources.base import Found

FFMPEGS = ("/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg", "/opt/ffmpeg/bin/ffmpeg")


class Discovery(Record):
    """The FFmpeg to record with, and the inputs found, by kind. `remarks` say what was not looked for, and why."""

    ffmpeg: str
    inputs: Mapping[str, tuple[Found, ...]]
    remarks: tuple[str, ...] = ()


def discover(ffmpegs: Sequence[str] = FFMPEGS, sys_root: str = "/sys", dev_root: str = "/dev") -> Discovery:
    """Find what can be recorded on this machine. Takes some seconds, and at most 25 s for each kind of card."""
    remarks: list[str] = []
    ffmpeg, known = _best_ffmpeg(ffmpegs, remarks)
    found: dict[str, tuple[Found, ...]] = {}
    for kind, source in SOURCE_KINDS.items():
        if not source.ffmpeg_lists:
            found[kind] = source.discover(sys_root, dev_root)
        elif source.demuxer in known and source.opened_by_listing and anything_records():
            cards = source.opened_by_listing
            remarks.append(f"{cards} were not looked for, since a port records: it could be disturbed")
        elif source.demuxer in known:
            try:
                found[kind] = list_sources(ffmpeg, source.demuxer, SOURCES_TIMEOUT_S)
            except SdisupError as error:
                remarks.append(str(error))
    return Discovery(ffmpeg, found, tuple(remarks))


def _best_ffmpeg(candidates: Sequence[str], remarks: list[str]) -> tuple[str, frozenset[str]]:
    """The first FFmpeg that has a card's input device, else the first that works; and its input devices."""
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
    cards = {source.demuxer for source in SOURCE_KINDS.values() if source.ffmpeg_lists}
    best = next((path for path in known if known[path] & cards), next(iter(known)))
    return best, known[best]


def starter_toml(found: Discovery) -> str:
    """A commented configuration to start from, with a [port.N] for each input that was found."""
    starters = [SOURCE_KINDS[kind].starters(found.inputs[kind]) for kind in SOURCE_KINDS if kind in found.inputs]
    ports = [lines for starter in starters for lines in starter.values()][:MAX_PORTS]
    active: dict[str, object] = {"ffmpeg": found.ffmpeg} if found.ffmpeg != FFMPEGS[0] else {}
    if ports:
        active["ports"] = len(ports)
    lines = [line for index, port in enumerate(ports) for line in ("", f"[port.{index}]", *port)]
    return reference.starter_toml(active, lines[1:])


def write_starter(text: str, path: str) -> None:
    """Write the whole file or nothing, and only where there is no file yet. Raises SdisupError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A rename would replace a file that another program made meanwhile; a link does not.
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise SdisupError(f"{path} exists and is not overwritten", "sdisup init --output - only shows it") from None
    except OSError as error:
        raise SdisupError(f"{path}: {error.strerror}", root_hint(error) or "name another file") from error
