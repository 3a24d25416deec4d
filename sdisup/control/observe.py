"""The status of ports: by their files, and by systemd only where a port's files do not settle its state.

This module imports nothing that is slow to load, since `sdisup status` runs it.
"""

from __future__ import annotations

import os

from sdisup.contract.applied import AppliedPort, is_port_number
from sdisup.contract.files import RUN_DIRECTORY, boot_id, boottime_ns, monotonic, utc_text
from sdisup.contract.filesystem import POOLED, pool_of
from sdisup.contract.records import Record
from sdisup.contract.status import (
    AUTO_RESTART,
    STALE_AFTER_S,
    PortStatus,
    find_status,
    is_alive,
    is_full,
    is_timed,
    listed,
    lock_path,
    read_status,
    settle,
)
from sdisup.control.space import share_space, space_warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

    from sdisup.contract.mounts import Mount
    from sdisup.contract.retention import Report
    from sdisup.control.bus import Bus
    from sdisup.control.systemd import Systemd

FULL = f"{RUN_DIRECTORY} is full, and the runner cannot say how it goes; make room: df {RUN_DIRECTORY}"
RETENTION_STALE_S = 7200.0
"""Retention runs each few minutes, and may run for an hour (units/sdi-retention.service.j2)."""
OF_ALL = ("clock", "ledger", "retention")
"""By what names retention tells what is no matter of one disk (retention/main.py, retention/survey.py)."""
UNIT_PATTERN = "sdi-record@*.service"


def statuses(ports: Sequence[AppliedPort], systemd: Bus | Systemd | None = None) -> list[PortStatus]:
    """The status of each port, in the same order; `reason` says where a status could not be read."""
    found = [_observe(port) for port in ports]
    unsettled = [entry for entry in found if entry.settled is None]
    if unsettled:
        _ask_systemd(unsettled, systemd)
    result = [entry.result() for entry in found]
    _add_times(ports, result)
    spaces = _Spaces()
    if any(status.is_recording for status in result):
        _look_at_space(result, {port.index: port.space_warning_h for port in ports}, spaces)
    spaces.tell_problems(result)
    return result


def _add_times(ports: Sequence[AppliedPort], found: Sequence[PortStatus]) -> None:
    """Set `starts_at` and `ends_at`, which no runner knows."""
    left = listed()
    for port, status in zip(ports, found, strict=True):
        request_id = "" if status.state in ("stopped", "failed") else status.request_id
        known = left.get(port.index, set())
        status.update(starts_at=None, ends_at=None)
        if known or is_timed(request_id):
            from sdisup.contract.orders import times_of

            starts_at, ends_at = times_of(port.index, port.recordings, request_id, known)
            status.update(
                starts_at=None if starts_at is None else utc_text(starts_at),
                ends_at=None if ends_at is None else utc_text(ends_at),
            )


def full_statuses(ports: Sequence[AppliedPort]) -> list[PortStatus]:
    """What statuses() says, with what is wrong beneath the recordings: for whoever looks now and then."""
    from sdisup.control import beneath

    found = statuses(ports)
    texts = beneath.troubles(dict.fromkeys(port.recordings for port in ports))
    for port, status in zip(ports, found, strict=True):
        status.update(warnings=(*status.warnings, *texts[port.recordings]))
    return found


def space_warnings(ports: Iterable[AppliedPort]) -> list[str]:
    """Which disks are full soon, by the word of the ports that record: systemd is not asked."""
    found = _recording(set())
    _look_at_space(found, {port.index: port.space_warning_h for port in ports}, _Spaces())
    return list(dict.fromkeys(text for status in found for text in status.warnings))


def _look_at_space(found: Sequence[PortStatus], limits_h: Mapping[int, float], spaces: _Spaces) -> None:
    """Set for how long each of these ports can record, and warn of what is full soon."""
    others = _recording({status.port_index for status in found})
    for sharing in share_space([*found, *others], spaces.name, spaces.freeable_bytes):
        for status in sharing:
            text = space_warning(status, sharing, limits_h.get(status.port_index, 0.0))
            status.update(warnings=(text,) if text else ())


