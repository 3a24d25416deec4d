"""Starting and stopping ports: the one implementation, for the command and for other programs.

It leaves no process and keeps nothing in memory: systemd and the files in /run/sdisup hold the state. The outcome for a
port is one of the constants below, of which each caller makes its message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence, Set

from sdisup import __version__
from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import boot_id, monotonic, utc_text
from sdisup.contract.records import Record
from sdisup.contract.status import PortStatus, find_status, write_status
from sdisup.control.observe import statuses
from sdisup.control.takes import leave_take_request
from sdisup.errors import LockedError, RecordingError, RootError, SdisupError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.contract.requests import Request
    from sdisup.control.bus import SystemdError
    from sdisup.control.systemd import Systemd

STOP_LIMIT_S = 740.0
"""Longer than the TimeoutStopSec= of any unit, also of one with the longest limits that a configuration may have, and
than what a runner may ask systemd to wait beyond it (runner/attempt.py, PATIENCE_AT_MOST_S)."""
START_LIMIT_S = 30.0
CUT_LIMIT_S = 10.0
"""A runner that has just started tells first when the first frame came, 5 s after it at the latest."""
POLL_S = 0.02
REST_SHARE = 4
"""After a look at ports that start it rests for so many times as long as the look took: of hundreds it takes a while,
and their FFmpegs need the processor."""

RECORDS = "records"
RECORDED_ALREADY = "recorded already"
WAITS = "waits"
"""The port has started, and has no frame on disk yet."""
NO_SIGNAL = "no signal"
"""The port has started, and waits for its signal."""
BEGUN = "begun"
"""systemd has the job, and nobody waits for it."""
NOT_BEGUN = "not begun"
"""The port was not started, since another one of the same start cannot record; `detail` says why."""
TAKEN_BACK = "taken back"
"""The port was started and is stopped again, for the same reason."""
ORDERED_START = "ordered start"
"""The port is started later, at the time in `detail`."""
IS_STARTED = "is started"
"""The port was started before, so that the take that was asked for cannot begin."""
STARTED_BY_ANOTHER = "started by another"
"""Another program started the port at the same moment."""
CANNOT_RECORD = "cannot record"
REFUSED = "refused"
"""systemd refused the job, or the request could not be left; `error` says why."""
CUT = "cut"
NOT_CUT = "not cut"
"""The port's runner did not take the cut; `detail` says why."""
LOCKED = "locked"
"""The port goes on, since it is locked and nobody said that it shall be stopped all the same."""
STOPPED = "stopped"
NOT_STOPPED = "not stopped"


class Outcome(Record):
    """The outcome for one port: `kind` is one of the constants above, `detail` says more where there is more."""

    port: AppliedPort
    kind: str
    detail: str = ""
    status: PortStatus | None = None
    error: SdisupError | None = None

    @property
    def ok(self) -> bool:
        return self.kind in (RECORDS, RECORDED_ALREADY, BEGUN, ORDERED_START, CUT, STOPPED)

    def as_error(self) -> SdisupError:
        """The outcome as an error for the operator: what is wrong, and the next step."""
        label = self.port.label
        if self.error is not None:
            return self.error
        if self.kind == IS_STARTED:
            return RecordingError(
                f"{label} is already started ({self.detail})", f"stop it first: sdisup stop {self.port.index}"
            )
        if self.kind == STARTED_BY_ANOTHER:
            return RecordingError(f"{label} was started by another program at the same moment{self.detail}")
        if self.kind == NO_SIGNAL:
            return RecordingError(f"{label} is started and does not record yet: {self.detail}")
        if self.kind == WAITS:
            return RecordingError(f"{label}: {self.detail}; it goes on trying")
        if self.kind == NOT_BEGUN:
            return RecordingError(f"{label} is not started: {self.detail}")
        if self.kind == TAKEN_BACK:
            kept = "; what it recorded is kept" if self.status is not None and self.status.current_file else ""
            return RecordingError(f"{label} is stopped again: {self.detail}{kept}")
        if self.kind == LOCKED:
            hint = f"root stops it all the same with --unlock: sdisup stop {self.port.index} --unlock"
            return LockedError(f"{label} is locked and goes on ({self.detail})", hint)
        if self.kind == NOT_CUT:
            return RecordingError(f"{label} is not cut: {self.detail}")
        if self.kind == NOT_STOPPED:
            return SdisupError(f"{label} is not stopped: {self.detail}")
        return RecordingError(f"{label} does not record: {self.detail}")

    @property
    def text(self) -> str:
        """The outcome as a line for the operator, which names the port."""
        if self.kind == RECORDS:
            text = f"{self.port.label} records to {self.status.current_file if self.status else ''}"
            return f"{text} {self.detail}".rstrip()
        if self.kind == RECORDED_ALREADY:
            return f"{self.port.label} records already"
        if self.kind == BEGUN:
            return f"{self.port.label} is being started {self.detail}".rstrip()
        if self.kind == ORDERED_START:
            return f"{self.port.label} records {self.detail}"
        if self.kind == CUT and self.status is not None:
            return _cut_text(self.port, self.status)
        if self.kind == STOPPED:
            return f"{self.port.label} is stopped" + (f"; {self.detail}" if self.detail else "")
        error = self.as_error()
        text = f"{error.message}; {error.hint}" if self.kind in (IS_STARTED, LOCKED) else str(error)
        return text if text.startswith(self.port.label) else f"{self.port.label}: {text}"


