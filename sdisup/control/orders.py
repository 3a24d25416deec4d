"""Starts with a time (`sdisup start 3 --until 23:00`), and holds of what a schedule or such a start has begun.

What is asked for is on disk before the port is started, and sdi-schedule@.service acts upon it; it is armed at once,
and again at boot (control/wake.py).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence

from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import Unreadable, boot_id, monotonic
from sdisup.contract.orders import (
    Order,
    hold_path,
    leave_hold,
    leave_order,
    local_text,
    order_path,
    owner_of,
    read_order,
    scheduled_until,
    take_back,
    times_text,
)
from sdisup.contract.records import Record
from sdisup.contract.requests import Request
from sdisup.contract.schedules import Schedule, load_schedules
from sdisup.contract.status import ORDERED, PortStatus, is_timed
from sdisup.control.observe import statuses
from sdisup.control.ports import (
    BEGUN,
    IS_STARTED,
    NO_SIGNAL,
    ORDERED_START,
    RECORDS,
    REFUSED,
    STARTED_BY_ANOTHER,
    WAITS,
    Outcome,
    start_ports,
)
from sdisup.control.schedules import Slot
from sdisup.errors import RecordingError, RootError, SdisupError, UsageError

ARM_LIMIT_S = 10.0


def slot_of(order: Order, now: float) -> Slot:
    """The time of an order, as the schedule has it."""
    end, request = order.end(now), order.request
    return Slot(order.begin, math.inf if end is None else end, request.take, request.request_id, order.pre_roll_s)


class Asked(Record):
    """When a port is to record: from `at` to `until` (Unix times) or for `for_s` seconds; None for now, and for until
    it is stopped. Raises UsageError for what cannot be."""

    at: float | None = None
    until: float | None = None
    for_s: float | None = None

    def check(self, now: float) -> None:
        """Raises UsageError for what cannot be."""
        if self.until is not None and self.for_s is not None:
            raise UsageError("--for and --until together", "give the one or the other")
        if self.for_s is not None and not 1 <= self.for_s < 1e8:
            raise UsageError(f"a recording of {self.for_s:g} s", "give at least a second")
        for what, moment in (("--at", self.at), ("--until", self.until)):
            if moment is not None and moment <= now:
                raise UsageError(f"{what} is over: {local_text(moment)}")
        if self.at is not None and self.until is not None and self.until <= self.at:
            raise UsageError(f"--until {local_text(self.until)} is not after --at {local_text(self.at)}")

    @property
    def is_plain(self) -> bool:
        return self == Asked()


def start_at_times(
    ports: Sequence[AppliedPort],
    wait_s: float | None,
    asked: Asked,
    request: Callable[[AppliedPort], Request] | None = None,
    job_limit_s: float = 0.0,
) -> list[Outcome]:
    """Start all ports, as start_ports does, and have them end when that is asked for; or have them started later.

    Raises UsageError for times that cannot be, and ConfigError as start_ports does.
    """
    now = time.time()
    asked.check(now)
    schedules = load_schedules() if asked.at is not None else {}
    orders = {}
    ends = _not_free(ports, asked, now)
    for port in ports:
        if port.index not in ends:
            made = request(port) if request else Request()
            orders[port.index] = _order(port, asked, made, now, schedules)
    for port in ports:
        if port.index in orders and (problem := _leave(port, orders[port.index])):
            ends[port.index] = problem
    free = [port for port in ports if port.index not in ends]
    if asked.at is None:
        ends.update(_start(free, orders, wait_s, job_limit_s))
    else:
        ends.update({port.index: Outcome(port, ORDERED_START, times_text(orders[port.index])) for port in free})
    ends.update(_arm([ends[port.index] for port in free if ends[port.index].kind in KEPT], orders))
    return [ends[port.index] for port in ports]


KEPT = (RECORDS, WAITS, NO_SIGNAL, BEGUN, ORDERED_START)
"""The outcomes of starts that go on, and so does what was asked for."""


def _order(port: AppliedPort, asked: Asked, request: Request, now: float, schedules: Mapping[int, Schedule]) -> Order:
    made = request.replaced(request_id=f"{ORDERED}{os.urandom(8).hex()}")
    if asked.at is not None:
        pre_roll_s = schedules.get(port.index, Schedule()).pre_roll_s
        return Order(made, asked.at, asked.until, asked.for_s, pre_roll_s=pre_roll_s)
    counted_from = None if asked.for_s is None else monotonic()
    return Order(made, now, asked.until, asked.for_s, boot_id(), counted_from)


def _not_free(ports: Sequence[AppliedPort], asked: Asked, now: float) -> dict[int, Outcome]:
    """The outcomes of ports that are started already, or are to be."""
    ends = {}
    for port, status in zip(ports, statuses(ports), strict=True):
        is_started = status.state not in ("stopped", "failed")
        try:
            order = read_order(port.index, port.recordings)
        except (OSError, Unreadable):
            # It is replaced, or that fails and says why.
            order = None
        is_own = order is not None and owner_of(status.request_id) == order.request.request_id
        if order is not None and (order.begin > now or (is_started and is_own)):
            text = f"{port.label} has a start already: {times_text(order)}"
            error = RecordingError(text, f"sdisup stop {port.index} takes it back")
            ends[port.index] = Outcome(port, REFUSED, error=error, status=status)
        elif asked.at is None and is_started:
            ends[port.index] = Outcome(port, IS_STARTED, status.state, status)
    return ends


def _leave(port: AppliedPort, order: Order) -> Outcome | None:
    try:
        leave_order(port.index, order)
    except PermissionError as error:
        text = f"{port.label}: its time cannot be kept: {error.strerror}"
        hint = "run it as root, or as a member of the group sdisup"
        return Outcome(port, REFUSED, error=RootError(text, hint))
    except OSError as error:
        hint = "/var/lib/sdisup/orders is made by: systemd-tmpfiles --create sdisup.conf"
        return Outcome(
            port, REFUSED, error=SdisupError(f"{port.label}: its time cannot be kept: {error.strerror}", hint)
        )
    return None


def _start(
    ports: Sequence[AppliedPort], orders: dict[int, Order], wait_s: float | None, job_limit_s: float
) -> dict[int, Outcome]:
    ends = {}
    started = False
    try:
        outcomes = start_ports(ports, wait_s, request=lambda port: orders[port.index].request, job_limit_s=job_limit_s)
        started = True
    finally:
        for port in () if started else ports:
            _forget(port)
    for outcome in outcomes:
        port, order = outcome.port, orders[outcome.port.index]
        status = outcome.status
        if outcome.kind in (IS_STARTED, STARTED_BY_ANOTHER) and status and _is_own(status, order):
            # The schedule's service was there first.
            outcome = Outcome(port, RECORDS if status.is_recording else WAITS, status=status)
        if outcome.kind == RECORDS and order.for_s is not None:
            # What is asked for is so much of a recording, which begins with its first frame.
            order = orders[port.index] = order.replaced(begin=time.time(), counted_from=monotonic())
            _leave(port, order)
        if outcome.kind not in KEPT:
            _forget(port)
        elif outcome.kind in (RECORDS, BEGUN):
            outcome = outcome.replaced(detail=times_text(order))
        ends[port.index] = outcome
    return ends


def _is_own(status: PortStatus, order: Order) -> bool:
    return owner_of(status.request_id) == order.request.request_id


def _forget(port: AppliedPort) -> None:
    try:
        take_back(order_path(port.index))
    except OSError:
        # The schedule's service removes what is over.
        return


def _arm(outcomes: Sequence[Outcome], orders: Mapping[int, Order]) -> dict[int, Outcome]:
    """Have the services of the ports' schedules see what was asked for. Returns the outcomes where that failed."""
    from sdisup.control.systemd import DONE, WAITING, Systemd
    from sdisup.control.wake import run_services, service_of

    if not outcomes:
        return {}
    with Systemd() as systemd:
        results = run_services(systemd, [outcome.port.index for outcome in outcomes], ARM_LIMIT_S)
    ends = {}
    for outcome in outcomes:
        index = outcome.port.index
        # A service that takes long, such as with a stop, looks again when that is done.
        if results[index] not in (DONE, WAITING):
            text = f"{outcome.port.label}: {times_text(orders[index])} is not armed: {results[index]}"
            hint = f"systemctl start {service_of(index)}; it is armed at the next boot, too"
            ends[index] = outcome.replaced(kind=REFUSED, error=SdisupError(text, hint))
    return ends