class _Spaces:
    """What ports fill: a filesystem, or the pool that a filesystem is a part of."""

    def __init__(self) -> None:
        self._mounts: list[Mount] = []
        self._report = _retention_report()
        self._freeable = self._report.freeable_bytes if self._report else {}

    def name(self, status: PortStatus) -> str:
        """A name, the same for all ports that fill the same."""
        kind = status.filesystem.partition(":")[0]
        mount = self._mount(status) if kind in POOLED else None
        return pool_of(mount.kind, mount.source) if mount and mount.kind == kind else status.filesystem

    def freeable_bytes(self, status: PortStatus) -> int:
        """What retention may delete there."""
        return self._freeable.get(self._name_of_retention(status), 0) if self._freeable else 0

    def _name_of_retention(self, status: PortStatus) -> str:
        """As retention names it (retention/disk.py, space_of)."""
        mount = self._mount(status)
        if mount is None:
            return ""
        return pool_of(mount.kind, mount.source) if mount.kind in POOLED else mount.device

    def tell_problems(self, found: Sequence[PortStatus]) -> None:
        """Warn of what retention cannot do, and give it as the reason of a port whose disk gets full for it."""
        problems = self._report.problems if self._report else {}
        for status in found if problems else ():
            space = self._name_of_retention(status)
            texts = [text for name, text in problems.items() if _is_about(name, status.recordings, space)]
            status.update(warnings=(*status.warnings, *texts), reason=status.reason or problems.get(space, ""))

    def _mount(self, status: PortStatus) -> Mount | None:
        from sdisup.contract.mounts import mount_of, read_mounts

        self._mounts = self._mounts or read_mounts()
        return mount_of(status.recordings, self._mounts)


def _is_about(name: str, recordings: str, space: str) -> bool:
    """Whether a problem of retention by this name is one for a port: of its directory, of its disk, or of all."""
    return name == space or name in OF_ALL or f"{name}/".startswith(f"{recordings}/")


def _retention_report() -> Report | None:
    """What retention said at its last run; None where it does not run."""
    if not os.path.exists(f"{RUN_DIRECTORY}/retention.json"):
        return None
    from sdisup.contract.retention import read_report

    report = read_report(RUN_DIRECTORY)
    return report if report is not None and boottime_ns() / 1e9 - report.at < RETENTION_STALE_S else None


def _recording(asked: Set[int]) -> list[PortStatus]:
    """The ports that record by their own word, but for those that were asked for: they fill the same disks."""
    this_boot, now = boot_id(), monotonic()
    try:
        listed = os.listdir(RUN_DIRECTORY)
    except FileNotFoundError:
        return []
    names = (name.removesuffix(".json") for name in listed if name.endswith(".json"))
    others = [find_status(int(name)) for name in names if is_port_number(name) and int(name) not in asked]
    return [
        other
        for other in others
        if other and other.is_recording and other.boot_id == this_boot and now - other.updated_monotonic < STALE_AFTER_S
    ]


class _Observation(Record, frozen=False):
    """What a port's files say. `settled` is the state and its reason; None while only systemd can tell."""

    port: AppliedPort
    record: PortStatus | None
    trouble: str
    this_boot: str
    settled: tuple[str, str] | None = None

    def settle(self, unit_state: str | None) -> None:
        alive = is_alive(self.record)
        self.settled = settle(
            self.record, alive=alive, unit_state=unit_state, now_monotonic=monotonic(), this_boot=self.this_boot
        )
        if self.settled == ("starting", "") and not alive:
            trouble = self.trouble or (FULL if os.path.isdir(RUN_DIRECTORY) and is_full() else "")
            self.settled = ("unknown", trouble) if trouble else self.settled

    def result(self) -> PortStatus:
        port, record = self.port, self.record
        state, reason = self.settled or ("unknown", self.trouble)
        if record is None or record.boot_id != self.this_boot:
            status = PortStatus(port_index=port.index, codec=port.codec)
        else:
            status = record.replaced()
        # A unit that has run since boot and is inactive was stopped, whatever its last runner had time to say.
        has_run = (record is not None and record.boot_id == self.this_boot) or os.path.lexists(lock_path(port.index))
        alive = state not in ("stopped", "failed", "unknown")
        should_record = state != "stopped" or (port.record_at_boot and not has_run)
        if not (should_record or has_run):
            lost = _cut_off(port)
            should_record, reason = bool(lost), lost or reason
        status.update(
            name=port.name,
            unit=port.unit,
            state=state,
            is_recording=state == "recording",
            reason=reason,
            recordings=status.recordings or port.recordings,
            config_pending=alive and bool(status.revision) and status.revision != port.revision,
            should_record=should_record,
            is_locked=port.lock,
        )
        if not status.is_recording and state not in ("stalled", "starting", "stopping", "unknown"):
            status.update(fps=0.0, bitrate_mbps=0.0, speed=None)
        return status


