"""`[offload.NAME]` as units: what the machine lacks for them, and their timers."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping

from sdisup.config.offloads import Offload
from sdisup.config.settings import Settings
from sdisup.contract.applied import Applied, AppliedOffload
from sdisup.control.bus import SystemdError
from sdisup.control.look import Look, directory_problem
from sdisup.control.systemd import DONE, Systemd
from sdisup.control.units import CREDENTIALS
from sdisup.offload.state import state_path

JOB_LIMIT_S = 15.0
WANTS_DIRECTORY = "/etc/systemd/system/timers.target.wants"


def directories(settings: Settings) -> list[str]:
    """The targets that are directories."""
    return [offload.target for offload in settings.offloads if offload.is_directory]


def applied_offloads(settings: Settings, filesystems: Mapping[str, str]) -> tuple[AppliedOffload, ...]:
    """What the processes and the commands need to know."""
    return tuple(
        AppliedOffload(
            offload.name,
            offload.target,
            offload.folder or folder_of(os.uname().nodename),
            offload.ports,
            offload.bandwidth_mbps,
            filesystems.get(offload.target, ""),
        )
        for offload in settings.offloads
    )


def problems(settings: Settings, looks: Mapping[str, Look], credentials: str = CREDENTIALS) -> list[str]:
    """What the machine lacks for the targets, each with the next step."""
    found = []
    remotes = [offload for offload in settings.offloads if not offload.is_directory]
    if remotes and not shutil.which("rclone"):
        found.append("there is no rclone, which copies to a remote: apt-get install rclone")
    for offload in settings.offloads:
        text = directory_problem(offload.target, looks[offload.target]) if offload.is_directory else ""
        text = text or ("" if offload.is_directory else _credentials_problem(offload, credentials))
        found += [f"offload {offload.name}: {text}"] if text else []
    return found


def _credentials_problem(offload: Offload, credentials: str) -> str:
    path = f"{credentials}/{offload.name}.conf"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        remote = offload.target.partition(":")[0]
        return f"{path} does not exist; it has rclone's section [{remote}], and is root's alone (docs/offload.md)"
    except OSError:
        # Who is not root cannot see.
        return ""
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is no regular file"
    if status.st_uid or status.st_mode & 0o077:
        return f"{path} can be read or changed by others than root: chown root: {path} && chmod 600 {path}"
    return ""


def folder_of(host: str) -> str:
    """The host's name as a folder's."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in host)[:63]
    return name.strip("-_.") or "sdisup"


def timers_to_enable(settings: Settings) -> set[str]:
    """Those that do not start with the machine yet."""
    names = (f"sdi-offload@{offload.name}.timer" for offload in settings.offloads)
    return {name for name in names if not os.path.lexists(f"{WANTS_DIRECTORY}/{name}")}


def stop_former(systemd: Systemd, before: Applied, now: Iterable[AppliedOffload], warn: Callable[[str], None]) -> None:
    """Stop what is no longer configured, as long as its units are there."""
    names = {offload.name for offload in now}
    former = [offload for offload in before.offloads if offload.name not in names]
    units = [unit for offload in former for unit in (offload.timer, offload.unit)]
    if units:
        for unit, result in systemd.run_jobs("Stop", units, JOB_LIMIT_S).items():
            if isinstance(result, SystemdError) and not result.name.endswith(".NoSuchUnit"):
                warn(f"{unit}: {result}")
    for offload in former:
        # As `systemctl disable` does, for which the unit would have to be there.
        for path in (f"{WANTS_DIRECTORY}/{offload.timer}", state_path(offload.name)):
            if os.path.lexists(path):
                os.unlink(path)


def start_timers(systemd: Systemd, offloads: Iterable[AppliedOffload], warn: Callable[[str], None]) -> list[str]:
    """Start the timers that do not run; returns those that were started."""
    offloads = list(offloads)
    states = systemd.units("sdi-offload@*.timer") if offloads else {}
    idle = [offload.timer for offload in offloads if _is_idle(states.get(offload.timer))]
    if not idle:
        return []
    results = systemd.run_jobs("Start", idle, JOB_LIMIT_S)
    for unit, result in results.items():
        if result != DONE:
            warn(f"{unit} has not been started ({result}); see: systemctl status {unit}")
    return [unit for unit, result in results.items() if result == DONE]


def _is_idle(state: object) -> bool:
    return state is None or getattr(state, "active", "") in ("inactive", "failed")
