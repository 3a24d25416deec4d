"""Does what schedules ask for: sdi-schedule@3.service runs this for a port, sdi-schedules.service at boot for all.

It remembers nothing: what runs, and whose it is, the port's status says, and what is due is worked out anew each time
from what `sdisup apply` left (control/schedules.py). A port has one timer, a transient unit, armed for the next moment
alone, so that no other unit is read anew and nothing is left of it after a boot. When the clock is changed,
sdi-schedules.timer has all of them armed anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.files import Unreadable, boot_id, monotonic
from sdisup.contract.orders import (
    Order,
    hold_path,
    leave_order,
    order_path,
    owner_of,
    read_hold,
    read_order,
    scheduled_until,
    take_back,
)
from sdisup.contract.records import Record
from sdisup.contract.requests import Request, leave_stop_note
from sdisup.contract.schedules import load_schedules, schedules_since
from sdisup.contract.status import HOLD, PortStatus, is_timed, listed
from sdisup.contract.status import START as ORDER
from sdisup.control.bus import SystemdError, UnitState
from sdisup.control.calendars import slots_of
from sdisup.control.observe import statuses
from sdisup.control.orders import slot_of
from sdisup.control.ports import (
    CANNOT_RECORD,
    NOT_CUT,
    NOT_STOPPED,
    REFUSED,
    START_LIMIT_S,
    Outcome,
    cut_ports,
    start_ports,
    stop_ports,
)
from sdisup.control.schedules import CUT, END, NOTHING, START, Now, Slot, Step, decide, is_refused, next_moment
from sdisup.control.systemd import Systemd
from sdisup.errors import SdisupError

TIMER, CLOCK_TIMER = re.compile(r"sdi-schedule@[0-9]+\.timer"), "sdi-schedules.timer"
FAILED = {REFUSED: 5.0, NOT_CUT: 5.0, NOT_STOPPED: 5.0, CANNOT_RECORD: 60.0}
"""After how many seconds it is tried again what did not work. An FFmpeg that cannot work is most likely being replaced,
or waits for somebody to mend it."""
CUT_BEFORE_S = 20.0
"""No take begins longer ago than this: the runner knows the frames of the last moments (contract/requests.py)."""
TURNS_MOST = 50
MISSED_AT_MOST_S = 31 * 86400.0
MISSED_AT_MOST = 500
"""What was missed longer ago, or more often, is in no account."""
LATE_S = 1.0
"""A start that is as late as that is nothing that was missed."""
FOREVER = 9e10
GONE_S = 2.0
"""So long systemd may take to forget a timer that was stopped."""


class Due(Record):
    """What is asked of a port: now, and when next (Unix time), None for never. `order` is its start with a time, and
    `missed` are slots that should have begun and of which nothing runs."""

    port: AppliedPort
    step: Step
    next_at: float | None
    order: Order | None = None
    missed: tuple[Slot, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """`wake 3` does what is due at port 3; `wake` arms the timers of all ports, and lets their services do the rest."""
    try:
        if arguments:
            wake(int(arguments[0]), _say)
        else:
            with Systemd() as systemd:
                arm_all(systemd, _say, max(time.time() - MISSED_AT_MOST_S, schedules_since()))
    except SdisupError as error:
        _say(f"{error}; it is tried again")
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def arm_all(systemd: Systemd, say: Callable[[str], None], since: float | None = None) -> bool:
    """Arm the timers of all ports, and start the service of each port where something is due; whether that changed
    anything. What was missed since a moment is told. Raises SdisupError."""
    found = look(list(load_applied().ports.values()), systemd, since)
    for one in found:
        if one.missed:
            tell_missed(one.port, one.missed, say)
    units = systemd.units("sdi-schedule*")
    busy = {name for name, state in units.items() if state.active == "activating"}
    # What is due is its service's, which arms the next moment itself: a stop waits until its file is closed.
    due = [one for one in found if one.step.kind != NOTHING]
    others = [one for one in found if one.step.kind == NOTHING and service_of(one.port.index) not in busy]
    armed: dict[int, float | None] = {}
    try:
        moments = {one.port.index: one.next_at for one in others}
        armed = arm(systemd, units, moments, known=[one.port.index for one in found])
    except SystemdError as error:
        say(f"no timer can be armed: {error}; the services of the ports look again and again")
        due += [one for one in others if one.next_at is not None]
    for index, at in sorted(armed.items()):
        say(f"armed {timer_of(index)} for {_local(at)}" if at else f"removed {timer_of(index)}")
    now = time.time()
    services = [service_of(one.port.index) for one in (*due, *(one for one in others if _is_past(one.next_at, now)))]
    systemd.run_jobs("Start", services, 0.0)
    if CLOCK_TIMER not in units or units[CLOCK_TIMER].active != "active":
        systemd.run_jobs("Start", [CLOCK_TIMER], GONE_S)
    return bool(armed or services)


def wake(index: int, say: Callable[[str], None]) -> None:
    """Do what is due at a port until nothing is, and arm its timer for what comes next.

    Raises SdisupError, also where no timer can be armed: what is due is done all the same, and systemd runs this again.
    """
    trouble: list[SystemdError] = []
    _wake(index, say, trouble)
    if trouble:
        raise trouble[-1]


def _wake(index: int, say: Callable[[str], None], trouble: list[SystemdError]) -> None:
    port = load_applied().ports.get(index)
    for _ in range(TURNS_MOST):
        trouble.clear()
        with Systemd() as systemd:
            if port is None:
                _try_to_arm(systemd, index, None, trouble)
                return
            due = look([port], systemd)[0]
            # Before anything is done that may hang.
            _try_to_arm(systemd, index, due.next_at, trouble)
        if due.step.kind == NOTHING:
            if not _is_past(due.next_at, time.time()):
                return
            continue
        if due.missed:
            tell_missed(port, due.missed, say)
        outcome = act(port, due.step, due.order)
        say(_said(due.step, outcome))
        if outcome.kind in FAILED:
            again_at = time.time() + FAILED[outcome.kind]
            with Systemd() as systemd:
                # An earlier moment than that is tried at again_at, too.
                _try_to_arm(systemd, index, again_at, trouble)
            return


def _try_to_arm(systemd: Systemd, index: int, at: float | None, trouble: list[SystemdError]) -> None:
    try:
        arm(systemd, systemd.units(timer_of(index)), {index: at})
    except SystemdError as error:
        trouble.append(error)


def _is_past(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now


def run_services(systemd: Systemd, indexes: Sequence[int], timeout_s: float) -> dict[int, str | SystemdError]:
    """Run the service of each port, and wait for it; returns systemd's results.

    systemd runs none twice at once, and one that runs already may have looked before the caller had something to see.
    """
    units = {index: service_of(index) for index in indexes}
    busy = [
        unit
        for unit, state in zip(units.values(), systemd.load([*units.values()]), strict=True)
        if state.active == "activating"
    ]
    if busy:
        systemd.run_jobs("Start", busy, timeout_s)
    results = systemd.run_jobs("Start", units.values(), timeout_s)
    return {index: results[unit] for index, unit in units.items()}


def look(ports: Sequence[AppliedPort], systemd: Systemd, since: float | None = None) -> list[Due]:
    """What is due at each port; with what was missed since a moment. Raises SdisupError."""
    schedules = load_schedules()
    found = statuses(ports, systemd)
    now = time.time()
    wanted = {port.index: schedules[port.index] for port in ports if port.index in schedules}
    slots = (
        slots_of(wanted, now if since is None else min(since, now), now)
        if any(schedule.entries for schedule in wanted.values())
        else {}
    )
    left = listed()
    due = []
    for port, status in zip(ports, found, strict=True):
        kinds = left.get(port.index, ())
        order = _order(port, status, now) if ORDER in kinds else None
        held = _held(port, status) if HOLD in kinds else ""
        due.append(due_of(port, status, slots.get(port.index, []), now, order, held))
    return due


def due_of(
    port: AppliedPort,
    status: PortStatus,
    slots: Sequence[Slot],
    time_now: float,
    order: Order | None = None,
    held: str = "",
) -> Due:
    """What is due at a port of this status; `held` is the request id of what an operator has taken over."""
    if status.state == "stopping" and (slots or order or is_timed(status.request_id)):
        # Whose stop it is, and whether it holds, is known when it is over.
        return Due(port, Step(NOTHING), time_now + 1.0, order)
    now = now_of(port, status, time_now)
    now = now.replaced(is_held=bool(held) and held == now.owner)
    slots = [*slots, *([slot_of(order, time_now)] if order else [])]
    # What is held and a power cut ended is an operator's, and goes on by hand.
    missed = tuple(slot for slot in missed_of(slots, now) if slot.request_id != held)
    return Due(port, decide(slots, now), next_moment(slots, now), order, missed)


def _order(port: AppliedPort, status: PortStatus, now: float) -> Order | None:
    """The port's start with a time. The file of one that is over is removed, and what was missed of it is told."""
    try:
        order = read_order(port.index, port.recordings)
        if order is not None and order_is_over(order, port, status, now):
            take_back(order_path(port.index))
    except (OSError, Unreadable) as error:
        print(f"{port.label}: {error}; nothing is started or ended by it", flush=True)
        return None
    return order


