"""How the ledger's process does, by its own word in /run; `sdisup status` and the accounts say it on stderr.

Nothing depends on it: a recording and an account are complete without the process; its events wait in the spools.
"""

from __future__ import annotations

import json
import os

from sdisup.contract.files import RUN_DIRECTORY, boot_id, monotonic, read_json, replace_file

SLOW_S = 3.0
"""A disk that takes longer for a write is said to hang."""
UNIT = "sdi-ledger.service"


def health_path(run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/ledger.json"


def write_health(run_directory: str, problems: dict[str, str], writes_since: float | None) -> None:
    """Say how it goes: what is wrong by port, and since when (CLOCK_MONOTONIC) a write waits for the disk."""
    content = {"pid": os.getpid(), "boot_id": boot_id(), "writes_since": writes_since, "ports": problems}
    replace_file(health_path(run_directory), json.dumps(content).encode())


def ledger_problem(run_directory: str = RUN_DIRECTORY) -> str:
    """What is wrong with the process as a whole, in the operator's words; empty while all is well."""
    return _ledger_problem(_said(run_directory), run_directory)


def _ledger_problem(said: dict[str, object] | None, run_directory: str) -> str:
    if said is None:
        if not os.path.isdir(f"{run_directory}/ports"):
            # No port was ever started: there is nothing to enter.
            return ""
        return f"the ledger's process has not begun; events wait in {run_directory}/ports (systemctl start {UNIT})"
    pid, since = said.get("pid"), said.get("writes_since")
    if not _is_running(pid):
        return f"the ledger's process does not run; events wait in {run_directory}/ports (systemctl start {UNIT})"
    if isinstance(since, int | float) and monotonic() - since > SLOW_S:
        waits_s = monotonic() - since
        return f"the ledger's disk does not answer for {waits_s:.0f} s; events wait in {run_directory}/ports"
    return ""


def port_problem(port_index: int, run_directory: str = RUN_DIRECTORY) -> str:
    """Why the ledger of a port lacks something, in the operator's words; empty while it does not."""
    return _problems(_said(run_directory)).get(str(port_index), "")


def all_problems(run_directory: str = RUN_DIRECTORY) -> list[str]:
    """What is wrong with the process and with each port's ledger, in the operator's words."""
    said = _said(run_directory)
    problem = _ledger_problem(said, run_directory)
    own = [f"port {index}: {text}" for index, text in _problems(said).items()]
    return [problem, *own] if problem else own


def _problems(said: dict[str, object] | None) -> dict[str, str]:
    ports = said.get("ports") if said else None
    return {str(index): str(text) for index, text in ports.items()} if isinstance(ports, dict) else {}


def _said(run_directory: str) -> dict[str, object] | None:
    try:
        said = read_json(health_path(run_directory))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("boot_id") == boot_id() else None


def _is_running(pid: object) -> bool:
    """Whether this process is the ledger's; any process can have got its number since."""
    if type(pid) is not int:
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"ledger" in file.read(4096).split(b"\0")
    except OSError:
        return False