def _cut_text(port: AppliedPort, status: PortStatus) -> str:
    take = f"the take {status.take}" if status.take else "the next take"
    if status.take_first_file is None:
        return f"{port.label}: {take} begins with the next file"
    return f"{port.label}: {take} begins with frame {status.take_first_frame} of {status.take_first_file}"


def cut_ports(
    ports: Sequence[AppliedPort], take: str | None, *, at: float | None = None, request_id: str = ""
) -> list[Outcome]:
    """Let the next take begin at each port at the moment `at` (CLOCK_MONOTONIC), by default now, without a lost frame.

    `request_id` is that of the take, else one that nobody else has. Raises UsageError for a take that cannot have that
    name.
    """
    from sdisup.contract.requests import Cut, leave_cut, take_back_cut

    _check_take(take)
    began, found = monotonic(), statuses(ports)
    ends, left = _not_running(ports, found), {}
    for port, status in zip(ports, found, strict=True):
        if port.index in ends:
            continue
        cut = Cut(take, request_id or _cut_id(status.request_id), began if at is None else min(at, began))
        try:
            leave_cut(port.index, cut)
            left[port.index] = cut
        except FileExistsError:
            ends[port.index] = Outcome(port, NOT_CUT, "somebody else cuts it at this moment", status)
        except OSError as error:
            refused = f"its request cannot be left in /run/sdisup/requests: {error.strerror}"
            ends[port.index] = Outcome(port, NOT_CUT, refused, status)
    while len(ends) < len(ports):
        waiting = [port for port in ports if port.index not in ends]
        for port, status in zip(waiting, statuses(waiting), strict=True):
            own = left[port.index].request_id
            if status.request_id == own:
                ends[port.index] = Outcome(port, CUT, status=status)
            elif monotonic() - began > CUT_LIMIT_S:
                take_back_cut(port.index, own)
                ends[port.index] = Outcome(port, NOT_CUT, _why_not_cut(status), status)
        time.sleep(POLL_S)
    return [ends[port.index] for port in ports]


def _cut_id(request_id: str) -> str:
    """A request id for a cut: it changes the take, and not whose the recording is that a schedule has begun."""
    from sdisup.contract.orders import CUT_MARK, owner_of
    from sdisup.contract.status import is_timed

    return f"{owner_of(request_id)}{CUT_MARK}{os.urandom(4).hex()}" if is_timed(request_id) else os.urandom(8).hex()


