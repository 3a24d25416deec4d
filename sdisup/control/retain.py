"""Retention as commands have it: its rules and units put into effect, what would go, and a run at once."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping

from sdisup.config.settings import Settings
from sdisup.contract.files import boot_id, boottime_ns
from sdisup.contract.retention import (
    MIN_FREE,
    RULES_PATH,
    Report,
    Retention,
    load_rules,
    read_report,
    report_path,
    save_rules,
    size_text,
)
from sdisup.control.look import Look
from sdisup.control.systemd import DONE, Systemd
from sdisup.errors import SdisupError, root_hint
from sdisup.retention.clock import Mark
from sdisup.retention.survey import APPLIANCE, Places, Survey, survey, write_mark

SERVICE = "sdi-retention.service"
WATCHERS = ("sdi-retention.timer", "sdi-retention.path")
JOB_LIMIT_S = 10.0
RUN_LIMIT_S = 3600.0
"""A run that deletes 100,000 files waits for the ledger some hundred times."""


def stop_former(systemd: Systemd, retention: Retention, say: Callable[[str], None]) -> bool:
    """Without rules, stop what starts retention as long as its units are there: a timer whose service systemd no longer
    finds fails. Whether anything was stopped."""
    if retention or not os.path.lexists(RULES_PATH):
        return False
    states = systemd.units("sdi-retention.*")
    units = [name for name in WATCHERS if name in states and states[name].active != "inactive"]
    return _run(systemd, "Stop", units, say)


def put_into_effect(systemd: Systemd, retention: Retention, say: Callable[[str], None]) -> bool:
    """Write the rules, and start what starts retention; whether anything was changed. Raises SdisupError."""
    changed = False
    try:
        if save_rules(retention):
            say(f"wrote {RULES_PATH}")
            changed = True
    except OSError as error:
        raise SdisupError(f"{RULES_PATH}: {error.strerror}", root_hint(error, "sdisup apply")) from error
    if not retention:
        # What it could not do is no trouble any more.
        with contextlib.suppress(OSError):
            os.unlink(report_path())
        return changed
    states = systemd.units("sdi-retention.*")
    idle = [name for name in WATCHERS if name not in states or states[name].active != "active"]
    return _run(systemd, "Start", idle, say) or changed


def _run(systemd: Systemd, verb: str, units: list[str], say: Callable[[str], None]) -> bool:
    done = {"Start": "started", "Stop": "stopped"}[verb]
    for name, result in systemd.run_jobs(verb, units, JOB_LIMIT_S).items() if units else ():
        say(f"{done} {name}" if result == DONE else f"{name} could not be {done}: {result}")
    return bool(units)


def problems(settings: Settings, looks: Mapping[str, Look]) -> list[str]:
    """Rules that no disk of this machine can keep, each once."""
    found: dict[str, None] = {}
    for port in settings.ports.values():
        size_bytes, limit = looks[port.recordings].size_bytes, settings.retention.value(MIN_FREE, port.index)
        if 0 < size_bytes < limit:
            text = f"{port.recordings} is on a disk of {size_text(size_bytes)}"
            found[f"{text}, and retention.{MIN_FREE} asks for {size_text(limit)}: nothing is deleted for it"] = None
    return list(found)


def differs(retention: Retention) -> bool:
    """Whether the rules are others than those of the last apply."""
    try:
        return load_rules() != retention
    except ValueError:
        # What is there is written anew.
        return True


def look(places: Places = APPLIANCE) -> Survey:
    """What would go now. Raises SdisupError."""
    try:
        return survey(places)
    except (ValueError, OSError) as error:
        raise SdisupError(f"it cannot be told what would be deleted: {error}") from error


def confirm_clock(places: Places = APPLIANCE) -> None:
    """Say that the clock is right now. Root's: what goes for its age depends on it. Raises SdisupError."""
    mark = Mark(time.time(), boottime_ns() / 1e9, boot_id())
    try:
        os.makedirs(os.path.dirname(places.confirmed), mode=0o755, exist_ok=True)
        write_mark(places.confirmed, mark, durable=True)
    except OSError as error:
        hint = root_hint(error, "sdisup retention --confirm-clock")
        raise SdisupError(f"{places.confirmed}: {error.strerror}", hint) from error


def run() -> Report:
    """Let retention run now, and wait for its end. Raises SdisupError."""
    with Systemd() as systemd:
        result = systemd.run_jobs("Start", [SERVICE], RUN_LIMIT_S)[SERVICE]
    report = read_report()
    if result != DONE or report is None:
        raise SdisupError(f"{SERVICE} did not end well ({result})", f"see: journalctl -u {SERVICE}")
    return report
