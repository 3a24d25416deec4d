"""What ports will record by themselves in the coming week."""

from __future__ import annotations

from collections.abc import Sequence

from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import Unreadable
from sdisup.contract.orders import read_order
from sdisup.contract.schedules import load_schedules
from sdisup.contract.status import START, listed
from sdisup.control.calendars import slots_of
from sdisup.control.orders import slot_of
from sdisup.control.schedules import Slot

WEEK_S = 7 * 86400.0


def coming(ports: Sequence[AppliedPort], now: float) -> list[tuple[AppliedPort, Slot]]:
    """The slots that go on now or begin within a week, in the order of their starts. Raises SdisupError."""
    schedules = load_schedules()
    wanted = {port.index: schedules[port.index] for port in ports if port.index in schedules}
    found = slots_of(wanted, now, now + WEEK_S) if wanted else {}
    left = listed()
    slots = [(port, slot) for port in ports for slot in found.get(port.index, [])]
    slots += [(port, slot) for port in ports if START in left.get(port.index, ()) for slot in _ordered(port, now)]
    return sorted(
        ((port, slot) for port, slot in slots if slot.start <= now + WEEK_S),
        key=lambda pair: (pair[1].start, pair[0].index),
    )


def _ordered(port: AppliedPort, now: float) -> list[Slot]:
    """A start with a time; none that cannot be read, of which the schedule's service tells."""
    try:
        order = read_order(port.index, port.recordings)
    except (OSError, Unreadable):
        return []
    slot = slot_of(order, now) if order else None
    return [slot] if slot and slot.end > now else []