def cut_ports_now(ports: Sequence[AppliedPort], take: str | None, *, unlock: bool = False) -> list[Outcome]:
    """Let the next take begin at each port by a stop and a start. Raises UsageError as cut_ports does, and RootError as
    stop_ports."""
    from sdisup.contract.requests import Request

    _check_take(take)
    found = statuses(ports)
    ends = _not_running(ports, found)
    ids = {status.port_index: _cut_id(status.request_id) for status in found}
    running = [port for port in ports if port.index not in ends]
    stops = stop_ports(running, unlock=unlock, goes_on=True) if running else []
    ends.update({outcome.port.index: outcome for outcome in stops if not outcome.ok})
    stopped = [outcome.port for outcome in stops if outcome.ok]
    starts = start_ports(stopped, CUT_LIMIT_S, request=lambda port: Request(take=take, request_id=ids[port.index]))
    ends.update({outcome.port.index: outcome for outcome in starts})
    return [ends[port.index] for port in ports]


def _check_take(take: str | None) -> None:
    from sdisup.contract.requests import is_take_name

    if take is not None and not is_take_name(take):
        raise UsageError(f"{take!r} cannot be a take's name", "a letter or digit and up to 63 of A-Z a-z 0-9 . _ -")


def _not_running(ports: Sequence[AppliedPort], found: Sequence[PortStatus]) -> dict[int, Outcome]:
    """The outcomes of ports that record nothing that could be cut."""
    return {
        port.index: Outcome(port, NOT_CUT, f"it does not run ({status.state})", status)
        for port, status in zip(ports, found, strict=True)
        if status.state in ("stopped", "failed", "unknown") or status.pid is None
    }


def _why_not_cut(status: PortStatus) -> str:
    """Why a runner has not taken a cut."""
    if status.runner_version != __version__:
        return f"its runner is of sdisup {status.runner_version}; the next start takes the one that is installed"
    return f"its runner has not answered for {CUT_LIMIT_S:.0f} s ({status.state})"


def start_ports(
    ports: Sequence[AppliedPort],
    wait_s: float | None,
    *,
    restart: bool = False,
    request: Callable[[AppliedPort], Request] | None = None,
    job_limit_s: float = 0.0,
    unlock: bool = False,
    gives_up: Callable[[Mapping[int, Outcome]], bool] = lambda _: False,
) -> list[Outcome]:
    """Start (or restart) all ports at once and wait up to `wait_s` seconds for each port's first frame on disk, or for
    its word that there is no signal; with None only until systemd has the jobs.

    `request` makes the request that is left for a port's runner; then a port that is started already is refused.
    systemd's jobs have `job_limit_s` seconds, or `wait_s` where that is 0. A restart of locked ports needs `unlock`, as
    stop_ports does. Where what became of some ports so far makes `gives_up` say so, nothing more is started and nobody
    is waited for.
    """
    from sdisup.control.systemd import Systemd

    with Systemd() as systemd:
        before = [] if restart else statuses(ports, systemd)
        ends = _started_before(ports, before, is_exclusive=request is not None)
        if restart:
            ends = _kept_by_lock(ports, systemd, unlock)
        requests: dict[int, Request] = {}
        if request:
            ends.update(_leave_requests([port for port in ports if port.index not in ends], request, requests))
        started = [port for port in ports if port.index not in ends]
        if started and gives_up(ends):
            for index, left in requests.items():
                _take_back(index, left)
            ends.update({port.index: Outcome(port, NOT_BEGUN) for port in started})
            started = []
        began = monotonic()
        if not started:
            return [ends[port.index] for port in ports]
        results, unclaimed = _run_start_jobs(
            systemd, started, requests, None if wait_s is None else job_limit_s or wait_s, restart
        )
        for port in started:
            result = results[port.unit]
            if isinstance(result, SdisupError):
                ends[port.index] = Outcome(port, REFUSED, error=result)
            elif port.index in unclaimed:
                ends[port.index] = _started_by_another(port, requests[port.index])
        pending = [port for port in started if port.index not in ends]
        if wait_s is None or gives_up(ends):
            ends.update({port.index: Outcome(port, BEGUN) for port in pending})
            return [ends[port.index] for port in ports]
        # The jobs of a restart spent a part of that time on stopping.
        deadline = max(began + wait_s, monotonic() + wait_s / 2 if restart else 0)
        earlier_ids = {status.request_id for status in before}
        waited = _wait_for_first_frames(pending, deadline, wait_s, systemd, results, requests, earlier_ids, gives_up)
        ends.update({port.index: Outcome(port, BEGUN) for port in pending})
        ends.update({index: _by_unit(systemd, outcome) for index, outcome in waited.items()})
    return [ends[port.index] for port in ports]


