"""What an operator's own drop-ins (`systemctl edit`) make of a port's unit: they win over what apply wrote."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from sdisup.contract.applied import AppliedPort
from sdisup.contract.options import OptionError, parse_options
from sdisup.control.bus import SystemdError
from sdisup.control.systemd import Loaded, Systemd
from sdisup.control.units import RUNNER

SHOWN_LENGTH = 80


def unit_problems(systemd: Systemd, ports: Iterable[AppliedPort]) -> list[str]:
    """Why ports will not record, as far as their units tell, each with the next step."""
    problems = []
    for port in ports:
        try:
            problem = unit_problem(port, systemd.loaded(port.unit))
        except SystemdError as error:
            problem = str(error)
        if problem:
            problems.append(f"{port.label}: {problem}")
    return problems


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
