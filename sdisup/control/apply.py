"""`sdisup apply`: makes systemd's units what the configuration says, all of them or none.

Invariant 9: an invalid configuration changes nothing, and a second run changes nothing. A port that records is
interrupted only with `--restart`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from sdisup.config.codecs import SOFTWARE
from sdisup.config.settings import Port, Settings
from sdisup.contract.applied import APPLIED_PATH, Applied, AppliedPort, is_same, load_applied, save_applied
from sdisup.contract.disks import disk_path, forget_disks, remembered_disk
from sdisup.contract.files import monotonic
from sdisup.contract.filesystem import is_named, is_same_filesystem, is_system_disk
from sdisup.contract.records import Record
from sdisup.contract.requests import leave_stop_note
from sdisup.contract.retention import RULES_PATH
from sdisup.contract.schedules import SCHEDULES_PATH, Schedule, encode_schedules, load_schedules, save_schedules
from sdisup.contract.status import PortStatus
from sdisup.control import offloads, retain
from sdisup.control.bus import SystemdError
from sdisup.control.locks import is_hidden, rules
from sdisup.control.look import (
    PATIENT_TIMEOUT_S,
    Look,
    device_problem,
    directory_doubt,
    directory_problem,
    look_at,
)
from sdisup.control.observe import UNIT_PATTERN, statuses
from sdisup.control.overrides import unit_problems
from sdisup.control.ports import STOP_LIMIT_S
from sdisup.control.systemd import DONE, Systemd
from sdisup.control.units import (
    UNIT_DIRECTORY,
    Machine,
    Plan,
    Rendered,
    carry_out,
    drop_in_path,
    make_plan,
    offload_files,
    read_current,
    render,
)
from sdisup.control.wake import arm_all
from sdisup.encode import hardware
from sdisup.encode.command import Capabilities, missing_capabilities
from sdisup.encode.probe import pcm_in_mp4_problems, probe_ffmpeg
from sdisup.errors import SdisupError, root_hint

TARGET = "sdi-record.target"
WANTS_DIRECTORY = f"{UNIT_DIRECTORY}/{TARGET}.wants"
TARGET_WANT = f"{UNIT_DIRECTORY}/multi-user.target.wants/{TARGET}"
JOB_LIMIT_S = 15.0
LOCK_PATH, LOCK_WAIT_S = "/run/sdisup-apply.lock", 60.0
"""In a directory where only root makes files; an apply that restarts ports takes as long as their stops."""
NO_CAPABILITIES = Capabilities(version="", encoders=frozenset(), inputs=frozenset(), hybrid_fragmented=False)


@contextlib.contextmanager
def one_at_a_time(wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Keep other commands from changing the configuration or the units meanwhile. Raises SdisupError.

    What a command read before another one wrote, it would write back: all of them said that they were done.
    """
    try:
        descriptor = os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        # Who may not make it may not change the units either, and is told so by what fails first.
        yield
        return
    except OSError as error:
        raise SdisupError(f"{LOCK_PATH}: {error.strerror}") from error
    try:
        until = monotonic() + wait_s
        while not _is_taken(descriptor):
            if monotonic() > until:
                text = f"another sdisup has been changing the configuration for {wait_s:g} s; nothing was changed"
                raise SdisupError(text, "try again when it has ended: pgrep -a sdisup")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Prepared(Record):
    """What apply finds out before it changes anything. `kept` are ports that record and are no longer configured."""

    settings: Settings
    rendered: Rendered
    machine: Machine
    before: Applied
    plan: Plan
    warnings: list[str]
    kept: list[AppliedPort]
    schedules: dict[int, Schedule]


