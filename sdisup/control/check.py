"""What this machine lacks, for `sdisup check`. The check starts no port and disturbs no recording."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping

from sdisup.config.codecs import AUTO, CODECS, SOFTWARE
from sdisup.config.settings import Settings
from sdisup.config.table import MAX_PORTS
from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.programs import ffprobe_beside
from sdisup.contract.status import find_status, is_alive
from sdisup.control import offloads, retain
from sdisup.control.beneath import troubles
from sdisup.control.locks import is_hidden
from sdisup.control.look import USER, Look, directory_doubt, directory_problem, look_at
from sdisup.control.observe import space_warnings
from sdisup.encode import hardware
from sdisup.encode.command import missing_capabilities
from sdisup.encode.probe import list_sources, pcm_in_mp4_problems, probe_ffmpeg
from sdisup.errors import SdisupError
from sdisup.sources.base import Source

SOURCES_TIMEOUT_S = 12.0  # FFmpeg needs 10 s for an HDMI channel that is frozen (VIDEOMASTER.md)


# ---- check: what is missing ----


def problems(settings: Settings, quick: bool = False) -> list[str]:
    """What the machine lacks for this configuration, each with the next step; empty if nothing.

    `quick` leaves out what runs FFmpeg or asks systemd, and takes less than a second. Only root can check what the
    user sdisup may read and write; for other users this is left out.
    """
    return report(settings, quick)[0]


def report(settings: Settings, quick: bool = False) -> tuple[list[str], list[str]]:
    """What problems() says, and warnings of what is doubtful on this machine."""
    found = _user_problems()
    sources = [port.source for port in settings.ports.values()]
    nodes = [path for source in sources for path in source.nodes()]
    directories, targets = settings.directories(), offloads.directories(settings)
    cards = [node for port in settings.ports.values() for node in hardware.candidate_nodes(port)]
    looks = look_at(
        [*directories, *targets, *nodes, *cards, *(entry.path for source in sources for entry in source.files())]
    )
    found += filter(None, (directory_problem(path, looks[path]) for path in directories))
    for port in settings.ports.values():
        found += [f"{port.label}: {text}" for text in _node_problems(port.source, looks)]
    found += offloads.problems(settings, looks)
    found += retain.problems(settings, looks)
    found += filter(None, (kind.driver_problem() for kind in _kinds(settings)))
    for port in settings.ports.values():
        found += [f"{port.label}: {text}" for text in _file_problems(port.source, looks)]
    found += _executable_problems(settings) if quick else _ffmpeg_problems(settings) + _unit_problems(settings)
    doubts = list(filter(None, (directory_doubt(path, looks[path]) for path in directories)))
    doubts += space_warnings(_applied_ports())
    doubts += dict.fromkeys(text for texts in troubles(directories).values() for text in texts)
    if not quick:
        broken, chosen = _encoder_findings(settings, looks)
        return found + broken + _option_problems(settings), doubts + chosen
    return found, doubts


def _applied_ports() -> list[AppliedPort]:
    try:
        return list(load_applied().ports.values())
    except SdisupError:
        # `pending` says that it cannot be read.
        return []


def pending(settings: Settings, quick: bool = False) -> str:
    """Why systemd's units are not what the configuration says; "" when they are.

    This is no problem of the machine: a configuration is checked before it is applied.
    """
    applied = load_applied()
    if not applied.ports:
        return "nothing was applied yet: sdisup apply"
    names = ("name", "codec", "recordings", "record_at_boot", "space_warning_h", "lock")
    now = {index: [getattr(port, name) for name in names] for index, port in settings.ports.items()}
    then = {index: [getattr(port, name) for name in names] for index, port in applied.ports.items()}
    is_changed = now != then or not all(os.path.exists(file) or is_hidden(file) for file in applied.files)
    if not is_changed and not quick:
        from sdisup.control.apply import dry_run

        is_changed = bool(dry_run(settings, restart=False)[0])
    return "the units are not what the configuration says: sdisup apply (--dry-run shows it)" if is_changed else ""


def _user_problems() -> list[str]:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return [f"there is no user {USER}, which records: run install.sh, or systemd-sysusers sdisup.conf"]
    try:
        grp.getgrnam(USER)
    except KeyError:
        return [f"there is no group {USER}, without which no port starts: groupadd --system {USER}"]
    return []


def _kinds(settings: Settings) -> list[type[Source]]:
    """The kinds of source of all ports, each once."""
    return list(dict.fromkeys(type(port.source) for port in settings.ports.values()))


def _node_problems(source: Source, looks: Mapping[str, Look]) -> Iterator[str]:
    for path in source.nodes():
        look = looks[path]
        if look.error:
            yield f"{path}: {look.error}; is it plugged in? {source.node_hint}"
        elif look.kind != "device":
            yield f"{path} is not a device; {source.node_hint}"
        elif not (look.is_readable and look.is_writable) and not look.group:
            # A port's unit has the group that owns the node.
            yield f"{path} may not be opened by the user {USER}: its group should be {source.sandbox().groups[0]}"


def _file_problems(source: Source, looks: Mapping[str, Look]) -> Iterator[str]:
    for entry in source.files():
        look = looks[entry.path]
        if "%" in entry.path and look.error:
            continue  # a pattern of image2, not a file
        if look.error:
            yield f"{entry.path}: {look.error}"
        elif not look.is_readable:
            yield f"{entry.path} may not be read by the user {USER}"
        elif look.kind == "file" and not entry.options & {"re", "readrate"}:
            yield f"{entry.path} is a file and would be read as fast as the disk allows: put -re before its -i"


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
    found = missing_capabilities(ports, settings.ffmpeg, capabilities) + pcm_in_mp4_problems(ports, settings.ffmpeg)
    found += _ffprobe_problems(settings)
    listed = [kind for kind in _kinds(settings) if kind.ffmpeg_lists and kind.demuxer in capabilities.inputs]
    # First the kinds whose inputs FFmpeg can list without disturbing a recording.
    for kind in sorted(listed, key=lambda kind: bool(kind.opened_by_listing)):
        if not (kind.opened_by_listing and anything_records()):
            found += _listing_problems(settings, kind)
    return found


def _option_problems(settings: Settings) -> list[str]:
    """What FFmpeg does not take of the operators' options for software encoders, tried with a second of pictures. Those
    for graphics cards are tried when the card is chosen."""
    encoded = [port for port in settings.ports.values() if not CODECS[port.codec].is_copied]
    ports = [port for port in encoded if port.encoder_options and not hardware.way(port)]
    if not ports:
        return []
    from sdisup.encode.trial import try_ports

    reasons = try_ports([port.replaced(encoder=SOFTWARE) for port in ports], settings.ffmpeg)
    text = "encoder_options: FFmpeg does not take them"
    return [f"{port.label}: {text}: {reason}" for port, reason in zip(ports, reasons, strict=True) if reason]


def _encoder_findings(settings: Settings, looks: Mapping[str, Look]) -> tuple[list[str], list[str]]:
    """Ports whose encoder does not work here, and what those get that leave it to us. Where a port records with a card,
    its place there is not tried."""
    if all(port.encoder == SOFTWARE for port in settings.ports.values()):
        return [], []
    from sdisup.control.apply import applied_way, closed_ways
    from sdisup.encode.trial import choose_encoders, describe

    try:
        capabilities = probe_ffmpeg(settings.ffmpeg)
    except SdisupError:
        # _ffmpeg_problems says so.
        return [], []
    ports = settings.ports
    kept = {index: applied_way(port) for index, port in ports.items() if is_alive(find_status(index))}
    choices = choose_encoders(ports.values(), settings.ffmpeg, capabilities, kept, closed_ways(looks))
    by_auto = {index: choice for index, choice in choices.items() if ports[index].encoder == AUTO}
    by_name = {index: choice for index, choice in choices.items() if index not in by_auto}
    return describe(ports, by_name), describe(ports, by_auto)


def _unit_problems(settings: Settings) -> list[str]:
    """What keeps the units that apply wrote from recording, such as an operator's own ExecStart=."""
    from sdisup.control.overrides import unit_problems
    from sdisup.control.systemd import Systemd

    ports = [port for index, port in load_applied().ports.items() if index in settings.ports]
    try:
        with Systemd() as systemd:
            return unit_problems(systemd, ports) if ports else []
    except SdisupError:
        # `pending` says that systemd does not answer.
        return []


def _listing_problems(settings: Settings, kind: type[Source]) -> list[str]:
    """What is wrong with the ports of a kind according to the inputs that FFmpeg lists."""
    try:
        inputs = list_sources(settings.ffmpeg, kind.demuxer, SOURCES_TIMEOUT_S)
    except SdisupError as error:
        return [str(error)]
    ports = [port for port in settings.ports.values() if type(port.source) is kind]
    texts = {port.label: port.source.listing_problem(inputs) for port in ports}
    return [f"{label}: {text}" for label, text in texts.items() if text]


def anything_records() -> bool:
    """Whether any runner lives. Which board it has open is in its unit, which may differ from this configuration."""
    return any(is_alive(find_status(index)) for index in range(MAX_PORTS))
