"""Renders units, compares them with the files on disk, and writes the changes. Only `carry_out` writes.

Every file that apply writes begins with HEADER, or the same as a comment of another language. A file that does not is
foreign, and is never overwritten and never removed.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping

import jinja2

from sdisup.config.settings import Port, Settings
from sdisup.contract.applied import WRITTEN
from sdisup.contract.files import stage_file, sync_directory
from sdisup.contract.names import DEFAULT
from sdisup.contract.options import Options, format_options
from sdisup.contract.records import Record
from sdisup.contract.retention import MIN_FREE
from sdisup.contract.timecode import NONE
from sdisup.encode import hardware
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.errors import SdisupError
from sdisup.sources.values import FPS

UNIT_DIRECTORY = "/etc/systemd/system"
PROGRAM = ("/usr/bin/python3", "-I", "-S", "/usr/lib/sdisup/__main__.py")
"""A file, since for a directory Python loads the module runpy first, which loads as much as a runner: 3 ms, 0.7 MiB."""
RUNNER = (*PROGRAM, "run")
LEDGER_WRITER = (*PROGRAM, "ledger")
TELL_UNSTARTED = (*PROGRAM, "unstarted")
TELL_DUE = ("setpriv", "--reuid=sdisup", "--regid=sdisup", "--clear-groups", *PROGRAM, "due")
"""As the user whom the spools of events belong to."""
WAKE = (*PROGRAM, "wake")
RETAIN = (*PROGRAM, "retain")
COPY = (*PROGRAM, "copy")
CREDENTIALS = "/etc/sdisup/credentials"
HEADER = f"# {WRITTEN}"
_HEADERS = (HEADER, f"// {WRITTEN}")
"""How what apply wrote begins, in units and in polkit's rules."""
SHARED_UNITS = (
    "sdi-record@.service",
    "sdi-record-retry@.service",
    "sdi-record.target",
    "sdi-ledger.service",
    "sdi-ledger-flush.service",
    "sdi-schedule@.service",
    "sdi-schedules.service",
    "sdi-schedules.timer",
)
RETENTION_UNITS = ("sdi-retention.service", "sdi-retention.timer", "sdi-retention.path")
"""Where the configuration has rules."""
SHORT_SHARE = 2
"""A disk on which half of `min_free` is free cannot wait for the timer. On one that is full of recordings less than all
of it is free at most times: there the timer deletes what a few minutes need."""
STOP_MARGIN_S = 7

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@+=:,./-{}[]^!&*()<>|?~")


def quote(argument: str) -> str:
    """One argument, quoted for a command line or a list in a unit file (systemd.syntax(7)).

    `$` needs no escape, since the command has the prefix `:`, which turns its expansion off. Raises ValueError for
    NUL and for text that is not UTF-8 (lone surrogates), which no unit file can hold.
    """
    if "\0" in argument:
        raise ValueError(f"{argument!r} holds a NUL character")
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument!r} is not UTF-8") from error
    if argument and _PLAIN.issuperset(argument):
        return argument
    return '"' + "".join(_escape(character) for character in argument) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "%":
        return "%%"
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\x{ord(character):02x}"
    # systemd ends a line at \n only, but editors show these characters as line ends.
    if character in "\x85\u2028\u2029":
        return f"\\u{ord(character):04x}"
    return character


def quote_all(arguments: Iterable[str]) -> str:
    """Arguments, quoted and separated by spaces."""
    return " ".join(quote(argument) for argument in arguments)


def drop_in_path(port_index: int, directory: str = UNIT_DIRECTORY) -> str:
    return f"{directory}/sdi-record@{port_index}.service.d/10-sdisup.conf"