def prepare(
    settings: Settings,
    running: set[int],
    systemd_version: int,
    looks: Mapping[str, Look],
    *,
    accept_disks: bool = False,
) -> Prepared:
    """Check, render and compare; change nothing. The unit files of ports that are `running` are not removed.

    `looks` are at the directories of the recordings, and at the nodes of the sources.
    """
    warnings = [*settings.warnings, *settings.overridden_of()]
    schedules = _schedules(settings)
    try:
        before = load_applied()
    except SdisupError as error:
        warnings.append(f"{error.message}; it is written anew")
        before = Applied({}, [])
    looks_at = {path: looks[path] for path in settings.directories()}
    filesystems = _filesystems(looks_at, _remembered_disks(settings, before), warnings, accept_disks)
    offload_looks = {path: looks[path] for path in offloads.directories(settings)}
    remembered = {offload.target: offload.filesystem for offload in before.offloads}
    filesystems |= _filesystems(offload_looks, remembered, warnings, accept_disks, "copied to")
    warnings += offloads.problems(settings, looks)
    groups = tuple((path, looks[path].group) for path in _nodes(settings) if looks[path].group)
    capabilities = _capabilities(settings, warnings)
    settings = _with_encoders(settings, capabilities, running, looks, warnings)
    machine = Machine(capabilities, systemd_version, filesystems, groups)
    warnings += _directory_warnings(looks_at, filesystems)
    warnings += retain.problems(settings, looks_at)
    rendered = render(settings, machine)
    kept = [port for index, port in before.ports.items() if index in running and index not in settings.ports]
    others = {**rules([*settings.ports.values(), *kept]), **offload_files(settings)}
    rendered = rendered.replaced(files={**rendered.files, **others})
    ours = {*before.files, *glob.glob(drop_in_path(0).replace("@0", "@*"))} - {
        drop_in_path(index) for index in running - set(settings.ports)
    }
    # What this user may not look for is taken for what it should be.
    hidden = {path for path in (*rendered.files, *ours) if is_hidden(path)}
    current = read_current({*rendered.files, *ours} - hidden)
    current |= {path: rendered.files[path] for path in hidden if path in rendered.files}
    plan = make_plan(rendered.files, current, ours)
    return Prepared(settings, rendered, machine, before, plan, warnings, kept, schedules)


def _schedules(settings: Settings) -> dict[int, Schedule]:
    if not any(port.schedule for port in settings.ports.values()):
        return {port.index: Schedule((), port.pre_roll_s, port.post_roll_s) for port in settings.ports.values()}
    from sdisup.control.calendars import schedules_of

    return schedules_of(settings)


def _looked_at(settings: Settings) -> list[str]:
    return [*settings.directories(), *offloads.directories(settings), *_nodes(settings)]


def _nodes(settings: Settings) -> list[str]:
    ports = settings.ports.values()
    return [node for port in ports for node in (*port.source.nodes(), *hardware.candidate_nodes(port))]


def _remembered_disks(settings: Settings, before: Applied) -> dict[str, str]:
    """By directory of recordings: the filesystem of the last apply, else the one that runners saw first."""
    ports = settings.ports.values()
    seen = {port.recordings: remembered_disk(disk_path(port.index), port.recordings) for port in ports}
    return seen | {port.recordings: port.filesystem for port in before.ports.values() if port.filesystem}


def _filesystems(
    looks: Mapping[str, Look],
    remembered: Mapping[str, str],
    warnings: list[str],
    accept_disks: bool,
    used: str = "recorded to",
) -> dict[str, str]:
    """The filesystem that each directory of recordings has to be on. It stays what is `remembered` unless
    `accept_disks`: an apply while a disk is not mounted must not accept the disk's empty mount point."""
    found: dict[str, str] = {}
    for directory, look in looks.items():
        former = remembered.get(directory, "")
        # Where the directory is missing, or its disk hangs, _directory_warnings says so.
        now = look.filesystem or former
        if former and not accept_disks:
            if not is_same_filesystem(former, now):
                warnings.append(
                    f"{directory} is on {now}, not on {former} as when it was last applied, and is not "
                    f"{used}: mount the disk; or, if this is meant, run: sdisup apply --accept-disks"
                )
                now = former
            elif is_named(former):
                # Another kernel than at the last apply may not tell the filesystem's name.
                now = former
        # A directory on the system's own disk may have another disk mounted on it later.
        found[directory] = "" if is_system_disk(now) else now
    return found


def _directory_warnings(looks: Mapping[str, Look], filesystems: Mapping[str, str]) -> list[str]:
    """What keeps ports from recording to a directory, or is doubtful about it."""
    # A mount point whose disk is not mounted is not recorded to.
    right = {path: filesystems[path] for path in looks if path in filesystems}
    used = [path for path in right if not right[path] or is_same_filesystem(right[path], looks[path].filesystem)]
    doubts = [directory_doubt(path, looks[path]) for path in used]
    return [text for text in (*(directory_problem(path, look) for path, look in looks.items()), *doubts) if text]


def _capabilities(settings: Settings, warnings: list[str]) -> Capabilities:
    """What the configured FFmpeg can do; what it lacks for the ports is a warning, not an error."""
    try:
        capabilities = probe_ffmpeg(settings.ffmpeg)
    except SdisupError as error:
        warnings.append(str(error))
        return NO_CAPABILITIES
    warnings += missing_capabilities(settings.ports.values(), settings.ffmpeg, capabilities)
    try:
        warnings += pcm_in_mp4_problems(settings.ports.values(), settings.ffmpeg)
    except SdisupError as error:
        warnings.append(str(error))
    return capabilities