def _observe(port: AppliedPort) -> _Observation:
    trouble = ""
    record = None
    try:
        record = read_status(port.index)
    except ValueError as error:
        trouble = str(error)
    entry = _Observation(port, record, trouble, boot_id())
    entry.settle(None)
    return entry


def _cut_off(port: AppliedPort) -> str:
    """What a power cut ended that was started by hand: systemd does not start it again, and nobody has stopped it."""
    from sdisup.ledger.cut_off import cut_off

    found = cut_off(port.index, boot_id())
    if found is None:
        return ""
    what, again = (f"take {found.take}", f" --take {found.take}") if found.take else ("the recording", "")
    return (
        f"{what} was cut off by a power cut; go on: sdisup start {port.index}{again}, or not: sdisup stop {port.index}"
    )


def _ask_systemd(entries: Sequence[_Observation], systemd: Bus | Systemd | None) -> None:
    """Ask systemd once for all ports whose files do not settle the state."""
    from sdisup.control.bus import Bus, SystemdError

    try:
        if systemd is None:
            with Bus() as own:
                _settle_by(own, entries)
        else:
            _settle_by(systemd, entries)
    except SystemdError as error:
        for entry in entries:
            entry.settled = ("unknown", str(error))


def _settle_by(systemd: Bus | Systemd, entries: Sequence[_Observation]) -> None:
    units = systemd.units(UNIT_PATTERN)
    ended = []
    for entry in entries:
        # systemd forgets a unit to which nothing refers; such a unit is inactive.
        unit = units.get(entry.port.unit)
        is_between = unit is not None and unit.sub.startswith(AUTO_RESTART)
        entry.settle(AUTO_RESTART if is_between else unit.active if unit else "inactive")
        if unit and entry.settled and entry.settled[0] in ("failed", "backoff"):
            ended.append((entry, unit))
    statuses_of = systemd.exit_statuses([unit for _, unit in ended])
    for (entry, _), exit_status in zip(ended, statuses_of, strict=True):
        reason = unstarted_reason(exit_status, entry.port.index)
        if reason and entry.settled:
            entry.settled = (entry.settled[0], reason)


UNSTARTED = {
    203: "its program cannot be executed (203/EXEC)",
    216: "a group that it needs is not there (216/GROUP)",
    217: "the user sdisup is not there (217/USER): systemd-sysusers sdisup.conf",
    226: "its sandbox cannot be set up (226/NAMESPACE)",
}
"""What systemd could not do to start a unit's process (systemd.exec(5), "Process Exit Codes")."""


def unstarted_reason(exit_status: int, port_index: int) -> str:
    """Why systemd did not get as far as to start a port's runner, by the unit's exit status; "" if it did."""
    if not 200 <= exit_status < 255:
        return ""
    what = UNSTARTED.get(exit_status, f"its process cannot be started (exit status {exit_status})")
    return f"systemd cannot start the unit: {what}; sdisup logs {port_index} says more"


def records_as_it_should(status: PortStatus) -> bool:
    """Whether all is well: the port should not record, or it records and loses no pictures."""
    if not status.should_record:
        return True
    return status.is_recording and not status.is_losing