def order_is_over(order: Order, port: AppliedPort, status: PortStatus, time_now: float) -> bool:
    """Whether nothing more is to be done for a start with a time."""
    now, end = now_of(port, status, time_now), order.end(time_now)
    is_own = now.owner is not None and now.owner == order.request.request_id
    if is_own or status.state == "stopping":
        # One without an end is an operator's recording once it has begun.
        return is_own and end is None
    is_stopped = now.stopped_at is not None and now.stopped_at >= order.begin
    return is_stopped or (end is not None and end <= time_now)


def _held(port: AppliedPort, status: PortStatus) -> str:
    """The request id of the recording that an operator has taken over; the hold of one that has ended is removed."""
    try:
        held = read_hold(port.index)
        has_stopped = status.state == "stopped" and status.boot_id == boot_id()
        if has_stopped or (status.is_recording and owner_of(status.request_id) != held):
            take_back(hold_path(port.index))
            return ""
    except (OSError, Unreadable) as error:
        print(f"{port.label}: {error}; nothing is held", flush=True)
        return ""
    return held


def now_of(port: AppliedPort, status: PortStatus, time_now: float) -> Now:
    """What a port does, for its schedule."""
    if status.state == "stopped" and port.record_at_boot and status.should_record:
        # systemd is about to start it.
        return Now(time_now, "")
    owner = owner_of(status.request_id)
    until = scheduled_until(owner)
    if status.state not in ("stopped", "failed") or (status.state == "failed" and until and until <= time_now):
        # What cannot work is to end with its time, too.
        return Now(time_now, owner)
    is_operators = status.state == "stopped" and status.stopped_by not in ("schedule", "apply")
    if not is_operators or status.boot_id != boot_id() or not status.state_since_monotonic:
        return Now(time_now)
    stopped_at = time_now - (monotonic() - status.state_since_monotonic)
    return Now(time_now, stopped_at=stopped_at, stopped=owner)