def _started_before(
    ports: Sequence[AppliedPort], before: Sequence[PortStatus], *, is_exclusive: bool
) -> dict[int, Outcome]:
    """The outcomes of ports that need no start, or may not be started."""
    ends: dict[int, Outcome] = {}
    for port, status in zip(ports, before, strict=False):
        if is_exclusive and status.state not in ("stopped", "failed"):
            ends[port.index] = Outcome(port, IS_STARTED, status.state, status)
        elif status.is_recording:
            ends[port.index] = Outcome(port, RECORDED_ALREADY, status=status)
    return ends


def _leave_requests(
    ports: Sequence[AppliedPort], request: Callable[[AppliedPort], Request], left: dict[int, Request]
) -> dict[int, Outcome]:
    """Leave each port's request and note it in `left`. Returns the outcomes where that failed. Raises ConfigError."""
    made = {port.index: request(port) for port in ports}
    ends = {}
    for port in ports:
        try:
            leave_take_request(port, made[port.index])
            left[port.index] = made[port.index]
        except FileExistsError:
            ends[port.index] = _started_by_another(port, made[port.index])
        except SdisupError as error:
            ends[port.index] = Outcome(port, REFUSED, error=error)
    return ends


def _started_by_another(port: AppliedPort, own: Request) -> Outcome:
    is_take = own.replaced(request_id="") != type(own)()
    return Outcome(port, STARTED_BY_ANOTHER, ", without this take" if is_take else "")


def _run_start_jobs(
    systemd: Systemd, ports: Sequence[AppliedPort], requests: Mapping[int, Request], wait_s: float | None, restart: bool
) -> tuple[dict[str, str | SystemdError], set[int]]:
    """Each unit's job result, and the ports whose request no runner claimed although the job is over.

    Requests are taken back also when this raises, but not where the job is not over: there a runner may still claim its
    request, and a request that nobody claims expires.
    """
    from sdisup.control.systemd import DONE, LOST, WAITING

    results: dict[str, str | SystemdError] = {}
    try:
        results.update(systemd.reset_all(port.unit for port in ports))
        units = [port.unit for port in ports if port.unit not in results]
        if wait_s is None:
            results |= systemd.run_jobs("Restart" if restart else "Start", units, 0.0)
        elif restart:
            results |= systemd.run_jobs("Restart", units, wait_s + STOP_LIMIT_S, wait_s)
        else:
            results |= systemd.run_jobs("Start", units, wait_s)
    finally:
        over = [
            port.index for port in ports if port.index in requests and results.get(port.unit) not in (LOST, WAITING)
        ]
        taken_back = {index for index in over if _take_back(index, requests[index])}
    return results, {port.index for port in ports if port.index in taken_back and results[port.unit] == DONE}


def _take_back(port_index: int, request: Request) -> bool:
    from sdisup.contract.requests import take_back

    return take_back(port_index, request.request_id)


def _wait_for_first_frames(
    ports: Sequence[AppliedPort],
    deadline: float,
    wait_s: float,
    systemd: Systemd,
    results: Mapping[str, object],
    requests: Mapping[int, Request],
    earlier_ids: Set[str],
    gives_up: Callable[[Mapping[int, Outcome]], bool],
) -> dict[int, Outcome]:
    ends: dict[int, Outcome] = {}
    while True:
        waiting = [port for port in ports if port.index not in ends]
        began = monotonic()
        late = began >= deadline
        for port, status in zip(waiting, statuses(waiting, systemd), strict=True):
            own = requests.get(port.index)
            if own and _is_of_another(status, own, earlier_ids):
                ends[port.index] = _started_by_another(port, own)
            elif status.is_recording:
                ends[port.index] = Outcome(port, RECORDS, status=status)
            elif status.state in ("failed", "stopped"):
                reason = status.reason or f"systemd's job ended with '{results.get(port.unit)}'"
                ends[port.index] = Outcome(port, CANNOT_RECORD, reason, status)
            elif status.state == "no-signal":
                ends[port.index] = Outcome(port, NO_SIGNAL, status.reason or "no signal; waiting", status)
            elif late:
                reason = status.reason or "no word from FFmpeg"
                text = f"no frame on disk within {wait_s:g} s: {status.state}: {reason}"
                ends[port.index] = Outcome(port, WAITS, text, status)
        if len(ends) == len(ports) or gives_up(ends):
            return ends
        time.sleep(max(POLL_S, REST_SHARE * (monotonic() - began)))


