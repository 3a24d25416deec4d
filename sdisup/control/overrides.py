"""What an operator's own drop-ins (`systemctl edit`) make of a port's unit: they win over what apply wrote."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
from collections.abc import Iterable

from sdisup.contract.applied import AppliedPort
from sdisup.contract.options import OptionError, parse_options
from sdisup.control.bus import SystemdError
from sdisup.control.systemd import Loaded, Systemd
from sdisup.control.units import RUNNER, UNIT_DIRECTORY, drop_in_path

SHOWN_LENGTH = 80
COMMAND_WITHIN_BYTES = 1 << 20
"""systemd reads no line of a unit that is longer (systemd.syntax(7))."""


def unit_problems(systemd: Systemd, ports: Iterable[AppliedPort]) -> list[str]:
    """Why ports will not record, as far as their units tell, each with the next step.

    systemd is asked once for all of them, and then only for the commands of those with a file of somebody's own that
    may hold another one.
    """
    asked = {port.unit: port for port in ports}
    try:
        states = dict(zip(asked, systemd.load(list(asked)), strict=True)) if asked else {}
        is_own = has_own_command(systemd.unit_path()) if asked else set()
    except SystemdError as error:
        return [str(error)]
    problems = []
    for unit, state in states.items():
        if state.load == "loaded" and not is_own & {unit, TEMPLATE}:
            continue
        try:
            commands = systemd.commands(state) if state.load == "loaded" else []
            problem = unit_problem(asked[unit], Loaded(state.load, commands))
        except SystemdError as error:
            problem = str(error)
        if problem:
            problems.append(f"{asked[unit].label}: {problem}")
    return problems


TEMPLATE = "sdi-record@.service"
OWN_FILES = (f"{UNIT_DIRECTORY}/{TEMPLATE}", drop_in_path(0).replace("@0", "@*"))
"""What apply writes, which says what it should."""
_UNIT = re.compile(r"(?:|sdi-\.|sdi-(?:record)?@(?P<instance>[^.]*)\.)service(?:\.d)?")


def has_own_command(unit_path: Iterable[str]) -> set[str]:
    """The units of ports that may have another ExecStart= than apply wrote, by the files in the directories of the unit
    path; TEMPLATE among them if all may.

    A unit is made of its own file, its template's, and the drop-ins of both, of `sdi-.service` and of `service`
    (systemd.unit(5)). It is not told from these files what holds, only whom systemd has to be asked about.
    """
    found = set()
    for directory in unit_path:
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            match = _UNIT.fullmatch(name)
            if match and any(_holds_command(path) for path in _files(f"{directory}/{name}")):
                instance = match["instance"]
                found.add(f"sdi-record@{instance}.service" if instance else TEMPLATE)
    return found


def _files(path: str) -> list[str]:
    """The file of a unit, or its drop-ins, without those that apply writes."""
    found = glob.glob(f"{glob.escape(path)}/*.conf") if os.path.isdir(path) else [path]
    return [file for file in found if not any(fnmatch.fnmatchcase(file, own) for own in OWN_FILES)]


def _holds_command(path: str) -> bool:
    """Whether a file of a unit may name a command; so may one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return b"ExecStart" in file.read(COMMAND_WITHIN_BYTES)
    except OSError:
        return True


def unit_problem(port: AppliedPort, loaded: Loaded) -> str:
    """Why a unit does not record its port; "" if it does."""
    mend = f"mend it: systemctl edit {port.unit.removesuffix('.service')}"
    if loaded.state == "masked":
        return f"{port.unit} is masked and does not start; systemctl unmask {port.unit}"
    if loaded.state != "loaded":
        return f"systemd does not take {port.unit} ({loaded.state}); see: systemd-analyze verify {port.unit}"
    words = loaded.commands[0] if loaded.commands else []
    # Another program may come before the runner, such as nice.
    begin = next((at for at in range(len(words) - 1) if tuple(words[at : at + 2]) == RUNNER[-2:]), None)
    if begin is None:
        shown = shlex.join(words)
        shown = f"{shown[:SHOWN_LENGTH]}..." if len(shown) > SHOWN_LENGTH else shown
        return f"ExecStart= of {port.unit} is not sdisup's but {shown!r}, and nothing can be told of it; {mend}"
    try:
        # What it does not understand the runner says itself, and records.
        options = parse_options(words[begin + 2 :], lambda _: None)
    except OptionError as error:
        return f"ExecStart= of {port.unit} is wrong: {error}; {mend}"
    if options.port != port.index:
        return f"ExecStart= of {port.unit} is that of port {options.port}; {mend}"
    return ""
