"""How the ledger's process does, by its own word in /run; `sdisup status` and the accounts say it on stderr.

Nothing depends on it: a recording and an account are complete without the process; its events wait in the spools.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, Unreadable, boot_id, monotonic, read_fields, replace_file
from sdisup.contract.records import Record

SLOW_S = 3.0
"""A disk that takes longer for a write is said to hang."""
UNIT = "sdi-ledger.service"


def health_path(run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/ledger.json"


class Health(Record):
    """What the process says: what is wrong by port, and since when (CLOCK_MONOTONIC, seconds) a write waits."""

    pid: int
    boot_id: str
    writes_since: float | None
    ports: dict[str, str]


def write_health(run_directory: str, problems: dict[str, str], writes_since: float | None) -> None:
    """Say how it goes. Raises OSError."""
    health = Health(os.getpid(), boot_id(), writes_since, problems)
    replace_file(health_path(run_directory), lean.encode(health.as_dict()).encode())


def ledger_problem(run_directory: str = RUN_DIRECTORY) -> str:
    """What is wrong with the process as a whole, in the operator's words; empty while all is well."""
    try:
        return _ledger_problem(_said(run_directory), run_directory)
    except Unreadable as error:
        return str(error)


def _ledger_problem(said: Health | None, run_directory: str) -> str:
    if said is None:
        if not os.path.isdir(f"{run_directory}/ports"):
            # No port was ever started: there is nothing to enter.
            return ""
        return f"the ledger's process has not begun; events wait in {run_directory}/ports (systemctl start {UNIT})"
    if not _is_running(said.pid):
        return f"the ledger's process does not run; events wait in {run_directory}/ports (systemctl start {UNIT})"
    waits_s = 0.0 if said.writes_since is None else monotonic() - said.writes_since
    if waits_s > SLOW_S:
        return f"the ledger's disk does not answer for {waits_s:.0f} s; events wait in {run_directory}/ports"
    return ""


def port_problem(port_index: int, run_directory: str = RUN_DIRECTORY) -> str:
    """Why the ledger of a port lacks something, in the operator's words; empty while it does not."""
    try:
        said = _said(run_directory)
    except Unreadable:
        # ledger_problem() says it, once for all ports.
        return ""
    return said.ports.get(str(port_index), "") if said else ""


def all_problems(run_directory: str = RUN_DIRECTORY) -> list[str]:
    """What is wrong with the process and with each port's ledger, in the operator's words."""
    try:
        said = _said(run_directory)
    except Unreadable as error:
        return [str(error)]
    own = [f"port {index}: {text}" for index, text in said.ports.items()] if said else []
    problem = _ledger_problem(said, run_directory)
    return [problem, *own] if problem else own


def _said(run_directory: str) -> Health | None:
    """Its word of this boot, if there is one. Raises Unreadable."""
    try:
        fields = read_fields(health_path(run_directory))
    except FileNotFoundError:
        return None
    ports = fields.child("ports")
    health = fields.record(Health, ports={index: ports.text(index) for index in ports.names()})
    return health if health.boot_id == boot_id() else None


def _is_running(pid: int) -> bool:
    """Whether this process is the ledger's; any process can have got its number since."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"ledger" in file.read(4096).split(b"\0")
    except OSError:
        return False