def hold_ports(ports: Sequence[AppliedPort], *, release: bool = False) -> list[tuple[AppliedPort, str, bool]]:
    """Let what a schedule has begun go on until it is stopped; or, with `release`, only until its time again. Returns
    for each port what became of it, and whether that is as asked."""
    from sdisup.control.systemd import Systemd
    from sdisup.control.wake import run_services

    found = []
    for port, status in zip(ports, statuses(ports), strict=True):
        owner = owner_of(status.request_id) if status.state not in ("stopped", "failed") else ""
        try:
            if release:
                is_held = take_back(hold_path(port.index))
                found.append((port, "is released" if is_held else "is not held", is_held))
            elif is_timed(owner):
                leave_hold(port.index, owner)
                until = scheduled_until(owner)
                after = f" after {local_text(until)}" if until else ""
                found.append((port, f"goes on{after} until it is stopped", True))
            else:
                found.append((port, f"records nothing that a schedule has begun ({status.state})", False))
        except PermissionError as error:
            raise RootError(f"{port.label}: no hold can be kept: {error.strerror}", "run it as root") from error
        except OSError as error:
            raise SdisupError(f"{port.label}: no hold can be kept: {error.strerror}") from error
    with Systemd() as systemd:
        run_services(systemd, [port.index for port, _, is_done in found if is_done], ARM_LIMIT_S)
    return found