def _by_unit(systemd: Systemd, outcome: Outcome) -> Outcome:
    """The outcome, with the reason where the port's unit does not run sdisup: then no runner says anything."""
    if outcome.kind not in (WAITS, CANNOT_RECORD):
        return outcome
    from sdisup.control.overrides import unit_problem

    try:
        problem = unit_problem(outcome.port, systemd.loaded(outcome.port.unit))
    except SdisupError:
        # What is known already says more than that systemd did not answer.
        return outcome
    return Outcome(outcome.port, CANNOT_RECORD, problem, outcome.status) if problem else outcome


def _is_of_another(status: PortStatus, own: Request, earlier_ids: Set[str]) -> bool:
    """Whether another program started the port's runner. If so, our request is taken back, so that no later runner
    claims it.

    The status of an earlier runner stays until the new one writes; `earlier_ids` are the request ids of such runners.
    """
    if status.request_id == own.request_id:
        return False
    if status.request_id and status.request_id not in earlier_ids:
        _take_back(status.port_index, own)
        return True
    # A runner claims its request before it writes a status. If it records or waits and our request is still there, the
    # runner was started by another program.
    return status.state in ("recording", "no-signal") and _take_back(status.port_index, own)


def stop_ports(ports: Sequence[AppliedPort], *, unlock: bool = False, goes_on: bool = False) -> list[Outcome]:
    """Stop all ports at once and wait until their files are closed; a stopped port is no error. What they were started
    for is over, unless the caller says that it `goes_on`.

    Locked ports go on, but for `unlock`, which is root's. Raises RootError.
    """
    from sdisup.contract.orders import forget
    from sdisup.control.systemd import DONE, Systemd

    with Systemd() as systemd:
        kept = _kept_by_lock(ports, systemd, unlock)
        results = systemd.run_jobs("Stop", [port.unit for port in ports if port.index not in kept], STOP_LIMIT_S)
        outcomes = []
        for port in ports:
            if port.index in kept:
                outcomes.append(kept[port.index])
                continue
            result = results[port.unit]
            if result == DONE or _is_not_loaded(result):
                error = systemd.reset_all([port.unit]).get(port.unit)
                _mark_stopped(port)
                detail = "" if goes_on else forget(port.index, port.recordings)
                outcomes.append(Outcome(port, REFUSED, error=error) if error else Outcome(port, STOPPED, detail))
            elif isinstance(result, SdisupError):
                outcomes.append(Outcome(port, REFUSED, error=result))
            else:
                outcomes.append(Outcome(port, NOT_STOPPED, result))
    return outcomes


def _kept_by_lock(ports: Sequence[AppliedPort], systemd: Systemd, unlock: bool) -> dict[int, Outcome]:
    """The outcomes of ports that go on since they are locked. Raises RootError."""
    locked = [port for port in ports if port.lock]
    if not locked:
        return {}
    if unlock and os.geteuid():
        raise RootError(f"{', '.join(port.label for port in locked)}: locked, and only root stops it all the same")
    if unlock:
        return {}
    found = zip(locked, statuses(locked, systemd), strict=True)
    return {port.index: Outcome(port, LOCKED, s.state, s) for port, s in found if s.state != "stopped"}


def _is_not_loaded(result: object) -> bool:
    return getattr(result, "name", "").endswith(".NoSuchUnit")


def _mark_stopped(port: AppliedPort) -> None:
    """Write the status `stopped` where no runner lives to write it (a failed unit), so that apply respects the stop."""
    this_boot = boot_id()
    before = find_status(port.index)
    if before is not None and (before.boot_id, before.state) == (this_boot, "stopped"):
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
