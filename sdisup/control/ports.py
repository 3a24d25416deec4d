"""Starting and stopping ports, for commands and other programs.

It keeps nothing running and nothing in memory: systemd and the files in /run/sdisup hold the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import boot_id, monotonic, utc_text
from sdisup.contract.status import PortStatus, find_status, write_status
from sdisup.control.observe import statuses
from sdisup.control.takes import leave_take_request
from sdisup.errors import SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.contract.requests import Request
    from sdisup.control.systemd import Systemd, SystemdError

STOP_LIMIT_S = 180.0
START_LIMIT_S = 30.0
POLL_S = 0.02


class Outcome:
    """What became of one port in a command: `text` is for the operator and names the port."""

    __slots__ = ("ok", "port", "text")

    def __init__(self, port: AppliedPort, ok: bool, text: str) -> None:
        self.port = port
        self.ok = ok
        self.text = text


def start_ports(
    ports: Sequence[AppliedPort],
    wait_s: float,
    *,
    restart: bool = False,
    request: Callable[[AppliedPort], Request] | None = None,
) -> list[Outcome]:
    """Start (or restart) all ports at once and wait up to `wait_s` seconds for each one's first frame on disk.

    `request` makes what a port's start is to leave for its runner: a take.
    """
    from sdisup.control.systemd import DONE, WAITING, Systemd

    with Systemd() as systemd:
        ends: dict[int, Outcome] = {}
        if not restart:
            ends.update(_already_started(ports, systemd, takes=request is not None))
        requests: dict[int, Request] = {}
        if request:
            ends.update(_leave_requests([port for port in ports if port.index not in ends], request, requests))
        started = [port for port in ports if port.index not in ends]
        deadline = monotonic() + wait_s
        unclaimed: set[int] = set(requests)
        try:
            results = _run_start_jobs(systemd, started, wait_s, restart)
            # A runner that is only just starting still claims its own; what nobody claims expires.
            done = {port.index for port in started if results[port.unit] != WAITING}
            unclaimed &= done
        finally:
            unclaimed = {index for index in unclaimed if _take_back(index, requests[index])}
        if restart:
            # The jobs' time was partly that of stopping.
            deadline = max(deadline, monotonic() + wait_s / 2)
        for port in started:
            result = results[port.unit]
            if isinstance(result, SdisupError):
                ends[port.index] = Outcome(port, False, f"{port.label}: {result}")
            elif port.index in unclaimed and result == DONE:
                text = f"{port.label} was started by another program at the same moment, without this take"
                ends[port.index] = Outcome(port, False, text)
        pending = [port for port in started if port.index not in ends]
        ends.update(_wait_for_first_frames(pending, deadline, wait_s, systemd, results))
    return [ends[port.index] for port in ports]


def _already_started(ports: Sequence[AppliedPort], systemd: Systemd, *, takes: bool) -> dict[int, Outcome]:
    """The ports that need no start. A take is only begun by a start, so for a take that is a refusal."""
    ends = {}
    for port, status in zip(ports, statuses(ports, systemd), strict=True):
        if takes and status.state not in ("stopped", "failed"):
            text = f"{port.label} is already started ({status.state}); stop it first: sdisup stop {port.index}"
            ends[port.index] = Outcome(port, False, text)
        elif status.is_recording:
            ends[port.index] = Outcome(port, True, f"{port.label} records already")
    return ends


def _leave_requests(
    ports: Sequence[AppliedPort], request: Callable[[AppliedPort], Request], left: dict[int, Request]
) -> dict[int, Outcome]:
    """Leave each port's request, noting it in `left`; the ports for which that failed. Raises ConfigError."""
    made = {port.index: request(port) for port in ports}
    ends = {}
    for port in ports:
        try:
            leave_take_request(port, made[port.index])
            left[port.index] = made[port.index]
        except SdisupError as error:
            ends[port.index] = Outcome(port, False, str(error))
    return ends


def _take_back(port_index: int, request: Request) -> bool:
    from sdisup.contract.requests import take_back

    return take_back(port_index, request.request_id)


def _run_start_jobs(
    systemd: Systemd, ports: Sequence[AppliedPort], wait_s: float, restart: bool
) -> dict[str, str | SystemdError]:
    for port in ports:
        systemd.reset_failed(port.unit)
    limit_s = wait_s + (STOP_LIMIT_S if restart else 0)
    return systemd.run_jobs("Restart" if restart else "Start", [port.unit for port in ports], limit_s)


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
    from sdisup.control.systemd import DONE, Systemd

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
    status = find_status(port.index)
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