def missed_of(slots: Sequence[Slot], now: Now) -> tuple[Slot, ...]:
    """The slots that should have begun, and of which nothing runs; the ledger knows what of them was recorded."""
    if now.owner is not None:
        return ()
    return tuple(slot for slot in slots if slot.start < now.time - LATE_S and not is_refused(slot, now))


def tell_missed(port: AppliedPort, slots: Sequence[Slot], say: Callable[[str], None]) -> None:
    """Tell the port's ledger of times in which it should have recorded, or should by now."""
    from sdisup.contract import lean
    from sdisup.contract.programs import says
    from sdisup.control.units import TELL_DUE

    times = [
        {"first": slot.start, "last": min(slot.end, FOREVER), "take": slot.take} for slot in slots[-MISSED_AT_MOST:]
    ]
    _, code = says([*TELL_DUE, str(port.index), lean.encode(times)])
    if code:
        say(f"{port.label}: its ledger cannot be told of what its schedule missed (exit status {code})")


def act(port: AppliedPort, step: Step, order: Order | None = None) -> Outcome:
    """Do what is due at a port."""
    assert step.slot is not None
    slot = step.slot
    if step.kind == START:
        request = Request(take=slot.take, request_id=slot.request_id)
        if order and order.request.request_id == slot.request_id:
            request = order.request
            if order.for_s is not None and order.counted_from is None:
                counted_from = monotonic() + order.begin - time.time()
                leave_order(port.index, order.replaced(boot=boot_id(), counted_from=counted_from))
        return start_ports([port], 0.0, request=lambda _: request, job_limit_s=START_LIMIT_S)[0]
    if step.kind == CUT:
        at = monotonic() - min(CUT_BEFORE_S, max(0.0, time.time() - step.at))
        return cut_ports([port], slot.take, at=at, request_id=slot.request_id)[0]
    assert step.kind == END
    leave_stop_note(port.index, "schedule")
    # What a lock keeps people from, the schedule that began it does.
    return stop_ports([port], unlock=True, goes_on=True)[0]