def _with_encoders(
    settings: Settings, capabilities: Capabilities, running: set[int], looks: Mapping[str, Look], warnings: list[str]
) -> Settings:
    """The settings with an encoder for each port that leaves it to us; what was chosen, and why, is a warning."""
    ports = settings.ports
    if all(port.encoder == SOFTWARE for port in ports.values()) or not capabilities.encoders:
        return settings
    from sdisup.encode.trial import choose_encoders, describe

    kept = {index: way for index in running if index in ports and (way := applied_way(ports[index]))}
    choices = choose_encoders(ports.values(), settings.ffmpeg, capabilities, kept, closed_ways(looks))
    warnings += describe(ports, choices)
    chosen = {index: ports[index].replaced(encoder=choice.encoder) for index, choice in choices.items()}
    return settings.replaced(ports=MappingProxyType({**ports, **chosen}))


def closed_ways(looks: Mapping[str, Look]) -> dict[str, str]:
    """The ways to encode on a card whose device node no port can open, each with the reason."""
    node = hardware.RENDER_NODE
    problem = device_problem(node, looks[node], hardware.RENDER_GROUP) if node in looks else ""
    return {way: problem for way, nodes in hardware.NODES.items() if problem and node in nodes}


def applied_way(port: Port) -> str:
    """How a graphics card encodes the port by its unit of the last apply; "" if none does."""
    try:
        with open(drop_in_path(port.index), encoding="utf-8") as file:
            found = re.search(rf" -c:v {port.codec}_([a-z]+) ", file.read())
    except OSError:
        return ""
    return found[1] if found else ""


def running_ports(systemd: Systemd) -> set[int]:
    """The ports whose unit is neither inactive nor failed."""
    units = systemd.units(UNIT_PATTERN)
    return {
        int(name.removeprefix("sdi-record@").removesuffix(".service"))
        for name, state in units.items()
        if state.active not in ("inactive", "failed") and name[11:-8].isdigit()
    }


def dry_run(
    settings: Settings, *, restart: bool, accept_disks: bool = False, unlock: bool = False
) -> tuple[str, list[str], list[str]]:
    """A unified diff of the files that apply would change, a line for each other step of it, and its warnings."""
    looks = look_at(_looked_at(settings), PATIENT_TIMEOUT_S)
    with Systemd() as systemd:
        running = running_ports(systemd)
        orphans = _orphans(settings, running, unlock) if restart else set()
        prepared = prepare(settings, running - orphans, systemd.version(), looks, accept_disks=accept_disks)
        applied = _applied(prepared)
        start, pending = _due(systemd, applied)
        known = [port for index, port in prepared.before.ports.items() if index in settings.ports]
        found = unit_problems(systemd, known)
    enable, disable = _boot_changes(prepared)
    consequences = [
        *([f"write {SCHEDULES_PATH}"] if _differs(prepared.schedules) else []),
        *([f"write {RULES_PATH}"] if retain.differs(settings.retention) else []),
        *(f"stop port {index}, which is no longer configured" for index in sorted(orphans)),
        *(f"enable {unit} for boot" for unit in sorted(enable)),
        *(f"disable {unit} for boot" for unit in sorted(disable)),
        *(f"start {applied.ports[index].label}" for index in start),
        *(f"{'leave' if _stays(applied.ports[index], restart, unlock) else 'restart'} {applied.ports[index].label}, "
          f"which {what} with its former unit" for index, what in pending.items()),
        *([f"write {APPLIED_PATH}"] if not is_same(applied, prepared.before) else []),
    ]  # fmt: skip
    return prepared.plan.diff(), consequences, prepared.warnings + found


def _differs(schedules: dict[int, Schedule]) -> bool:
    """Whether the ports' schedules are others than those of the last apply."""
    try:
        return encode_schedules(schedules) != encode_schedules(load_schedules())
    except SdisupError:
        return True


