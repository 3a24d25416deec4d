"""What commands and other programs call: the state of ports, and starting and stopping them.

It keeps nothing running and nothing in memory: systemd and the files in /run/sdisup hold the truth.
`statuses` imports nothing that is slow; systemd is asked only about ports whose files do not say.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdisup.applied import AppliedPort
from sdisup.errors import SdisupError
from sdisup.status import (
    PortStatus,
    boot_id,
    is_locked,
    monotonic,
    read_status,
    settle,
    utc_text,
    write_status,
)

if TYPE_CHECKING:
    from sdisup.systemd import Systemd

UNIT_PATTERN = "sdi-record@*.service"
STOP_LIMIT_S = 180.0
POLL_S = 0.02
MISSING_LIMIT = 0.01
"""The share of missing frames above which a port does not record as it should."""


class Outcome:
    """What became of one port in a command: `text` is for the operator and names the port."""

    __slots__ = ("ok", "port", "text")

    def __init__(self, port: AppliedPort, ok: bool, text: str) -> None:
        self.port = port
        self.ok = ok
        self.text = text


def statuses(ports: Sequence[AppliedPort], systemd: Systemd | None = None) -> list[PortStatus]:
    """The status of each port, in the same order; problems of reading them are in their `reason`."""
    found = [_observe(port) for port in ports]
    unsettled = [entry for entry in found if entry.settled is None]
    if unsettled:
        _ask_systemd(unsettled, systemd)
    result = [entry.result() for entry in found]
    _share_disks(result)
    return result


class _Observation:
    """A port's files as they were read, and the state that they settle, if they do."""

    __slots__ = ("port", "record", "settled", "this_boot", "trouble")

    def __init__(self, port: AppliedPort, record: PortStatus | None, trouble: str, this_boot: str) -> None:
        self.port = port
        self.record = record
        self.trouble = trouble
        self.this_boot = this_boot
        self.settled: tuple[str, str] | None = None

    def settle(self, unit_state: str | None) -> None:
        held = is_locked(self.port.index)
        self.settled = settle(
            self.record, held=held, unit_state=unit_state, now_monotonic=monotonic(), this_boot=self.this_boot
        )
        if self.settled and held and self.trouble:
            self.settled = ("unknown", self.trouble)

    def result(self) -> PortStatus:
        port, record = self.port, self.record
        state, reason = self.settled or ("unknown", self.trouble)
        if record is None or record.boot_id != self.this_boot:
            status = PortStatus(port_index=port.index, codec=port.codec)
        else:
            status = PortStatus(**record.as_dict())
        stopped_by_hand = record is not None and record.boot_id == self.this_boot and record.state == "stopped"
        alive = state not in ("stopped", "failed", "unknown")
        status.update(
            name=port.name,
            unit=port.unit,
            state=state,
            is_recording=state == "recording",
            reason=reason,
            recordings=status.recordings or port.recordings,
            config_pending=alive and bool(status.revision) and status.revision != port.revision,
            should_record=state != "stopped" or (port.record_at_boot and not stopped_by_hand),
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


def _ask_systemd(entries: Sequence[_Observation], systemd: Systemd | None) -> None:
    """One query for all ports that their files leave open."""
    from sdisup.systemd import Systemd, SystemdError

    try:
        if systemd is None:
            with Systemd() as own:
                units = own.units(UNIT_PATTERN)
        else:
            units = systemd.units(UNIT_PATTERN)
    except SystemdError as error:
        for entry in entries:
            entry.settled = ("unknown", str(error))
        return
    for entry in entries:
        # A unit that nothing refers to is forgotten by systemd, and inactive.
        unit = units.get(entry.port.unit)
        entry.settle(unit.active if unit else "inactive")


def _share_disks(found: Iterable[PortStatus]) -> None:
    """`disk_remaining_seconds`: free bytes over the bit rates of all ports on that filesystem."""
    on_disk: dict[str, list[PortStatus]] = {}
    for status in found:
        if status.filesystem and status.is_recording:
            on_disk.setdefault(status.filesystem, []).append(status)
    for sharing in on_disk.values():
        bytes_per_s = sum(status.bitrate_mbps for status in sharing) * 1e6 / 8
        free = [status.disk_free_bytes for status in sharing if status.disk_free_bytes is not None]
        if bytes_per_s > 0 and free:
            for status in sharing:
                status.update(disk_remaining_seconds=round(min(free) / bytes_per_s, 1))


def records_as_it_should(status: PortStatus) -> bool:
    """Whether there is nothing to report: the port should not record, or does with all its frames."""
    if not status.should_record:
        return True
    frames = status.frame_count + status.missing_frames
    return status.is_recording and status.missing_frames <= frames * MISSING_LIMIT


def start_ports(ports: Sequence[AppliedPort], wait_s: float, *, restart: bool = False) -> list[Outcome]:
    """Start (or restart) all ports at once and wait up to `wait_s` seconds for each one's first frame on disk."""
    from sdisup.systemd import Systemd

    with Systemd() as systemd:
        already = (
            set() if restart else {status.port_index for status in statuses(ports, systemd) if status.is_recording}
        )
        started = [port for port in ports if port.index not in already]
        for port in started:
            systemd.reset_failed(port.unit)
        deadline = monotonic() + wait_s
        limit_s = wait_s + (STOP_LIMIT_S if restart else 0)
        results = systemd.run_jobs("Restart" if restart else "Start", [port.unit for port in started], limit_s)
        if restart:
            deadline = max(deadline, monotonic() + wait_s / 2)
        refused = {unit: result for unit, result in results.items() if isinstance(result, SdisupError)}
        pending = [port for port in started if port.unit not in refused]
        ends = _wait_for_first_frames(pending, deadline, wait_s, systemd, results)
    outcomes = []
    for port in ports:
        if port.index in already:
            outcomes.append(Outcome(port, True, f"{port.label} records already"))
        elif port.unit in refused:
            outcomes.append(Outcome(port, False, f"{port.label}: {refused[port.unit]}"))
        else:
            outcomes.append(ends[port.index])
    return outcomes


def _wait_for_first_frames(
    ports: Sequence[AppliedPort],
    deadline: float,
    wait_s: float,
    systemd: Systemd,
    results: Mapping[str, object],
) -> dict[int, Outcome]:
    ends: dict[int, Outcome] = {}
    while True:
        waiting = [port for port in ports if port.index not in ends]
        late = monotonic() >= deadline
        for port, status in zip(waiting, statuses(waiting, systemd), strict=True):
            if status.is_recording:
                ends[port.index] = Outcome(port, True, f"{port.label} records to {status.current_file}")
            elif status.state in ("failed", "stopped"):
                reason = status.reason or f"systemd's job ended with '{results.get(port.unit)}'"
                ends[port.index] = Outcome(port, False, f"{port.label} does not record: {reason}")
            elif late:
                reason = status.reason or "no word from FFmpeg"
                text = (
                    f"{port.label}: no frame on disk within {wait_s:g} s: {status.state}: {reason}; it goes on trying"
                )
                ends[port.index] = Outcome(port, False, text)
        if len(ends) == len(ports):
            return ends
        time.sleep(POLL_S)


def stop_ports(ports: Sequence[AppliedPort]) -> list[Outcome]:
    """Stop all ports at once and wait until their files are closed; a stopped port is no error."""
    from sdisup.systemd import DONE, Systemd

    with Systemd() as systemd:
        results = systemd.run_jobs("Stop", [port.unit for port in ports], STOP_LIMIT_S)
        outcomes = []
        for port in ports:
            result = results[port.unit]
            if result == DONE or _is_not_loaded(result):
                systemd.reset_failed(port.unit)
                _mark_stopped(port)
                outcomes.append(Outcome(port, True, f"{port.label} is stopped"))
            else:
                outcomes.append(Outcome(port, False, f"{port.label} is not stopped: {result}"))
    return outcomes


def _is_not_loaded(result: object) -> bool:
    return getattr(result, "name", "").endswith(".NoSuchUnit")


def _mark_stopped(port: AppliedPort) -> None:
    """Leave the word `stopped` where no runner lived to leave it (a failed unit), so that apply respects the stop."""
    try:
        status = read_status(port.index)
    except ValueError:
        status = None
    this_boot = boot_id()
    if status is not None and status.state == "stopped" and status.boot_id == this_boot:
        return
    stopped = PortStatus(
        port_index=port.index, name=port.name, unit=port.unit, state="stopped", codec=port.codec,
        boot_id=this_boot, updated_at=utc_text(time.time()), updated_monotonic=monotonic(),
        state_since=utc_text(time.time()), state_since_monotonic=monotonic(),
    )  # fmt: skip
    try:
        write_status(stopped)
    except OSError:
        # Without the right to write there, the unit's own state still says `inactive`.
        return