def _said(step: Step, outcome: Outcome) -> str:
    what = {START: "to begin", CUT: "to go on", END: "over"}[step.kind]
    return f"{outcome.text} ({step.slot.take or 'the recording' if step.slot else ''} is {what})"


# ---- Timers ----


def timer_of(index: int) -> str:
    return f"sdi-schedule@{index}.timer"


def service_of(index: int) -> str:
    return f"sdi-schedule@{index}.service"


def arm(
    systemd: Systemd,
    units: Mapping[str, UnitState],
    moments: Mapping[int, float | None],
    *,
    known: Collection[int] | None = None,
) -> dict[int, float | None]:
    """Arm each port's timer for its moment, or have none; where `known` are all ports there are, no other one has a
    timer. `units` are those of schedules in systemd's memory. Returns what was changed. Raises SystemdError."""
    wanted = {timer_of(index): at for index, at in moments.items()}
    armed = systemd.timers({name: unit for name, unit in units.items() if TIMER.fullmatch(name)})
    if known is not None:
        kept = {timer_of(index) for index in known}
        wanted.update({name: None for name in armed if name not in kept})
    changed = {
        name: at
        for name, at in wanted.items()
        if (at is None and name in armed) or (at is not None and not _is_at(armed.get(name), at))
    }
    systemd.run_jobs("Stop", [name for name in changed if name in armed], GONE_S)
    for name, at in changed.items():
        if at is not None:
            _start(systemd, name, at)
    return {int(name.partition("@")[2].removesuffix(".timer")): at for name, at in changed.items()}


def _is_at(armed: float | None, wanted: float) -> bool:
    return armed is not None and abs(armed - wanted) < 0.002


def _start(systemd: Systemd, name: str, at: float) -> None:
    until = monotonic() + GONE_S
    while True:
        try:
            systemd.start_timer(name, f"Wakes {name.replace('.timer', '.service')}", calendar_text(at))
            return
        except SystemdError as error:
            # systemd forgets a unit that was stopped a moment later.
            if not error.name.endswith("UnitExists") or monotonic() > until:
                raise
        time.sleep(0.02)


def calendar_text(at: float) -> str:
    """A moment as a calendar expression, to the next millisecond; local times would come twice, or not."""
    milliseconds = -int(-at * 1000 // 1)
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03} UTC"


def _local(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