def apply(
    settings: Settings,
    *,
    restart: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    accept_disks: bool = False,
    unlock: bool = False,
) -> None:
    """Put `settings` into effect. `say` gets a line for each change, `warn` one for what the operator should know.

    `restart` stops and restarts ports as they need it, locked ones with `unlock` alone.
    """
    looks = look_at(_looked_at(settings), PATIENT_TIMEOUT_S)
    with Systemd() as systemd:
        running = running_ports(systemd)
        version = systemd.version()
        orphans = _orphans(settings, running, unlock) if restart else set()
        if orphans:
            # Raises if the configuration cannot be applied, before any port is stopped.
            prepare(settings, running, version, looks, accept_disks=accept_disks)
            orphans = _stop_orphans(systemd, orphans)
        prepared = prepare(settings, running - orphans, version, looks, accept_disks=accept_disks)
        for warning in prepared.warnings:
            warn(warning)
        applied = _applied(prepared)
        offloads.stop_former(systemd, prepared.before, applied.offloads, warn)
        changed = retain.stop_former(systemd, settings.retention, say)
        changed |= _write(prepared, say)
        changed |= _set_boot(systemd, prepared, say, warn)
        # An apply that was interrupted after it wrote the files has left units that systemd has not read.
        if changed or applied.revisions() != prepared.before.revisions():
            systemd.reload()
        if accept_disks:
            forget_disks(applied.ports)
        if save_schedules(prepared.schedules):
            say(f"wrote {SCHEDULES_PATH}")
            changed = True
        changed |= retain.put_into_effect(systemd, settings.retention, say)
        if save_applied(applied):
            say(f"wrote {APPLIED_PATH}")
            changed = True
        stays = functools.partial(_stays, restart=restart, unlock=unlock)
        changed |= _follow_up(systemd, applied, prepared, stays, say, warn)
        changed |= arm_all(systemd, say)
        for unit in offloads.start_timers(systemd, applied.offloads, warn):
            say(f"started {unit}")
            changed = True
    if not changed:
        say("nothing to change")


def _stays(port: AppliedPort, restart: bool, unlock: bool) -> bool:
    """Whether a port goes on with its former unit."""
    return not restart or (port.lock and not unlock)


def _orphans(settings: Settings, running: set[int], unlock: bool) -> set[int]:
    """The ports that run, are no longer configured, and may be stopped: where one was locked, `unlock` says so."""
    try:
        locked = {index for index, port in load_applied().ports.items() if port.lock}
    except SdisupError:
        # `prepare` says that it cannot be read.
        locked = set()
    return running - set(settings.ports) - (set() if unlock else locked)


def _stop_orphans(systemd: Systemd, orphans: set[int]) -> set[int]:
    """Stop ports that are no longer configured. Returns those that were stopped."""
    for index in orphans:
        leave_stop_note(index, "apply")
    units = {index: f"sdi-record@{index}.service" for index in sorted(orphans)}
    results = systemd.run_jobs("Stop", units.values(), STOP_LIMIT_S)
    return {index for index, unit in units.items() if results[unit] == DONE}


def _write(prepared: Prepared, say: Callable[[str], None]) -> bool:
    try:
        carry_out(prepared.plan)
    except OSError as error:
        raise SdisupError(f"{error.filename}: {error.strerror}", root_hint(error, "sdisup apply")) from error
    for path in prepared.plan.write:
        say(f"wrote {path}")
    for path in prepared.plan.remove:
        say(f"removed {path}")
    return bool(prepared.plan)


def _applied(prepared: Prepared) -> Applied:
    ports = {
        port.index: AppliedPort(
            port.index,
            port.name,
            port.codec,
            port.recordings,
            port.record_at_boot,
            prepared.rendered.revisions[port.index],
            prepared.machine.filesystems.get(port.recordings, ""),
            prepared.settings.overridden_of(port.index),
            port.space_warning_h,
            port.lock,
        )
        for port in prepared.settings.ports.values()
    }
    files = list(prepared.rendered.files)
    for port in prepared.kept:
        # The port records on, and status goes on showing it; the first apply after its stop removes it.
        ports[port.index] = port.replaced(record_at_boot=False, overridden=())
        files.append(drop_in_path(port.index))
    filesystems = prepared.machine.filesystems
    return Applied(dict(sorted(ports.items())), files, offloads.applied_offloads(prepared.settings, filesystems))


def _boot_changes(prepared: Prepared) -> tuple[set[str], set[str]]:
    """The units to enable and to disable, so that `record_at_boot` alone decides what records at boot."""
    wanted = {f"sdi-record@{port.index}.service" for port in prepared.settings.ports.values() if port.record_at_boot}
    enabled = set(os.listdir(WANTS_DIRECTORY)) if os.path.isdir(WANTS_DIRECTORY) else set()
    unwanted = {unit for unit in enabled - wanted if unit.startswith("sdi-record@")}
    return (wanted - enabled) | offloads.timers_to_enable(prepared.settings), unwanted