def offload_files(settings: Settings, directory: str = UNIT_DIRECTORY) -> dict[str, str]:
    """The units of each [offload.NAME]. Raises SdisupError if a value cannot stand in a unit file."""
    environment = _environment()
    files = {}
    for offload in settings.offloads:
        try:
            values = {
                "header": HEADER,
                "offload": offload,
                "description": offload.target.replace("%", "%%"),
                "copy": quote_all(COPY),
                "credentials": f"{CREDENTIALS}/{offload.name}.conf",
                "directory": quote(f"-{offload.target}"),
            }
        except ValueError as error:
            raise SdisupError(f"offload {offload.name}: {error}", "no unit file can hold that; change it") from error
        for kind in ("service", "timer"):
            text = environment.get_template(f"sdi-offload.{kind}.j2").render(values)
            files[f"{directory}/sdi-offload@{offload.name}.{kind}"] = text
    return files


class Rendered(Record):
    """Unit files by path, and each port's revision: a digest of all unit text that its next start would use."""

    files: Mapping[str, str]
    revisions: Mapping[int, str]


class Machine(Record):
    """What units depend on besides the configuration.

    `systemd_version` is a number such as 257; `filesystems` holds, by directory of recordings, the identity of the
    filesystem that the directory has to be on (contract/filesystem.py); `node_groups` are pairs of a device node and
    the group that owns it.
    """

    capabilities: Capabilities
    systemd_version: int
    filesystems: Mapping[str, str]
    node_groups: tuple[tuple[str, str], ...] = ()


def render(settings: Settings, machine: Machine, directory: str = UNIT_DIRECTORY) -> Rendered:
    """All units of a configuration on a machine. Raises SdisupError if a value cannot stand in a unit file."""
    environment = _environment()
    files = {
        f"{directory}/{name}": environment.get_template(f"{name}.j2").render(
            header=HEADER,
            unit_directory=directory,
            systemd_version=machine.systemd_version,
            ledger=quote_all(LEDGER_WRITER),
            unstarted=quote_all(TELL_UNSTARTED),
            wake=quote_all(WAKE),
            retain=quote_all(RETAIN),
            retention=bool(settings.retention),
            directories=[quote(f"-{directory}") for directory in settings.directories()],
        )
        for name in (*SHARED_UNITS, *(RETENTION_UNITS if settings.retention else ()))
    }
    shared = files[f"{directory}/sdi-record@.service"]
    revisions = {}
    for index, port in settings.ports.items():
        try:
            draft = _render_port(environment, port, settings, machine, revision="")
            revisions[index] = hashlib.sha256((shared + draft).encode()).hexdigest()[:12]
            text = _render_port(environment, port, settings, machine, revision=revisions[index])
        except ValueError as error:
            raise SdisupError(f"{port.label}: {error}", "no unit file can hold that; change it") from error
        files[drop_in_path(index, directory)] = text
    return Rendered(files, revisions)


