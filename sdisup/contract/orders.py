"""What an operator wants of a port at a time: a start (`sdisup start 3 --until 23:00`), and a hold of what a schedule
began. In /var/lib/sdisup/orders, so that it outlives a power cut; sdi-schedule@.service acts upon it.

As with a take's request, what is executed and written counts only from root; others may name a take and a time.
"""

from __future__ import annotations

import os
import time

from sdisup.contract import lean
from sdisup.contract.files import (
    Fields,
    Unreadable,
    boot_id,
    monotonic,
    read_owned_json,
    replace_file,
    sync_directory,
)
from sdisup.contract.records import Record
from sdisup.contract.requests import Request, checked_request
from sdisup.contract.status import HOLD, ORDERED, ORDERS_DIRECTORY, SCHEDULED, START, listed

LIMIT_BYTES = 1 << 19
CUT_MARK = "#"
"""What follows in a request id is of a cut, which changes the take and not whose the recording is."""


class Order(Record):
    """A start with a time. `begin` is when (Unix time), `until` the end by the clock.

    `for_s` is a length instead: it counts from `counted_from` (CLOCK_MONOTONIC) on in the boot `boot`; in a later boot,
    where only the clock knows, from `begin`. Without both the operator ends it.
    """

    request: Request
    begin: float
    until: float | None = None
    for_s: float | None = None
    boot: str = ""
    counted_from: float | None = None
    pre_roll_s: float = 0.0

    def end(self, now: float) -> float | None:
        """When it ends (Unix time), as far as that is known at `now`."""
        if self.for_s is None:
            return self.until
        if self.counted_from is None or self.boot != boot_id():
            return self.begin + self.for_s
        return now + self.counted_from + self.for_s - monotonic()


def owner_of(request_id: str) -> str:
    """Whose a recording is: the request id without what a cut added."""
    return request_id.partition(CUT_MARK)[0]


def scheduled_until(request_id: str) -> float | None:
    """When a take ends that a schedule has begun (Unix time); None for another one."""
    try:
        words = owner_of(request_id).removeprefix(SCHEDULED).split(":")
        return float(words[1]) if request_id.startswith(SCHEDULED) else None
    except (ValueError, IndexError):
        return None


def order_path(port_index: int, directory: str = ORDERS_DIRECTORY) -> str:
    return f"{directory}/{port_index}{START}"


def hold_path(port_index: int, directory: str = ORDERS_DIRECTORY) -> str:
    return f"{directory}/{port_index}{HOLD}"


def leave_order(port_index: int, order: Order, directory: str = ORDERS_DIRECTORY) -> None:
    """Write it durably; one that was there is replaced. Raises OSError."""
    _write(order_path(port_index, directory), {**order.as_dict(), "request": order.request.as_dict()})


def leave_hold(port_index: int, request_id: str, directory: str = ORDERS_DIRECTORY) -> None:
    """Let the recording with this request id go on after its time. Raises OSError."""
    _write(hold_path(port_index, directory), {"request_id": owner_of(request_id)})


def _write(path: str, document: dict[str, object]) -> None:
    # Of the group, by the directory's set-group-ID bit: a stream's URL may hold a password.
    replace_file(path, lean.encode(document).encode(), mode=0o640, durable=True)


def take_back(path: str) -> bool:
    """Remove an order or a hold; whether there was one. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_directory(os.path.dirname(path))
    return True


def read_order(port_index: int, recordings: str, directory: str = ORDERS_DIRECTORY) -> Order | None:
    """The port's order, as far as its owner may ask; None without one. Raises Unreadable."""
    path = order_path(port_index, directory)
    try:
        document, owner = read_owned_json(path, LIMIT_BYTES)
    except FileNotFoundError:
        return None
    fields = Fields(document, path)
    request = checked_request(fields.child("request"), owner, recordings)
    if not request.request_id.startswith(ORDERED):
        fields.fail("request", "its id is no start's")
    values = {
        name: None if fields.value(name, None) is None else fields.number(name, least=least, most=1e12)
        for name, least in (("until", 0.0), ("for_s", 0.0), ("counted_from", 0.0))
    }
    pre_roll_s = fields.number("pre_roll_s", 0.0, least=0.0, most=1e5)
    begin = fields.number("begin", least=0.0, most=1e12)
    return Order(request, begin, boot=fields.text("boot", ""), pre_roll_s=pre_roll_s, **values)


def read_hold(port_index: int, directory: str = ORDERS_DIRECTORY) -> str:
    """The request id of the recording that is held; empty without a hold. Raises Unreadable."""
    path = hold_path(port_index, directory)
    try:
        return Fields(read_owned_json(path, LIMIT_BYTES)[0], path).text("request_id")
    except FileNotFoundError:
        return ""


def times_of(port_index: int, recordings: str, request_id: str, known: set[str]) -> tuple[float | None, float | None]:
    """When a port is started by an order that is still to come, and when what runs with `request_id` (empty where it
    is stopped) or begins then is ended; as Unix times, None for no such time. `known` is what `listed` has of the port.

    What cannot be read says nothing here; the schedule's service says so.
    """
    now, owner = time.time(), owner_of(request_id)
    try:
        order = read_order(port_index, recordings) if START in known else None
        held = read_hold(port_index) if HOLD in known else ""
    except (OSError, Unreadable):
        return None, None
    is_own = order is not None and owner == order.request.request_id
    starts_at = order.begin if order is not None and not is_own and order.begin > now else None
    if owner and owner == held:
        return starts_at, None
    if order is not None and (is_own or starts_at is not None):
        return starts_at, order.end(now)
    return starts_at, scheduled_until(owner)


def local_text(moment: float) -> str:
    """A moment as operators read it, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def times_text(order: Order) -> str:
    """When it begins, where that is still to come, and when it ends."""
    now = time.time()
    end = order.end(now)
    texts = [f"from {local_text(order.begin)}"] if order.begin > now else []
    return " ".join([*texts, *([] if end is None else [f"until {local_text(end)}"])])


def forget(port_index: int, recordings: str) -> str:
    """Remove what was wanted of a port that was stopped; in words what of it was still to come, empty if nothing."""
    kinds, text = listed().get(port_index, set()), ""
    try:
        order = read_order(port_index, recordings) if START in kinds else None
        if order is not None and order.begin > time.time():
            text = f"its start {times_text(order)}"
    except (OSError, Unreadable):
        # It is nothing that anybody acts upon.
        text = ""
    try:
        for kind in kinds:
            take_back({START: order_path, HOLD: hold_path}[kind](port_index))
    except OSError as error:
        # The schedule's service removes what is over with the stop, also another member's.
        return text and f"{text} cannot be taken back: {error.strerror}"
    return text and f"{text} is taken back"
