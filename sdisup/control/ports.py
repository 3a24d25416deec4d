"""What commands and other programs call: the state of ports, and starting and stopping them.

It keeps nothing running and nothing in memory: systemd and the files in /run/sdisup hold the truth.
`statuses` imports nothing that is slow; systemd is asked only about ports whose files do not say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.status import (
    PortStatus,
    boot_id,
    find_status,
    lock_holder,
    monotonic,
    read_status,
    settle,
    utc_text,
    write_status,
)
from sdisup.errors import ConfigError, RecordingError, SdisupError, UnknownPortError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.config.settings import Settings
    from sdisup.contract.requests import Request
    from sdisup.control.api import FFmpegCommandBuilder, RecorderConfig
    from sdisup.control.systemd import Systemd, SystemdError

UNIT_PATTERN = "sdi-record@*.service"
STOP_LIMIT_S = 180.0
START_LIMIT_S = 30.0
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
        holder = lock_holder(self.port.index)
        held = holder is not None
        if self.record is not None and held and self.record.pid not in (None, holder):
            # The word of a runner that was killed; its successor has not written yet.
            self.record = None
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
    from sdisup.control.systemd import Systemd, SystemdError

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


def leave_take_request(port: AppliedPort, request: Request) -> None:
    """Leave a request for the port's next start. Raises RecordingError when another program starts it."""
    from sdisup.contract.requests import leave_request

    try:
        leave_request(port.index, request)
    except FileExistsError as error:
        raise RecordingError(f"{port.label} is just being started by another program") from error
    except OSError as error:
        hint = "run it as root, or as a member of the group sdisup"
        raise SdisupError(f"{port.label}: no request can be left: {error.strerror}", hint) from error


class RecorderManager:
    """Drives the recordings of one configuration. Synchronous, and callable from any thread.

    It holds no connection between calls, and of what it has learnt only what FFmpeg can do: D-Bus and systemd may
    go away and come back.
    Async callers use `asyncio.to_thread`. All methods raise SystemdError when systemd cannot be asked.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._builder: FFmpegCommandBuilder | None = None

    def initialize(self) -> None:
        """Check that systemd answers and that the configuration was applied. Raises SdisupError."""
        from sdisup.control.systemd import Systemd

        applied = load_applied()
        missing = [port.label for index, port in self._settings.ports.items() if index not in applied.ports]
        if missing:
            raise SdisupError(f"{', '.join(missing)}: not applied yet", "run it as root: sudo sdisup apply")
        with Systemd() as systemd:
            systemd.version()
        try:
            _ = self._command_builder().capabilities
        except SdisupError:
            # Only a take with a codec of its own needs it, and says so then.
            return

    def start_recording(self, port_index: int, config: RecorderConfig | None = None) -> PortStatus:
        """Start the port and return when systemd says that it has started; its status then.

        Started means: the first frame is on disk, or there is no signal, or it is taking longer than 5 s;
        the status says which. Raises ValueError for an index outside the range, RecordingError (a
        RuntimeError) for a port that records already, is just started by somebody else, or cannot record,
        and ConfigError for a `config` that is not possible.
        """
        from sdisup.control.systemd import Systemd

        port = self._applied(port_index)
        request = self._request(port, config)
        with Systemd() as systemd:
            state = statuses([port], systemd)[0].state
            if state not in ("stopped", "failed"):
                raise RecordingError(f"{port.label} is already started: {state}")
            leave_take_request(port, request)
            try:
                systemd.reset_failed(port.unit)
                result = systemd.run_jobs("Start", [port.unit], START_LIMIT_S)[port.unit]
            finally:
                is_unclaimed = _take_back(port.index, request)
            if isinstance(result, SdisupError):
                raise result
            status = statuses([port], systemd)[0]
        if status.state in ("failed", "stopped"):
            reason = status.reason or f"systemd's job ended with '{result}'"
            raise RecordingError(f"{port.label} does not record: {reason}")
        if is_unclaimed:
            raise RecordingError(f"{port.label} was started by another program at the same moment")
        if status.request_id not in ("", request.request_id):
            raise RecordingError(f"{port.label} was started by another program at the same moment")
        return status

    def stop_recording(self, port_index: int) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error. Raises SdisupError."""
        outcome = stop_ports([self._applied(port_index)])[0]
        if not outcome.ok:
            raise SdisupError(outcome.text)

    def get_status(self, port_index: int) -> PortStatus:
        """The port's status. Raises ValueError for an index outside the range."""
        return statuses([self._applied(port_index)])[0]

    def get_all_status(self) -> list[PortStatus]:
        """The status of every configured port, by index."""
        applied = load_applied()
        return statuses([port for index, port in applied.ports.items() if index in self._settings.ports])

    def _applied(self, port_index: int) -> AppliedPort:
        """The port as it was applied. Raises ValueError in the words of the promise."""
        last = self._settings.port_count - 1
        is_index = isinstance(port_index, int) and not isinstance(port_index, bool)
        if not is_index or not 0 <= port_index <= last:
            raise ValueError(f"Invalid port index {port_index}. Valid range: 0-{last}")
        port = load_applied().ports.get(port_index)
        if port is None:
            hint = "it is not enabled, or not applied: sudo sdisup apply"
            raise UnknownPortError(f"port {port_index} is not known to systemd", hint)
        return port

    def _command_builder(self) -> FFmpegCommandBuilder:
        from sdisup.control.api import FFmpegCommandBuilder

        if self._builder is None:
            self._builder = FFmpegCommandBuilder(self._settings)
        return self._builder

    def _request(self, port: AppliedPort, config: RecorderConfig | None) -> Request:
        return make_request(port, config, self._command_builder)


def make_request(
    port: AppliedPort, config: RecorderConfig | None, builder: Callable[[], FFmpegCommandBuilder]
) -> Request:
    """The request that a start with `config` leaves. The builder is only asked for a codec of the take's own.

    Raises ConfigError, which is a wrong value in the operator's words.
    """
    from sdisup.contract.requests import Request, is_below, is_take_name

    request_id = os.urandom(8).hex()
    if config is None:
        return Request(request_id=request_id)
    problems = []
    for what, value in (("take", config.take), ("name", config.name)):
        if value is not None and not is_take_name(value):
            problems.append(f"{what}: {value!r} is not a letter or digit and up to 63 of A-Z a-z 0-9 . _ -")
    path = config.recording_path
    if path is not None and not is_below(path, port.recordings):
        problems.append(f"recording_path: {path!r} is not at or below {port.recordings}")
    if problems:
        raise ConfigError([f"{port.label}: {problem}" for problem in problems])
    values: dict[str, str | list[str] | None] = {}
    is_changed = config.codec not in (None, port.codec) or config.container is not None
    if os.geteuid() and (is_changed or path is not None or config.name is not None):
        # The runner would ignore it: it decides what is executed and written.
        wanted = "a codec, container, path or name of its own"
        raise SdisupError(f"{port.label}: only root may give a take {wanted}", "run it as root")
    if is_changed:
        changed = builder().port_for(config, port.index)
        values = {
            "argv": list(builder().build_command(config, port.index)),
            "codec": changed.codec,
            "container": changed.container,
        }
    return Request(take=config.take, request_id=request_id, recording_path=path, name=config.name, **values)