def _render_port(
    environment: jinja2.Environment, port: Port, settings: Settings, machine: Machine, revision: str
) -> str:
    command = build_ffmpeg_arguments(port, settings.ffmpeg, machine.capabilities)
    filesystem = machine.filesystems.get(port.recordings, "")
    nodes = [*port.source.nodes(), *hardware.nodes(port)]
    groups = [group for node, group in machine.node_groups if node in nodes]
    options = runner_options(port, [], revision, filesystem)
    options = options.replaced(min_free_bytes=settings.retention.value(MIN_FREE, port.index) // SHORT_SHARE)
    runner = [*RUNNER, *format_options(options)]
    return environment.get_template("sdi-record-port.conf.j2").render(
        header=HEADER,
        port=port,
        description=f"{port.label}, {port.source}".replace("%", "%%"),
        timeout_stop_s=timeout_stop_s(port),
        sandbox=hardware.sandbox(port).directives(groups),
        recordings=quote(f"-{port.recordings}"),
        runner=quote_all(runner[:-1]),
        command=quote_all(command),
    )


def runner_options(port: Port, command: list[str], revision: str, filesystem: str) -> Options:
    """The options on the command line of a port's runner."""
    return Options(
        command,
        port=port.index,
        name=port.name,
        codec=port.codec,
        container=port.container,
        source=port.source.kind,
        input=str(port.source),
        without_signal=port.source.without_signal,
        audio_options=",".join(port.source.audio_options()),
        sound=port.source.sound(),
        recordings=port.recordings,
        revision=revision,
        filesystem=filesystem,
        rate=FPS.get(str(port.source.options.get("rate", "")), 0.0),
        stall_timeout_s=port.stall_timeout_s,
        start_timeout_s=port.start_timeout_s,
        sync_interval_s=port.sync_interval_s,
        stop_quit_s=port.stop_quit_s,
        stop_start_quit_s=port.stop_start_quit_s,
        stop_term_s=port.stop_term_s,
        file_name="" if port.file_name == DEFAULT else port.file_name,
        timecode="" if port.timecode == NONE else port.timecode,
    )


def timeout_stop_s(port: Port) -> int:
    """TimeoutStopSec=: the length of the whole ladder and a margin for closing the file, in seconds."""
    return round(max(port.stop_quit_s, port.stop_start_quit_s) + port.stop_term_s + STOP_MARGIN_S)


def template_directory() -> str:
    """The directory of the templates: in the installed package, or beside the package in a checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(here, "units")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(here), "units")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_directory()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )


class Plan(Record):
    """What has to change: text to write by path, paths to remove, and the text that is there now."""

    write: Mapping[str, str]
    remove: tuple[str, ...]
    current: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)

    def diff(self) -> str:
        """The changes as a unified diff."""
        parts: list[str] = []
        for path in sorted({*self.write, *self.remove}):
            old, new = self.current.get(path, ""), self.write.get(path, "")
            parts += difflib.unified_diff(
                _lines(old),
                _lines(new),
                path if path in self.current else "/dev/null",
                path if path in self.write else "/dev/null",
            )
        return "".join(parts)


def _lines(text: str) -> list[str]:
    """The lines with their ends. A last line without an end gets the note that diff prints for it."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n\\ No newline at end of file\n"
    return lines


def make_plan(wanted: Mapping[str, str], current: Mapping[str, str], ours: Iterable[str]) -> Plan:
    """Compare the wanted files with the current ones; `ours` are the paths that an earlier apply wrote.

    Raises SdisupError when a wanted path holds a file that sdisup did not write.
    """
    for path in wanted:
        if path in current and not current[path].startswith(_HEADERS):
            raise SdisupError(
                f"{path} was not written by sdisup, and is not overwritten",
                f"move it away, or put your changes into a drop-in: systemctl edit {os.path.basename(path)}",
            )
    write = {path: text for path, text in wanted.items() if current.get(path) != text}
    remove = tuple(
        path for path in sorted(set(ours)) if path not in wanted and current.get(path, "").startswith(_HEADERS)
    )
    return Plan(write, remove, {path: current[path] for path in (*write, *remove) if path in current})


def read_current(paths: Iterable[str]) -> dict[str, str]:
    """The text of the files that exist. What is no plain text file counts as foreign, so that it is left alone."""
    current = {}
    for path in paths:
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                current[path] = ""
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, encoding="utf-8", newline="") as file:
                current[path] = file.read(1 << 22)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            current[path] = ""
    return current


def carry_out(plan: Plan) -> None:
    """Write and remove all files or none: the first rename comes when every new file is on disk.

    Raises OSError; then nothing has changed, unless the disk itself failed between two renames.
    """
    staged: dict[str, str] = {}
    try:
        for path, text in plan.write.items():
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            staged[path] = stage_file(path, text.encode())
    except OSError:
        for temporary in staged.values():
            os.unlink(temporary)
        raise
    for path, temporary in staged.items():
        os.replace(temporary, path)
    for path in plan.remove:
        os.unlink(path)
    for directory in sorted({os.path.dirname(path) for path in (*plan.write, *plan.remove)}):
        sync_directory(directory)
        # The directory stays where an operator has a drop-in of their own in it.
        if directory.endswith(".service.d") and not os.listdir(directory):
            os.rmdir(directory)