def _set_boot(systemd: Systemd, prepared: Prepared, say: Callable[[str], None], warn: Callable[[str], None]) -> bool:
    """Enable and disable units for boot. What `systemctl enable` or `disable` changed is undone, with a warning."""
    before = {port.unit: port.record_at_boot for port in prepared.before.ports.values()}
    enable, disable = _boot_changes(prepared)
    for unit in sorted(enable):
        if before.get(unit) is True:
            warn(f"{unit} was disabled with systemctl, but record_at_boot is true; enabled again")
        say(f"enabled {unit} for boot")
    for unit in sorted(disable):
        if before.get(unit) is False:
            warn(f"{unit} was enabled with systemctl, but record_at_boot is not set; disabled again")
        say(f"disabled {unit} for boot")
    if not os.path.lexists(TARGET_WANT):
        enable.add(TARGET)
    for error in turn(systemd, enable, disable).values():
        warn(str(error))
    return bool(enable or disable)


def turn(systemd: Systemd, enable: Iterable[str], disable: Iterable[str]) -> dict[str, SystemdError]:
    """Enable and disable units for boot. What keeps one from it (it is masked) keeps no other; returns the errors.

    All are tried at once: systemd looks at each of them before it makes the first link.
    """
    errors: dict[str, SystemdError] = {}
    for units, value in ((sorted(enable), True), (sorted(disable), False)):
        try:
            if units:
                _set(systemd, units, value)
        except SystemdError as refused:
            errors |= _one_by_one(systemd, units, value) if len(units) > 1 else {units[0]: refused}
    return errors


def _set(systemd: Systemd, units: Iterable[str], value: bool) -> None:
    systemd.set_enabled(*((units, ()) if value else ((), units)))


def _one_by_one(systemd: Systemd, units: Iterable[str], value: bool) -> dict[str, SystemdError]:
    errors: dict[str, SystemdError] = {}
    for unit in units:
        try:
            _set(systemd, [unit], value)
        except SystemdError as error:
            errors[unit] = error
    return errors


def _due(systemd: Systemd, applied: Applied) -> tuple[list[int], dict[int, str]]:
    """The ports that should record and do not, and those whose runner was started from an older unit: what they do."""
    found = statuses(list(applied.ports.values()), systemd)
    # What a power cut ended goes on by hand: as it is configured it would be without its take.
    by_hand = {index for index, port in applied.ports.items() if not port.record_at_boot}
    due = [s for s in found if s.should_record and s.state in ("stopped", "failed")]
    start = [s.port_index for s in due if s.state == "failed" or s.port_index not in by_hand]
    return start, {s.port_index: _at_work(s) for s in found if s.config_pending}


def _at_work(status: PortStatus) -> str:
    """What a port does that was started from an older unit."""
    return "records on" if status.is_recording else f"does not record ({status.state}) and goes on trying"


def _follow_up(
    systemd: Systemd,
    applied: Applied,
    prepared: Prepared,
    stays: Callable[[AppliedPort], bool],
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> bool:
    """Start the ports that should record and do not; restart those with an older unit, or only report them."""
    start, pending = _due(systemd, applied)
    for text in unit_problems(systemd, applied.ports.values()):
        warn(text)
    for port in prepared.kept:
        stop = f"sdisup stop {port.index}{' --unlock' if port.lock else ''}"
        warn(f"{port.label} is no longer configured but records; {stop}, then sdisup apply again")
    for port, what in [(applied.ports[index], what) for index, what in pending.items()]:
        if stays(port):
            locked, again = ("is locked and ", " --unlock") if port.lock else ("", "")
            warn(f"{port.label} {locked}{what} with its former unit; sdisup apply --restart{again} or "
                 f"sdisup restart {port.index}{again} makes it take the new one")  # fmt: skip
            del pending[port.index]
    # A restart begins with a stop, which takes as long as the source may block FFmpeg.
    for verb, indexes, limit_s in (("Start", start, JOB_LIMIT_S), ("Restart", list(pending), STOP_LIMIT_S)):
        units = [applied.ports[index].unit for index in indexes]
        if not units:
            continue
        results: dict[str, str | SystemdError] = dict(systemd.reset_all(units))
        if verb == "Restart":
            for index in indexes:
                leave_stop_note(index, "apply")
        results |= systemd.run_jobs(verb, [unit for unit in units if unit not in results], limit_s, JOB_LIMIT_S)
        for index in indexes:
            result = results[applied.ports[index].unit]
            if result == DONE:
                say(f"{verb.lower()}ed {applied.ports[index].label}")
            else:
                warn(f"{applied.ports[index].label} has not begun to record ({result}); see: sdisup status {index}")
    return bool(start or pending)
